//! The questions that most scenarios ask, with answers that say what is wrong.
//!
//! Each returns a `Result`, because each is asked twice: with egressd, and, as the negative control, without.

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use crate::{
    cloud::Seen,
    layout::{Nic, PORT, SERVER, SERVER6},
    machine::Machine,
    netns::Netns,
    talk,
};

/// Transport protocols that servers answer to.
const TRANSPORTS: [(&str, Ask); 2] = [("TCP", talk::ask_tcp), ("UDP", talk::ask_udp)];
type Ask = fn(&Netns, SocketAddr) -> io::Result<SocketAddr>;

impl Machine {
    /// One server on the internet for each family that the machine has.
    pub fn servers(&self) -> Vec<IpAddr> {
        if self.layout.ipv6 { vec![SERVER.into(), SERVER6.into()] } else { vec![SERVER.into()] }
    }

    /// The socket address of a neighbour in the NIC's subnet, in the family of `like`.
    pub fn neighbour_at(&self, nic: Nic, like: IpAddr, port: u16) -> SocketAddr {
        match like {
            IpAddr::V4(_) => (self.layout.neighbour(nic), port).into(),
            IpAddr::V6(_) => (self.layout.neighbour6(nic), port).into(),
        }
    }

    /// What is sent to the internet from the namespace leaves by this NIC alone, with this NIC's address alone, and is answered:
    /// TCP and UDP, each family.
    pub fn leaves_by(&self, from: &Netns, nic: Nic) -> Result<(), String> {
        self.servers().into_iter().try_for_each(|server| self.leaves_by_to(from, nic, (server, PORT).into()))
    }

    /// The same for one server.
    pub fn leaves_by_to(&self, from: &Netns, nic: Nic, server: SocketAddr) -> Result<(), String> {
        let public = self.layout.public(nic, server.ip());
        self.asks(from, nic, server, public)
    }

    /// What is sent to a neighbour in the subnet of `neighbour` leaves by `nic` alone, with that NIC's address alone.
    pub fn leaves_to_neighbour_by(&self, from: &Netns, nic: Nic, neighbour: Nic) -> Result<(), String> {
        self.servers().into_iter().try_for_each(|like| {
            let to = self.neighbour_at(neighbour, like, PORT);
            self.asks(from, nic, to, self.layout.private(nic, like))
        })
    }

    /// Nothing that is sent to the internet from the namespace leaves the host.
    pub fn leaves_not_at_all(&self, from: &Netns) -> Result<(), String> {
        self.servers().into_iter().try_for_each(|server| self.leaves_not_at_all_to(from, (server, PORT).into()))
    }

    /// The same for one server.
    pub fn leaves_not_at_all_to(&self, from: &Netns, server: SocketAddr) -> Result<(), String> {
        for (transport, ask) in TRANSPORTS {
            let (answer, seen) = self.watch(|| ask(from, server));
            if answer.is_ok() || !seen.is_empty() {
                return Err(format!("{} to {server} by {transport}: {seen} left, answer {answer:?}", from.name()));
            }
        }
        Ok(())
    }

    /// A call from the internet to the NIC's elastic address is answered, and the answer leaves by that NIC alone.
    pub fn reached_by(&self, nic: Nic, port: u16, path: &str) -> Result<String, String> {
        let at = SocketAddr::new(self.layout.eip(nic).into(), port);
        let (page, seen) = self.watch(|| self.get(at, path));
        let page = page.map_err(|error| format!("{at} does not answer ({error}); left: {seen}"))?;
        self.only(&seen, nic, self.layout.address(nic).into()).map_err(|error| format!("answer of {at}: {error}"))?;
        Ok(page)
    }

    fn asks(&self, from: &Netns, nic: Nic, to: SocketAddr, public: IpAddr) -> Result<(), String> {
        for (transport, ask) in TRANSPORTS {
            let what = format!("{} to {to} by {transport}", from.name());
            let (answer, seen) = self.watch(|| ask(from, to));
            self.only(&seen, nic, self.layout.private(nic, to.ip())).map_err(|error| format!("{what}: {error}; answer {answer:?}"))?;
            let peer = answer.map_err(|error| format!("{what}: no answer ({error}); left: {seen}"))?;
            if peer.ip() != public {
                return Err(format!("{what}: the server saw {}, not {public}", peer.ip()));
            }
        }
        Ok(())
    }

    /// All that left did so by this NIC, from this address, and that is not nothing. Of the question before, which may have been one of the other
    /// family, a late acknowledgement may be among it.
    fn only(&self, seen: &Seen, nic: Nic, source: IpAddr) -> Result<(), String> {
        let own = [SERVER.into(), SERVER6.into()].map(|like| self.layout.private(nic, like));
        if seen.count(nic, source) > 0 && seen.0.keys().all(|(by, from)| *by == nic && (*from == source || own.contains(from))) {
            Ok(())
        } else {
            Err(format!("not by {} from {source} alone: {seen}", nic.name()))
        }
    }
}
