//! How many packets our rules have dropped, by reason, interface and source: on a socket of its own, beside the loop.

use std::collections::BTreeMap;

use netlink_sys::protocols::NETLINK_NETFILTER;

use super::read::{self, ReadError, read_set};
use crate::contract::TABLE;
use crate::netlink::Channel;
use crate::nft::encode::family_number;
use crate::nft::uapi::{NFT_MSG_GETRULE, NFTA_RULE_TABLE};
use crate::nft::{Family, decode};
use crate::plan::datapath::drops;
use crate::report::drops::Drops;
use crate::wire::Message;

/// What is read, in messages about errors.
const WHAT: &str = "counters";

/// Reads the counters of our tables, and the sets that rules fill beside them. A rule that is made anew begins with 0.
///
/// # Errors
/// When nf_tables gives no answer.
pub fn drops() -> Result<Drops, ReadError> {
    let mut channel = Channel::open(NETLINK_NETFILTER).map_err(|source| ReadError::Request { what: WHAT, source })?;
    let mut all = Drops::default();
    let mut by_reason: BTreeMap<(String, Family), u64> = BTreeMap::new();
    for family in Family::ALL {
        let in_table = |w: &mut Message| w.put_text(NFTA_RULE_TABLE, TABLE);
        read::dump(&mut channel, WHAT, NFT_MSG_GETRULE, family_number(family), in_table, |message| {
            if let Some((reason, packets)) = decode::counted(message) {
                *by_reason.entry((reason.to_owned(), family)).or_default() += packets;
            }
        })?;
        for (reason, v6) in drops::counted(family) {
            read_set(&mut channel, WHAT, family, &drops::sources(reason, v6), |message| {
                for (source, packets) in decode::counted_keys(message) {
                    let Some(source) = drops::source_in(source, v6) else { continue };
                    *all.by_source.entry(source).or_default().entry(reason).or_default() += packets;
                }
            })?;
            // Those of both versions are in one.
            if v6 && family != Family::Ip6 {
                continue;
            }
            read_set(&mut channel, WHAT, family, &drops::links(reason), |message| {
                let of = |(link, packets)| Some(((reason, family.to_string(), drops::link_in(link)?), packets));
                all.by_link.extend(decode::counted_keys(message).filter_map(of));
            })?;
        }
    }
    all.by_reason = by_reason.into_iter().map(|((reason, family), packets)| (reason, family.to_string(), packets)).collect();
    Ok(all)
}
