//! A pool of a cluster: its addresses are those of several nodes, so of several network interfaces.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use egressd::api::cloud::{CloudAddress, PoolCloudStatus};
use egressd::model::cloud::{Aws, CloudPool, Host, Interface, Machine};
use egressd::model::pool::Pool;
use egressd::report::cloud::{Finding, Shown};

use super::report::{AddressReport, Aspect, Condition, PoolReport, Reason};

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
    let machine = machine.ok_or_else(|| format!("node {node} is gone; its addresses go to another node"))?;
    let instance = machine.instance().ok_or_else(|| {
        let provider = machine.provider.as_deref().unwrap_or("nothing");
        format!("node {node} is no instance of Amazon EC2 (its spec.providerID is {provider}); leave it out of spec.nodeSelector")
    })?;
    let mut holds = BTreeSet::new();
    if let (Some(nic), Interface::InSubnet) = (&pool.interface, pool.aws.as_ref().map_or(&Interface::InSubnet, |aws| &aws.interface)) {
        let own = machine.nics.get(nic).into_iter().flatten().filter(|address| !pool.contains(**address));
        holds.extend(own.filter_map(|address| match address {
            IpAddr::V4(address) => Some(*address),
            IpAddr::V6(_) => None,
        }));
        if holds.is_empty() {
            return Err(format!(
                "the agent of node {node} reports no NIC {nic} with an address of its own; see kubectl get egressnode {node} -o yaml"
            ));
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

/// What the pool's status says of one of its parts: it holds until the cloud was read, whoever wrote it.
pub fn known(part: &CloudPool, status: Option<&PoolCloudStatus>) -> PoolReport {
    let node = part.host.as_ref().map(|host| &host.node);
    let own = status.into_iter().flat_map(|status| &status.addresses).filter(|one| one.node.as_ref() == node);
    let address = |one: &CloudAddress| {
        let report = AddressReport {
            ready: one.ready,
            public_address: one.public_address.as_deref().and_then(|public| public.parse().ok()),
            elastic_address: one.elastic_address.clone(),
            message: one.message.clone(),
        };
        Some((one.address.parse().ok()?, report))
    };
    PoolReport {
        network_interface: own.clone().find_map(|one| one.network_interface.clone()),
        addresses: own.filter_map(address).collect(),
        ..PoolReport::default()
    }
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

#[cfg(test)]
mod tests {
    use egressd::api::object;
    use serde_json::{Value, json};

    use super::*;

    fn pool(fields: &Value) -> Pool {
        let mut spec = json!({ "blocks": [{ "start": "10.0.1.94", "end": "10.0.1.96" }], "assignment": "Managed", "cloud": { "aws": {} } });
        for (name, value) in fields.as_object().expect("fields") {
            spec[name] = value.clone();
        }
        let nodes = json!([{ "name": "n1", "addresses": ["10.0.1.94", "10.0.1.96"] }, { "name": "n2", "addresses": ["10.0.1.95"] }]);
        let object = json!({ "metadata": { "name": "web" }, "spec": spec, "status": { "nodes": nodes } });
        object::pool(&object::egress_pool(serde_json::from_value(object).expect("an object")))
    }

    fn machine(provider: &str, nic: &str, addresses: &[&str]) -> Machine {
        let addresses = addresses.iter().map(|text| text.parse().expect("an address")).collect();
        Machine { provider: Some(provider.to_owned()), region: Some("eu-central-1".to_owned()), nics: [(nic.to_owned(), addresses)].into() }
    }

    fn nodes() -> BTreeMap<String, Machine> {
        let n1 = machine("aws:///eu-central-1a/i-1", "ens6", &["10.0.1.10", "10.0.1.94", "fd00::1"]);
        [("n1".to_owned(), n1), ("n2".to_owned(), machine("aws:///eu-central-1b/i-2", "ens6", &["10.0.1.20"]))].into()
    }

    /// `NODE INSTANCE: ADDRESSES`, part by part, and the problems.
    fn told(pool: &Pool, nodes: &BTreeMap<String, Machine>) -> (Vec<String>, Vec<String>) {
        let (parts, problems) = parts(pool, nodes);
        let of = |part: &CloudPool| {
            let host =
                part.host.as_ref().map_or_else(|| "-".to_owned(), |host| format!("{} {} {:?}", host.node, host.instance, host.holds));
            let addresses: Vec<String> = part.addresses.iter().map(|address| address.octets()[3].to_string()).collect();
            format!("{} {host} {}: {}", name(part), part.aws.region.as_deref().unwrap_or("-"), addresses.join(" "))
        };
        (parts.iter().map(of).collect(), problems)
    }

    #[test]
    fn each_node_s_addresses_are_of_the_network_interface_that_holds_what_its_nic_holds() {
        let named = pool(&json!({ "interface": "ens6" }));
        let parts = ["web/n1 n1 i-1 {10.0.1.10} eu-central-1: 94 96", "web/n2 n2 i-2 {10.0.1.20} eu-central-1: 95"];
        assert_eq!(told(&named, &nodes()), (parts.map(str::to_owned).to_vec(), vec![]));
        let unnamed = pool(&json!({ "cloud": { "aws": { "region": "eu-west-1" } } }));
        let parts = ["web/n1 n1 i-1 {} eu-west-1: 94 96", "web/n2 n2 i-2 {} eu-west-1: 95"];
        assert_eq!(told(&unnamed, &nodes()), (parts.map(str::to_owned).to_vec(), vec![]));
        let eni = pool(&json!({ "cloud": { "aws": { "networkInterface": "eni-1" } } }));
        assert_eq!(told(&eni, &nodes()), (vec!["web - -: 94 95 96".to_owned()], vec![]), "it is one, whatever nodes there are");
    }

    #[test]
    fn a_node_of_which_the_nic_or_the_instance_is_not_known_is_named_and_the_others_go_on() {
        let mut nodes = nodes();
        nodes.insert("n2".to_owned(), machine("kind://docker/n2", "eth0", &[]));
        let (parts, problems) = told(&pool(&json!({})), &nodes);
        assert_eq!(parts, ["web/n1 n1 i-1 {} eu-central-1: 94 96"]);
        assert!(problems[0].contains("node n2 is no instance of Amazon EC2 (its spec.providerID is kind://docker/n2)"), "{problems:?}");
        // What the pool's own addresses are on now says nothing: they are to move.
        nodes.insert("n2".to_owned(), machine("aws:///eu-central-1b/i-2", "ens6", &["10.0.1.95"]));
        let (_, problems) = told(&pool(&json!({ "interface": "ens6" })), &nodes);
        assert!(problems[0].starts_with("the agent of node n2 reports no NIC ens6 with an address of its own"), "{problems:?}");
        nodes.remove("n2");
        assert!(told(&pool(&json!({})), &nodes).1[0].starts_with("node n2 is gone"));
    }

    #[test]
    fn conditions_say_the_worst_of_all_nodes_and_which_node_it_is() {
        let (parts, _) = parts(&pool(&json!({})), &nodes());
        let report = |reason, message: &str| {
            let condition = Condition { ready: reason == Reason::Done, reason, message: message.to_owned() };
            PoolReport {
                network_interface: Some("eni-1".to_owned()),
                conditions: [(Aspect::AddressesAssigned, condition)].into(),
                addresses: [([10, 0, 1, 94].into(), AddressReport { ready: true, ..AddressReport::default() })].into(),
                ..PoolReport::default()
            }
        };
        let of = |reports: [&PoolReport; 2], problems: &[String]| {
            let pairs: Vec<_> = parts.iter().zip(reports).collect();
            let shown = shown(&pairs, problems);
            let told = shown.findings.iter().map(|f| format!("{} {:?} {}: {}", f.kind, f.ready, f.reason, f.message)).collect::<Vec<_>>();
            (told, shown.addresses)
        };
        let (done, full) = (report(Reason::Done, "2 of 2"), report(Reason::LimitReached, "it is full"));
        let (told, addresses) = of([&done, &full], &[]);
        let expected = [
            "Reachable Some(true) Reachable: 2 network interfaces were read",
            "AddressesAssigned Some(false) LimitReached: n2: it is full",
        ];
        assert_eq!(told, expected);
        assert_eq!((addresses[0].node.as_deref(), addresses[0].ready), (Some("n1"), true));
        let pending = report(Reason::Pending, "1 of 2");
        assert_eq!(of([&done, &pending], &[]).0[1], "AddressesAssigned None Pending: n2: 1 of 2");
        let away = PoolReport { problem: Some("no answer".to_owned()), ..done.clone() };
        assert_eq!(of([&away, &done], &[]).0[0], "Reachable Some(false) Unreachable: n1: no answer");
        assert_eq!(of([&done, &PoolReport::default()], &[]).0[0], "Reachable None Pending: 1 of 2 network interfaces were read");
        assert_eq!(of([&done, &done], &["n3 is none".to_owned()]).0[0], "Reachable Some(false) Unreachable: n3 is none");
    }

    #[test]
    fn what_the_status_says_of_a_node_s_addresses_is_known_of_its_part() {
        let (parts, _) = parts(&pool(&json!({})), &nodes());
        let address = AddressReport {
            ready: true,
            public_address: Some([203, 0, 113, 41].into()),
            elastic_address: Some("eipalloc-1".to_owned()),
            message: String::new(),
        };
        let report = PoolReport {
            network_interface: Some("eni-1".to_owned()),
            addresses: [([10, 0, 1, 94].into(), address)].into(),
            ..PoolReport::default()
        };
        let addresses = shown(&[(&parts[0], &report)], &[]).addresses;
        let status = PoolCloudStatus { addresses, ..PoolCloudStatus::default() };
        assert_eq!(known(&parts[0], Some(&status)), report);
        assert_eq!(known(&parts[1], Some(&status)), PoolReport::default(), "another node has the address");
        assert_eq!(known(&parts[0], None), PoolReport::default());
    }
}
