//! How fast a binding's workloads send outside: a token bucket for each binding, over both families, in `forward`.
//!
//! A table of the family `inet`, because a limit is one for both families only in one table. What is over the limit is dropped (policing): a queue
//! would have to take the place of each NIC's root qdisc, which is everybody's.

use std::collections::BTreeMap;

use ipnet::IpNet;

use super::drops::{self, drop_for};
use super::names::{RATES, RATES_NETS, UPLINKS};
use super::rules::{ETHERTYPE, ours};
use super::sets::Sets;
use crate::contract::PRIORITY_RATE;
use crate::model::binding::BindingName;
use crate::model::facts::IfIndex;
use crate::model::rate::Rate;
use crate::model::resolve::Outcome;
use crate::nft::build::{fingerprint, iif, nfproto, oif, protocol, ranges, rule, saddr};
use crate::nft::uapi::{NFPROTO_IPV4, NFPROTO_IPV6};
use crate::nft::{Bytes, Chain, ChainKind, Data, Datatype, Hook, Key, Rule, Set, Table, Verdict};

/// Longest name of a chain, less what stands before the binding's (`NFT_NAME_MAXLEN`).
const LONGEST: usize = 240;

/// The table with the limits; `None` while no binding that is in force has one.
pub fn table(outcome: &Outcome) -> Option<Table> {
    let source = |v6| [Datatype::IfIndex, Datatype::address(v6)];
    let mut sets = Sets::new([
        (UPLINKS, Set::of([Datatype::IfIndex])),
        (RATES[0], Set::map(source(false), Datatype::Verdict)),
        (RATES[1], Set::map(source(true), Datatype::Verdict)),
        (RATES_NETS[0], Set::map(source(false), Datatype::Verdict).with_ranges()),
        (RATES_NETS[1], Set::map(source(true), Datatype::Verdict).with_ranges()),
    ]);
    let mut limits: BTreeMap<String, Rate> = BTreeMap::new();
    for row in &outcome.rows {
        let (Some(_), Some(net), Some(binding)) = (row.entry, row.address, &row.binding) else { continue };
        let Some(rate) = binding.rate else { continue };
        let chain = chain(binding.shared_name());
        let family = usize::from(net.addr().is_ipv6());
        for interface in outcome.entrances(row) {
            let (set, key) = element(family, interface, net);
            sets.put(set, key, Data::Verdict(Verdict::Jump(chain.clone())));
        }
        limits.insert(chain, rate);
    }
    if limits.is_empty() {
        return None;
    }
    outcome.uplinks.nics.keys().for_each(|nic| sets.one(UPLINKS, Bytes::of_number(*nic), Data::None));
    let mut table = sets.with(limits.into_iter().map(|(name, rate)| (name, Chain::regular([over(rate)]))).collect());
    table.chains.extend([look_ups(&table.sets)]);
    let of = |version: u8, v6| (rule().is(nfproto(), version.into()), v6, saddr(v6));
    drops::add_families(&mut table, drops::RATE, [of(NFPROTO_IPV4, false), of(NFPROTO_IPV6, true)]);
    Some(table)
}

fn element(family: usize, interface: IfIndex, net: IpNet) -> (&'static str, Key) {
    if net.prefix_len() == net.max_prefix_len() {
        (RATES[family], Key::one(Bytes::default().number(interface).address(net.addr())))
    } else {
        (RATES_NETS[family], Key::prefix(interface, net))
    }
}

/// What leaves by a NIC, by a way of ours: in `forward` the source is the workload's still, of answers too.
pub fn look_ups(sets: &BTreeMap<String, Set>) -> (String, Chain) {
    let mut rules = vec![rule().not_found(UPLINKS, [oif()]).accept()];
    for (family, v6) in [(0, false), (1, true)] {
        let of_family = || ours().is(protocol(), ETHERTYPE[family]);
        rules.push(of_family().vmap(RATES[family], [iif(), saddr(v6)]));
        if sets.get(RATES_NETS[family]).is_some_and(|set| !set.elements.is_empty()) {
            rules.push(of_family().vmap(ranges(RATES_NETS[family]), [iif(), saddr(v6)]));
        }
    }
    ("rate".to_owned(), Chain::base(ChainKind::Filter, Hook::Forward, PRIORITY_RATE, rules))
}

fn over(rate: Rate) -> Rule {
    let (bytes, burst) = rate.limit();
    drop_for(rule().over(bytes, burst), drops::RATE)
}

/// `rate-file/default/crawler`: names of bindings are such that `nft` can read them.
fn chain(binding: &BindingName) -> String {
    let name = binding.to_string();
    if name.len() > LONGEST { format!("rate-{}", fingerprint(format_args!("{name}"))) } else { format!("rate-{name}") }
}
