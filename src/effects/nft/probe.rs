//! Finds out what the kernel would take, by batches that fail whatever comes of it, because each also deletes a table that is not there. So
//! nothing ever is made.

use std::io;

use super::{CommitError, Nft};
use crate::contract::TABLE;
use crate::netlink::Channel;
use crate::nft::encode::{self, Batch, Ownership};
use crate::nft::{Change, Family};
use crate::wire::Refusal;

impl Nft {
    /// Tries changes in a table of their own (`changes` begin with its first chain or set), and gives the error of the first that the kernel refuses.
    /// Whether a rule may stand in a chain of that type is not seen: the kernel looks at that only when all else is right.
    ///
    /// # Errors
    /// When nothing can be tried at all: no `CAP_NET_ADMIN` in this namespace, or the socket failed.
    pub fn refuses(&mut self, family: Family, changes: Vec<Change>) -> Result<Option<io::Error>, CommitError> {
        let all = trial(family, changes);
        let (batch, refusals) = attempt(&mut self.channel, self.ownership, &all)?;
        let mut refused = refusals.iter().filter_map(|refusal| Some((batch.origin(refusal.sequence)?, refusal.errno)));
        // The last deletion always is.
        let first = refused.find(|(origin, _)| *origin + 1 < all.len());
        Ok(first.map(|(_, errno)| io::Error::from_raw_os_error(errno)))
    }
}

/// Whether tables can have an owner that they outlive.
pub(super) fn ownership(channel: &mut Channel) -> Result<Ownership, CommitError> {
    let (batch, refusals) = attempt(channel, Ownership::Exclusive, &trial(Family::Ip, Vec::new()))?;
    let unsupported = refusals.iter().any(|refusal| batch.origin(refusal.sequence) == Some(0));
    Ok(if unsupported { Ownership::Shared } else { Ownership::Exclusive })
}

/// The second deletion finds nothing.
fn trial(family: Family, changes: Vec<Change>) -> Vec<Change> {
    let (add, delete) = (Change::AddTable(family), Change::DeleteTable(family));
    [add].into_iter().chain(changes).chain([delete.clone(), delete]).collect()
}

fn attempt(channel: &mut Channel, ownership: Ownership, changes: &[Change]) -> Result<(Batch, Vec<Refusal>), CommitError> {
    let batch = encode::batch(&format!("{TABLE}-probe"), ownership, channel.next_sequence(), changes);
    let refusals = channel.commit(&batch.bytes, batch.sequences())?;
    match refusals.iter().find(|refusal| batch.origin(refusal.sequence).is_none()) {
        Some(refusal) => {
            Err(CommitError::Batch { explanation: refusal.explanation.clone(), source: io::Error::from_raw_os_error(refusal.errno) })
        }
        None => Ok((batch, refusals)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::testing::{alone, run};
    use crate::nft::build::{constant, oif, rule};
    use crate::nft::{Base, ChainKind, Hook};

    #[test]
    fn what_the_kernel_would_refuse_is_known_and_nothing_is_made() {
        alone(|| {
            let mut nft = Nft::open().unwrap();
            let mut refused = |rule| {
                let base = Base { kind: ChainKind::Nat, hook: Hook::Postrouting, priority: 95 };
                let chain = Change::AddChain(Family::Ip, "c".to_owned(), Some(base));
                let changes = vec![chain, Change::AddRule(Family::Ip, "c".to_owned(), rule)];
                nft.refuses(Family::Ip, changes).unwrap().and_then(|error| error.raw_os_error())
            };
            assert_eq!(refused(rule().snat(Family::Ip, constant(0))), None);
            assert_eq!(refused(rule().found("no-such-set", [oif()]).drop()), Some(nix::libc::ENOENT));
            assert_eq!(run("nft list tables"), "");
        });
    }
}
