//! The nf_tables socket: commits changes, reads our tables back, and listens for what others do to them.
//!
//! One socket for the daemon's lifetime. It owns the tables where the kernel has that (5.12; surviving the owner: 6.9), and closing one
//! after a deletion waits for the kernel's grace period, 5 to 14 ms.

mod drops;
mod events;
mod full;
mod gates;
mod probe;
mod read;

use std::collections::BTreeMap;
use std::io;

use netlink_sys::protocols::NETLINK_NETFILTER;
use tracing::{debug, trace};

pub use drops::drops;
pub use events::{EventsError, NftEvents, Notice};
pub use full::full;
pub use read::ReadError;

use crate::contract::{FAST_TABLE, TABLE};
use crate::netlink::{self, Channel, Room};
use crate::nft::encode::{self, Batch, Ownership};
use crate::nft::{Change, Family};
use crate::wire::Refusal;

/// A batch is one datagram: 100,000 elements are about 8 MiB. Its errors, or the events of other programs' batches, are all queued before the
/// first is read.
const ROOM: Room = Room { send: 64 << 20, receive: 16 << 20 };

/// The kernel's nf_tables, in the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct Nft {
    channel: Channel,
    ownership: Ownership,
    tables: BTreeMap<Family, Standing>,
}

/// How a table that is there stands to this socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// As this socket made or took it.
    Ours,
    /// Left by a socket that is closed: to be taken over.
    Orphan,
    /// Made without an owner, which cannot be changed later: to be replaced.
    Unowned,
    /// Another socket's.
    Owned,
}

/// What a commit did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Committed {
    /// Netlink messages, those that took tables over included.
    pub messages: usize,
    pub bytes: usize,
}

/// Why a commit did nothing at all.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    #[error("failed to hand the batch to nf_tables")]
    Socket(#[from] netlink::Error),
    /// `EPERM` (no `CAP_NET_ADMIN` in this namespace) and the like.
    #[error("failed to start the batch{}", explained(.explanation))]
    Batch {
        explanation: Option<String>,
        #[source]
        source: io::Error,
    },
    /// The first change that the kernel refused, in the order of the batch. `EPERM`: the table is another process's.
    #[error("failed to {change}{}", explained(.explanation))]
    Refused {
        /// The change in words.
        change: String,
        /// Its index; `None` for a step that was put in front to take over or replace a table.
        index: Option<usize>,
        /// How many messages were refused in all.
        refused: usize,
        /// What the kernel says of it.
        explanation: Option<String>,
        #[source]
        source: io::Error,
    },
}

fn explained(explanation: &Option<String>) -> String {
    explanation.as_ref().map(|text| format!(" ({text})")).unwrap_or_default()
}

/// Failed to open the socket, or to find out what the kernel supports.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("failed to open an nf_tables socket")]
    Socket(#[from] netlink::Error),
    #[error("failed to find out whether nf_tables has owners of tables")]
    Ownership(#[from] CommitError),
}

impl Nft {
    /// Opens the socket and finds out whether tables can have an owner that they outlive. Changes nothing.
    pub fn open() -> Result<Self, OpenError> {
        let mut channel = Channel::open_with(NETLINK_NETFILTER, ROOM)?;
        let ownership = probe::ownership(&mut channel)?;
        debug!(port = channel.port(), ?ownership, "opened the nf_tables socket");
        Ok(Self { channel, ownership, tables: BTreeMap::new() })
    }

    /// This socket's netlink port, by which [`NftEvents`] knows our own changes.
    pub fn port(&self) -> u32 {
        self.channel.port()
    }

    /// Whom the tables let change them.
    pub fn ownership(&self) -> Ownership {
        self.ownership
    }

    /// Applies all changes at once, or none. Tables that [`Nft::read`] found without their owner are taken over in the same batch, and for
    /// that it is worth calling with no changes.
    pub fn commit(&mut self, changes: &[Change]) -> Result<Committed, CommitError> {
        let prelude = self.prelude(changes);
        if prelude.is_empty() && changes.is_empty() {
            return Ok(Committed::default());
        }
        let batch = self.hand_over(TABLE, &prelude, changes)?;
        for change in prelude.iter().chain(changes) {
            match change {
                Change::AddTable(family) => {
                    self.tables.insert(*family, Standing::Ours);
                }
                Change::DeleteTable(family) => {
                    self.tables.remove(family);
                }
                change => trace!(%change, "committed"),
            }
        }
        Ok(Committed { messages: batch.messages(), bytes: batch.bytes.len() })
    }

    /// Applies all changes of the fast path's table at once, or none.
    pub fn commit_fast(&mut self, changes: &[Change]) -> Result<(), CommitError> {
        self.hand_over(FAST_TABLE, &[], changes).map(drop)
    }

    /// Hands the kernel one batch of changes of tables with this name.
    fn hand_over(&mut self, table: &str, prelude: &[Change], changes: &[Change]) -> Result<Batch, CommitError> {
        let batch = encode::batch(table, self.ownership, self.channel.next_sequence(), prelude.iter().chain(changes));
        let refusals = self.channel.commit(&batch.bytes, batch.sequences())?;
        match refusals.first() {
            Some(first) => Err(refused(first, refusals.len(), &batch, prelude, changes)),
            None => Ok(batch),
        }
    }

    /// What has to come first so that our tables are owned by this socket.
    fn prelude(&self, changes: &[Change]) -> Vec<Change> {
        let mut prelude = Vec::new();
        for (family, standing) in &self.tables {
            match standing {
                Standing::Orphan if !changes.contains(&Change::DeleteTable(*family)) => prelude.push(Change::AddTable(*family)),
                Standing::Unowned if changes.contains(&Change::AddTable(*family)) => prelude.push(Change::DeleteTable(*family)),
                _ => {}
            }
        }
        prelude
    }
}

fn refused(first: &Refusal, refused: usize, batch: &Batch, prelude: &[Change], changes: &[Change]) -> CommitError {
    let source = io::Error::from_raw_os_error(first.errno);
    let explanation = first.explanation.clone();
    let Some(origin) = batch.origin(first.sequence) else {
        return CommitError::Batch { explanation, source };
    };
    let index = origin.checked_sub(prelude.len());
    let change = index.map_or_else(|| &prelude[origin], |index| &changes[index]).to_string();
    CommitError::Refused { change, index, refused, explanation, source }
}
