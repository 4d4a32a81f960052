//! The gateway of a NIC, and of each of its addresses where they have several.

use std::net::IpAddr;

use super::super::facts::{Family, IfIndex, KernelFacts, Link, Rule, RuleAction, is_link_local};
use super::super::ways::Gateway;
use super::Survey;
use super::holder::own;
use super::outside::{Default as DefaultRoute, MAIN};
use crate::contract::PROTOCOL;

/// The preference of the kernel's rule for the main table.
const PREFERENCE_MAIN: u32 = 32_766;

/// How often a link had gone down that a run before this one remembered the gateway of.
pub(super) const READ_BACK: u32 = u32::MAX;

/// The host's rules that lead packets of some sources to a table, in their order. There are thousands of ours.
pub(super) fn from_rules(kernel: &KernelFacts) -> Vec<&Rule> {
    let is_from = |rule: &&Rule| {
        let plain = rule.protocol != PROTOCOL && rule.action == RuleAction::Table && !rule.not && !rule.other;
        // Both halves of all destinations are as good as none.
        let everywhere = rule.to.is_none_or(|to| to.prefix_len() <= 1);
        let for_all = rule.mark.is_none() && everywhere && rule.oif.is_none() && rule.iif.as_deref().is_none_or(|iif| iif == "lo");
        plain && for_all && rule.from.is_some_and(|from| from.prefix_len() > 0) && rule.preference < PREFERENCE_MAIN
    };
    let mut rules: Vec<&Rule> = kernel.rules.iter().filter(is_from).collect();
    rules.sort_by_key(|rule| rule.preference);
    rules
}

impl<'a> Survey<'a> {
    /// A NIC's default route; else the one that its link took along when it went down; else the router that it shares with another NIC; else
    /// nothing where everything is on the link.
    pub(super) fn own_gateway(&mut self, link: &Link, family: Family) -> Option<Gateway> {
        let key = (link.index, family);
        let downs = self.kernel.downs(link.index);
        if let Some(found) = self.alive(link.index, family) {
            self.memory.gateways.insert(key, (found.gateway, downs));
            return Some(found.gateway);
        }
        // A static route goes with its link and does not come back with it; one that is deleted while the link is up is meant to be gone.
        match self.memory.gateways.get(&key).copied() {
            // A run before this one remembered it; who shares a router may know better by now.
            Some((gateway, READ_BACK)) => return Some(self.shared_gateway(link.index, family).unwrap_or(gateway)),
            Some((gateway, then)) if !(link.up && then == downs) => return Some(gateway),
            _ => drop(self.memory.gateways.remove(&key)),
        }
        let has_address = own(self.kernel, link.index).any(|a| Family::of(a.net.addr()) == family);
        let alone = (link.point_to_point || link.no_arp) && has_address;
        self.shared_gateway(link.index, family)
            .or_else(|| alone.then_some(Gateway { address: None, onlink: false, mtu: None, table: MAIN }))
    }

    /// The default routes of a NIC, in the order in which they are used.
    fn of_nic(&self, nic: IfIndex, family: Family) -> impl Iterator<Item = &'a DefaultRoute> + use<'a> {
        self.defaults.iter().filter(move |d| d.interface == nic && d.family == family)
    }

    /// The first default route of a NIC, unless its router is dead and another one of the same link is known to answer.
    fn alive(&self, nic: IfIndex, family: Family) -> Option<&'a DefaultRoute> {
        let first = self.of_nic(nic, family).next()?;
        let (answers, at) = (&self.inner.facts.answers, |d: &DefaultRoute| d.gateway.address.map(|gateway| (nic, gateway)));
        if !at(first).is_some_and(|first| answers.is_dead(first)) {
            return Some(first);
        }
        let mut others = self.of_nic(nic, family).filter(|other| self.is_beside(first, other));
        Some(others.find(|other| at(other).is_some_and(|other| answers.is_alive(other))).unwrap_or(first))
    }

    /// Whether two routers are for the same addresses: on one subnet, or both by their link-local addresses.
    fn is_beside(&self, one: &DefaultRoute, other: &DefaultRoute) -> bool {
        let (Some(a), Some(b)) = (one.gateway.address, other.gateway.address) else { return false };
        let subnets = || own(self.kernel, one.interface).any(|address| address.net.contains(&a) && address.net.contains(&b));
        one.from == other.from && ((is_link_local(a) && is_link_local(b)) || subnets())
    }

    /// The routers that a NIC's default routes name, of which one stands in for another: all are asked all the time.
    pub(super) fn routers(&self, nic: IfIndex, family: Family) -> Vec<IpAddr> {
        let Some(first) = self.of_nic(nic, family).next() else { return Vec::new() };
        self.of_nic(nic, family).filter(|other| self.is_beside(first, other)).filter_map(|other| other.gateway.address).collect()
    }

    /// The gateway that the host's own packets from an address have on its NIC, where it is not the NIC's: a policy rule leads them to a table
    /// with another default route, or a default route is for them alone (IPv6).
    pub(super) fn looked_up(&self, nic: IfIndex, address: IpAddr) -> Option<IpAddr> {
        self.looked_up_route(nic, address)?.gateway.address
    }

    fn looked_up_route(&self, nic: IfIndex, address: IpAddr) -> Option<&'a DefaultRoute> {
        let family = Family::of(address);
        let holds = |d: &&DefaultRoute| d.from.is_none_or(|from| from.contains(&address));
        // Without a rule the narrowest route of the sources that it is in.
        let by_source = || {
            let narrow = self.of_nic(nic, family).filter(|d| d.from.is_some()).filter(holds);
            narrow.max_by_key(|d| d.from.map(|from| from.prefix_len()))
        };
        // The first may be for others alone.
        let first = self.of_nic(nic, family).next().filter(|first| !holds(first));
        let for_all = || first.and_then(|_| self.of_nic(nic, family).find(holds));
        self.led_by(nic, address).or_else(by_source).or_else(for_all)
    }

    /// The default route that a policy rule for an address leads to, if it is by the address's NIC.
    pub(super) fn led_by(&self, nic: IfIndex, address: IpAddr) -> Option<&'a DefaultRoute> {
        let holds = |d: &&DefaultRoute| d.from.is_none_or(|from| from.contains(&address));
        let mut rules = self.from_rules.iter().filter(|rule| rule.from.is_some_and(|from| from.contains(&address)));
        // The first of them says where the packet goes, unless it says nothing.
        let first = rules.find(|rule| self.defaults.iter().any(|d| d.gateway.table == rule.table && holds(&d)))?;
        self.of_nic(nic, Family::of(address)).filter(holds).find(|d| d.gateway.table == first.table)
    }

    /// The gateway of an exit for which its binding names none: the one that the host's own packets have; else what a default route says has that
    /// address, or is in its subnet.
    pub(super) fn found_for(&self, nic: IfIndex, address: IpAddr) -> Option<IpAddr> {
        let of_nic = || self.of_nic(nic, Family::of(address));
        let said = || of_nic().find(|d| d.source == Some(address));
        let is_near = |gateway: IpAddr| self.nets.get(&(nic, address)).is_some_and(|net| net.contains(&gateway));
        let near = || of_nic().find(|d| d.gateway.address.is_some_and(is_near));
        let found = self.looked_up_route(nic, address).or_else(said).or_else(near)?.gateway.address;
        // The router of a NIC's first default route is the NIC's own, or another one stands in for it.
        found.filter(|_| of_nic().next().is_some_and(|first| first.gateway.address != found))
    }

    /// The default route of a NIC by a router.
    pub(super) fn route_by(&self, nic: IfIndex, gateway: IpAddr) -> Option<Gateway> {
        self.of_nic(nic, Family::of(gateway)).find(|d| d.gateway.address == Some(gateway)).map(|d| d.gateway)
    }

    /// Another NIC's gateway, when it is on a subnet of this one too: several NICs in one subnet share their router. That NIC's route goes with its
    /// link, and the router does not.
    fn shared_gateway(&mut self, nic: IfIndex, family: Family) -> Option<Gateway> {
        let near = |gateway: IpAddr| own(self.kernel, nic).any(|a| a.net.contains(&gateway));
        let mut others = self.defaults.iter().filter(|d| d.family == family && d.gateway.table == MAIN);
        if let Some(route) = others.find(|d| d.gateway.address.is_some_and(near)) {
            let gateway = Gateway { onlink: false, mtu: None, ..route.gateway };
            self.memory.shared_gateways.insert((nic, family), (gateway, route.interface, self.kernel.downs(route.interface)));
            return Some(gateway);
        }
        let (gateway, other, downs) = *self.memory.shared_gateways.get(&(nic, family))?;
        // A route that is deleted while its link stays up is meant to be gone.
        let deleted = self.kernel.links.get(&other).is_some_and(|link| link.up && self.kernel.downs(other) == downs);
        if deleted || !gateway.address.is_some_and(near) {
            self.memory.shared_gateways.remove(&(nic, family));
            return None;
        }
        Some(gateway)
    }
}
