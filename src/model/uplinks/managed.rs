//! Exits that nobody else puts on a NIC: egressd does, or they are on none.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use super::super::binding::ExitSpec;
use super::super::facts::{Family, IfIndex, KernelFacts, Link, Route};
use super::super::managed::Verdict;
use super::super::reason::{NotAHost, NotAnUplink, Reason};
use super::holder::{holder, not_an_uplink, own};
use super::{Inner, Survey};
use crate::contract::PROTOCOL;

impl Survey<'_> {
    /// The NIC of an address that egressd puts there, once it is there or nothing is in its way: it is put there ahead of all that leads to
    /// it, so that somebody who takes it away ends no flow.
    ///
    /// # Errors
    /// When it cannot be there. It is noted as an address to be put there unless no NIC fits.
    pub(super) fn managed(&mut self, spec: &ExitSpec) -> Result<IfIndex, Reason> {
        let address = spec.address;
        // An interface's own address is said to be managed: that is refused, and the interface keeps it.
        if address.is_unspecified() {
            return holder(self.kernel, spec, self.defaults, self.inner);
        }
        let nic = self.nic_for(spec)?;
        let mut held = own(self.kernel, nic).filter(|a| a.net.addr() == address).peekable();
        let is_there = held.peek().is_some();
        // Somebody else put it there: they keep it, and may take it away.
        if held.any(|held| !held.ours) {
            return Ok(nic);
        }
        let verdict = self.inner.facts.probes.verdict((nic, address));
        let Some(link) = self.kernel.links.get(&nic) else { return Err(Reason::AddressNotFound { address }) };
        let interface = link.name.clone();
        self.memory.managed.insert(address, nic);
        if !is_there && self.inner.facts.probes.is_contested((nic, address)) {
            self.uplinks.managed.insert((nic, address), None);
            return Err(Reason::AddressContested { address, interface });
        }
        self.uplinks.managed.insert((nic, address), verdict);
        match verdict {
            Some(Verdict::Taken(by)) => Err(Reason::AddressDuplicate { address, interface, by }),
            Some(Verdict::Free) | None if is_there => Ok(nic),
            _ if !(link.up && link.carrier) => Err(Reason::InterfaceDown { interface }),
            Some(Verdict::Free) => Ok(nic),
            None => Err(Reason::AddressProbed { address, interface }),
        }
    }

    /// The NIC that an address is to be put on: the one that is named, has it, or has its subnet; of several the same as before.
    fn nic_for(&self, spec: &ExitSpec) -> Result<IfIndex, Reason> {
        let address = spec.address;
        let refused = |link: &Link| not_an_uplink(self.kernel, link, spec.gateway, self.defaults, self.inner);
        let foreign = |index| own(self.kernel, index).any(|a| a.net.addr() == address && !a.ours);
        if let Some(name) = &spec.interface {
            let link = self.kernel.link(name).ok_or_else(|| Reason::NoSuchInterface { interface: name.clone() })?;
            if let Some(why) = refused(link) {
                return Err(Reason::NotAnUplink { interface: name.clone(), why });
            }
            // One of ours moves.
            let other = self.kernel.own_links_with(address).find(|other| other.index != link.index && foreign(other.index));
            return match other {
                Some(other) => Err(Reason::AddressNotOnInterface { address, interface: name.clone(), elsewhere: Some(other.name.clone()) }),
                None => self.may_hold(link.index, address),
            };
        }
        if let Ok(nic) = holder(self.kernel, spec, self.defaults, self.inner) {
            return if foreign(nic) { Ok(nic) } else { self.may_hold(nic, address) };
        }
        let before = self.memory.managed.get(&address).copied().filter(|nic| self.kernel.links.contains_key(nic));
        let rank = |link: &&Link| {
            let way = self.defaults.iter().any(|d| d.interface == link.index);
            (before != Some(link.index), !(link.up && link.carrier), !way, link.index)
        };
        let near = self.kernel.links.values().filter(|link| refused(link).is_none() && self.subnet_of(link.index, address).is_some());
        let nic = near.min_by_key(rank).map(|link| link.index).or(before).ok_or(Reason::NoNicForAddress { address })?;
        self.may_hold(nic, address)
    }

    /// The subnet of a NIC that an address is in.
    fn subnet_of(&self, nic: IfIndex, address: IpAddr) -> Option<IpNet> {
        let nets = own(self.kernel, nic).map(|a| a.net).filter(|net| net.prefix_len() < net.max_prefix_len());
        nets.filter(|net| net.contains(&address)).max_by_key(IpNet::prefix_len)
    }

    /// # Errors
    /// When no machine may have the address, or another one is known to have it.
    fn may_hold(&self, nic: IfIndex, address: IpAddr) -> Result<IfIndex, Reason> {
        let near = self.subnet_of(nic, address);
        let inner = self.taken.inner.iter().find(|(net, link)| *link != nic && net.contains(&address));
        let inner = inner.and_then(|(_, link)| self.kernel.links.get(link));
        let why = match (near.and_then(|net| NotAHost::of_subnet(net, address)), inner) {
            (Some(why), _) => why,
            (None, _) if self.taken.routers.contains(&address) => NotAHost::Gateway,
            (None, Some(inner)) if near.is_none() => NotAHost::OfWorkloads { interface: inner.name.clone() },
            _ => return Ok(nic),
        };
        Err(Reason::NotAHost { address, why })
    }

    /// The NIC that leads out for an address which is routed to this host: the one that is named, or that of the first default route.
    ///
    /// # Errors
    /// When there is none.
    pub(super) fn routed(&mut self, spec: &ExitSpec) -> Result<IfIndex, Reason> {
        let (address, family) = (spec.address, Family::of(spec.address));
        let refused = |link: &Link| -> Option<NotAnUplink> { not_an_uplink(self.kernel, link, spec.gateway, self.defaults, self.inner) };
        let nic = match &spec.interface {
            Some(name) => {
                let link = self.kernel.link(name).ok_or_else(|| Reason::NoSuchInterface { interface: name.clone() })?;
                if let Some(why) = refused(link) {
                    return Err(Reason::NotAnUplink { interface: name.clone(), why });
                }
                link.index
            }
            None => {
                let links = self.defaults.iter().filter(|d| d.family == family).filter_map(|d| self.kernel.links.get(&d.interface));
                let link = links.filter(|link| refused(link).is_none()).min_by_key(|link| !(link.up && link.carrier));
                link.map(|link| link.index).ok_or(Reason::NoNicForRouted { address })?
            }
        };
        // Where an interface has it, the host itself answers.
        if self.kernel.own_links_with(address).next().is_none() {
            self.uplinks.routed.insert(address);
        }
        Ok(nic)
    }
}

/// What no address may be that is to be put on a NIC, whether anybody answers for it or not.
#[derive(Default)]
pub(super) struct Taken {
    /// Gateways of routes and of bindings.
    routers: BTreeSet<IpAddr>,
    /// Subnets of interfaces that lead to workloads.
    inner: Vec<(IpNet, IfIndex)>,
}

impl Taken {
    /// By routes of other programs, by these exits' gateways, and by what the interfaces inside hold.
    pub fn of<'s>(kernel: &KernelFacts, inner: &Inner<'_>, specs: impl Iterator<Item = &'s ExitSpec>) -> Self {
        let by_routes = kernel.routes.iter().filter(|route| route.protocol != PROTOCOL).flat_map(Route::hops);
        let routers = by_routes.filter_map(|(gateway, ..)| gateway).chain(specs.filter_map(|spec| spec.gateway)).collect();
        let nets = |link: &IfIndex| own(kernel, *link).map(|a| (a.net, *link)).collect::<Vec<_>>();
        let inner = inner.links.iter().flat_map(nets).filter(|(net, _)| net.prefix_len() < net.max_prefix_len()).collect();
        Self { routers, inner }
    }
}
