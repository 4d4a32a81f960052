//! What lets flows to published ports through others' firewalls: one rule in iptables' filter table, or words on what is missing elsewhere.

use std::collections::BTreeSet;

use crate::contract::{FORWARDED_MARK, FORWARDED_MASK, TABLE};
use crate::model::resolve::Outcome;
use crate::model::workload::Subject;
use crate::nft::gates::{Decision, FILTER, Gate, GateStep};
use crate::nft::{ChainKind, Family, Hook};

/// The chain of iptables that forwarded packets enter.
const FORWARD: &str = "FORWARD";
/// The chain that Docker's iptables backend leaves to users, ahead of its own.
const DOCKER_USER: &str = "DOCKER-USER";
/// The table of Docker's nftables backend, and its chain in `forward`.
const DOCKER_BRIDGES: [&str; 2] = ["docker-bridges", "filter-FORWARD"];
/// It lets what was translated through by itself.
const FIREWALLD: &str = "firewalld";

/// Who is to be let through.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Families with a service that somebody serves.
    pub families: BTreeSet<Family>,
    /// Families with one that an engine's container serves.
    pub containers: BTreeSet<Family>,
}

impl Wanted {
    /// What an outcome needs.
    pub fn of(outcome: &Outcome) -> Self {
        let mut wanted = Self::default();
        for service in outcome.inbound.all.iter().filter(|service| !service.servers.is_empty()) {
            let family = Family::ip(service.address.is_ipv6());
            wanted.families.insert(family);
            let mut rows = service.servers.iter().filter_map(|server| outcome.rows.get(server.row));
            if !wanted.containers.contains(&family) && rows.any(|row| matches!(row.subject, Subject::Container(_))) {
                wanted.containers.insert(family);
            }
        }
        wanted
    }
}

/// Whether a chain is one of those that are looked at.
pub fn is_gate(chain: &crate::nft::decode::AnyChain) -> bool {
    let forwards = chain.base.is_some_and(|base| base.hook == Hook::Forward && base.kind == ChainKind::Filter);
    let in_filter = chain.table == FILTER && matches!(chain.family, "ip" | "ip6");
    (forwards && chain.table != TABLE && matches!(chain.family, "ip" | "ip6" | "inet")) || (in_filter && chain.chain == DOCKER_USER)
}

/// Whether a chain of this name may hold our rule.
pub fn may_hold(chain: Option<&str>) -> bool {
    chain.is_some_and(|chain| chain == FORWARD || chain == DOCKER_USER)
}

/// What is to be changed in iptables' filter table: one rule where something is to be let through, none elsewhere.
pub fn steps(gates: &[Gate], wanted: &Wanted) -> Vec<GateStep> {
    let mut steps = Vec::new();
    for family in [Family::Ip, Family::Ip6] {
        let of = |name: &str| gates.iter().find(|gate| is_of_filter(gate, family) && gate.chain.chain == name);
        let place = of(FORWARD).filter(|gate| wanted.families.contains(&family) && filters(gate)).map(|forward| {
            // Rules in it and jumps to it.
            let users = of(DOCKER_USER).filter(|gate| gate.chain.uses as usize > gate.rules.len());
            users.unwrap_or(forward)
        });
        let mut there = false;
        for gate in [of(FORWARD), of(DOCKER_USER)].into_iter().flatten() {
            let chain = &gate.chain.chain;
            for rule in gate.rules.iter().filter(|rule| rule.ours) {
                if place == Some(gate) && !there {
                    there = true;
                } else {
                    steps.push(GateStep::Delete(family, chain.clone(), rule.handle));
                }
            }
        }
        if let Some(gate) = place.filter(|_| !there) {
            steps.push(insert(gate, family));
        }
    }
    steps
}

/// What users drop in their own chain stays dropped; an end that only returns is none of that.
fn insert(gate: &Gate, family: Family) -> GateStep {
    let chain = gate.chain.chain.clone();
    match gate.rules.last() {
        _ if chain == FORWARD => GateStep::Insert(family, chain),
        Some(last) if last.decides == Some(Decision::Returns) => GateStep::InsertBefore(family, chain, last.handle),
        _ => GateStep::Append(family, chain),
    }
}

fn is_of_filter(gate: &Gate, family: Family) -> bool {
    gate.chain.table == FILTER && gate.chain.family == family.to_string()
}

/// It may drop something: by its policy, or by a rule.
fn filters(gate: &Gate) -> bool {
    gate.chain.drops || gate.rules.iter().any(|rule| !rule.ours)
}

/// Firewalls that stand in the way and let nobody else put a rule there, each with the cure.
pub fn problems(gates: &[Gate], wanted: &Wanted) -> Vec<String> {
    let mut problems = Vec::new();
    for gate in gates.iter().filter(|gate| gate.chain.base.is_some() && gate.rules.iter().all(|rule| !rule.asks)) {
        let chain = &gate.chain;
        let of = |families: &BTreeSet<Family>| families.iter().any(|family| chain.family == "inet" || chain.family == family.to_string());
        let is_dockers = [chain.table.as_str(), chain.chain.as_str()] == DOCKER_BRIDGES;
        if is_dockers && of(&wanted.containers) {
            problems.push(format!(
                "forward chain {chain} drops calls to ports that Docker does not publish: set `\"bridge-accept-fwmark\": \"{FORWARDED_MARK:#x}/{FORWARDED_MASK:#x}\"` in Docker's daemon.json"
            ));
        }
        let is_iptables = chain.table == FILTER && chain.chain == FORWARD;
        if !is_dockers && !is_iptables && chain.table != FIREWALLD && gate.refuses() && of(&wanted.families) {
            problems.push(format!(
                "forward chain {chain} drops calls to published ports: `nft insert rule {chain} meta mark and {FORWARDED_MASK:#x} == {FORWARDED_MARK:#x} accept`"
            ));
        }
    }
    problems
}
