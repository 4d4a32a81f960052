//! What lets flows to published ports through others' firewalls: one rule in iptables' filter table, or words on what is missing elsewhere.

use std::collections::BTreeSet;

use crate::contract::{FORWARDED_MARK, FORWARDED_MASK, TABLE};
use crate::model::resolve::Outcome;
use crate::model::workload::Subject;
use crate::nft::decode::AnyChain;
use crate::nft::gates::{Decision, FILTER, Gate, GateStep};
use crate::nft::{ChainKind, Family, Hook};

/// The chain of iptables that forwarded packets enter.
const FORWARD: &str = "FORWARD";
/// Those that calls pass which IPVS brings to their servers: they come to the host, and their requests leave it.
const IPVS: [&str; 2] = ["INPUT", "OUTPUT"];
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
    /// Families with one that IPVS serves.
    pub ipvs: BTreeSet<Family>,
}

impl Wanted {
    /// What an outcome needs.
    pub fn of(outcome: &Outcome) -> Self {
        let mut wanted = Self::default();
        for service in outcome.inbound.all.iter().filter(|service| !service.servers.is_empty()) {
            let family = Family::ip(service.address.is_ipv6());
            wanted.families.insert(family);
            if service.engine.ipvs().is_some() {
                wanted.ipvs.insert(family);
            }
            let mut rows = service.servers.iter().filter_map(|server| outcome.rows.get(server.row));
            if !wanted.containers.contains(&family) && rows.any(|row| matches!(row.subject, Subject::Container(_))) {
                wanted.containers.insert(family);
            }
        }
        wanted
    }

    /// Whether it has to do with a chain: those of iptables may hold a rule from before.
    pub fn concern(&self, chain: &AnyChain) -> bool {
        chain.table == FILTER || !self.ipvs.is_empty() || chain.base.is_none_or(|base| base.hook == Hook::Forward)
    }
}

/// Whether a chain is one of those that are looked at.
pub fn is_gate(chain: &AnyChain) -> bool {
    let filters = chain.base.is_some_and(|base| word(base.hook).is_some() && base.kind == ChainKind::Filter);
    let in_filter = chain.table == FILTER && matches!(chain.family, "ip" | "ip6");
    (filters && chain.table != TABLE && matches!(chain.family, "ip" | "ip6" | "inet")) || (in_filter && chain.chain == DOCKER_USER)
}

/// Whether a chain of this name may hold our rule.
pub fn may_hold(chain: Option<&str>) -> bool {
    chain.is_some_and(|chain| [FORWARD, DOCKER_USER].contains(&chain) || IPVS.contains(&chain))
}

/// The hooks whose filters packets to published ports may pass, by nft's names for them.
fn word(hook: Hook) -> Option<&'static str> {
    match hook {
        Hook::Forward => Some("forward"),
        Hook::Input => Some("input"),
        Hook::Output => Some("output"),
        Hook::Prerouting | Hook::Postrouting => None,
    }
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
        one_rule(family, place, &[of(FORWARD), of(DOCKER_USER)], &mut steps);
        for name in IPVS {
            let place = of(name).filter(|gate| wanted.ipvs.contains(&family) && filters(gate));
            one_rule(family, place, &[of(name)], &mut steps);
        }
    }
    steps
}

/// One rule at that place, and none elsewhere in these chains.
fn one_rule(family: Family, place: Option<&Gate>, gates: &[Option<&Gate>], steps: &mut Vec<GateStep>) {
    let mut there = false;
    for gate in gates.iter().flatten() {
        let chain = &gate.chain.chain;
        for rule in gate.rules.iter().filter(|rule| rule.ours) {
            if place == Some(*gate) && !there {
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

/// What users drop in their own chain stays dropped; an end that only returns is none of that.
fn insert(gate: &Gate, family: Family) -> GateStep {
    let chain = gate.chain.chain.clone();
    match gate.rules.last() {
        _ if chain != DOCKER_USER => GateStep::Insert(family, chain),
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
        let hook = chain.base.map_or(Hook::Forward, |base| base.hook);
        let Some(word) = word(hook) else { continue };
        let of = |families: &BTreeSet<Family>| families.iter().any(|family| chain.family == "inet" || chain.family == family.to_string());
        let is_dockers = [chain.table.as_str(), chain.chain.as_str()] == DOCKER_BRIDGES;
        if is_dockers && of(&wanted.containers) {
            problems.push(format!(
                "forward chain {chain} drops calls to ports that Docker does not publish: set `\"bridge-accept-fwmark\": \"{FORWARDED_MARK:#x}/{FORWARDED_MASK:#x}\"` in Docker's daemon.json"
            ));
        }
        let is_iptables = chain.table == FILTER && may_hold(Some(&chain.chain));
        // What was translated in its eyes, firewalld lets through `forward` by itself.
        let (families, lets_through) =
            if hook == Hook::Forward { (&wanted.families, chain.table == FIREWALLD) } else { (&wanted.ipvs, false) };
        if !is_dockers && !is_iptables && !lets_through && gate.refuses() && of(families) {
            problems.push(format!(
                "{word} chain {chain} drops calls to published ports: `nft insert rule {chain} meta mark and {FORWARDED_MASK:#x} == {FORWARDED_MARK:#x} accept`"
            ));
        }
    }
    problems
}
