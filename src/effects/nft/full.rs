//! Which servers of published ports have as many flows as they may have: on a socket of its own, beside the loop.

use std::collections::BTreeSet;

use netlink_sys::protocols::NETLINK_NETFILTER;
use nix::libc::ENOENT;

use super::read::{self, ReadError};
use crate::contract::TABLE;
use crate::model::services::LimitedServer;
use crate::netlink::Channel;
use crate::nft::encode::family_number;
use crate::nft::uapi::{NFT_MSG_GETSETELEM, NFTA_SET_ELEM_LIST_SET, NFTA_SET_ELEM_LIST_TABLE};
use crate::nft::{Family, decode};
use crate::plan::datapath::{admission, names};
use crate::wire::Message;

/// Reads the set of them, which rules fill; none where there is no such set.
///
/// # Errors
/// When nf_tables gives no answer.
pub fn full() -> Result<BTreeSet<LimitedServer>, ReadError> {
    let mut channel = Channel::open(NETLINK_NETFILTER).map_err(|source| ReadError::Request { what: "full servers", source })?;
    let mut all = BTreeSet::new();
    for v6 in [false, true] {
        let in_set = |w: &mut Message| {
            w.put_text(NFTA_SET_ELEM_LIST_TABLE, TABLE);
            w.put_text(NFTA_SET_ELEM_LIST_SET, names::FULL);
        };
        let family = family_number(Family::ip(v6));
        let read = read::dump(&mut channel, "full servers", NFT_MSG_GETSETELEM, family, in_set, |message| {
            all.extend(decode::keys(message).filter_map(|key| admission::server_in(key.as_slice(), v6)));
        });
        match read {
            Err(ReadError::Request { source, .. }) if source.errno() == Some(ENOENT) => {}
            other => other?,
        }
    }
    Ok(all)
}
