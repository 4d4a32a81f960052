//! `spec.cloud` of a pool.

use serde_json::Value;

use super::super::cloud::AwsCloud;
use super::super::exit::Assignment;
use super::super::pool::EgressPoolSpec;
use super::super::values::{Faults, shown};
use crate::model::cloud::{Aws, ElasticAddresses, Interface};
use crate::model::pool::Block;

/// More addresses than any network interface has, and as many as one filter of EC2 takes.
const MAX_ADDRESSES: u128 = 200;
/// As many of all nodes as the pool's status has room for.
const MAX_OF_NODES: u128 = 1000;
/// EC2's limits of a tag, in characters.
const MAX_TAG: [usize; 2] = [128, 256];
/// With what `egressd-cloud` puts before it, a pool's name is a tag's key.
const MAX_NAME: usize = 100;

/// What the pool asks of Amazon EC2. `None` when it asks nothing.
pub(super) fn aws(name: &str, spec: &EgressPoolSpec, blocks: &[Block], faults: &mut Faults) -> Option<Aws> {
    let AwsCloud { region, network_interface, device_index, elastic_addresses, source_dest_check, route_tables } =
        &spec.cloud.as_ref()?.aws;
    if name.len() > MAX_NAME {
        faults.push("metadata.name", || {
            format!("is longer than {MAX_NAME} characters, and has to fit into a tag's key; shorten it, or leave `spec.cloud` out")
        });
    }
    if blocks.iter().any(|block| block.first().is_ipv6()) {
        faults.push("spec.cloud.aws", || "is for IPv4 addresses; make a pool without `cloud` for those of IPv6".to_owned());
    }
    let size = blocks.iter().map(|block| block.size()).fold(0, u128::saturating_add);
    let of_nodes = spec.assignment != Assignment::Existing;
    if of_nodes && size > MAX_OF_NODES {
        faults.push("spec.blocks", || {
            format!("have {size} addresses, and a pool with `cloud` has at most {MAX_OF_NODES}; make several pools of them")
        });
    } else if !of_nodes && size > MAX_ADDRESSES {
        faults.push("spec.blocks", || {
            format!("have {size} addresses; a network interface has at most {MAX_ADDRESSES}: name those that are to be assigned")
        });
    }
    if let Some(region) = region.as_deref().filter(|region| !is_region(region)) {
        faults.push("spec.cloud.aws.region", || format!("{} is not a region; write for instance `eu-central-1`", shown(region)));
    }
    if let Some(id) = network_interface.as_deref().filter(|id| !is_id(id, "eni-")) {
        faults.push("spec.cloud.aws.networkInterface", || {
            format!("{} is not a network interface's id; write for instance `eni-0a1b2c3d4e5f60718`", shown(id))
        });
    }
    let interface = match (network_interface, device_index) {
        (Some(_), Some(_)) => {
            faults.push("spec.cloud.aws.deviceIndex", || "is given beside `networkInterface`; keep one of them".to_owned());
            Interface::InSubnet
        }
        (Some(id), None) => Interface::Id(id.clone()),
        (None, Some(index)) => Interface::Device(u32::try_from(*index).unwrap_or(0)),
        (None, None) => Interface::InSubnet,
    };
    for (i, table) in route_tables.iter().enumerate().filter(|(_, table)| !is_id(table, "rtb-")) {
        faults.push(&format!("spec.cloud.aws.routeTables[{i}]"), || {
            format!("{} is not a route table's id; write for instance `rtb-0a1b2c3d4e5f60718`", shown(table))
        });
    }
    let elastic = elastic_addresses.as_ref().and_then(|value| elastic(value, faults));
    Some(Aws { region: region.clone(), interface, elastic, forwards: source_dest_check.is_some(), route_tables: route_tables.clone() })
}

fn elastic(value: &Value, faults: &mut Faults) -> Option<ElasticAddresses> {
    const FIELD: &str = "spec.cloud.aws.elasticAddresses";
    let fields = value.as_object().map(|map| map.keys().map(String::as_str).collect::<Vec<_>>());
    match (value, fields.as_deref()) {
        (Value::Null, _) => None,
        (Value::String(word), _) if word == "Allocate" => Some(ElasticAddresses::Allocate),
        (_, Some(["tag"])) => {
            let tag = value["tag"].as_str().and_then(|tag| tag.split_once('='));
            let fits = |(key, value): &(&str, &str)| {
                !key.is_empty() && key.chars().count() <= MAX_TAG[0] && value.chars().count() <= MAX_TAG[1] && !key.starts_with("aws:")
            };
            match tag.filter(fits) {
                Some((key, value)) => Some(ElasticAddresses::Tagged { key: key.to_owned(), value: value.to_owned() }),
                None => {
                    faults.push(&format!("{FIELD}.tag"), || {
                        format!("{} is not a tag; write its key and its value, for instance `role=egress`", shown(&text(&value["tag"])))
                    });
                    None
                }
            }
        }
        _ => {
            faults.push(FIELD, || {
                format!("{} is not read here; write `Allocate`, or for instance `{{tag: role=egress}}`", shown(&text(value)))
            });
            None
        }
    }
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// It becomes part of a host's name.
fn is_region(text: &str) -> bool {
    text.contains('-') && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
}

fn is_id(text: &str, prefix: &str) -> bool {
    text.strip_prefix(prefix).is_some_and(|rest| !rest.is_empty() && rest.chars().all(|c| c.is_ascii_alphanumeric()))
}

#[cfg(test)]
mod tests {
    use crate::api::manifest;
    use crate::model::cloud::{Aws, CloudPool, ElasticAddresses, Interface};
    use crate::model::manifests::Manifests;

    fn read(spec: &str) -> Manifests {
        let text = format!("apiVersion: egressd.dev/v1alpha1\nkind: EgressPool\nmetadata: {{name: web}}\nspec: {spec}\n");
        manifest::parse([("web.yaml", text.as_bytes())])
    }

    #[test]
    fn a_pool_of_a_file_says_what_is_asked_of_the_cloud() {
        let said = read(
            "{blocks: [{start: 10.0.1.95, end: 10.0.1.96}, {cidr: 10.0.1.94/31}], cloud: {aws: {region: eu-central-1, \
             networkInterface: eni-1, elasticAddresses: {tag: role=a=b}, sourceDestCheck: Disabled, routeTables: [rtb-1]}}}",
        );
        assert_eq!(said.errors, []);
        let aws = Aws {
            region: Some("eu-central-1".to_owned()),
            interface: Interface::Id("eni-1".to_owned()),
            elastic: Some(ElasticAddresses::Tagged { key: "role".to_owned(), value: "a=b".to_owned() }),
            forwards: true,
            route_tables: vec!["rtb-1".to_owned()],
        };
        let addresses = [94, 95, 96].map(|last| [10, 0, 1, last].into()).to_vec();
        assert_eq!(*said.pools[0], CloudPool { name: "web".to_owned(), addresses, aws, host: None });
    }

    #[test]
    fn a_pool_without_cloud_is_nothing_to_ask_for() {
        for blocks in ["{cidr: 10.0.1.94/31}", "{start: 11.0.0.0, end: 200.0.0.0}", "{cidr: '2000::/3'}"] {
            let said = read(&format!("{{blocks: [{blocks}]}}"));
            assert!(said.errors.is_empty() && said.pools.is_empty(), "{said:?}");
        }
    }

    #[test]
    fn what_no_network_interface_can_have_is_refused() {
        for (spec, field, cure) in [
            ("{blocks: [{cidr: 10.0.0.0/16}], cloud: {aws: {}}}", "spec.blocks", "65536 addresses"),
            ("{blocks: [{cidr: 'fd00::/126'}], cloud: {aws: {}}}", "spec.cloud.aws", "without `cloud`"),
            ("{blocks: [{cidr: 10.0.1.94/31}], cloud: {aws: {deviceIndex: -1}}}", "spec.cloud.aws.deviceIndex", "0 to 63"),
            ("{blocks: [{cidr: 10.0.1.94/31}], cloud: {}}", "spec.cloud", "aws"),
        ] {
            let said = read(spec);
            let error = said.errors.first().unwrap_or_else(|| panic!("{spec} is taken")).error.to_string();
            assert!(said.pools.is_empty() && error.starts_with(field) && error.contains(cure), "{spec}: {error}");
        }
    }
}
