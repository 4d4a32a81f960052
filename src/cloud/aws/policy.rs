//! The least IAM policy: what these pools need, and nothing of others'.

use std::collections::BTreeSet;

use egressd::model::cloud::{CloudPool, ElasticAddresses, Interface};
use serde_json::{Value, json};

use crate::model::tags;

/// Readings: EC2 knows no narrower permission for them.
const READINGS: [&str; 7] = [
    "ec2:DescribeAccountAttributes",
    "ec2:DescribeAddresses",
    "ec2:DescribeInstanceTypes",
    "ec2:DescribeInstances",
    "ec2:DescribeNetworkInterfaces",
    "ec2:DescribeRouteTables",
    "ec2:DescribeSubnets",
];

/// The policy for these pools.
pub fn policy(pools: &[CloudPool]) -> Value {
    let names: BTreeSet<&str> = pools.iter().map(|pool| pool.name.as_str()).collect();
    let mut statements = vec![json!({ "Sid": "Read", "Effect": "Allow", "Action": READINGS, "Resource": "*" })];
    let nics = interfaces(pools);
    statements.push(json!({
        "Sid": "Interfaces",
        "Effect": "Allow",
        "Action": ["ec2:AssignPrivateIpAddresses", "ec2:UnassignPrivateIpAddresses"],
        "Resource": nics,
    }));
    statements.push(json!({
        "Sid": "InterfaceTags",
        "Effect": "Allow",
        "Action": ["ec2:CreateTags", "ec2:DeleteTags"],
        "Resource": nics,
        "Condition": { "ForAllValues:StringLike": { "aws:TagKeys": "egressd.dev/*" } },
    }));
    if pools.iter().any(|pool| pool.aws.forwards) {
        statements.push(json!({
            "Sid": "SourceDestCheck",
            "Effect": "Allow",
            "Action": "ec2:ModifyNetworkInterfaceAttribute",
            "Resource": nics,
        }));
    }
    elastic(pools, &names, &nics, &mut statements);
    let tables: BTreeSet<&String> = pools.iter().flat_map(|pool| &pool.aws.route_tables).collect();
    if !tables.is_empty() {
        let tables: Vec<String> = tables.iter().map(|table| arn(pools, &format!("route-table/{table}"))).collect();
        statements.push(json!({
            "Sid": "Routes",
            "Effect": "Allow",
            "Action": ["ec2:CreateRoute", "ec2:DeleteRoute", "ec2:ReplaceRoute"],
            "Resource": tables,
        }));
    }
    json!({ "Version": "2012-10-17", "Statement": statements })
}

/// Elastic addresses: those that bear a tag of ours, or are about to.
fn elastic(pools: &[CloudPool], names: &BTreeSet<&str>, nics: &[String], statements: &mut Vec<Value>) {
    let sources: Vec<&ElasticAddresses> = pools.iter().filter_map(|pool| pool.aws.elastic.as_ref()).collect();
    if sources.is_empty() {
        return;
    }
    let elastics = arn(pools, "elastic-ip/*");
    let of_pools = |context: &str| json!({ "StringEquals": { format!("{context}/{}", tags::POOL): names } });
    if sources.contains(&&ElasticAddresses::Allocate) {
        statements.push(json!({
            "Sid": "Allocate",
            "Effect": "Allow",
            "Action": "ec2:AllocateAddress",
            "Resource": elastics,
            "Condition": of_pools("aws:RequestTag"),
        }));
        statements.push(json!({
            "Sid": "AllocateTags",
            "Effect": "Allow",
            "Action": "ec2:CreateTags",
            "Resource": elastics,
            "Condition": { "StringEquals": { "ec2:CreateAction": "AllocateAddress" } },
        }));
        statements.push(json!({
            "Sid": "Release",
            "Effect": "Allow",
            "Action": "ec2:ReleaseAddress",
            "Resource": elastics,
            "Condition": { "StringEquals": { format!("aws:ResourceTag/{}", tags::POOL): names, format!("aws:ResourceTag/{}", tags::ALLOCATED): "true" } },
        }));
    }
    let offered = sources.iter().enumerate().filter_map(|(at, source)| match source {
        ElasticAddresses::Allocate => None,
        ElasticAddresses::Tagged { key, value } => Some((at, key, value)),
    });
    for (at, key, value) in offered {
        statements.push(json!({
            "Sid": format!("Take{at}"),
            "Effect": "Allow",
            "Action": ["ec2:CreateTags", "ec2:DeleteTags"],
            "Resource": elastics,
            "Condition": {
                "StringEquals": { format!("aws:ResourceTag/{key}"): value },
                "ForAllValues:StringLike": { "aws:TagKeys": "egressd.dev/*" },
            },
        }));
    }
    // An address that moves to another node takes its elastic address along.
    if pools.iter().any(|pool| pool.host.is_some()) {
        let mut condition = of_pools("aws:ResourceTag");
        condition["ForAllValues:StringLike"] = json!({ "aws:TagKeys": "egressd.dev/*" });
        statements.push(json!({
            "Sid": "MoveAddresses",
            "Effect": "Allow",
            "Action": "ec2:CreateTags",
            "Resource": elastics,
            "Condition": condition,
        }));
    }
    statements.push(json!({
        "Sid": "AssociateAddresses",
        "Effect": "Allow",
        "Action": ["ec2:AssociateAddress", "ec2:DisassociateAddress"],
        "Resource": elastics,
        "Condition": of_pools("aws:ResourceTag"),
    }));
    statements.push(json!({
        "Sid": "AssociateInterfaces",
        "Effect": "Allow",
        "Action": ["ec2:AssociateAddress", "ec2:DisassociateAddress"],
        "Resource": nics,
    }));
}

/// The NICs that pools name; all where one is found by its instance.
fn interfaces(pools: &[CloudPool]) -> Vec<String> {
    let named: Option<BTreeSet<&str>> = pools
        .iter()
        .map(|pool| match &pool.aws.interface {
            Interface::Id(id) => Some(id.as_str()),
            Interface::Device(_) | Interface::InSubnet => None,
        })
        .collect();
    let named = named.filter(|ids| !ids.is_empty()).unwrap_or_else(|| BTreeSet::from(["*"]));
    named.into_iter().map(|id| arn(pools, &format!("network-interface/{id}"))).collect()
}

/// Resources of any account. China and the United States' government have partitions of their own.
fn arn(pools: &[CloudPool], resource: &str) -> String {
    let regions: BTreeSet<&str> = pools.iter().map(|pool| pool.aws.region.as_deref().unwrap_or("*")).collect();
    let region = match regions.iter().next() {
        Some(region) if regions.len() == 1 => region,
        _ => "*",
    };
    let starts = |prefix: &str| !regions.is_empty() && regions.iter().all(|region| region.starts_with(prefix));
    let partition = match () {
        () if starts("cn-") => "aws-cn",
        () if starts("us-gov-") => "aws-us-gov",
        () => "aws",
    };
    format!("arn:{partition}:ec2:{region}:*:{resource}")
}
