//! Who has a port of an exit's address already: programs of this host that listen there, and ports that an engine publishes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use super::facts::{Container, IfIndex, Published};
use super::ports::{Called, Ports, Protocol};

/// A socket of this host that takes calls: of TCP one that listens, of UDP one that is connected to nobody.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listener {
    pub protocol: Protocol,
    /// Unspecified when it takes calls to every address of its family.
    pub address: IpAddr,
    pub port: u16,
    /// It is an IPv6 socket on `::` that takes calls by IPv4, too (`IPV6_V6ONLY` is off).
    pub dual_stack: bool,
    /// The only interface that it takes calls by (`SO_BINDTODEVICE`).
    pub interface: Option<IfIndex>,
    pub holder: Holder,
}

/// Whose a socket is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Holder {
    Process {
        /// As `/proc/PID/comm` has it.
        name: String,
        pid: u32,
    },
    /// No process that is seen from here has it open: the user that it belongs to.
    User(u32),
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process { name, pid } => write!(f, "{name} (process {pid})"),
            Self::User(user) => write!(f, "a program of user {user}"),
        }
    }
}

impl Listener {
    /// Whether calls to these ports of this address, which come in by this NIC, would be its calls.
    pub fn takes(&self, (address, ports): Called, nic: IfIndex) -> bool {
        let to_all = match self.address {
            IpAddr::V4(own) => own.is_unspecified() && address.is_ipv4(),
            IpAddr::V6(own) => own.is_unspecified() && (address.is_ipv6() || self.dual_stack),
        };
        ports.has(self.protocol, self.port) && (to_all || self.address == address) && self.interface.is_none_or(|own| own == nic)
    }
}

/// `0.0.0.0:22`.
impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", SocketAddr::new(self.address, self.port))
    }
}

/// The listeners that are in the way of what bindings publish.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listeners {
    /// For whom they were looked up: whether anything else is free is not known.
    pub asked: Arc<BTreeSet<Called>>,
    /// By protocol and port.
    pub all: BTreeMap<(Protocol, u16), Vec<Listener>>,
    /// Why they could not be looked up: then every port counts as free.
    pub problem: Option<String>,
}

impl Listeners {
    /// Those that could take calls to these ports.
    pub fn at(&self, ports: Ports) -> impl Iterator<Item = &Listener> {
        self.all.range((ports.protocol, ports.first)..=(ports.protocol, ports.last)).flat_map(|(_, all)| all)
    }
}

impl Published {
    /// Whether it is for calls to these ports of this address.
    pub fn takes(&self, (address, ports): Called) -> bool {
        let all = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)].contains(&self.address);
        let fits = if all { self.address.is_ipv4() == address.is_ipv4() } else { self.address == address };
        fits && ports.has(self.protocol, self.port)
    }
}

/// All that has ports of this host.
pub struct Taken<'a> {
    /// `None` where nobody looks for them.
    listeners: Option<&'a Listeners>,
    /// By protocol and port.
    published: BTreeMap<(Protocol, u16), Vec<(Published, &'a Container)>>,
}

impl<'a> Taken<'a> {
    pub fn new(listeners: Option<&'a Listeners>, containers: impl Iterator<Item = &'a Arc<Container>>) -> Self {
        let mut published: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for container in containers.filter(|container| container.running) {
            for port in &container.published {
                published.entry((port.protocol, port.port)).or_default().push((*port, container.as_ref()));
            }
        }
        Self { listeners, published }
    }

    /// Whether it is known who listens there.
    pub fn is_known(&self, called: Called) -> bool {
        self.listeners.is_none_or(|listeners| listeners.asked.contains(&called))
    }

    /// Who has these ports of an address of this NIC, and the cure. A container that serves them itself is in nobody's way.
    pub fn by(&self, called: Called, nic: IfIndex, serves: impl Fn(&Container) -> bool) -> Option<String> {
        let (_, ports) = called;
        let published = || {
            let all = self.published.range((ports.protocol, ports.first)..=(ports.protocol, ports.last)).flat_map(|(_, all)| all);
            all.filter(|(published, _)| published.takes(called))
        };
        if let Some((published, container)) = published().find(|(_, container)| !serves(container)) {
            let (at, name) = (SocketAddr::new(published.address, published.port), &container.name);
            return Some(format!("container {name}, which the engine publishes at {at}; stop publishing it there, or publish another one"));
        }
        // The engine's own proxy listens for what it publishes.
        let is_proxy = |listener: &Listener| published().any(|(published, _)| published.port == listener.port);
        let mut listeners = self.listeners.into_iter().flat_map(|all| all.at(ports));
        let listener = listeners.find(|listener| listener.takes(called, nic) && !is_proxy(listener))?;
        Some(format!(
            "{}, which listens on {listener}; stop it, let it listen on another address, or publish another port",
            listener.holder
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listener(address: &str, dual_stack: bool, interface: Option<IfIndex>) -> Listener {
        let holder = Holder::Process { name: "sshd".to_owned(), pid: 812 };
        Listener { protocol: Protocol::Tcp, address: address.parse().expect("an address"), port: 22, dual_stack, interface, holder }
    }

    #[test]
    fn a_listener_takes_what_it_is_bound_to() {
        let exit = |text: &str| text.parse::<IpAddr>().expect("an address");
        let (v4, v6) = (exit("172.31.0.14"), exit("2001:db8:31::14"));
        let ssh = Ports { protocol: Protocol::Tcp, first: 20, last: 30 };
        let takes = |listener: &Listener, address| listener.takes((address, ssh), 2);
        for (bound, dual, by_v4, by_v6) in [
            ("0.0.0.0", false, true, false),
            ("::", false, false, true),
            ("::", true, true, true),
            ("172.31.0.14", false, true, false),
            ("2001:db8:31::14", false, false, true),
            ("127.0.0.1", false, false, false),
        ] {
            let listener = listener(bound, dual, None);
            assert_eq!((takes(&listener, v4), takes(&listener, v6)), (by_v4, by_v6), "{bound}, {dual}");
        }
        assert!(takes(&listener("0.0.0.0", false, Some(2)), v4), "bound to the exit's NIC");
        assert!(!takes(&listener("0.0.0.0", false, Some(3)), v4), "bound to another interface");
        let udp = Ports { protocol: Protocol::Udp, ..ssh };
        assert!(!listener("0.0.0.0", false, None).takes((v4, udp), 2));
        assert!(!listener("0.0.0.0", false, None).takes((v4, Ports { first: 23, ..ssh }), 2));
    }
}
