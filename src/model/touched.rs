//! Whom the facts that changed since the last round are about.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::facts::{Container, EngineChange, IfIndex, KernelChange, KernelFacts, Link, Place};

/// What changed, each thing as it was when the last round looked at it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touched {
    /// Something that everybody may depend on.
    pub all: bool,
    /// Containers of the engine; `None` of one that was not there.
    pub containers: BTreeMap<String, Option<Arc<Container>>>,
    /// Links of this namespace, also those whose far end got or lost an address.
    pub links: BTreeMap<IfIndex, Option<Link>>,
    /// Addresses at far ends.
    pub addresses: BTreeSet<IpAddr>,
    /// Numbers of the network namespaces that these links lead to.
    pub namespaces: BTreeSet<i32>,
}

impl Touched {
    /// Takes note of what the kernel says, ahead of its being taken in. Returns whether everybody may depend on it.
    pub(super) fn by_kernel(&mut self, change: &KernelChange, kernel: &KernelFacts) -> bool {
        match change {
            KernelChange::Link(link) => self.link(link.index, Some(link), kernel),
            KernelChange::Hairpin(index, _) => self.link(*index, kernel.links.get(index), kernel),
            KernelChange::LinkGone(index) => self.link(*index, None, kernel),
            KernelChange::Address(Place { nsid: Some(nsid), index }, address) => self.address((*nsid, *index), address.net.addr(), kernel),
            KernelChange::AddressGone(Place { nsid: Some(nsid), index }, net) => self.address((*nsid, *index), net.addr(), kernel),
            KernelChange::Address(..) | KernelChange::AddressGone(..) => return true,
            KernelChange::Routing { .. } | KernelChange::Namespaces(_) | KernelChange::Settings | KernelChange::Restart => return true,
        }
        false
    }

    /// The same of an engine.
    pub(super) fn by_engine(&mut self, change: &EngineChange, known: impl Fn(&str) -> Option<Arc<Container>>) {
        let mut container = |id: &String| {
            self.containers.entry(id.clone()).or_insert_with(|| known(id));
        };
        match change {
            EngineChange::Container(now) => container(&now.id),
            EngineChange::ContainerGone(id) => container(id),
            EngineChange::Made { .. } | EngineChange::Problems(_) | EngineChange::Lost(_) => {}
            EngineChange::Snapshot { .. } | EngineChange::Network(_) | EngineChange::NetworkGone(_) => self.all = true,
        }
    }

    fn link(&mut self, index: IfIndex, now: Option<&Link>, kernel: &KernelFacts) {
        let before = kernel.links.get(&index);
        for far in before.into_iter().chain(now).filter_map(Link::far_end) {
            self.addresses.extend(kernel.addresses_at(far).map(|address| address.net.addr()));
            far.nsid.into_iter().for_each(|nsid| self.namespace(nsid, kernel));
        }
        self.links.entry(index).or_insert_with(|| before.cloned());
    }

    /// Who is there may have its addresses by each of its links.
    fn namespace(&mut self, nsid: i32, kernel: &KernelFacts) {
        self.namespaces.insert(nsid);
        let far_ends = kernel.ends_of(nsid).filter_map(Link::far_end);
        self.addresses.extend(far_ends.flat_map(|far| kernel.addresses_at(far)).map(|address| address.net.addr()));
    }

    fn address(&mut self, (nsid, index): (i32, IfIndex), address: IpAddr, kernel: &KernelFacts) {
        self.addresses.insert(address);
        self.namespace(nsid, kernel);
        if let Some(near) = kernel.near_end(Place { nsid: Some(nsid), index }) {
            self.links.entry(near.index).or_insert_with(|| Some(near.clone()));
        }
    }
}
