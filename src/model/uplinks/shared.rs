//! One address on several NICs, as two routers may give it: all that tells which NIC a flow with it goes by is what the host would do.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::super::facts::{Family, IfIndex, is_link_local};
use super::super::reason::Reason;
use super::super::ways::WayKey;
use super::{Survey, Uplink};

impl Survey<'_> {
    /// The place of a NIC among those that the host sends by, the first one before all others.
    fn rank(&self, nic: IfIndex, family: Family) -> usize {
        self.defaults.iter().position(|default| default.family == family && default.interface == nic).unwrap_or(usize::MAX)
    }

    /// # Errors
    /// When another uplink holds an exit's address, and the host sends by that one first: flows of its own, and answers to its callers, bear the
    /// address, too.
    pub(super) fn not_shared(&self, address: IpAddr, nic: &Uplink) -> Result<(), Reason> {
        let family = Family::of(address);
        let own_rank = self.rank(nic.index, family);
        let others = self.kernel.own_links_with(address).filter(|link| link.index != nic.index);
        let others = others.filter_map(|link| self.uplinks.nics.get(&link.index));
        let mut holders = others.filter(|other| self.rank(other.index, family) < own_rank);
        let refused = |other: &Uplink| Reason::AddressOnTwoNics { address, interface: nic.name.clone(), other: other.name.clone() };
        holders.next().map_or(Ok(()), |other| Err(refused(other)))
    }

    /// The addresses whose packets have another gateway than others of their NIC.
    fn apart(&self) -> Vec<(IpAddr, IfIndex, IpAddr)> {
        let of = |nic: &Uplink, address: IpAddr| {
            let gateway = self.looked_up(nic.index, address);
            Some((address, nic.index, self.other_gateway(gateway, nic.index, Family::of(address))?))
        };
        let nics = self.uplinks.nics.values();
        nics.flat_map(|nic| nic.addresses.iter().filter(|a| !is_link_local(**a)).filter_map(move |address| of(nic, *address))).collect()
    }

    /// By which way each address of the uplinks is answered.
    pub(super) fn called(&mut self) {
        let exits: Vec<(IfIndex, IpAddr)> = self.uplinks.placed.values().copied().collect();
        let led = exits.into_iter().filter(|(nic, address)| self.led_by(*nic, *address).is_some()).map(|(_, address)| address);
        self.uplinks.led = led.collect();
        let mut called = Vec::new();
        for (address, nic, gateway) in self.apart() {
            let (up, holds_exit) = self.uplinks.nics.get(&nic).map_or((false, false), |nic| (nic.up, nic.holds_exit));
            let number = self.other_way(WayKey { nic, gateway: Some(gateway) }, up, gateway, None);
            called.extend(number.map(|number| (address, self.rank(nic, Family::of(address)), !holds_exit, 0, number)));
        }
        for nic in self.uplinks.nics.values() {
            let Some(way) = nic.way.and_then(|number| self.uplinks.ways.get(&number)) else { continue };
            // What calls a link-local address is on the link.
            let served = nic.addresses.iter().filter(|a| way.gateways.contains_key(&Family::of(**a)) && !is_link_local(**a));
            called.extend(served.map(|address| (*address, self.rank(nic.index, Family::of(*address)), !nic.holds_exit, 1, way.number)));
        }
        called.sort_unstable();
        for (address, .., number) in called {
            self.uplinks.called.entry(address).or_insert(number);
        }
        self.answered();
    }

    /// By which way workloads answer who called an exit, where its gateway is found to be another than the NIC's: whatever a binding names, it is
    /// one gateway for who calls.
    fn answered(&mut self) {
        let exits: BTreeSet<(IfIndex, IpAddr)> = self.uplinks.placed.values().copied().collect();
        for (nic, address) in exits {
            let Some(gateway) = self.found_for(nic, address) else { continue };
            let up = self.uplinks.nics.get(&nic).is_some_and(|nic| nic.up);
            let number = self.other_way(WayKey { nic, gateway: Some(gateway) }, up, gateway, None);
            if let Some(number) = number.filter(|number| self.uplinks.called.get(&address).is_some_and(|called| called != number)) {
                self.uplinks.answered.insert(address, number);
            }
        }
    }
}
