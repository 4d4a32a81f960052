//! Zones of conntrack: datagrams of programs that have the same addresses and ports are flows of their own in them.

use super::{FREE, everybody};
use crate::contract::PRIORITY_ZONES;
use crate::nft::build::rule;
use crate::nft::{Base, Chain, ChainKind, Change, Data, Datatype, Elements, Family, Hook, Rule, Set, Table, Verdict};
use crate::plan::datapath::names;
use crate::plan::elements::number_in;

/// A zone that is set, to be tried: where the kernel has none, all else is there all the same.
pub fn trial() -> Vec<Change> {
    let chain = "trial".to_owned();
    vec![Change::AddChain(Family::Ip, chain.clone(), Some(ZONES)), Change::AddRule(Family::Ip, chain, rule().set_zone(1).done())]
}

/// Where zones are set.
const ZONES: Base = Base { kind: ChainKind::Filter, hook: Hook::Output, priority: PRIORITY_ZONES };

/// Adds the chains and sets of zones, which these rules look in: datagrams get that of their policy, whose number's lowest bit is set. Answers are found without it, in the
/// zone that is everybody's, where source NAT gives each flow a port of its own. A connection is told from the one before by its first packet.
pub fn add(table: &mut Table, rules: Vec<Rule>) {
    let of_programs = table.sets.iter().filter(|(name, set)| names::is_of_programs(name) && set.data == Some(Datatype::Mark));
    // All the others need none: those that have one are told from them by it.
    let of_programs = of_programs.filter(|(name, _)| *name != everybody::POLICY);
    let of_programs: Vec<(String, Set)> = of_programs.map(|(name, set)| (name.clone(), set.clone())).collect();
    for (name, set) in of_programs {
        let zone = |data: &Data| match number_in(data) {
            None | Some(FREE) => Data::Verdict(Verdict::Accept),
            Some(policy) => Data::Verdict(Verdict::Goto(format!("zone-{policy:08x}"))),
        };
        let elements: Elements = set.elements.iter().map(|(key, data)| (*key, zone(data))).collect();
        for policy in set.elements.values().filter_map(number_in).filter(|policy| *policy != FREE) {
            let rule = rule().set_zone(policy as u16).accept();
            table.chains.insert(format!("zone-{policy:08x}"), Chain::regular([rule]));
        }
        table.sets.insert(self::set(&name), Set { elements, data: Some(Datatype::Verdict), ..set });
    }
    table.chains.insert("zones".to_owned(), Chain::base(ZONES.kind, ZONES.hook, ZONES.priority, rules));
}

/// The set that has the zones of those that are in another one.
pub fn set(policies: &str) -> String {
    format!("{policies}-zones")
}
