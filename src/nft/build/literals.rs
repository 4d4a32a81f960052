//! Chains, sets, and the keys and data of their elements.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::nft::{Base, Bytes, Chain, ChainKind, Data, Datatype, Hook, Key, Rule, Set};

impl Chain {
    /// A chain that the kernel enters by itself.
    pub fn base(kind: ChainKind, hook: Hook, priority: i32, rules: impl Into<Vec<Rule>>) -> Self {
        Self { base: Some(Base { kind, hook, priority }), rules: rules.into() }
    }

    /// A chain that rules and verdict maps lead to.
    pub fn regular(rules: impl Into<Vec<Rule>>) -> Self {
        Self { base: None, rules: rules.into() }
    }
}

impl Datatype {
    /// The addresses of an ip family.
    pub fn address(v6: bool) -> Self {
        if v6 { Self::Ipv6 } else { Self::Ipv4 }
    }

    /// The addresses of an ip family, each with a port.
    pub fn endpoint(v6: bool) -> Self {
        if v6 { Self::Endpoint6 } else { Self::Endpoint4 }
    }
}

impl Set {
    /// An empty set.
    pub fn of(key: impl Into<Vec<Datatype>>) -> Self {
        Self { key: key.into(), data: None, interval: false, by_rules: None, elements: Default::default() }
    }

    /// An empty map.
    pub fn map(key: impl Into<Vec<Datatype>>, data: Datatype) -> Self {
        Self { data: Some(data), ..Self::of(key) }
    }

    /// Rules put its elements in, so many at most.
    pub fn filled_by_rules(self, most: u32) -> Self {
        Self { by_rules: Some(most), ..self }
    }

    /// Its keys are ranges. Needs two fields or more: the kernel's set of one field's ranges has another form, which this does not write.
    pub fn with_ranges(self) -> Self {
        Self { interval: true, ..self }
    }
}

impl Bytes {
    /// A number in host order.
    pub fn of_number(value: u32) -> Self {
        Self::default().number(value)
    }

    /// Appends a number in host order: an interface, a mark.
    pub fn number(self, value: u32) -> Self {
        self.push(&value.to_ne_bytes())
    }

    /// The number of a control group.
    pub fn of_cgroup(id: u64) -> Self {
        Self::default().push(&id.to_ne_bytes())
    }

    /// Appends a number in network order, as keys that are ranges have it.
    pub fn network_number(self, value: u32) -> Self {
        self.push(&value.to_be_bytes())
    }

    /// Appends the number of a transport protocol.
    pub fn protocol(self, number: u8) -> Self {
        self.push(&[number])
    }

    /// Appends a port.
    pub fn port(self, port: u16) -> Self {
        self.push(&port.to_be_bytes())
    }

    /// An interface's name, as the kernel compares names: 16 bytes, zeros behind the name. What is longer is no interface's.
    pub fn of_name(name: &str) -> Self {
        let mut bytes = [0; 16];
        let length = name.len().min(15);
        bytes[..length].copy_from_slice(&name.as_bytes()[..length]);
        Self::exact(&bytes)
    }

    /// Appends an address.
    pub fn address(self, address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => self.push(&address.octets()),
            IpAddr::V6(address) => self.push(&address.octets()),
        }
    }

    /// Appends a hardware address.
    pub fn mac(self, address: [u8; 6]) -> Self {
        self.push(&address)
    }
}

impl Key {
    /// One value.
    pub fn one(value: Bytes) -> Self {
        Self { first: value, last: None }
    }

    /// In a set of ranges: an interface, and the addresses of a prefix.
    pub fn prefix(interface: u32, prefix: IpNet) -> Self {
        let bytes = Bytes::default().network_number(interface);
        Self { first: bytes.address(prefix.network()), last: Some(bytes.address(prefix.broadcast())) }
    }

    /// In a set of ranges: two interfaces, and the addresses of a prefix.
    pub fn pair_prefix(out: u32, interface: u32, prefix: IpNet) -> Self {
        let bytes = Bytes::default().network_number(out).network_number(interface);
        Self { first: bytes.address(prefix.network()), last: Some(bytes.address(prefix.broadcast())) }
    }

    /// In a set of ranges: any interface, and the addresses of a prefix.
    pub fn any_interface(prefix: IpNet) -> Self {
        Self::any_interface_between(prefix.network(), prefix.broadcast())
    }

    /// In a set of ranges: any interface, and the addresses from one to another.
    pub fn any_interface_between(first: IpAddr, last: IpAddr) -> Self {
        let (low, high) = (Bytes::default().network_number(0), Bytes::default().network_number(u32::MAX));
        Self { first: low.address(first), last: Some(high.address(last)) }
    }
}

impl Data {
    /// A mark.
    pub fn mark(value: u32) -> Self {
        Self::Value(Bytes::of_number(value))
    }

    /// An address.
    pub fn address(address: IpAddr) -> Self {
        Self::Value(Bytes::default().address(address))
    }
}
