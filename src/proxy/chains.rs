//! Connections that the process dials and that come to a port of its own: a manifest may do that on purpose, and by a slip one call goes round for
//! ever. A connection is known again by the address that it was dialled from.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Ports of the process that one call may come by, one after the other.
const MOST: u8 = 8;
/// How long an address is remembered whose connection has ended: it may wait to be accepted still.
const REMEMBERED: Duration = Duration::from_secs(2);

/// Addresses that connections were dialled from, each with how many ports their call has come by.
#[derive(Clone, Default)]
pub struct Chains(Arc<Mutex<All>>);

#[derive(Default)]
struct All {
    dialled: HashMap<SocketAddr, Dialled>,
    /// Those whose connection has ended, the first one first.
    ended: VecDeque<(Instant, SocketAddr)>,
}

struct Dialled {
    ports: u8,
    open: bool,
}

/// One of them, as long as its connection is open.
pub struct Link {
    chains: Chains,
    from: SocketAddr,
}

impl Chains {
    /// Dials for a call that came from `client`: `begin` sends the first packet and returns the address that it has. Whoever accepts that connection asks
    /// here, and is answered once it is known.
    ///
    /// # Errors
    /// When the call has come by too many ports, or `begin` fails.
    pub fn dial(&self, client: SocketAddr, begin: impl FnOnce() -> io::Result<SocketAddr>) -> io::Result<Link> {
        let mut all = self.lock();
        all.forget(Instant::now());
        let ports = all.dialled.get(&client).map_or(1, |before| before.ports + 1);
        if ports > MOST {
            return Err(io::Error::other(
                "the connection is a loop through ports of this proxy; set spec.dial to the server's own address",
            ));
        }
        let from = begin()?;
        all.dialled.insert(from, Dialled { ports, open: true });
        Ok(Link { chains: self.clone(), from })
    }

    fn lock(&self) -> MutexGuard<'_, All> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl All {
    /// Forgets those whose connection has ended long ago, unless another one has the address by now.
    fn forget(&mut self, now: Instant) {
        while let Some((_, from)) = self.ended.pop_front_if(|(at, _)| now.duration_since(*at) > REMEMBERED) {
            if self.dialled.get(&from).is_some_and(|dialled| !dialled.open) {
                self.dialled.remove(&from);
            }
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        let mut all = self.chains.lock();
        if let Some(dialled) = all.dialled.get_mut(&self.from) {
            dialled.open = false;
        }
        all.ended.push_back((Instant::now(), self.from));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_goes_round_ends_and_others_go_on() {
        let (chains, at) = (Chains::default(), |port| SocketAddr::from(([127, 0, 0, 1], port)));
        let dial = |client, from| chains.dial(at(client), || Ok(at(from)));
        let last = u16::from(MOST);
        // Each hop has ended before the next one is accepted.
        for port in 1..=last {
            drop(dial(port - 1, port).expect("it is not too long yet"));
        }
        assert!(dial(last, last + 1).is_err());
        assert!(chains.dial(at(last), || panic!("nothing is sent")).is_err());
        let own = dial(1000, 1).expect("a client of its own, from an address that was another one's");
        chains.lock().forget(Instant::now() + 2 * REMEMBERED);
        assert!(dial(last, last + 1).is_ok());
        assert_eq!(chains.lock().dialled.get(&at(1)).map(|dialled| dialled.ports), Some(1), "it is open");
        drop(own);
        chains.lock().forget(Instant::now() + 2 * REMEMBERED);
        assert!(chains.lock().dialled.is_empty());
    }
}
