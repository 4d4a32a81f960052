//! Which servers of published ports have as many flows as they may have: on a socket of its own, beside the loop.

use std::collections::BTreeSet;

use netlink_sys::protocols::NETLINK_NETFILTER;

use super::read::{ReadError, read_set};
use crate::model::services::LimitedServer;
use crate::netlink::Channel;
use crate::nft::{Family, decode};
use crate::plan::datapath::{admission, names};

/// What is read, in messages about errors.
const WHAT: &str = "full servers";

/// Reads the set of them, which rules fill; none where there is no such set.
///
/// # Errors
/// When nf_tables gives no answer.
pub fn full() -> Result<BTreeSet<LimitedServer>, ReadError> {
    let mut channel = Channel::open(NETLINK_NETFILTER).map_err(|source| ReadError::Request { what: WHAT, source })?;
    let mut all = BTreeSet::new();
    for v6 in [false, true] {
        read_set(&mut channel, WHAT, Family::ip(v6), names::FULL, |message| {
            all.extend(decode::keys(message).filter_map(|key| admission::server_in(key.as_slice(), v6)));
        })?;
    }
    Ok(all)
}
