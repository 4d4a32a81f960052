//! Exits that nobody else puts on a NIC: egressd does, or they are on none.

use std::net::IpAddr;

use ipnet::IpNet;

use super::super::binding::ExitSpec;
use super::super::facts::{Family, IfIndex, Link};
use super::super::managed::Verdict;
use super::super::reason::{NotAnUplink, Reason};
use super::Survey;
use super::holder::{holder, not_an_uplink, own};

impl Survey<'_> {
    /// The NIC of an address that egressd puts there, once it is there or nothing is in its way: it is put there ahead of all that leads to it, so that
    /// somebody who takes it away ends no flow.
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
        match (near, inner) {
            // RFC 3021 and RFC 6164: a subnet of two has none of these.
            (Some(net), _) if net.prefix_len() < net.max_prefix_len() - 1 && is_no_host(net, address) => {
                Err(Reason::NotAHost { address, net })
            }
            _ if self.taken.routers.contains(&address) => Err(Reason::IsGateway { address }),
            (None, Some(inner)) => Err(Reason::AddressOfWorkloads { address, interface: inner.name.clone() }),
            _ => Ok(nic),
        }
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

/// Whether it is a subnet's own or its broadcast address; for IPv6 that of all its routers (RFC 4291, section 2.6.1).
fn is_no_host(net: IpNet, address: IpAddr) -> bool {
    net.network() == address || (address.is_ipv4() && net.broadcast() == address)
}
