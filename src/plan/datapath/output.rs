//! What the host itself sends: its answers leave by the NIC whose address was called, and what its sockets and programs begin is looked up. (Answers
//! of workloads are found in `established`.)

use super::flow::{CONFIRMED, ORIGINAL, REPLY, TRANSLATED};
use super::rules::{Chains, ours, present};
use super::shape::Shape;
use super::{names, sockets};
use crate::contract::{PRIORITY_BEHIND_OUTPUT, PRIORITY_OUTPUT};
use crate::nft::build::{
    ct_direction, ct_original_daddr, ct_reply_daddr, ct_state, ct_status, daddr, l4proto, map, mark, oif, ranges, rule,
};
use crate::nft::{Chain, ChainKind, Hook, Rule};

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
    rules.extend(output(shape));
    let mut chains = vec![("output", Chain::base(ChainKind::Route, Hook::Output, PRIORITY_OUTPUT, rules))];
    if shape.programs || shape.sockets {
        chains.push(("behind_output", Chain::base(ChainKind::Route, Hook::Output, PRIORITY_BEHIND_OUTPUT, behind_output(shape))));
    }
    chains
}

/// The end of the chain `output`.
fn output(shape: Shape) -> Vec<Rule> {
    let answers = || rule().is(ct_direction(), REPLY).accept();
    let confirmed = || rule().is(ct_status().and(CONFIRMED), CONFIRMED);
    let mut rules = vec![translated()];
    rules.extend((shape.programs || shape.sockets).then(answers));
    // A socket's address says more than who opened it.
    rules.extend(shape.sockets.then(|| sockets::output(shape.v6)).into_iter().flatten());
    if shape.programs {
        rules.extend([confirmed().goto("program_flows"), rule().goto("programs")]);
    }
    rules
}

/// Later packets of a flow, whoever has the socket, and though nobody has it any more.
fn translated() -> Rule {
    let both = CONFIRMED | TRANSLATED;
    rule().is(ct_direction(), ORIGINAL).is(ct_status().and(both), both).goto("bound_flow")
}

/// The same for what another program's chain has re-marked since.
fn behind_output(shape: Shape) -> Vec<Rule> {
    let mut rules = vec![
        ours().accept(),
        translated(),
        rule().is(ct_direction(), REPLY).accept(),
        rule().is(ct_status().and(CONFIRMED), CONFIRMED).accept(),
    ];
    rules.extend(shape.sockets.then(|| sockets::output(shape.v6)).into_iter().flatten());
    rules.extend(shape.programs.then(|| rule().goto("programs")));
    rules
}
