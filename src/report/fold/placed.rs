//! Which node has which address of a pool, and whether each is there.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::binding::AGENT_SILENT;
use super::condition::Verdict;
use super::count::{count, nodes, verb};
use super::world::World;
use crate::api::node::EgressNodeSpec;
use crate::model::pool::{Candidate, Candidates, MAX_PLACED, Places, Pool};

/// Each address is where it was given to.
pub const ASSIGNED: &str = "Assigned";
/// Reason of [`ASSIGNED`] when there is nobody to give an address to.
pub const NO_NODE: &str = "NoNode";

/// The nodes as pools look at them. `None` before all were listed: then nothing moves.
pub(super) fn candidates(world: &World, silent: &BTreeSet<String>) -> Option<Candidates> {
    let reports = |name: &String| world.reports.as_ref().is_some_and(|reports| reports.contains_key(name)) && !silent.contains(name);
    let candidate = |(name, node): (&String, &super::ClusterNode)| {
        let able = node.ready && reports(name);
        (name.clone(), Candidate { labels: node.labels.clone(), able })
    };
    Some(world.nodes.as_ref()?.iter().map(candidate).collect())
}

/// What became of the addresses that were given to nodes. `None` for a pool whose addresses somebody else puts where they are.
pub(super) fn verdict(pool: &Pool, places: &Places, world: &World, silent: &BTreeSet<String>) -> Option<Verdict> {
    if !pool.is_placed() {
        return None;
    }
    let own = pool.blocks.iter().flat_map(|block| block.addresses()).take(MAX_PLACED);
    let unplaced = own.filter(|address| !places.contains_key(address)).count();
    if unplaced > 0 {
        let text = format!(
            "{unplaced} of {} {} no node: spec.nodeSelector selects no ready node whose agent reports; see kubectl get nodes --show-labels, and kubectl get egressnodes",
            count(pool.size(), "address"),
            verb(pool.size(), "has", "have")
        );
        return Some(Verdict::no(NO_NODE, text));
    }
    let mut by_node: BTreeMap<&String, Vec<IpAddr>> = BTreeMap::new();
    places.iter().for_each(|(address, node)| by_node.entry(node).or_default().push(*address));
    let mute: Vec<&&String> = by_node.keys().filter(|node| silent.contains(**node)).collect();
    let reports = world.reports.iter().flatten().filter(|(node, _)| !silent.contains(*node));
    let reports: Vec<(&String, &EgressNodeSpec)> = reports.filter(|(node, _)| by_node.contains_key(node)).collect();
    let missing: usize = by_node.iter().map(|(node, addresses)| missing(addresses, reports.iter().find(|(of, _)| of == node))).sum();
    let failing = |(node, report): &(&String, &EgressNodeSpec)| {
        let held = held(report);
        let of = report.addresses.iter().filter(move |one| one.pool == pool.name && !held.contains(&one.address));
        of.map(|one| (String::clone(node), one.clone())).collect::<Vec<_>>()
    };
    let failing: Vec<_> = reports.iter().flat_map(failing).filter(|(node, one)| places.get(&one.address) == Some(node)).collect();
    Some(match (failing.first(), mute.first()) {
        (Some((node, first)), _) => {
            let others = if failing.len() > 1 { format!("; {} more cannot be used", failing.len() - 1) } else { String::new() };
            Verdict::no(&first.reason, format!("{} on {node}: {}{others}", first.address, first.message))
        }
        (None, Some(node)) => {
            let text =
                format!("no report from {} with addresses of this pool; check the agent's pod and log there", nodes(mute.len(), node));
            Verdict::unknown(AGENT_SILENT, text)
        }
        (None, None) if missing > 0 => {
            let all = count(places.len(), "address");
            Verdict::pending(format!("{missing} of {all} {} yet", verb(places.len(), "is not on its node", "are not on their nodes")))
        }
        (None, None) => {
            let all = count(places.len(), "address");
            Verdict::yes(ASSIGNED, format!("{all} {} on {}", verb(places.len(), "is", "are"), count(by_node.len(), "node")))
        }
    })
}

/// How many of the addresses a node does not report to hold.
fn missing(addresses: &[IpAddr], report: Option<&(&String, &EgressNodeSpec)>) -> usize {
    let held = report.map(|(_, report)| held(report)).unwrap_or_default();
    addresses.iter().filter(|address| !held.contains(address)).count()
}

/// What the NICs of a node hold.
fn held(report: &EgressNodeSpec) -> BTreeSet<IpAddr> {
    report.nics.iter().flat_map(|nic| &nic.addresses).copied().collect()
}
