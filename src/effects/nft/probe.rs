//! Finds out what the kernel would take, by batches that fail whatever comes of it, because each also deletes a table that is not there. So nothing ever is made.

use std::io;

use super::socket::{Refusal, Socket};
use super::{CommitError, Nft};
use crate::contract::TABLE;
use crate::nft::encode::{self, Batch, Ownership};
use crate::nft::{Change, Family};

impl Nft {
    /// Tries changes in a table of their own (`changes` begin with its first chain or set), and gives the error of the first that the kernel refuses.
    /// Whether a rule may stand in a chain of that type is not seen: the kernel looks at that only when all else is right.
    ///
    /// # Errors
    /// When nothing can be tried at all: no `CAP_NET_ADMIN` in this namespace, or the socket failed.
    pub fn refuses(&mut self, family: Family, changes: Vec<Change>) -> Result<Option<io::Error>, CommitError> {
        let all = trial(family, changes);
        let (batch, refusals) = attempt(&mut self.socket, self.ownership, &all)?;
        let mut refused = refusals.iter().filter_map(|refusal| Some((batch.origin(refusal.sequence)?, refusal.errno)));
        // The last deletion always is.
        let first = refused.find(|(origin, _)| *origin + 1 < all.len());
        Ok(first.map(|(_, errno)| io::Error::from_raw_os_error(errno)))
    }
}

/// Whether tables can have an owner that they outlive.
pub(super) fn ownership(socket: &mut Socket) -> io::Result<Ownership> {
    let tried = attempt(socket, Ownership::Exclusive, &trial(Family::Ip, Vec::new()));
    let (batch, refusals) = tried.map_err(|error| match error {
        CommitError::Send(source) | CommitError::Receive(source) | CommitError::Batch { source, .. } => source,
        other => io::Error::other(other),
    })?;
    let unsupported = refusals.iter().any(|refusal| batch.origin(refusal.sequence) == Some(0));
    Ok(if unsupported { Ownership::Shared } else { Ownership::Exclusive })
}

/// The second deletion finds nothing.
fn trial(family: Family, changes: Vec<Change>) -> Vec<Change> {
    let (add, delete) = (Change::AddTable(family), Change::DeleteTable(family));
    [add].into_iter().chain(changes).chain([delete.clone(), delete]).collect()
}

fn attempt(socket: &mut Socket, ownership: Ownership, changes: &[Change]) -> Result<(Batch, Vec<Refusal>), CommitError> {
    let batch = encode::batch(&format!("{TABLE}-probe"), ownership, socket.next_sequence(), changes);
    let refusals = socket.commit(&batch)?;
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
