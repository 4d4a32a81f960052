//! Which exits can be used, and by which way.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::super::binding::ExitSpec;
use super::super::facts::{Family, IfIndex, is_link_local};
use super::super::gateways::asked_from;
use super::super::reason::Reason;
use super::super::ways::{Gateway, WayKey};
use super::holder::own;
use super::outside::{self, MAIN};
use super::place::Placed;
use super::{Exit, Survey};

impl Survey<'_> {
    /// What became of each exit that a NIC holds. The first one's is the way of an address for which others name another gateway: of those with one
    /// rank, the one that was there before.
    pub(super) fn exits(&mut self, mut placed: Vec<Placed>) {
        let mut ways: BTreeMap<IpAddr, WayKey> = BTreeMap::new();
        placed.sort_by_cached_key(|placed| (placed.rank, !self.was_there(placed)));
        for Placed { spec, nic, address, .. } in placed {
            let exit = self
                .usable(self.gateway_for(&spec, nic, address), (nic, address), &mut ways)
                .map(|exit| Exit { ports: spec.source_ports, ..exit });
            let exit = self.beyond(&spec, address, exit);
            self.uplinks.exits.insert(spec, exit);
        }
        let kept = self.memory.numbers.exits().filter(|(exit, _)| !ways.contains_key(exit));
        let kept: Vec<WayKey> = kept.filter_map(|(_, key)| key).collect();
        for key in kept {
            if let (Some(gateway), Some(up)) = (key.gateway, self.uplinks.nics.get(&key.nic).map(|nic| nic.up)) {
                self.other_way(key, up, gateway, None);
            }
        }
    }

    fn usable(
        &mut self,
        gateway: Option<IpAddr>,
        (nic, address): (IfIndex, IpAddr),
        ways: &mut BTreeMap<IpAddr, WayKey>,
    ) -> Result<Exit, Reason> {
        let family = Family::of(address);
        let Some(uplink) = self.uplinks.nics.get(&nic) else { return Err(Reason::AddressNotFound { address }) };
        self.not_shared(address, uplink)?;
        let interface = uplink.name.clone();
        let (up, own_way) = (uplink.up, uplink.way);
        let own_gateway = self.gateway_of(nic, family);
        let alone = self.is_alone(nic);
        let other = self.other_gateway(gateway, nic, family);
        let key = WayKey { nic, gateway: other };
        if let Some(gateway) = other.filter(|gateway| self.kernel.own_links_with(*gateway).next().is_some()) {
            return Err(Reason::GatewayIsOwn { interface, gateway });
        }
        // They are asked whatever becomes of the exit: what is known of who is not asked is forgotten.
        let of_exit = other.or(own_gateway.and_then(|own| own.address)).filter(|_| !alone);
        let routers = if alone { Vec::new() } else { self.routers(nic, family) };
        for gateway in of_exit.into_iter().chain(routers) {
            self.uplinks.gateways.entry((nic, gateway)).or_insert_with(|| asked_from(self.kernel, (nic, gateway)));
        }
        if let Some(gateway) = other.filter(|gateway| up && self.inner.facts.answers.is_dead((nic, *gateway))) {
            return Err(Reason::GatewayDead { interface, gateway });
        }
        // A router that is only another NIC's has no flows of others here.
        let own_route = self.defaults.iter().any(|d| d.interface == nic && d.family == family);
        if let (Some(named), Some(own)) = (other, own_gateway.and_then(|own| own.address).filter(|_| own_route))
            && self.is_masquerade(nic, address, own)
        {
            return Err(Reason::GatewayConflict { interface, gateway: own, named, address });
        }
        if let Some(taken) = ways.get(&address).filter(|taken| **taken != key) {
            let own = own_gateway.and_then(|own| own.address);
            let [gateway, named] = [taken.gateway, other].map(|one| one.or(own).unwrap_or(family.unspecified()));
            return Err(Reason::GatewayConflict { interface, gateway, named, address });
        }
        if other.is_none() && own_gateway.is_none() {
            return Err(if up { Reason::GatewayNotFound { interface } } else { Reason::InterfaceDown { interface } });
        }
        let way = match other {
            None => own_way,
            Some(gateway) => self.other_way(key, up, gateway, own_gateway),
        };
        let Some(way) = way else { return Err(Reason::TooManyWays { interface }) };
        ways.insert(address, key);
        self.memory.numbers.uses(address, key);
        if !up {
            return Err(Reason::InterfaceDown { interface });
        }
        if own(self.kernel, nic).any(|a| a.net.addr() == address && !a.usable) {
            return Err(Reason::AddressNotReady { address, interface });
        }
        if let Some(gateway) = of_exit.filter(|gateway| self.inner.facts.answers.is_dead((nic, *gateway))) {
            return Err(Reason::GatewayDead { interface, gateway });
        }
        Ok(Exit { address, interface: nic, way, ports: None })
    }

    /// Whether flows with an exit's address went that way before.
    fn was_there(&self, Placed { spec, nic, address, .. }: &Placed) -> bool {
        let gateway = self.gateway_for(spec, *nic, *address);
        let key = WayKey { nic: *nic, gateway: self.other_gateway(gateway, *nic, Family::of(*address)) };
        self.memory.numbers.way_of(*address) == Some(key)
    }

    /// The gateway that an exit's binding names; else that of its address. Where the NIC has none, it is what another binding names for it.
    fn gateway_for(&self, spec: &ExitSpec, nic: IfIndex, address: IpAddr) -> Option<IpAddr> {
        let named = || {
            let none = self.gateway_of(nic, Family::of(address)).is_none();
            self.named.get(&address).filter(|_| none)?.first().copied()
        };
        // Flows that masquerade gave the address have the NIC's own gateway, and their address does not tell them from others.
        let own = self.gateway_of(nic, Family::of(address)).and_then(|own| own.address);
        let found = || self.found_for(nic, address).filter(|_| !own.is_some_and(|own| self.is_masquerade(nic, address, own)));
        spec.gateway.or_else(found).or_else(named)
    }

    /// A gateway that is not the NIC's own.
    pub(super) fn other_gateway(&self, named: Option<IpAddr>, nic: IfIndex, family: Family) -> Option<IpAddr> {
        let own = self.gateway_of(nic, family);
        let alone = self.is_alone(nic);
        let is_own = |own: Gateway, gateway| own.address == Some(gateway) || (own.address.is_none() && alone);
        named.filter(|gateway| own.is_none_or(|own| !is_own(own, *gateway)))
    }

    /// The NIC's own gateway.
    pub(super) fn gateway_of(&self, nic: IfIndex, family: Family) -> Option<Gateway> {
        let way = self.uplinks.nics.get(&nic)?.way?;
        self.uplinks.ways.get(&way)?.gateways.get(&family).copied()
    }

    /// Nobody but the other end is on its link.
    fn is_alone(&self, nic: IfIndex) -> bool {
        self.kernel.links.get(&nic).is_some_and(|link| link.point_to_point || link.no_arp)
    }

    /// Whether masquerade by the NIC's own gateway gives this address to flows of others: then it does not tell by which gateway a flow goes.
    fn is_masquerade(&self, nic: IfIndex, address: IpAddr, gateway: IpAddr) -> bool {
        let mut primary = own(self.kernel, nic).filter(|a| a.primary);
        primary.any(|a| a.net.addr() == address && a.net.contains(&gateway))
    }

    /// The way by a gateway that is not the NIC's own.
    pub(super) fn other_way(&mut self, key: WayKey, up: bool, address: IpAddr, own_gateway: Option<Gateway>) -> Option<u8> {
        let gateway = self.route_by(key.nic, address).unwrap_or_else(|| {
            let on_subnet = own(self.kernel, key.nic).any(|a| a.net.contains(&address)) || is_link_local(address);
            let table = own_gateway.map_or_else(|| self.table_toward(key.nic, address), |own| own.table);
            Gateway { address: Some(address), onlink: !on_subnet, mtu: None, table }
        });
        self.way(key, up, BTreeMap::from([(Family::of(address), gateway)]))
    }

    /// The table that has the subnet of a gateway: main, unless only another one does.
    fn table_toward(&self, nic: IfIndex, gateway: IpAddr) -> u32 {
        let reached = outside::reached(self.kernel);
        let routes = self.kernel.routes.iter().filter(|r| reached.contains(&r.table) && r.destination.prefix_len() > 0);
        let covers = routes.filter(|r| r.interface == Some(nic) && r.destination.contains(&gateway));
        covers.map(|r| r.table).min_by_key(|table| (*table != MAIN, *table)).unwrap_or(MAIN)
    }
}
