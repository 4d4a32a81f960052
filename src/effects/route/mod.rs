//! Routes, policy rules and link groups: one step at a time on one long-lived socket (about 0.01 ms each).
//!
//! Every step says how things shall be, so doing it twice is no error.

use netlink_packet_route::link::{LinkAttribute, LinkMessage};
use nix::libc;

use crate::netlink::{self, Channel, Error, address, routing, rule};
use crate::plan::step::RouteStep;
use crate::wire::{Message, flags};

/// Bytes of `struct ifinfomsg`.
const LINK_FIXED: usize = 16;
const IFLA_BRPORT_MODE: u16 = 4;

#[cfg(test)]
mod tests;

/// The socket for routes, policy rules and addresses.
pub struct Routing {
    channel: Channel,
}

impl Routing {
    /// Opens the socket; needs `CAP_NET_ADMIN` for the steps.
    ///
    /// # Errors
    /// When the kernel gives no socket.
    pub fn open() -> Result<Self, Error> {
        Channel::open(netlink_sys::protocols::NETLINK_ROUTE).map(|channel| Self { channel })
    }

    /// Does one step. What is there already, or gone already, is a success.
    ///
    /// # Errors
    /// When the kernel refuses, with its reason.
    pub fn apply(&mut self, step: &RouteStep) -> Result<(), Error> {
        let (message, fine) = match step {
            RouteStep::AddRoute(route) => (routing::write(libc::RTM_NEWROUTE, flags::CREATE | flags::REPLACE, route), &[libc::EEXIST][..]),
            RouteStep::DeleteRoute(route) => {
                // No such route; no such device any more.
                (routing::write(libc::RTM_DELROUTE, 0, route), &[libc::ESRCH, libc::ENODEV, libc::ENOENT][..])
            }
            RouteStep::AddRule(rule) => (rule::write(libc::RTM_NEWRULE, flags::CREATE | flags::EXCL, rule), &[libc::EEXIST][..]),
            RouteStep::DeleteRule(rule) => (rule::write(libc::RTM_DELRULE, 0, rule), &[libc::ENOENT][..]),
            RouteStep::AddAddress { index, address: added } => (address::add(*index, *added), &[libc::EEXIST][..]),
            RouteStep::DeleteAddress { index, net } => (address::delete(*index, *net), &[libc::EADDRNOTAVAIL, libc::ENODEV][..]),
            RouteStep::SetGroup { index, group } => (set_group(*index, *group), &[libc::ENODEV][..]),
            // It may be on no bridge by now.
            RouteStep::SetHairpin { index, on } => (set_hairpin(*index, *on), &[libc::ENODEV, libc::EOPNOTSUPP][..]),
        };
        match self.channel.request(message, |_| {}) {
            Err(error) if error.errno().is_some_and(|e| fine.contains(&e)) => Ok(()),
            other => other,
        }
    }
}

/// `ip link set dev INDEX type bridge_slave hairpin on`: by this way, and not by `AF_BRIDGE`, the kernel tells of it as of any change of a link.
fn set_hairpin(index: u32, on: bool) -> Message {
    let mut fixed = [0; LINK_FIXED];
    fixed[4..8].copy_from_slice(&index.to_ne_bytes());
    let mut message = Message::new(libc::RTM_NEWLINK, 0, &fixed);
    message.nest(libc::IFLA_LINKINFO, |information| {
        information.put_text(libc::IFLA_INFO_SLAVE_KIND, "bridge");
        information.nest(libc::IFLA_INFO_SLAVE_DATA, |port| port.put(IFLA_BRPORT_MODE, &[u8::from(on)]));
    });
    message
}

/// `ip link set dev INDEX group GROUP`.
fn set_group(index: u32, group: u32) -> Message {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.attributes.push(LinkAttribute::Group(group));
    netlink::message(libc::RTM_SETLINK, 0, &message)
}
