//! Routes, policy rules and link groups: one step at a time on one long-lived socket (about 0.01 ms each).
//!
//! Every step says how things shall be, so doing it twice is no error.

use nix::libc;

use crate::model::facts::{Family, Route, RouteKind, Rule};
use crate::netlink::{self, Channel, Message, routing, rule};
use crate::plan::step::RouteStep;

#[cfg(test)]
mod tests;

/// What went wrong, with the object in the words of `ip`.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("failed to open a socket for routes and rules")]
    Open(#[source] netlink::Error),
    #[error("failed to {verb} {object}")]
    Step {
        verb: &'static str,
        object: String,
        #[source]
        source: netlink::Error,
    },
}

/// The hands that change routing.
pub struct Routing {
    channel: Channel,
}

impl Routing {
    /// Opens the socket; needs `CAP_NET_ADMIN` for the steps.
    ///
    /// # Errors
    /// When the kernel gives no socket.
    pub fn open() -> Result<Self, Error> {
        Channel::open(netlink_sys::protocols::NETLINK_ROUTE).map(|channel| Self { channel }).map_err(Error::Open)
    }

    /// Does one step. What is there already, or gone already, is a success.
    ///
    /// # Errors
    /// When the kernel refuses, with its reason.
    pub fn apply(&mut self, step: &RouteStep) -> Result<(), Error> {
        let (verb, message, fine) = match step {
            RouteStep::AddRoute(route) => {
                let flags = libc::NLM_F_CREATE | libc::NLM_F_REPLACE;
                ("add", routing::write(libc::RTM_NEWROUTE, flags, route), &[libc::EEXIST][..])
            }
            RouteStep::DeleteRoute(route) => {
                // No such route; no such device any more.
                ("delete", routing::write(libc::RTM_DELROUTE, 0, route), &[libc::ESRCH, libc::ENODEV, libc::ENOENT][..])
            }
            RouteStep::AddRule(rule) => {
                let flags = libc::NLM_F_CREATE | libc::NLM_F_EXCL;
                ("add", rule::write(libc::RTM_NEWRULE, flags, rule), &[libc::EEXIST][..])
            }
            RouteStep::DeleteRule(rule) => ("delete", rule::write(libc::RTM_DELRULE, 0, rule), &[libc::ENOENT][..]),
            RouteStep::SetGroup { index, group } => ("set", set_group(*index, *group), &[][..]),
        };
        match self.channel.request(message, |_| {}) {
            Err(error) if error.errno().is_some_and(|e| fine.contains(&e)) => Ok(()),
            other => other.map_err(|source| Error::Step { verb, object: name(step), source }),
        }
    }
}

/// `ip link set dev INDEX group GROUP`.
fn set_group(index: u32, group: u32) -> Message {
    // struct ifinfomsg: family, pad, type, index, flags, change.
    let mut head = [0; 16];
    head[4..8].copy_from_slice(&index.to_ne_bytes());
    let mut message = Message::new(libc::RTM_SETLINK, 0, &head);
    message.put_u32(libc::IFLA_GROUP, group);
    message
}

/// The object of a step, as `ip` would name it.
fn name(step: &RouteStep) -> String {
    match step {
        RouteStep::AddRoute(route) | RouteStep::DeleteRoute(route) => name_route(route),
        RouteStep::AddRule(rule) | RouteStep::DeleteRule(rule) => name_rule(rule),
        RouteStep::SetGroup { index, group } => format!("link with index {index} group {group:#x}"),
    }
}

fn name_route(route: &Route) -> String {
    let mut words = match route.kind {
        RouteKind::Unicast => format!("route {}", route.destination),
        RouteKind::Unreachable => format!("route unreachable {}", route.destination),
        RouteKind::Blackhole => format!("route blackhole {}", route.destination),
        RouteKind::Prohibit => format!("route prohibit {}", route.destination),
        RouteKind::Throw => format!("route throw {}", route.destination),
        RouteKind::Other(kind) => format!("route type {kind} {}", route.destination),
    };
    if let Some(gateway) = route.gateway {
        words += &format!(" via {gateway}");
    }
    if let Some(index) = route.interface {
        words += &format!(" dev (index {index})");
    }
    words += &format!(" table {} metric {}", route.table, route.metric);
    if let Some(source) = route.source {
        words += &format!(" src {source}");
    }
    if let Some(mtu) = route.mtu() {
        words += &format!(" mtu {mtu}");
    }
    if route.onlink {
        words += " onlink";
    }
    words
}

fn name_rule(rule: &Rule) -> String {
    let family = if rule.family == Family::V4 { "-4" } else { "-6" };
    let mut words = format!("rule ({family}) pref {}", rule.preference);
    if let Some(from) = rule.from {
        words += &format!(" from {from}");
    }
    match (rule.mark, rule.mask) {
        (Some(mark), Some(mask)) => words += &format!(" fwmark {mark:#x}/{mask:#x}"),
        (Some(mark), None) => words += &format!(" fwmark {mark:#x}"),
        _ => {}
    }
    words += &format!(" lookup {}", rule.table);
    if let Some(length) = rule.suppress_prefix_length {
        words += &format!(" suppress_prefixlength {length}");
    }
    if let Some(group) = rule.suppress_group {
        words += &format!(" suppress_ifgroup {group:#x}");
    }
    words
}
