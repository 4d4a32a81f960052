//! Exits with bounded source ports: a chain for each range, which source NAT goes through first.
//!
//! A range stands in a rule and not in the map of exits: nft can neither list nor load maps whose data are an address and two ports.

use std::collections::BTreeSet;

use super::names;
use crate::contract::MARK_MASK;
use crate::model::binding::SourcePorts;
use crate::model::ports::Protocol;
use crate::model::uplinks::Exit;
use crate::nft::build::{Operand, address, iif, l4proto, map, mark, oif, ranges, rule, saddr};
use crate::nft::{Chain, Data, Family, Rule, Table, Verdict};

const PREFIX: &str = "ports-";
const PROGRAM_PREFIX: &str = "program-ports-";

/// The chain of workloads' flows whose source ports are of this range.
pub fn jump(ports: SourcePorts) -> Data {
    Data::Verdict(Verdict::Jump(format!("{PREFIX}{ports}")))
}

/// The same of flows of the host's programs.
pub fn program_jump(ports: SourcePorts) -> Data {
    Data::Verdict(Verdict::Jump(format!("{PROGRAM_PREFIX}{ports}")))
}

/// The range whose chain of programs' flows an element leads to.
pub fn of_program(data: &Data) -> Option<SourcePorts> {
    let Data::Verdict(Verdict::Jump(chain)) = data else { return None };
    let (first, last) = chain.strip_prefix(PROGRAM_PREFIX)?.split_once('-')?;
    Some(SourcePorts { first: first.parse().ok()?, last: last.parse().ok()? })
}

/// Adds the chains of these ranges to a table of its family.
pub fn add(table: &mut Table, all: &BTreeSet<SourcePorts>, v6: bool) {
    let nets = table.sets.get(names::EXITS_NETS).is_some_and(|set| !set.elements.is_empty());
    for ports in all {
        let left = || [oif(), iif(), saddr(v6)];
        let mut rules = Vec::from(translations(|| map(names::EXITS, left()), *ports, v6));
        if nets {
            rules.extend(translations(|| map(ranges(names::EXITS_NETS), left()), *ports, v6));
        }
        let programs = translations(|| map(names::PROGRAM_EXITS, [oif(), mark().and(MARK_MASK)]), *ports, v6);
        table.chains.insert(format!("{PREFIX}{ports}"), Chain::regular(rules));
        table.chains.insert(format!("{PROGRAM_PREFIX}{ports}"), Chain::regular(programs));
    }
}

/// Source NAT to one exit, whatever the protocol.
pub fn to(exit: &Exit) -> Vec<Rule> {
    let v6 = exit.address.is_ipv6();
    let bounded = exit.ports.into_iter().flat_map(|ports| translations(|| address(exit.address), ports, v6));
    bounded.chain([rule().snat(Family::ip(v6), address(exit.address))]).collect()
}

/// Source NAT of the protocols that have ports; all others go on.
fn translations(exit: impl Fn() -> Operand, ports: SourcePorts, v6: bool) -> [Rule; 3] {
    [Protocol::Tcp, Protocol::Udp, Protocol::Sctp].map(|protocol| {
        let of_protocol = rule().is(l4proto(), protocol.number().into());
        of_protocol.snat_ports(Family::ip(v6), exit(), ports.first, ports.last)
    })
}
