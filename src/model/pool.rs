//! Pools: which addresses a binding may leave with.
//!
//! A binding that *names* addresses may share them with others that name them. A binding that asks for a *number* of addresses has them alone:
//! [`allocate`](allocate::allocate) decides once for the cluster which ones. What was decided is in the binding's status, so that it survives
//! restarts and other bindings, and an allocation that stands there is taken away by no other binding. A [`Record`] beside the
//! bindings has the same, for those whose status was lost.

pub mod allocate;
mod place;
pub mod record;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpAddrRange, IpNet, Ipv4AddrRange, Ipv6AddrRange};

use super::binding::{Assignment, Binding, ExitSpec, Wanted};
use super::cloud::{AddressReports, Aws, CloudPool};
use super::field_error::FieldError;
use super::inbound::Inbound;
use super::labels::{Labels, bears};
use super::objects::{ApiBinding, Known, Namespace, Node};
use super::ports::Ports;
use super::reason::{PortRefusal, Reason};
pub use allocate::{Allocation, Holders, allocate, holders};
pub use place::{Candidate, Candidates, MAX_PLACED, Places, place};
pub use record::{Entry, Record};

/// An `EgressPool`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pool {
    pub name: String,
    /// `metadata.generation`.
    pub generation: i64,
    pub blocks: Vec<Block>,
    pub interface: Option<String>,
    pub gateway: Option<IpAddr>,
    /// Labels of the nodes that serve it; all nodes when empty.
    pub nodes: Labels,
    pub allowed_names: BTreeSet<String>,
    /// Labels of the namespaces that may use it; none by label when empty.
    pub allowed_labels: Labels,
    /// Ports of its addresses that bindings may publish, each once: what adjoins is one range.
    pub inbound_ports: Vec<Ports>,
    pub assignment: Assignment,
    /// The node of each address that is not `Existing`, as the pool's status says: it may be another one's by now, and nobody else uses it.
    pub places: Places,
    /// What `egressd-cloud` keeps for it.
    pub aws: Option<Box<Aws>>,
    /// What the cloud shows of its addresses, as its status says.
    pub shown: AddressReports,
    /// Its administrator takes back at once what it has lent and no longer contains.
    pub forced: bool,
    /// What is wrong with it; a pool with errors lends nothing.
    pub errors: Vec<FieldError>,
}

/// Addresses from the first to the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Block {
    V4(Ipv4Addr, Ipv4Addr),
    V6(Ipv6Addr, Ipv6Addr),
}

impl Block {
    /// `None` when the two are not of one family.
    pub fn new(first: IpAddr, last: IpAddr) -> Option<Self> {
        match (first, last) {
            (IpAddr::V4(first), IpAddr::V4(last)) => Some(Self::V4(first, last)),
            (IpAddr::V6(first), IpAddr::V6(last)) => Some(Self::V6(first, last)),
            _ => None,
        }
    }

    /// All addresses of a subnet, its first and last among them.
    pub fn of(net: IpNet) -> Self {
        match net {
            IpNet::V4(net) => Self::V4(net.network(), net.broadcast()),
            IpNet::V6(net) => Self::V6(net.network(), net.broadcast()),
        }
    }

    /// Of which family it is, and where it begins.
    pub fn first(self) -> IpAddr {
        match self {
            Self::V4(first, _) => first.into(),
            Self::V6(first, _) => first.into(),
        }
    }

    fn contains(self, address: IpAddr) -> bool {
        match (self, address) {
            (Self::V4(first, last), IpAddr::V4(address)) => (first..=last).contains(&address),
            (Self::V6(first, last), IpAddr::V6(address)) => (first..=last).contains(&address),
            _ => false,
        }
    }

    /// All its addresses, in order.
    pub fn addresses(self) -> IpAddrRange {
        match self {
            Self::V4(first, last) => IpAddrRange::V4(Ipv4AddrRange::new(first, last)),
            Self::V6(first, last) => IpAddrRange::V6(Ipv6AddrRange::new(first, last)),
        }
    }

    /// How many addresses it has.
    pub fn size(self) -> u128 {
        match self {
            Self::V4(first, last) => u128::from(u32::from(last).saturating_sub(u32::from(first))) + 1,
            Self::V6(first, last) => u128::from(last).saturating_sub(u128::from(first)).saturating_add(1),
        }
    }
}

impl Pool {
    pub fn contains(&self, address: IpAddr) -> bool {
        self.blocks.iter().any(|block| block.contains(address))
    }

    /// Whether it lends an address to a binding that has it already. A pool that became smaller does, unless its administrator forces it.
    fn still_lends(&self, address: IpAddr) -> bool {
        self.contains(address) || !self.forced
    }

    /// How many addresses it has.
    pub fn size(&self) -> u128 {
        self.blocks.iter().map(|block| block.size()).fold(0, u128::saturating_add)
    }

    /// What it asks of a cloud. `None` when it asks nothing, or has errors.
    pub fn cloud(&self) -> Option<CloudPool> {
        // A pool of a cluster may be as large as a private network.
        let aws = *self.aws.clone().filter(|_| self.errors.is_empty())?;
        let v4 = |address| match address {
            IpAddr::V4(address) => Some(address),
            IpAddr::V6(_) => None,
        };
        let addresses: BTreeSet<Ipv4Addr> = self.blocks.iter().flat_map(|block| block.addresses()).filter_map(v4).collect();
        Some(CloudPool { name: self.name.clone(), addresses: addresses.into_iter().collect(), aws, host: None })
    }

    /// Whether a namespace may use it.
    pub fn allows(&self, name: &str, labels: Option<&Labels>) -> bool {
        self.allowed_names.contains(name)
            || (!self.allowed_labels.is_empty() && labels.is_some_and(|labels| bears(labels, &self.allowed_labels)))
    }

    fn exit(&self, address: IpAddr) -> ExitSpec {
        let gateway = self.gateway.filter(|gateway| gateway.is_ipv4() == address.is_ipv4());
        ExitSpec { interface: self.interface.clone(), gateway, assignment: self.assignment, ..ExitSpec::new(address) }
    }

    /// Whether each of its addresses is given to one node.
    pub fn is_placed(&self) -> bool {
        self.assignment != Assignment::Existing
    }

    /// The exits that a node has of it, whoever is bound to them.
    pub fn exits_of<'a>(&'a self, node: &'a str) -> impl Iterator<Item = ExitSpec> + 'a {
        let own = self.places.iter().filter(move |(_, place)| self.is_placed() && *place == node);
        own.map(|(address, _)| self.exit(*address))
    }
}

/// What lending depends on besides the binding. A kind that was not listed yet refuses nothing by itself: its bindings wait.
pub struct Lender<'a> {
    pub pools: Option<&'a Known<Pool>>,
    pub namespaces: Option<&'a Known<Namespace>>,
    /// This node.
    pub node: &'a Node,
    /// Whether bindings may name exits themselves.
    pub raw_exits: bool,
}

impl Lender<'_> {
    /// The binding with what its pool gives it on this node. `holders`: who has which address alone.
    pub fn grant(&self, api: &ApiBinding, holders: &Holders) -> Binding {
        let mut binding = Binding::clone(&api.binding);
        match self.exits(api, &api.allocated, holders).and_then(|exits| self.here(api, exits)) {
            Ok(exits) => {
                binding.exits = exits;
                binding.inbound = self.inbound(api);
            }
            Err(reason) => binding.refusal = Some(reason),
        }
        binding
    }

    /// What a binding leaves with, whichever node holds it. `allocated` is what it has of its pool already, or what it got of the addresses that
    /// it asks for by number.
    ///
    /// # Errors
    /// Why it may not have, or has not got, what it asks for.
    pub fn exits(&self, api: &ApiBinding, allocated: &[IpAddr], holders: &Holders) -> Result<Vec<ExitSpec>, Reason> {
        let Some(request) = &api.binding.pool else {
            let own = &api.binding.exits;
            return if self.raw_exits || own.is_empty() { Ok(own.clone()) } else { Err(Reason::RawExits) };
        };
        let pool = self.usable(&api.namespace, &request.pool)?;
        let addresses = match &request.wanted {
            Wanted::These(named) => {
                for address in named.iter().filter(|address| !allocated.contains(address)) {
                    let address = *address;
                    if !pool.contains(address) {
                        return Err(Reason::AddressNotInPool { address, pool: pool.name.clone() });
                    }
                    if let Some(by) = holders.get(&address) {
                        return Err(Reason::AddressTaken { address, by: by.clone() });
                    }
                }
                if let Some(address) = named.iter().find(|address| !pool.still_lends(**address)) {
                    return Err(Reason::AddressNotInPool { address: *address, pool: pool.name.clone() });
                }
                named.as_slice()
            }
            Wanted::Any(_) => allocated,
        };
        let exits: Vec<ExitSpec> = addresses.iter().filter(|a| pool.still_lends(**a)).map(|a| pool.exit(*a)).collect();
        if exits.is_empty() { Err(Reason::NotAllocated { pool: pool.name.clone() }) } else { Ok(exits) }
    }

    /// What a binding publishes, with the refusals of what nobody lends to it. Ports are the pool owner's as its addresses are: a namespace has
    /// none by itself, and none at exits that it names itself.
    pub fn inbound(&self, api: &ApiBinding) -> Vec<Inbound> {
        let name = api.binding.pool.as_ref().map(|request| &request.pool);
        let lent = name.and_then(|name| self.pools?.get(name)).map_or(&[][..], |pool| &pool.inbound_ports);
        let refusal = |ports: Ports| match lent.iter().any(|lent| lent.contains(&ports)) {
            true => None,
            false => Some(Reason::Port(PortRefusal::NotLent { ports, pool: name.cloned() })),
        };
        api.binding.inbound.iter().map(|entry| Inbound { refusal: refusal(entry.ports), ..entry.clone() }).collect()
    }

    /// Those of the exits that this node may use.
    fn here(&self, api: &ApiBinding, mut exits: Vec<ExitSpec>) -> Result<Vec<ExitSpec>, Reason> {
        let name = api.binding.pool.as_ref().map(|request| &request.pool);
        let Some(pool) = name.and_then(|name| self.pools?.get(name)) else { return Ok(exits) };
        if !bears(&self.node.labels, &pool.nodes) {
            return Err(Reason::PoolNotOnNode { pool: pool.name.clone() });
        }
        if pool.is_placed() {
            let first = exits.first().map(|exit| exit.address);
            exits.retain(|exit| pool.places.get(&exit.address) == Some(&self.node.name));
            if let (true, Some(address)) = (exits.is_empty(), first) {
                return Err(Reason::PlacedElsewhere { pool: pool.name.clone(), address, node: pool.places.get(&address).cloned() });
            }
        }
        Ok(exits)
    }

    /// The pool, when this namespace may use it.
    fn usable(&self, namespace: &str, name: &str) -> Result<&Pool, Reason> {
        let pool = || name.to_owned();
        let found = self.pools.and_then(|pools| pools.get(name)).ok_or_else(|| Reason::NoSuchPool { pool: pool() })?;
        if let Some(error) = found.errors.first() {
            return Err(Reason::PoolInvalid { pool: pool(), error: error.clone() });
        }
        let labels = self.namespaces.and_then(|all| all.get(namespace)).map(|n| &n.labels);
        if !found.allows(namespace, labels) {
            return Err(Reason::NamespaceNotAllowed { pool: pool(), namespace: namespace.to_owned() });
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests;
