//! Reads our tables, and the chains of everybody.

use nix::libc::ENOENT;

use super::{Nft, Standing};
use crate::contract::TABLE;
use crate::netlink::{self, Channel};
use crate::nft::decode::{self, AnyChain, Malformed};
use crate::nft::encode::{Ownership, family_number, message};
use crate::nft::uapi::*;
use crate::nft::{Family, Ruleset};
use crate::wire::{Message, Received, flags, number_be};

/// A read takes milliseconds, and other programs' changes come seconds apart. One that writes all the time is given up on.
const ATTEMPTS: u32 = 20;

/// Why our tables could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("failed to ask nf_tables for its {what}")]
    Request {
        what: &'static str,
        #[source]
        source: netlink::Error,
    },
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error("nf_tables did not say its generation")]
    NoGeneration,
    #[error("failed to read nf_tables: it changed during each of {ATTEMPTS} attempts")]
    Torn,
}

impl Nft {
    /// Our tables, as they are. A table that the next commit is to replace whole, because it was made without an owner, counts as not there.
    pub fn read(&mut self) -> Result<Ruleset, ReadError> {
        self.consistently(Self::read_once)
    }

    /// Every chain of every table.
    pub fn chains(&mut self) -> Result<Vec<AnyChain>, ReadError> {
        self.consistently(|nft| {
            let mut chains = Vec::new();
            dump(&mut nft.channel, "chains", NFT_MSG_GETCHAIN, 0, |_| {}, |message| chains.extend(decode::any_chain(message)))?;
            Ok(chains)
        })
    }

    /// The number of the ruleset's generation: each transaction of anyone in this namespace makes a new one.
    pub fn generation(&mut self) -> Result<u32, ReadError> {
        let mut generation = None;
        let asked = self.channel.request(message(NFT_MSG_GETGEN, 0, 0), |message| {
            generation = message.attribute(NFTA_GEN_ID).and_then(number_be);
        });
        asked.map_err(|source| ReadError::Request { what: "generation", source })?;
        generation.ok_or(ReadError::NoGeneration)
    }

    /// Dumps are several requests and many datagrams. A torn one of elements is told by a generation that changed meanwhile, and by elements that
    /// come twice.
    fn consistently<T>(&mut self, read: impl Fn(&mut Self) -> Result<T, ReadError>) -> Result<T, ReadError> {
        for _ in 0..ATTEMPTS {
            let before = self.generation()?;
            let result = read(self);
            if self.generation()? == before && !matches!(result, Err(ReadError::Torn)) {
                return result;
            }
        }
        Err(ReadError::Torn)
    }

    fn read_once(&mut self) -> Result<Ruleset, ReadError> {
        self.read_standings()?;
        let mut ruleset = Ruleset::default();
        let present: Vec<Family> =
            self.tables.iter().filter_map(|(family, standing)| (*standing != Standing::Unowned).then_some(*family)).collect();
        for family in present {
            let in_table = |w: &mut Message| w.put_text(NFTA_TABLE_NAME, TABLE);
            ruleset.tables.insert(family, Default::default());
            self.absorb(&mut ruleset, "chains", NFT_MSG_GETCHAIN, family, in_table)?;
            self.absorb(&mut ruleset, "rules", NFT_MSG_GETRULE, family, in_table)?;
            self.absorb(&mut ruleset, "sets", NFT_MSG_GETSET, family, in_table)?;
            let sets = ruleset.tables[&family].sets.iter().filter(|(_, set)| set.by_rules.is_none());
            let sets: Vec<String> = sets.map(|(name, _)| name.clone()).collect();
            for set in sets {
                self.absorb(&mut ruleset, "elements", NFT_MSG_GETSETELEM, family, |w| {
                    in_table(w);
                    w.put_text(NFTA_SET_ELEM_LIST_SET, &set);
                })?;
            }
        }
        Ok(ruleset)
    }

    fn read_standings(&mut self) -> Result<(), ReadError> {
        let (port, ownership) = (self.channel.port(), self.ownership);
        let mut tables = std::mem::take(&mut self.tables);
        tables.clear();
        dump(
            &mut self.channel,
            "tables",
            NFT_MSG_GETTABLE,
            0,
            |_| {},
            |message| {
                let head = decode::table(message).filter(|head| head.name == TABLE);
                if let (Some(family), Some(head)) = (decode::family(message), head) {
                    tables.insert(family, standing(&head, port, ownership));
                }
            },
        )?;
        self.tables = tables;
        Ok(())
    }

    fn absorb(
        &mut self,
        ruleset: &mut Ruleset,
        what: &'static str,
        operation: u16,
        family: Family,
        attributes: impl FnOnce(&mut Message),
    ) -> Result<(), ReadError> {
        let mut outcome = Ok(true);
        dump(&mut self.channel, what, operation, family_number(family), attributes, |message| {
            if outcome == Ok(true) {
                outcome = decode::absorb(ruleset, TABLE, message);
            }
        })?;
        if outcome? { Ok(()) } else { Err(ReadError::Torn) }
    }
}

/// Asks for all objects of a kind.
pub fn dump(
    channel: &mut Channel,
    what: &'static str,
    operation: u16,
    family: u8,
    attributes: impl FnOnce(&mut Message),
    mut each: impl FnMut(&Received),
) -> Result<(), ReadError> {
    let mut request = message(operation, flags::DUMP, family);
    attributes(&mut request);
    match channel.request(request, |message| each(&message)) {
        Err(netlink::Error::Restless) => Err(ReadError::Torn),
        other => other.map_err(|source| ReadError::Request { what, source }),
    }
}

/// Asks for the elements of a set of ours; there may be none.
pub fn read_set(
    channel: &mut Channel,
    what: &'static str,
    family: Family,
    set: &str,
    each: impl FnMut(&Received),
) -> Result<(), ReadError> {
    let in_set = |w: &mut Message| {
        w.put_text(NFTA_SET_ELEM_LIST_TABLE, TABLE);
        w.put_text(NFTA_SET_ELEM_LIST_SET, set);
    };
    match dump(channel, what, NFT_MSG_GETSETELEM, family_number(family), in_set, each) {
        Err(ReadError::Request { source, .. }) if source.errno() == Some(ENOENT) => Ok(()),
        other => other,
    }
}

fn standing(head: &decode::TableHead, port: u32, ownership: Ownership) -> Standing {
    match ownership {
        Ownership::Shared => Standing::Ours,
        Ownership::Exclusive if head.flags & NFT_TABLE_F_OWNER != 0 => match head.owner {
            Some(owner) if owner != port => Standing::Owned,
            _ => Standing::Ours,
        },
        // The kernel takes the owner's flag off when its socket is closed.
        Ownership::Exclusive if head.flags & NFT_TABLE_F_PERSIST != 0 => Standing::Orphan,
        Ownership::Exclusive => Standing::Unowned,
    }
}
