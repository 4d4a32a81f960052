//! Changes of iptables' filter table as one batch.

use super::{Batch, Encoder, Ownership, write_rule};
use crate::nft::Family;
use crate::nft::gates::{FILTER, GateStep, pass};
use crate::nft::uapi::*;
use crate::wire::flags;

/// Encodes the steps. Messages are numbered from `first` on.
pub fn gates(first: u32, steps: &[GateStep]) -> Batch {
    let mut encoder = Encoder { table: FILTER, ownership: Ownership::Shared, first, bytes: Vec::new(), origins: Vec::new(), change: 0 };
    encoder.boundary(NFNL_MSG_BATCH_BEGIN, first);
    for (index, step) in steps.iter().enumerate() {
        encoder.change = index;
        match step {
            GateStep::InsertBefore(family, chain, handle) => encoder.pass(*family, chain, flags::CREATE, Some(*handle)),
            GateStep::Insert(family, chain) => encoder.pass(*family, chain, flags::CREATE, None),
            GateStep::Append(family, chain) => encoder.pass(*family, chain, flags::CREATE | flags::APPEND, None),
            GateStep::Delete(family, chain, handle) => encoder.message(NFT_MSG_DELRULE, 0, *family, |w| {
                w.put_text(NFTA_RULE_TABLE, FILTER);
                w.put_text(NFTA_RULE_CHAIN, chain);
                w.put(NFTA_RULE_HANDLE, &handle.to_be_bytes());
            }),
        }
    }
    encoder.end()
}

impl Encoder<'_> {
    fn pass(&mut self, family: Family, chain: &str, flags: u16, before: Option<u64>) {
        self.message(NFT_MSG_NEWRULE, flags, family, |w| {
            write_rule(w, FILTER, chain, &pass());
            if let Some(handle) = before {
                w.put(NFTA_RULE_POSITION, &handle.to_be_bytes());
            }
        });
    }
}
