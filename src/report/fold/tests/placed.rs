//! Addresses that pools give to nodes.

use super::*;
use crate::api::node::{NodeAddress, NodeNic};

/// A pool of two managed addresses, and two nodes that report.
fn managed() -> Cluster {
    let mut cluster = Cluster::new();
    cluster.managed("10.0.0.4", "10.0.0.5", &json!({}));
    let node = |name: &str| Named { name: name.to_owned(), value: ClusterNode { ready: true, ..ClusterNode::default() } };
    cluster.world.apply(Change::Nodes(Update::All(vec![node("n1"), node("n2")])));
    cluster.holds("n1", &[], &[]).holds("n2", &[], &[]);
    cluster
}

impl Cluster {
    fn managed(&mut self, first: &str, last: &str, labels: &Value) -> &mut Self {
        let status = self.world.pools.as_ref().and_then(|pools| pools.get("public")?.object.status.clone());
        let value = json!({
            "metadata": { "name": "public", "uid": "pool", "generation": 1 },
            "spec": {
                "blocks": [{ "start": first, "end": last }],
                "assignment": "Managed",
                "nodeSelector": labels,
                "allowedNamespaces": { "names": ["shop"] },
            },
            "status": status,
        });
        self.world.apply(Change::Pools(Update::One(pool(value))));
        self
    }

    /// A node reports that its NIC holds these addresses, and cannot have those.
    fn holds(&mut self, node: &str, addresses: &[&str], refused: &[&str]) -> &mut Self {
        let address = |text: &&str| text.parse::<IpAddr>().expect("an address");
        let nic = NodeNic { name: "eth1".to_owned(), up: true, addresses: addresses.iter().map(address).collect(), ..NodeNic::default() };
        let refused = refused.iter().map(|text| NodeAddress {
            pool: "public".to_owned(),
            address: address(text),
            reason: "AddressDuplicate".to_owned(),
            message: "a neighbour has it".to_owned(),
        });
        let reported_at = Some(Time(self.now));
        let value = EgressNodeSpec { nics: vec![nic], addresses: refused.collect(), reported_at, ..EgressNodeSpec::default() };
        self.world.apply(Change::Reports(Update::One(Named { name: node.to_owned(), value })));
        self
    }

    fn pool_status(&self) -> EgressPoolStatus {
        self.world.pools.as_ref().expect("listed")["public"].object.status.clone().expect("a status")
    }

    /// `n1: 10.0.0.4`, node by node.
    fn places(&self) -> Vec<String> {
        self.pool_status().nodes.iter().map(|node| format!("{}: {}", node.name, node.addresses.join(", "))).collect()
    }

    /// Status and reason of `Assigned`, and its message.
    fn assigned(&self) -> (String, String) {
        let status = self.pool_status();
        let found = condition(&status.conditions, ASSIGNED);
        (format!("{} {}", found.status, found.reason), found.message.clone())
    }
}

#[test]
fn each_address_is_given_to_a_node_and_it_is_told_whether_it_is_there() {
    let mut cluster = managed();
    let writes = cluster.fold();
    assert_eq!((writes.pools.len(), cluster.places()), (1, vec!["n1: 10.0.0.4".to_owned(), "n2: 10.0.0.5".to_owned()]));
    assert_eq!(cluster.assigned(), ("Unknown Pending".to_owned(), "2 of 2 addresses are not on their nodes yet".to_owned()));

    // An address that another node's NIC holds is none of this one.
    cluster.holds("n1", &["10.0.0.4", "10.0.0.5"], &[]).fold();
    assert_eq!(cluster.assigned().1, "1 of 2 addresses are not on their nodes yet");
    cluster.holds("n2", &[], &["10.0.0.5"]).fold();
    assert_eq!(cluster.assigned(), ("False AddressDuplicate".to_owned(), "10.0.0.5 on n2: a neighbour has it".to_owned()));
    assert_eq!(condition(&cluster.pool_status().conditions, READY).status, "False");
    cluster.holds("n2", &["10.0.0.5"], &[]).fold();
    assert_eq!(cluster.assigned(), ("True Assigned".to_owned(), "2 addresses are on 2 nodes".to_owned()));
    assert_eq!(condition(&cluster.pool_status().conditions, READY).status, "True");
    assert_eq!(cluster.fold().pools.len(), 0, "it is written once");
}

#[test]
fn a_silent_node_keeps_its_addresses_and_one_that_is_gone_does_not() {
    let mut cluster = managed();
    cluster.holds("n1", &["10.0.0.4"], &[]).holds("n2", &["10.0.0.5"], &[]).fold();
    let before = cluster.places();
    cluster.now += nodes::SILENCE;
    cluster.holds("n1", &["10.0.0.4"], &[]).fold();
    assert_eq!((cluster.places(), cluster.assigned().0), (before.clone(), "Unknown AgentSilent".to_owned()));
    // Its report alone says nothing of the node.
    cluster.world.apply(Change::Reports(Update::Gone("n2".to_owned())));
    cluster.fold();
    assert_eq!(cluster.places(), before);
    // A new leader decides the same.
    cluster.past = Past::default();
    cluster.fold();
    assert_eq!(cluster.places(), before);
    cluster.world.apply(Change::Nodes(Update::Gone("n2".to_owned())));
    cluster.fold();
    assert_eq!(cluster.places(), ["n1: 10.0.0.4-10.0.0.5"]);
}

#[test]
fn without_a_node_that_fits_nothing_is_given_and_the_cure_is_told() {
    let mut cluster = managed();
    let writes = cluster.managed("10.0.0.4", "10.0.0.5", &json!({ "egress": "yes" })).fold();
    assert_eq!((cluster.places(), cluster.assigned().0), (Vec::new(), "False NoNode".to_owned()));
    assert!(cluster.assigned().1.starts_with("2 of 2 addresses have no node: spec.nodeSelector selects no ready node"));
    assert_eq!(writes.events.iter().map(|event| event.content.reason.as_str()).collect::<Vec<_>>(), [NO_NODE]);
}

#[test]
fn what_was_lent_of_a_larger_pool_keeps_its_node() {
    let mut cluster = managed();
    cluster.binding("crawler", &named("10.0.0.5")).fold();
    cluster.fold();
    cluster.managed("10.0.0.4", "10.0.0.4", &json!({})).fold();
    assert_eq!(cluster.places(), ["n1: 10.0.0.4", "n2: 10.0.0.5"]);
    assert_eq!(cluster.exits("crawler"), ["10.0.0.5"]);
}

#[test]
fn a_pool_whose_addresses_are_on_nics_already_gives_none_to_nodes() {
    let mut cluster = managed();
    cluster.pool("10.0.0.4", "10.0.0.5").fold();
    let status = cluster.pool_status();
    assert_eq!((status.nodes, status.conditions.iter().any(|condition| condition.type_ == ASSIGNED)), (Vec::new(), false));
}
