//! How many packets our rules have dropped, by reason: on a socket of its own, beside the loop.

use std::collections::BTreeMap;

use netlink_sys::protocols::NETLINK_NETFILTER;

use super::read::{self, ReadError};
use crate::contract::TABLE;
use crate::netlink::Channel;
use crate::nft::encode::family_number;
use crate::nft::uapi::{NFT_MSG_GETRULE, NFTA_RULE_TABLE};
use crate::nft::{Family, decode};
use crate::report::status::Dropped;
use crate::wire::Message;

/// Reads the counters of our tables. A rule that is made anew begins with 0.
///
/// # Errors
/// When nf_tables gives no answer.
pub fn drops() -> Result<Vec<Dropped>, ReadError> {
    let mut channel = Channel::open(NETLINK_NETFILTER).map_err(|source| ReadError::Request { what: "counters", source })?;
    let mut all: BTreeMap<(String, Family), u64> = BTreeMap::new();
    for family in Family::ALL {
        let in_table = |w: &mut Message| w.put_text(NFTA_RULE_TABLE, TABLE);
        read::dump(&mut channel, "counters", NFT_MSG_GETRULE, family_number(family), in_table, |message| {
            if let Some((reason, packets)) = decode::counted(message) {
                *all.entry((reason.to_owned(), family)).or_default() += packets;
            }
        })?;
    }
    Ok(all.into_iter().map(|((reason, family), packets)| Dropped { reason, family: family.to_string(), packets }).collect())
}
