//! The fast path in the kernel: its table, and the hardware addresses that are pinned to ports of bridges for it.

use std::collections::{BTreeMap, BTreeSet};

use nix::libc;
use tracing::debug;

use super::nft::{CommitError, Nft};
use crate::facts::cause::with_causes;
use crate::model::facts::{IfIndex, KernelFacts, LinkKind, Mac};
use crate::netlink::{self, Channel, fdb, link};
use crate::nft::{Change, Family};
use crate::plan::fast_path::{Forwarding, Wanted, are_pinned, trial};

/// What this process knows of the table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum State {
    /// An earlier run may have left it.
    #[default]
    Unknown,
    Closed,
    /// As these changes made it.
    Open(Vec<Change>),
}

/// The handle of the fast path.
#[derive(Debug, Default)]
pub struct FastPath {
    state: State,
}

impl FastPath {
    /// Why the kernel has no fast path, if so. Nothing is made.
    pub fn refused(nft: &mut Nft) -> Option<String> {
        match nft.refuses(Family::Inet, trial()) {
            Ok(None) => None,
            Ok(Some(error)) => Some(format!("the kernel has no flowtables: {error}")),
            Err(error) => Some(with_causes(&error)),
        }
    }

    /// Deletes the table, so that the next packet of every flow passes all chains again.
    ///
    /// # Errors
    /// When it may still be there.
    pub fn close(&mut self, nft: &mut Nft) -> Result<(), CommitError> {
        if self.state == State::Closed {
            return Ok(());
        }
        match nft.commit_fast(&[Change::DeleteTable(Family::Inet)]) {
            Err(CommitError::Refused { source, .. }) if source.raw_os_error() == Some(libc::ENOENT) => {}
            other => other?,
        }
        debug!("the fast path is closed");
        self.state = State::Closed;
        Ok(())
    }

    /// Makes the table. It is closed.
    ///
    /// # Errors
    /// When the kernel refuses: a device may have gone meanwhile.
    pub fn open(&mut self, nft: &mut Nft, table: Vec<Change>) -> Result<(), CommitError> {
        self.state = State::Unknown;
        nft.commit_fast(&table)?;
        debug!("the fast path is open");
        self.state = State::Open(table);
        Ok(())
    }

    /// It is open.
    pub fn is_open(&self) -> bool {
        matches!(self.state, State::Open(_))
    }

    /// Whether it is open as these changes make it.
    pub fn is(&self, table: &[Change]) -> bool {
        matches!(&self.state, State::Open(open) if open == table)
    }
}

/// The hardware addresses that may be pinned to the ports whose flows are wanted, and whether all of them are.
///
/// # Errors
/// When the kernel does not answer.
pub fn pins(wanted: &Wanted, kernel: &KernelFacts) -> Result<(BTreeMap<IfIndex, Mac>, bool), netlink::Error> {
    let mut channel = Channel::open(netlink_sys::protocols::NETLINK_ROUTE)?;
    let far = far_ends(&mut channel, &wanted.bridges(), kernel)?;
    let database = channel.dump(&fdb::dump(), |message| fdb::entry(&message))?;
    let forwarding = |entry: &fdb::Entry| Forwarding { mac: entry.mac, port: entry.port, local: entry.local, pinned: entry.sticky };
    let database: Vec<Forwarding> = database.iter().map(forwarding).collect();
    let pins = wanted.pins(&far, &database);
    let pinned = are_pinned(&pins, &database);
    Ok((pins, pinned))
}

/// Pins hardware addresses to their ports. Doing it twice is no error.
///
/// # Errors
/// When the kernel refuses one: its port may have gone.
pub fn pin(pins: &BTreeMap<IfIndex, Mac>) -> Result<(), netlink::Error> {
    let mut channel = Channel::open(netlink_sys::protocols::NETLINK_ROUTE)?;
    pins.iter().try_for_each(|(port, mac)| channel.request(fdb::pin(*port, *mac), |_| {}))
}

/// Takes all pins away: what is pinned to a port that leads to the one who has that hardware address.
///
/// # Errors
/// When the kernel does not answer.
pub fn unpin(kernel: &KernelFacts) -> Result<(), netlink::Error> {
    let mut channel = Channel::open(netlink_sys::protocols::NETLINK_ROUTE)?;
    let pinned: Vec<fdb::Entry> = channel.dump(&fdb::dump(), |message| fdb::entry(&message).filter(|entry| entry.sticky))?;
    let bridges = pinned.iter().filter_map(|entry| entry.bridge).collect();
    let far = far_ends(&mut channel, &bridges, kernel)?;
    for entry in pinned.iter().filter(|entry| far.get(&entry.port) == Some(&entry.mac)) {
        // It goes with its port.
        let _ = channel.request(fdb::unpin(entry.port, entry.mac), |_| {});
    }
    Ok(())
}

/// The hardware address of the other end of each veth on these bridges. A namespace's number may be another one's by now: so the other end has to
/// say that it is the port's.
fn far_ends(channel: &mut Channel, bridges: &BTreeSet<IfIndex>, kernel: &KernelFacts) -> Result<BTreeMap<IfIndex, Mac>, netlink::Error> {
    let ports = kernel.links.values().filter(|l| l.kind == LinkKind::Veth && l.master.is_some_and(|master| bridges.contains(&master)));
    let mut far = BTreeMap::new();
    for (port, place) in ports.filter_map(|port| Some((port.index, port.far_end()?))) {
        let asked = channel.request(link::at(place), |answer| {
            let theirs = link::ends(&answer).is_some_and(|(_, peer)| peer == port);
            far.extend(link::hardware_address(&answer).filter(|_| theirs).map(|mac| (port, mac)));
        });
        match asked {
            // It went meanwhile.
            Err(error) if error.errno().is_some() => {}
            other => other?,
        }
    }
    Ok(far)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::testing::{alone, run};

    /// Whichever kernel runs it: most have flowtables.
    #[test]
    fn a_kernel_either_refuses_it_and_makes_nothing_or_opens_and_closes_it() {
        alone(|| {
            let mut nft = Nft::open().unwrap();
            let refused = FastPath::refused(&mut nft);
            assert_eq!(run("nft list tables"), "");
            let mut fast_path = FastPath::default();
            let table: Vec<Change> = [Change::AddTable(Family::Inet)].into_iter().chain(trial()).collect();
            assert_eq!(fast_path.open(&mut nft, table.clone()).err().map(drop), refused.map(drop));
            let is_there = run("nft list tables").contains("egressd-fast");
            assert_eq!((fast_path.is_open(), fast_path.is(&table)), (is_there, is_there));
            fast_path.close(&mut nft).unwrap();
            assert_eq!((run("nft list tables").as_str(), fast_path.is_open()), ("", false));
        });
    }
}
