//! A pool of a cluster: its addresses are those of several nodes, so of several network interfaces.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use egressd::api::cloud::CloudAddress;
use egressd::model::cloud::{Aws, CloudPool, Host, Interface, Machine};
use egressd::model::pool::Pool;
use egressd::report::cloud::{Finding, Shown};

use super::report::{Aspect, Condition, PoolReport, Reason};

/// Type of the condition that says whether the cloud was read.
const REACHABLE: &str = "Reachable";
/// Its reason when it was not.
const UNREACHABLE: &str = "Unreachable";
/// Messages of one condition, and things that are in surplus.
const MAX_MESSAGES: usize = 5;
const MAX_SURPLUS: usize = 100;

/// What of a pool is one network interface's, and why some of it is nobody's.
pub fn parts(pool: &Pool, nodes: &BTreeMap<String, Machine>) -> (Vec<CloudPool>, Vec<String>) {
    let Some(whole) = pool.cloud() else { return (Vec::new(), Vec::new()) };
    if matches!(whole.aws.interface, Interface::Id(_)) {
        return (vec![whole], Vec::new());
    }
    let mut by_node: BTreeMap<&String, Vec<Ipv4Addr>> = BTreeMap::new();
    for (address, node) in &pool.places {
        if let IpAddr::V4(address) = address {
            by_node.entry(node).or_default().push(*address);
        }
    }
    let (mut parts, mut problems) = (Vec::new(), Vec::new());
    for (node, addresses) in by_node {
        match host(pool, node, nodes.get(node)) {
            Ok((host, region)) => {
                let region = whole.aws.region.clone().or(region);
                let aws = Aws { region, ..whole.aws.clone() };
                parts.push(CloudPool { name: pool.name.clone(), addresses, aws, host: Some(host) });
            }
            Err(problem) => problems.push(problem),
        }
    }
    (parts, problems)
}

/// The name of a part, among those of all pools.
pub fn name(part: &CloudPool) -> String {
    part.host.as_ref().map_or_else(|| part.name.clone(), |host| format!("{}/{}", part.name, host.node))
}

/// The instance of a node, and its region.
fn host(pool: &Pool, node: &str, machine: Option<&Machine>) -> Result<(Host, Option<String>), String> {
    let machine = machine.ok_or_else(|| format!("node {node} is not there any more; its addresses are given to another one"))?;
    let instance = machine.instance().ok_or_else(|| {
        let provider = machine.provider.as_deref().unwrap_or("nothing");
        format!("node {node} is no instance of Amazon EC2 (its spec.providerID says {provider}); leave it out of spec.nodeSelector")
    })?;
    let mut holds = BTreeSet::new();
    if let (Some(nic), Interface::InSubnet) = (&pool.interface, pool.aws.as_ref().map_or(&Interface::InSubnet, |aws| &aws.interface)) {
        let own = machine.nics.get(nic).into_iter().flatten().filter(|address| !pool.contains(**address));
        holds.extend(own.filter_map(|address| match address {
            IpAddr::V4(address) => Some(*address),
            IpAddr::V6(_) => None,
        }));
        if holds.is_empty() {
            return Err(format!("the agent of node {node} reports no NIC {nic} with an address of its own; see kubectl get egressnode {node} -o yaml"));
        }
    }
    Ok((Host { node: node.to_owned(), instance: instance.to_owned(), holds }, machine.region.clone()))
}

/// What is known of a pool, of what is known of its parts. `problems`: why some of it is no part.
pub fn shown(parts: &[(&CloudPool, &PoolReport)], problems: &[String]) -> Shown {
    let node = |part: &CloudPool| part.host.as_ref().map(|host| host.node.clone());
    let named = |part: &CloudPool, message: &str| node(part).map_or_else(|| message.to_owned(), |node| format!("{node}: {message}"));
    let unread = parts.iter().filter_map(|(part, report)| Some(named(part, report.problem.as_deref()?)));
    let wrong: Vec<String> = problems.iter().cloned().chain(unread).collect();
    let read = parts.iter().filter(|(_, report)| report.network_interface.is_some()).count();
    let mut findings = vec![match wrong.is_empty() {
        false => finding(REACHABLE, Some(false), UNREACHABLE, joined(wrong)),
        true if read < parts.len() || parts.is_empty() => {
            finding(REACHABLE, None, "Pending", format!("{read} of {} network interfaces were read", parts.len()))
        }
        true => finding(REACHABLE, Some(true), REACHABLE, format!("{read} network interfaces were read")),
    }];
    let mut aspects: BTreeMap<Aspect, Vec<(String, &Condition)>> = BTreeMap::new();
    for (part, report) in parts {
        for (aspect, condition) in &report.conditions {
            aspects.entry(*aspect).or_default().push((named(part, &condition.message), condition));
        }
    }
    findings.extend(aspects.into_iter().map(|(aspect, all)| {
        let worst = all.iter().map(|(_, condition)| condition.reason).max().unwrap_or(Reason::Pending);
        let ready = match worst {
            Reason::Done => Some(true),
            Reason::Pending => None,
            _ => Some(false),
        };
        let messages = all.into_iter().filter(|(_, condition)| condition.reason == worst).map(|(message, _)| message).collect();
        finding(&aspect.to_string(), ready, &worst.to_string(), joined(messages))
    }));
    let addresses = parts.iter().flat_map(|(part, report)| {
        report.addresses.iter().map(|(address, shown)| CloudAddress {
            address: address.to_string(),
            node: node(part),
            network_interface: report.network_interface.clone(),
            public_address: shown.public_address.map(|public| public.to_string()),
            elastic_address: shown.elastic_address.clone(),
            ready: shown.ready,
            message: shown.message.clone(),
        })
    });
    let surplus = parts.iter().flat_map(|(_, report)| report.surplus.iter().cloned()).take(MAX_SURPLUS);
    Shown { findings, addresses: addresses.collect(), surplus: surplus.collect() }
}

fn finding(kind: &str, ready: Option<bool>, reason: &str, message: String) -> Finding {
    Finding { kind: kind.to_owned(), ready, reason: reason.to_owned(), message }
}

fn joined(mut messages: Vec<String>) -> String {
    let more = messages.len().saturating_sub(MAX_MESSAGES);
    messages.truncate(MAX_MESSAGES);
    let more = if more > 0 { format!(" (and {more} more)") } else { String::new() };
    format!("{}{more}", messages.join(". "))
}
