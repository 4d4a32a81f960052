//! Chains of others that forwarded packets pass: read with their rules, and one rule of ours put into iptables' filter table.

use std::io;

use super::read::dump;
use super::{CommitError, Nft, ReadError};
use crate::model::isolated::LINKS;
use crate::nft::decode::{self, AnyChain};
use crate::nft::gates::{Gate, GateStep, asks_for_link, rule};
use crate::nft::uapi::*;
use crate::nft::{Family, encode};
use crate::plan::gates::{FIREWALLD, Wanted, is_gate};
use crate::wire::{Message, Received};

impl Nft {
    /// The chains that what is wanted concerns, with their rules.
    ///
    /// # Errors
    /// When nf_tables gives no answer.
    pub fn gates(&mut self, wanted: &Wanted) -> Result<Vec<Gate>, ReadError> {
        let chains: Vec<AnyChain> = self.chains()?.into_iter().filter(|chain| is_gate(chain) && wanted.concern(chain)).collect();
        chains.into_iter().map(|chain| self.gate(chain)).collect()
    }

    fn gate(&mut self, chain: AnyChain) -> Result<Gate, ReadError> {
        let number = match chain.family {
            "inet" => NFPROTO_INET,
            "ip6" => encode::family_number(Family::Ip6),
            _ => encode::family_number(Family::Ip),
        };
        let in_table = |w: &mut Message| w.put_text(NFTA_RULE_TABLE, &chain.table);
        let in_chain = |w: &mut Message| {
            in_table(w);
            w.put_text(NFTA_RULE_CHAIN, &chain.chain);
        };
        let mut rules = Vec::new();
        dump(&mut self.channel, "rules", NFT_MSG_GETRULE, number, in_chain, |message| rules.extend(rule(message, decode::comment)))?;
        let mut trusts_programs = false;
        // It asks for interfaces in chains that its own in `forward` jumps to.
        if chain.table == FIREWALLD {
            let names = |message: &Received| trusts_programs |= asks_for_link(message, LINKS);
            dump(&mut self.channel, "rules", NFT_MSG_GETRULE, number, in_table, names)?;
        }
        Ok(Gate { chain, rules, trusts_programs })
    }

    /// Carries the steps out, all or none.
    ///
    /// # Errors
    /// When nf_tables refuses one of them.
    pub fn change_gates(&mut self, steps: &[GateStep]) -> Result<(), CommitError> {
        if steps.is_empty() {
            return Ok(());
        }
        let batch = encode::gates(self.channel.next_sequence(), steps);
        let refusals = self.channel.commit(&batch.bytes, batch.sequences())?;
        let Some(first) = refusals.first() else { return Ok(()) };
        let (source, explanation) = (io::Error::from_raw_os_error(first.errno), first.explanation.clone());
        let step = batch.origin(first.sequence).and_then(|origin| steps.get(origin));
        Err(match step {
            Some(step) => CommitError::Refused { change: step.to_string(), index: None, refused: refusals.len(), explanation, source },
            None => CommitError::Batch { explanation, source },
        })
    }
}
