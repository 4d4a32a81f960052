//! What rules of several concerns begin with.

use super::names;
use crate::contract::{FLAG, FLAG_MASK};
use crate::nft::build::{RuleBuilder, daddr, iif, mark, ranges, rule};
use crate::nft::{Chain, Rule};

/// The chains of one concern.
pub type Chains = Vec<(&'static str, Chain)>;

/// Ethertypes of IPv4 and IPv6.
pub const ETHERTYPE: [u32; 2] = [0x0800, 0x86dd];

/// Begins a rule for packets that egressd routes.
pub fn ours() -> RuleBuilder {
    rule().is(mark().and(FLAG_MASK), FLAG)
}

/// It came in by some interface: the host's own packets have none.
pub fn forwarded(rule: RuleBuilder) -> RuleBuilder {
    rule.is_not(iif(), 0)
}

/// Begins a rule for what is inside, though an uplink leads there.
pub fn to_inside(v6: bool) -> RuleBuilder {
    rule().found(ranges(names::INSIDE), [iif(), daddr(v6)])
}

/// The rules that are there, in order.
pub fn present<const N: usize>(rules: [Option<Rule>; N]) -> Vec<Rule> {
    rules.into_iter().flatten().collect()
}
