//! What a cloud says of a pool: its network interface, the account's elastic addresses, the route tables.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::Ipv4Addr;

/// Tags of an object, by key.
pub type Tags = BTreeMap<String, String>;

/// One reading.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    pub nic: Nic,
    /// All elastic addresses of the account in the region: they count for its quota.
    pub elastics: Vec<Elastic>,
    /// Network interfaces that elastic addresses of the pool are for, and that are not there any more.
    pub gone: BTreeSet<String>,
    /// Of those that the pool names, the ones that there are.
    pub tables: BTreeMap<String, DefaultRoute>,
    /// `None` while nothing was to be assigned or allocated.
    pub limits: Option<Limits>,
}

/// A network interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Nic {
    pub id: String,
    pub subnet: Subnet,
    /// The instance that it is attached to, with its device index.
    pub attachment: Option<(String, u32)>,
    pub addresses: Vec<NicAddress>,
    /// Delegated prefixes: each counts as an address for the limit.
    pub prefixes: usize,
    pub source_dest_check: bool,
    pub tags: Tags,
}

impl Nic {
    /// Whether it holds the address.
    pub fn holds(&self, address: Ipv4Addr) -> bool {
        self.addresses.iter().any(|held| held.address == address)
    }
}

/// A private address of a network interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NicAddress {
    pub address: Ipv4Addr,
    /// What the cloud translates it to, be it an elastic address or one that the cloud has lent by itself.
    pub public: Option<Ipv4Addr>,
}

/// A subnet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subnet {
    pub id: String,
    /// First and last address.
    pub range: Option<(Ipv4Addr, Ipv4Addr)>,
}

impl Subnet {
    /// Whether the address is of the subnet. One of which the range is not known has all.
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        self.range.is_none_or(|(first, last)| (first..=last).contains(&address))
    }

    /// Whether no network interface can have it: Amazon EC2 keeps the first four addresses of each subnet and the last
    /// (VPC user guide, "Subnet CIDR blocks").
    pub fn reserves(&self, address: Ipv4Addr) -> bool {
        let address = u32::from(address);
        self.range.is_some_and(|(first, last)| address.wrapping_sub(first.into()) < 4 || address == u32::from(last))
    }
}

/// An elastic address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Elastic {
    /// `eipalloc-...`
    pub id: String,
    pub public: Ipv4Addr,
    pub association: Option<Association>,
    pub tags: Tags,
}

/// What an elastic address leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Association {
    /// `eipassoc-...`
    pub id: String,
    pub nic: Option<String>,
    pub private: Option<Ipv4Addr>,
}

impl Association {
    /// Whether it leads to this address of this network interface.
    pub fn is_with(&self, nic: &str, private: Ipv4Addr) -> bool {
        self.nic.as_deref() == Some(nic) && self.private == Some(private)
    }
}

impl fmt::Display for Association {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.nic, self.private) {
            (Some(nic), Some(private)) => write!(f, "{private} of {nic}"),
            (Some(nic), None) => f.write_str(nic),
            _ => f.write_str("something that is no network interface"),
        }
    }
}

/// The default route (0.0.0.0/0) of a route table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DefaultRoute {
    /// `None`: the table has no such route.
    pub target: Option<Target>,
    /// It leads to something that is there: also to the network interface of a machine that is stopped just now.
    pub alive: bool,
}

/// Where a route leads.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    Nic(String),
    /// An internet gateway (`igw-`) or a virtual private gateway (`vgw-`).
    Gateway(String),
    NatGateway(String),
    TransitGateway(String),
    /// One that this program cannot put back (a peering connection, for instance).
    Other(String),
}

impl Target {
    /// Its id.
    pub fn id(&self) -> &str {
        let (Self::Nic(id) | Self::Gateway(id) | Self::NatGateway(id) | Self::TransitGateway(id) | Self::Other(id)) = self;
        id
    }

    /// The target that an id names, by the id's prefix.
    pub fn of(id: &str) -> Self {
        let own = id.to_owned();
        match id.split_once('-').map(|(prefix, _)| prefix) {
            Some("eni") => Self::Nic(own),
            Some("igw" | "vgw") => Self::Gateway(own),
            Some("nat") => Self::NatGateway(own),
            Some("tgw") => Self::TransitGateway(own),
            _ => Self::Other(own),
        }
    }
}

/// What is asked only when something is to be assigned or allocated.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// The instance's type, and how many IPv4 addresses it allows for each network interface. `None`: not attached, or not told.
    pub nic: Option<(String, usize)>,
    /// How many elastic addresses the account may have in the region.
    pub elastic: Option<usize>,
    /// Addresses that are to be assigned and that other network interfaces have, with these.
    pub taken: BTreeMap<Ipv4Addr, String>,
}
