//! Connections that the process dials and that come to a port of its own: a manifest may do that on purpose, and by a slip one call goes round for
//! ever. A connection is known again by the address that it was dialled from.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Ports of the process that one call may come by, one after the other.
const MOST: u8 = 8;

/// Addresses that open connections were dialled from, each with how many ports their call has come by.
#[derive(Clone, Default)]
pub struct Chains(Arc<Mutex<HashMap<SocketAddr, u8>>>);

/// One of them, as long as its connection is open.
pub struct Link {
    chains: Chains,
    from: SocketAddr,
}

impl Chains {
    /// Takes note of a connection that is dialled from an address, for a call that came from another one.
    ///
    /// # Errors
    /// When the call has come by too many ports.
    pub fn link(&self, client: SocketAddr, from: SocketAddr) -> io::Result<Link> {
        let mut all = self.lock();
        let ports = all.get(&client).map_or(1, |before| before + 1);
        if ports > MOST {
            return Err(io::Error::other("it leads back to ports of this process, round and round; let it dial the server itself"));
        }
        all.insert(from, ports);
        Ok(Link { chains: self.clone(), from })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SocketAddr, u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.chains.lock().remove(&self.from);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_goes_round_ends_and_others_go_on() {
        let (chains, at) = (Chains::default(), |port| SocketAddr::from(([127, 0, 0, 1], port)));
        let mut links = Vec::new();
        for port in 1..=u16::from(MOST) {
            links.push(chains.link(at(port - 1), at(port)).expect("it is not too long yet"));
        }
        let last = u16::from(MOST);
        assert!(chains.link(at(last), at(last + 1)).is_err());
        assert!(chains.link(at(1000), at(1001)).is_ok(), "a client of its own");
        drop(links);
        assert!(chains.link(at(last), at(last + 1)).is_ok() && chains.lock().is_empty());
    }
}
