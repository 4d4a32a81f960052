//! Answers of the host itself: they leave by the NIC whose address was called. (Answers of workloads are found in `established`.)

use super::flow::{ORIGINAL, REPLY};
use super::rules::{Chains, present};
use super::shape::Shape;
use super::{names, programs};
use crate::contract::{PRIORITY_BEHIND_OUTPUT, PRIORITY_OUTPUT};
use crate::nft::build::{ct_direction, ct_original_daddr, ct_reply_daddr, ct_state, daddr, l4proto, map, mark, oif, ranges, rule};
use crate::nft::{Chain, ChainKind, Hook};

/// `NF_CT_STATE_BIT(IP_CT_RELATED)`.
const RELATED: u32 = 1 << 2;
/// IANA protocol numbers of ICMP and ICMPv6.
const ICMP: [u32; 2] = [1, 58];

/// The chains of this concern.
pub fn chains(shape: Shape) -> Chains {
    let v6 = shape.v6;
    let icmp = ICMP[usize::from(v6)];
    // A tunnel's answers go back through it, whichever of the host's addresses was called.
    let through = shape.tunnelled.then(|| rule().is(ct_direction(), REPLY).found(ranges(names::TUNNELLED), [oif(), daddr(v6)]).accept());
    let mut rules = present([
        through,
        Some(rule().is(ct_direction(), REPLY).is(mark(), 0).set_mark(map(names::CALLED, [ct_original_daddr(v6)])).accept()),
        // The host's own word about a bound flow ("fragmentation needed"): it goes back by the NIC that the flow came by.
        Some(
            rule()
                .is(l4proto(), icmp)
                .is(ct_state().and(RELATED), RELATED)
                .is(ct_direction(), ORIGINAL)
                .is(mark(), 0)
                .set_mark(map(names::WAYS, [ct_reply_daddr(v6)]))
                .accept(),
        ),
    ]);
    rules.extend(programs::output(shape));
    let mut chains = vec![("output", Chain::base(ChainKind::Route, Hook::Output, PRIORITY_OUTPUT, rules))];
    if shape.programs || shape.sockets {
        chains.push(("behind_output", Chain::base(ChainKind::Route, Hook::Output, PRIORITY_BEHIND_OUTPUT, programs::behind_output(shape))));
    }
    chains
}
