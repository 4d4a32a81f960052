//! Who it is: in the bridge family, an address that a port owns comes in by that port alone, and no other port tells neighbours where it is.
//!
//! From there on the interface and the source address are an identity in the ip families. (Which bridge a port belongs to is not asked: not
//! every kernel can tell. Ports of other bridges that hold the same address are owners, too.)

use std::collections::BTreeMap;

use super::drops::drop_for;
use super::rules::ETHERTYPE;
use super::sets::Sets;
use super::{drops, names};
use crate::contract::PRIORITY_BRIDGE;
use crate::nft::build::{
    Operand, RuleBuilder, arp_sender, icmpv6_type, iif, inner_vlan, l4proto, nd_target, outer_vlan, protocol, rule, saddr,
};
use crate::nft::{Chain, ChainKind, Datatype, Hook, Set, Table};

const ETHERTYPE_ARP: u32 = 0x0806;
/// VLAN tags of customers and of providers (IEEE 802.1Q).
const TAGS: [u32; 2] = [0x8100, 0x88a8];
/// IANA protocol number of ICMPv6, and its neighbour advertisement (RFC 4861).
const ICMPV6: u32 = 58;
const ADVERTISEMENT: u32 = 136;

/// The chain and the empty sets of the bridge family.
pub fn table() -> (BTreeMap<String, Chain>, Sets) {
    // Whoever is taken for an owner reads what is sent to it.
    let arp = rule().is(protocol(), ETHERTYPE_ARP);
    let advertisement = rule().is(protocol(), ETHERTYPE[1]).is(l4proto(), ICMPV6).is(icmpv6_type(), ADVERTISEMENT);
    let told_by_another = |rule: RuleBuilder, family: usize, address: Operand| {
        let port = [iif(), address.clone()];
        let owned = rule.found(names::OWNED[family], [address]);
        drop_for(owned.not_found(names::OWNERS[family], port.clone()).not_found(names::BESIDE[family], port), drops::SPOOFED)
    };
    let owned_by = |v6: bool| {
        let family = usize::from(v6);
        let of_family = || rule().is(protocol(), ETHERTYPE[family]);
        [
            of_family().found(names::OWNERS[family], [iif(), saddr(v6)]).accept(),
            drop_for(
                of_family().found(names::OWNED[family], [saddr(v6)]).not_found(names::BESIDE[family], [iif(), saddr(v6)]),
                drops::SPOOFED,
            ),
        ]
    };
    // Most frames are IPv4's: theirs are the first rules. An owner's advertisement may tell of another's address.
    let told = [told_by_another(arp, 0, arp_sender()), told_by_another(advertisement, 1, nd_target())];
    // The kernel takes one tag off ahead of this chain, and behind it all that have the number 0: what they hide would be a neighbour's packet then.
    let hidden = TAGS.into_iter().flat_map(|tag| [outer_vlan(), inner_vlan()].map(|number| (tag, number)));
    let hidden = hidden.map(|(tag, number)| drop_for(rule().is(protocol(), tag).is(number, 0), drops::SPOOFED));
    let rules: Vec<_> = owned_by(false).into_iter().chain(told).chain(owned_by(true)).chain(hidden).collect();
    let chain = Chain::base(ChainKind::Filter, Hook::Prerouting, PRIORITY_BRIDGE, rules);
    let owners = |address| Set::of([Datatype::IfIndex, address]);
    let owned = |address| Set::of([address]);
    let sets = Sets::new([
        (names::OWNERS[0], owners(Datatype::Ipv4)),
        (names::OWNERS[1], owners(Datatype::Ipv6)),
        (names::BESIDE[0], owners(Datatype::Ipv4)),
        (names::BESIDE[1], owners(Datatype::Ipv6)),
        (names::OWNED[0], owned(Datatype::Ipv4)),
        (names::OWNED[1], owned(Datatype::Ipv6)),
    ]);
    (BTreeMap::from([("prerouting".to_owned(), chain)]), sets)
}

/// Adds what counts the frames that are dropped, by their port and the address that they come from.
pub fn add_drops(table: &mut Table) {
    let of = |protocol_number, v6, address| (rule().is(protocol(), protocol_number), v6, address);
    let families = [of(ETHERTYPE[0], false, saddr(false)), of(ETHERTYPE_ARP, false, arp_sender()), of(ETHERTYPE[1], true, saddr(true))];
    drops::add_families(table, drops::SPOOFED, families);
}
