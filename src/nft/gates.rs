//! Chains of others that forwarded packets pass, and a rule of ours in them: the only thing of ours outside our tables.
//!
//! No chain can overrule another one's drop. So what is to pass a firewall needs a rule in a chain of its own, by the mark that our chain ahead
//! of all filters gives.

use std::fmt;

use super::decode::AnyChain;
use super::uapi::*;
use super::{Expr, Family, Rule, Verdict};
use crate::contract::{FORWARDED_MARK, FORWARDED_MASK};
use crate::wire::{Received, attributes, find, number_be, text};

/// The comment of a rule of ours, by which it is known.
pub const TAG: &str = "egressd";
/// The table of iptables that filters.
pub const FILTER: &str = "filter";

/// A chain that forwarded packets pass, with its rules in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gate {
    pub chain: AnyChain,
    pub rules: Vec<GateRule>,
    /// It is firewalld's, which has rules for the links of programs in network namespaces.
    pub trusts_programs: bool,
}

/// A rule of such a chain, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GateRule {
    pub handle: u64,
    /// It is ours, by its comment.
    pub ours: bool,
    /// It asks for the mark: somebody lets these flows through.
    pub asks: bool,
    /// What it does whatever the packet is.
    pub decides: Option<Decision>,
}

/// What a rule does with every packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    Returns,
    /// It drops or rejects.
    Refuses,
}

impl Gate {
    /// What no rule of the chain lets through ends here: by its policy, or by its last rule.
    pub fn refuses(&self) -> bool {
        self.chain.drops || self.rules.last().is_some_and(|rule| rule.decides == Some(Decision::Refuses))
    }
}

/// A change in iptables' filter table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GateStep {
    /// Puts our rule ahead of the rule with this handle.
    InsertBefore(Family, String, u64),
    /// Puts our rule ahead of all.
    Insert(Family, String),
    /// Puts our rule behind all.
    Append(Family, String),
    Delete(Family, String, u64),
}

impl fmt::Display for GateStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InsertBefore(family, chain, _) | Self::Insert(family, chain) | Self::Append(family, chain) => {
                write!(f, "accept flows with egressd's mark in {family} {FILTER} {chain}")
            }
            Self::Delete(family, chain, _) => write!(f, "remove the rule for egressd's mark from {family} {FILTER} {chain}"),
        }
    }
}

/// `-m mark --mark 0x280/0xffff0f80 -j ACCEPT`, in the form that every version of iptables understands.
pub fn pass() -> Rule {
    let exprs = vec![Expr::XtMark { mark: FORWARDED_MARK, mask: FORWARDED_MASK }, Expr::Counter, Expr::Verdict(Verdict::Accept)];
    Rule { exprs, tag: TAG.to_owned() }
}

/// The rule that a message tells of, with the comment that `comment` finds in its user data.
pub fn rule<'a>(message: &Received<'a>, comment: impl Fn(&'a [u8]) -> Option<&'a str>) -> Option<GateRule> {
    let handle = u64::from_be_bytes(*message.attribute(NFTA_RULE_HANDLE)?.first_chunk()?);
    let expressions = message.attribute(NFTA_RULE_EXPRESSIONS).unwrap_or_default();
    let mark = FORWARDED_MARK.to_ne_bytes();
    Some(GateRule {
        handle,
        ours: message.attribute(NFTA_RULE_USERDATA).and_then(comment) == Some(TAG),
        asks: expressions.windows(mark.len()).any(|bytes| bytes == mark),
        decides: decides(expressions),
    })
}

/// Whether the rule that a message tells of asks for an interface whose name is, or begins with, this.
pub fn asks_for_link(message: &Received<'_>, name: &str) -> bool {
    let expressions = message.attribute(NFTA_RULE_EXPRESSIONS).unwrap_or_default();
    expressions.windows(name.len()).any(|bytes| bytes == name.as_bytes())
}

/// What a rule does with every packet, if it does no more than to count, to log and to decide.
fn decides(expressions: &[u8]) -> Option<Decision> {
    let mut decision = None;
    for (_, expr) in attributes(expressions) {
        match find(expr, NFTA_EXPR_NAME).and_then(text) {
            Some("counter" | "log") => {}
            Some("reject") => decision = Some(Decision::Refuses),
            Some("immediate") => {
                let data = find(expr, NFTA_EXPR_DATA).and_then(|body| find(body, NFTA_IMMEDIATE_DATA));
                let verdict = data.and_then(|data| find(data, NFTA_DATA_VERDICT)).and_then(|verdict| find(verdict, NFTA_VERDICT_CODE));
                decision = match verdict.and_then(number_be) {
                    Some(NFT_RETURN) => Some(Decision::Returns),
                    Some(NF_DROP) => Some(Decision::Refuses),
                    _ => None,
                };
            }
            _ => return None,
        }
    }
    decision
}
