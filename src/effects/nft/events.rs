//! Listens for what others do to nf_tables.

use std::io;

use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{AsyncSocket, AsyncSocketExt, TokioSocket};
use nix::libc::{ENOBUFS, MSG_DONTWAIT};

use super::ROOM;
use crate::contract::{FAST_TABLE, TABLE};
use crate::netlink;
use crate::nft::decode::any_chain;
use crate::nft::uapi::*;
use crate::plan::gates;
use crate::wire::{self, Received};

/// The kernel puts events together into datagrams of a page or two.
const DATAGRAM: usize = 64 << 10;

/// What happened since the last notice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notice {
    /// Someone else changed a table of ours.
    pub ours: bool,
    /// A NAT base chain came, or a chain or table went that may have had one (the kernel does not say).
    pub nat_chains: bool,
    /// A chain that forwarded packets may pass changed, or went.
    pub gates: bool,
    /// Rules, chains or elements of somebody else changed: what is let through may be another.
    pub others: bool,
    /// Notices were lost: anything may have happened, or nothing. A batch of ours that is larger than the receive buffer does that.
    pub lost: bool,
    /// Name of the program that did the last of it, if the kernel said.
    pub program: Option<String>,
}

impl Notice {
    fn is_empty(&self) -> bool {
        !(self.ours || self.nat_chains || self.gates || self.others || self.lost)
    }
}

/// A subscription to the changes of nf_tables in the network namespace of the thread that opened it.
pub struct NftEvents {
    socket: TokioSocket,
    own: u32,
    buffer: Vec<u8>,
}

/// Failed to subscribe, or to receive.
#[derive(Debug, thiserror::Error)]
#[error("failed to listen for changes of nf_tables")]
pub struct EventsError(#[from] io::Error);

impl NftEvents {
    /// Subscribes, within a tokio runtime. `own` is the port of the [`super::Nft`] whose changes are no news.
    pub fn open(own: u32) -> Result<Self, EventsError> {
        let mut socket = TokioSocket::new(NETLINK_NETFILTER)?;
        netlink::configure(socket.socket_mut(), ROOM)?;
        socket.socket_mut().add_membership(NFNLGRP_NFTABLES)?;
        Ok(Self { socket, own, buffer: Vec::with_capacity(DATAGRAM) })
    }

    /// Waits for news, and gives all that there is by then as one.
    pub async fn next(&mut self) -> Result<Notice, EventsError> {
        loop {
            let mut notice = Notice::default();
            self.buffer.clear();
            let mut received = self.socket.recv(&mut self.buffer).await;
            while self.take(&mut notice, received)? {
                self.buffer.clear();
                received = self.socket.socket_ref().recv(&mut self.buffer, MSG_DONTWAIT).map(drop);
            }
            if !notice.is_empty() {
                return Ok(notice);
            }
        }
    }

    /// Adds what was received; false when there was nothing more.
    fn take(&self, notice: &mut Notice, received: io::Result<()>) -> io::Result<bool> {
        match received {
            Ok(()) => {
                for message in wire::messages(&self.buffer) {
                    note(notice, self.own, &message);
                }
            }
            Err(error) if error.raw_os_error() == Some(ENOBUFS) => notice.lost = true,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error),
        }
        Ok(true)
    }
}

/// Adds to a notice what a message tells.
fn note(notice: &mut Notice, own: u32, message: &Received) {
    let Some(operation) = message.operation(NFNL_SUBSYS_NFTABLES).filter(|_| message.port != own) else {
        return;
    };
    let name = |kind| message.attribute(kind).and_then(wire::text);
    match operation {
        NFT_MSG_NEWGEN => {
            if !notice.is_empty() {
                notice.program = name(NFTA_GEN_PROC_NAME).map(str::to_owned);
            }
            return;
        }
        NFT_MSG_NEWCHAIN if name(NFTA_CHAIN_TYPE) == Some("nat") => notice.nat_chains = true,
        NFT_MSG_DELCHAIN | NFT_MSG_DELTABLE => notice.nat_chains = true,
        _ => {}
    }
    notice.gates |= match operation {
        NFT_MSG_NEWCHAIN => any_chain(message).is_some_and(|chain| gates::is_gate(&chain)),
        NFT_MSG_DELCHAIN => gates::may_hold(name(NFTA_CHAIN_NAME)),
        NFT_MSG_NEWRULE | NFT_MSG_DELRULE => gates::may_hold(name(NFTA_RULE_CHAIN)),
        NFT_MSG_DELTABLE => true,
        _ => false,
    };
    // Every kind of message has its table's name in attribute 1.
    notice.ours |= name(NFTA_TABLE_NAME) == Some(TABLE);
    notice.others |= ![Some(TABLE), Some(FAST_TABLE)].contains(&name(NFTA_TABLE_NAME));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nft::encode::message;
    use crate::wire::{Message, netfilter};

    fn notice_of(operation: u16, attributes: impl FnOnce(&mut Message)) -> Notice {
        let mut message = message(operation, 0, NFPROTO_IPV4);
        attributes(&mut message);
        let mut notice = Notice::default();
        for message in wire::messages(&message.finish(1, 0)) {
            note(&mut notice, 7, &message);
        }
        notice
    }

    #[test]
    fn a_foreign_rule_in_a_foreign_table_is_news_of_others_alone() {
        let notice = notice_of(NFT_MSG_NEWRULE, |w| w.put_text(NFTA_RULE_TABLE, "nat"));
        assert_eq!(notice, Notice { others: true, ..Notice::default() });
        assert!(notice_of(NFT_MSG_NEWRULE, |w| w.put_text(NFTA_RULE_TABLE, FAST_TABLE)).is_empty());
    }

    #[test]
    fn a_foreign_element_in_our_table_is_news() {
        let notice = notice_of(NFT_MSG_NEWSETELEM, |w| w.put_text(NFTA_SET_ELEM_LIST_TABLE, TABLE));
        assert_eq!(notice, Notice { ours: true, ..Notice::default() });
    }

    #[test]
    fn a_new_nat_chain_is_told_of_and_a_new_filter_chain_is_none() {
        let chain = |kind: &'static str| {
            notice_of(NFT_MSG_NEWCHAIN, move |w| {
                w.put_text(NFTA_CHAIN_TABLE, "other");
                w.put_text(NFTA_CHAIN_TYPE, kind);
            })
        };
        assert!(chain("nat").nat_chains);
        assert!(!chain("filter").nat_chains);
    }

    #[test]
    fn our_own_change_is_no_news() {
        let mut notice = Notice::default();
        let message =
            Received { kind: netfilter::kind(NFNL_SUBSYS_NFTABLES, NFT_MSG_DELTABLE), flags: 0, sequence: 1, port: 7, payload: &[] };
        note(&mut notice, 7, &message);
        assert!(notice.is_empty());
    }
}
