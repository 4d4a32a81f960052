//! The last look, behind all source NAT: what has a way leaves by its NIC with that NIC's address, or to the inside, or not at all.

use super::drops::drop_for;
use super::flow::{ORIGINAL, TRANSLATED};
use super::rules::{Chains, forwarded, ours, present, to_inside};
use super::shape::Shape;
use super::{drops, names, programs};
use crate::contract::PRIORITY_SEAL;
use crate::nft::build::{ct_direction, ct_status, map, oif, rule, saddr};
use crate::nft::{Chain, ChainKind, Hook};

/// The chains of this concern.
pub fn chains(shape: Shape) -> Chains {
    let v6 = shape.v6;
    let mut rules = present([
        Some(rule().found(names::INSIDE_LINKS, [oif()]).goto("inside_link")),
        Some(rule().found(names::OWN, [oif(), saddr(v6)]).accept()),
        Some(drop_for(forwarded(ours()), drops::SEAL)),
        // Another NIC's exit as its source: the packet lost its way.
        Some(drop_for(forwarded(rule()).is_not(map(names::WAYS, [saddr(v6)]), 0), drops::SEAL)),
        Some(programs::sealed(v6)),
        (shape.programs || shape.sockets).then(programs::untracked),
        shape.inside.then(|| to_inside(v6).accept()),
    ]);
    rules.push(rule().goto("unmarked"));
    // What bears an exit goes nowhere inside: by such a link somebody's rule leads of late.
    let with_exit = forwarded(rule()).is(ct_direction(), ORIGINAL).is(ct_status().and(TRANSLATED), TRANSLATED);
    let inside = [drop_for(with_exit.is_not(map(names::WAYS, [saddr(v6)]), 0), drops::SEAL), rule().accept()];
    let inside = ("inside_link", Chain::regular(inside));
    vec![inside, ("seal", Chain::base(ChainKind::Filter, Hook::Postrouting, PRIORITY_SEAL, rules))]
}
