//! What lets flows of published ports and of programs in network namespaces through others' firewalls: one rule in iptables' filter table, or words
//! on what is missing elsewhere.

use std::collections::BTreeSet;

use crate::contract::{FAST_TABLE, FORWARDED_MARK, FORWARDED_MASK, TABLE};
use crate::model::facts::KernelFacts;
use crate::model::isolated::LINKS;
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
/// The table of firewalld.
pub const FIREWALLD: &str = "firewalld";

const CALLS: &str = "calls to published ports";
const PROGRAMS: &str = "what programs of `egressd exec --namespace` send";

/// Whose flows are to be let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Whose {
    /// Published ports that somebody serves.
    Ports,
    /// Those that an engine's container serves.
    ContainersPorts,
    /// Those that IPVS serves.
    IpvsPorts,
    /// Programs in network namespaces of their own.
    Programs,
}

/// Who asks to be let through, in which families.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted(BTreeSet<(Whose, Family)>);

impl Wanted {
    /// What an outcome needs, and what the kernel's links ask for.
    pub fn of(outcome: &Outcome, kernel: &KernelFacts) -> Self {
        let mut wanted = Self::default();
        for service in outcome.inbound.all.iter().filter(|service| service.has_servers()) {
            let family = Family::ip(service.address.is_ipv6());
            wanted.0.insert((Whose::Ports, family));
            if service.engine.ipvs().is_some() {
                wanted.0.insert((Whose::IpvsPorts, family));
            }
            let mut rows = service.servers.iter().filter_map(|server| outcome.rows.get(server.row));
            let of_container = (Whose::ContainersPorts, family);
            if !wanted.0.contains(&of_container) && rows.any(|row| matches!(row.subject, Subject::Container(_))) {
                wanted.0.insert(of_container);
            }
        }
        wanted.0.extend(kernel.isolated_sources().map(|(_, address)| (Whose::Programs, Family::ip(address.is_ipv6()))));
        wanted
    }

    /// Nobody asks.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds who asked before.
    pub fn extend(&mut self, before: &Self) {
        self.0.extend(&before.0);
    }

    /// Whether it has to do with a chain: those of iptables may hold a rule from before.
    pub fn concern(&self, chain: &AnyChain) -> bool {
        let by_ipvs = self.0.iter().any(|(whose, _)| *whose == Whose::IpvsPorts);
        chain.table == FILTER || by_ipvs || chain.base.is_none_or(|base| base.hook == Hook::Forward)
    }

    /// Whether they ask in a family.
    fn ask(&self, whose: &[Whose], family: Family) -> bool {
        whose.iter().any(|whose| self.0.contains(&(*whose, family)))
    }

    /// Whether they ask in a family of a chain.
    fn ask_in(&self, whose: Whose, chain: &AnyChain) -> bool {
        self.0.iter().any(|(who, family)| *who == whose && (chain.family == "inet" || chain.family == family.to_string()))
    }
}

#[cfg(test)]
impl<const N: usize> From<[(Whose, Family); N]> for Wanted {
    fn from(all: [(Whose, Family); N]) -> Self {
        Self(all.into())
    }
}

/// Whether a chain is one of those that are looked at.
pub fn is_gate(chain: &AnyChain) -> bool {
    let filters = chain.base.is_some_and(|base| word(base.hook).is_some() && base.kind == ChainKind::Filter);
    let in_filter = chain.table == FILTER && matches!(chain.family, "ip" | "ip6");
    (filters && ![TABLE, FAST_TABLE].contains(&chain.table.as_str()) && matches!(chain.family, "ip" | "ip6" | "inet"))
        || (in_filter && chain.chain == DOCKER_USER)
}

/// Whether a chain of this name may hold our rule.
pub fn may_hold(chain: Option<&str>) -> bool {
    chain.is_some_and(|chain| [FORWARD, DOCKER_USER].contains(&chain) || IPVS.contains(&chain))
}

/// The hooks whose filters such packets may pass, by nft's names for them.
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
        let place = of(FORWARD).filter(|gate| wanted.ask(&[Whose::Ports, Whose::Programs], family) && filters(gate)).map(|forward| {
            // Rules in it and jumps to it.
            let users = of(DOCKER_USER).filter(|gate| gate.chain.uses as usize > gate.rules.len());
            users.unwrap_or(forward)
        });
        one_rule(family, place, &[of(FORWARD), of(DOCKER_USER)], &mut steps);
        for name in IPVS {
            let place = of(name).filter(|gate| wanted.ask(&[Whose::IpvsPorts], family) && filters(gate));
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
        if [chain.table.as_str(), chain.chain.as_str()] == DOCKER_BRIDGES {
            if wanted.ask_in(Whose::ContainersPorts, chain) {
                problems.push(format!(
                    "forward chain {chain} drops calls to ports that Docker does not publish: set `\"bridge-accept-fwmark\": \"{FORWARDED_MARK:#x}/{FORWARDED_MASK:#x}\"` in Docker's daemon.json"
                ));
            }
            continue;
        }
        let is_iptables = chain.table == FILTER && may_hold(Some(&chain.chain));
        if is_iptables || !gate.refuses() {
            continue;
        }
        let is_firewalld = chain.table == FIREWALLD && hook == Hook::Forward;
        // What was translated in its eyes, firewalld lets through `forward` by itself.
        let of_ports = if hook == Hook::Forward { Whose::Ports } else { Whose::IpvsPorts };
        let ports = !is_firewalld && wanted.ask_in(of_ports, chain);
        let programs = hook == Hook::Forward && wanted.ask_in(Whose::Programs, chain) && !(is_firewalld && gate.trusts_programs);
        let what = match (ports, programs) {
            (false, false) => continue,
            (true, false) => CALLS.to_owned(),
            (false, true) => PROGRAMS.to_owned(),
            (true, true) => format!("{CALLS} and {PROGRAMS}"),
        };
        // It takes its table away when it loads its rules anew.
        let cure = if is_firewalld {
            trust(&format!("{LINKS}+"))
        } else {
            format!("`nft insert rule {chain} meta mark and {FORWARDED_MASK:#x} == {FORWARDED_MARK:#x} accept`")
        };
        problems.push(format!("{word} chain {chain} drops {what}: {cure}"));
    }
    problems
}

/// How firewalld is told to let an interface's packets through, until and after it next loads its rules.
pub fn trust(interface: &str) -> String {
    let trust = format!("--zone=trusted --add-interface={interface}");
    format!("`firewall-cmd {trust} && firewall-cmd --permanent {trust}`")
}
