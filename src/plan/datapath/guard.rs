//! Sources that nobody vouches for: they go where is known to be inside, and nowhere else.
//!
//! Both the first packet of each flow (`source_nat`) and whatever leaves with a source that is not the NIC's (`seal`) come by here, once the
//! routing has said which interface it leaves by: no other program's rule, VPN or mark can come in between.

use super::drops::drop_for;
use super::egress::{is_bound, is_bound_net, limits};
use super::flow::{REPLY, TRANSLATED};
use super::rules::{Chains, forwarded, present};
use super::shape::Shape;
use super::{drops, names};
use crate::nft::Chain;
use crate::nft::build::{ct_direction, ct_status, iif, ranges, rule, saddr};

/// The chains of this concern.
pub fn chains(shape: Shape) -> Chains {
    let v6 = shape.v6;
    // Of a flow that the host translated, so of somebody behind it: a subnet that a binding names may have the server in it.
    let answers = rule().is(ct_direction(), REPLY).is(ct_status().and(TRANSLATED), TRANSLATED);
    let unmarked = present([
        (shape.claimed || shape.nets).then(|| answers.accept()),
        Some(is_bound(v6).goto("lost")),
        shape.nets.then(|| is_bound_net(v6).goto("lost")),
        shape.guards.then(|| rule().found(names::GUARDS, [iif()]).goto("guarded")),
        // A subnet that a binding names may have the host's own address in it.
        shape.claimed.then(|| drop_for(forwarded(rule()).found(ranges(names::CLAIMED), [iif(), saddr(v6)]), drops::GUARD)),
    ]);
    // A bound source whose mark another program took away, or that conntrack does not know: what the binding is for does not leave so.
    let mut lost: Vec<_> = limits(shape).into_iter().flatten().collect();
    lost.push(drop_for(rule(), drops::FOREIGN_MARK));
    let guarded = [rule().found(names::KNOWN, [iif(), saddr(v6)]).accept(), drop_for(rule(), drops::GUARD)];
    vec![("unmarked", Chain::regular(unmarked)), ("lost", Chain::regular(lost)), ("guarded", Chain::regular(guarded))]
}
