//! Uplinks, their ways, and the exits on them: computed in one place, which can say no. They change seldom.

pub mod ahead;
mod beyond;
mod exit;
mod holder;
mod lost;
mod managed;
mod named;
pub mod outside;
mod place;
mod shared;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::binding::{Assignment, Binding, ExitSpec};
use super::facts::{Family, IfIndex, KernelFacts, Link, LinkKind, is_link_local};
use super::gateways::{Asked, asked_from};
use super::health::Check;
use super::known::Facts;
use super::managed::{At, Verdict};
use super::reason::{NotAnUplink, Reason};
use super::select::precedence;
use super::ways::{Gateway, Numbers, Way, WayKey};
pub use exit::Exit;
use holder::{not_an_uplink, own};
use managed::Taken;
use outside::{Default as DefaultRoute, Inside, MAIN};

/// Where workloads are known to be.
#[derive(Clone, Debug)]
pub struct Inner<'a> {
    /// Ports, bridges, and interfaces of their own: these links lead to workloads.
    pub links: BTreeSet<IfIndex>,
    pub facts: &'a Facts,
}

impl Inner<'_> {
    /// Whether a container has the address.
    fn is_container(&self, address: IpAddr) -> bool {
        self.facts.containers().flat_map(|container| &container.attachments).any(|attachment| attachment.addresses.contains(&address))
    }
}

/// A NIC that leads outside: it holds an exit, or a default route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uplink {
    pub index: IfIndex,
    pub name: String,
    /// Up and with a carrier.
    pub up: bool,
    pub group: u32,
    pub addresses: Vec<IpAddr>,
    /// Number of its own way; `None` when it has no default route and no router is known.
    pub way: Option<u8>,
    /// It holds an exit that a binding names.
    pub holds_exit: bool,
}

/// What outlives one look.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    pub numbers: Numbers,
    /// Gateways of default routes, with how often the link had gone down when they were seen.
    gateways: BTreeMap<(IfIndex, Family), (Gateway, u32)>,
    /// The NIC of each address that egressd puts on one: its subnet may be taken from it for a while.
    managed: BTreeMap<IpAddr, IfIndex>,
}

/// Uplinks, ways and exits as of now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Uplinks {
    pub nics: BTreeMap<IfIndex, Uplink>,
    /// By number.
    pub ways: BTreeMap<u8, Way>,
    exits: BTreeMap<ExitSpec, Result<Exit, Reason>>,
    /// NIC and address of each exit that a NIC holds, usable or not.
    placed: BTreeMap<ExitSpec, (IfIndex, IpAddr)>,
    /// The way of answers to who called an address; 0 is not in it.
    pub called: BTreeMap<IpAddr, u8>,
    /// The way of flows that bear an exit; 0 when it is gone.
    pub borne: BTreeMap<IpAddr, u8>,
    pub inside: Inside,
    /// Where tunnels among the uplinks lead, besides their default routes.
    pub tunnelled: BTreeSet<(IfIndex, IpNet)>,
    /// Addresses that egressd puts on NICs, with what a probe found.
    pub managed: BTreeMap<At, Option<Verdict>>,
    /// Gateways of exits, each on its NIC: they are asked whether they are there.
    pub gateways: Asked,
    /// What exits are to reach.
    pub probes: BTreeSet<Check>,
    /// What the outside sees of exits, as the cloud says.
    pub public: BTreeMap<IpAddr, IpAddr>,
    /// Exits that are on no NIC: what nobody asked for, and is for them, goes nowhere.
    pub routed: BTreeSet<IpAddr>,
    /// The preference of the first of the policy rules for our marks, where it is not as usual or cannot be.
    pub rules_from: BTreeMap<Family, u32>,
    /// What everybody should know: an address on two NICs, too many ways.
    pub problems: Vec<String>,
}

impl Uplinks {
    /// Finds uplinks, ways and exits for the bindings; nothing when there is none.
    pub fn discover<'a>(kernel: &KernelFacts, bindings: impl Iterator<Item = &'a Binding>, inner: &Inner<'_>, memory: &mut Memory) -> Self {
        let mut uplinks = Self::default();
        // Each exit once, with the binding that takes precedence of those that name it.
        let mut wanted: BTreeMap<&ExitSpec, &Binding> = BTreeMap::new();
        let mut any = false;
        for binding in bindings {
            any = true;
            // Who cannot be served has nothing put on a NIC.
            let is_served = binding.stands();
            for spec in binding.exits.iter().filter(|spec| is_served || spec.assignment != Assignment::Managed) {
                let first = wanted.entry(spec).or_insert(binding);
                // Precedence matters only where two gateways are named for one address.
                if spec.gateway.is_some() && precedence(binding) < precedence(first) {
                    *first = binding;
                }
            }
        }
        if !any {
            return uplinks;
        }
        let defaults = outside::defaults(kernel);
        let mut survey =
            Survey { kernel, defaults: &defaults, inner, memory, uplinks: &mut uplinks, named: BTreeMap::new(), taken: Taken::default() };
        let placed = survey.place(&wanted);
        survey.nics();
        survey.exits(placed);
        survey.finish();
        for family in [Family::V4, Family::V6] {
            match ahead::place(kernel, family) {
                Ok(place) => drop(uplinks.rules_from.insert(family, place)),
                Err(problem) => uplinks.problems.push(problem),
            }
        }
        uplinks
    }

    /// What became of an exit that a binding names; `None` when no binding did at the time of the look.
    pub fn exit(&self, spec: &ExitSpec) -> Option<&Result<Exit, Reason>> {
        self.exits.get(spec)
    }

    /// All usable exits.
    pub fn exits(&self) -> impl Iterator<Item = &Exit> {
        self.exits.values().flatten()
    }

    /// The NIC that holds an exit, usable or not, and its address there.
    pub fn holder(&self, spec: &ExitSpec) -> Option<(IfIndex, IpAddr)> {
        self.placed.get(spec).copied()
    }

    /// Exits that a NIC holds, with the way that the host's own programs leave by when they bind them.
    pub fn held(&self) -> impl Iterator<Item = (IpAddr, &Way)> {
        let addresses: BTreeSet<IpAddr> = self.placed.values().map(|(_, address)| *address).collect();
        let addresses = addresses.difference(&self.routed).copied().collect::<BTreeSet<_>>();
        addresses.into_iter().filter_map(|address| Some((address, self.ways.get(self.called.get(&address)?)?)))
    }

    /// The gateway of an exit's way.
    pub fn gateway(&self, exit: &Exit) -> Option<&Gateway> {
        self.ways.get(&exit.way)?.gateways.get(&Family::of(exit.address))
    }

    /// Name of an uplink.
    pub fn name(&self, index: IfIndex) -> &str {
        self.nics.get(&index).map_or("?", |nic| &nic.name)
    }
}

/// One look at it all, step by step.
struct Survey<'a> {
    kernel: &'a KernelFacts,
    defaults: &'a [DefaultRoute],
    inner: &'a Inner<'a>,
    memory: &'a mut Memory,
    uplinks: &'a mut Uplinks,
    /// Gateways that bindings name for an address, that of the binding which takes precedence first.
    named: BTreeMap<IpAddr, Vec<IpAddr>>,
    taken: Taken,
}

impl Survey<'_> {
    /// The uplinks, each with its own way.
    fn nics(&mut self) {
        let with_exit: BTreeSet<IfIndex> = self.uplinks.placed.values().map(|(nic, _)| *nic).collect();
        let may = |link: &Link| not_an_uplink(self.kernel, link, None, self.defaults, self.inner);
        let with_default = self.defaults.iter().map(|d| d.interface).filter(|index| {
            // What is in a VRF is outside all the same, though no exit can be on it.
            let link = self.kernel.links.get(index);
            link.is_some_and(|link| matches!(may(link), None | Some(NotAnUplink::InVrf { .. })))
        });
        // A NIC whose exit nobody is bound to any more stays until its flows have ended.
        let kept = self.memory.numbers.exits().filter_map(|(_, key)| Some(key?.nic));
        let kept = kept.filter(|index| self.kernel.links.get(index).is_some_and(|link| may(link).is_none()));
        let all: BTreeSet<IfIndex> = with_exit.iter().copied().chain(with_default).chain(kept).collect();
        for index in all {
            let Some(link) = self.kernel.links.get(&index) else { continue };
            let gateways = [Family::V4, Family::V6].into_iter().filter_map(|f| Some((f, self.own_gateway(link, f)?)));
            let gateways: BTreeMap<Family, Gateway> = gateways.collect();
            let up = link.up && link.carrier;
            let way = if gateways.is_empty() { None } else { self.way(WayKey::own(index), up, gateways) };
            let nic = Uplink {
                index,
                name: link.name.clone(),
                up,
                group: link.group,
                addresses: own(self.kernel, index).map(|a| a.net.addr()).collect(),
                way,
                holds_exit: with_exit.contains(&index),
            };
            self.uplinks.nics.insert(index, nic);
        }
        // Addresses that are routed to this host leave by the NIC that the binding says.
        for (nic, address) in self.uplinks.placed.values() {
            if let Some(nic) = self.uplinks.nics.get_mut(nic).filter(|nic| !nic.addresses.contains(address)) {
                nic.addresses.push(*address);
            }
        }
    }

    /// Gives a way its number, or says that there is none left.
    fn way(&mut self, key: WayKey, up: bool, gateways: BTreeMap<Family, Gateway>) -> Option<u8> {
        let number = self.memory.numbers.number(key);
        match number {
            Some(number) => drop(self.uplinks.ways.insert(number, Way { key, number, up, gateways })),
            None => {
                let name = self.kernel.links.get(&key.nic).map_or("?", |link| &link.name);
                let problem = format!(
                    "all 127 ways are taken: {name} has none; use fewer NICs and gateways, and fewer exits of programs of the host"
                );
                self.uplinks.problems.push(problem);
            }
        }
        number
    }

    /// A NIC's default route; else the one that its link took along when it went down; else the router that it shares with another NIC; else
    /// nothing where everything is on the link.
    fn own_gateway(&mut self, link: &Link, family: Family) -> Option<Gateway> {
        let key = (link.index, family);
        let downs = self.kernel.downs(link.index);
        let of_nic = |d: &&DefaultRoute| d.interface == link.index && d.family == family;
        if let Some(found) = self.defaults.iter().find(of_nic) {
            self.memory.gateways.insert(key, (found.gateway, downs));
            return Some(found.gateway);
        }
        // A static route goes with its link and does not come back with it; one that is deleted while the link is up is meant to be gone.
        match self.memory.gateways.get(&key) {
            Some((gateway, then)) if !(link.up && *then == downs) => return Some(*gateway),
            _ => drop(self.memory.gateways.remove(&key)),
        }
        let has_address = own(self.kernel, link.index).any(|a| Family::of(a.net.addr()) == family);
        let alone = (link.point_to_point || link.no_arp) && has_address;
        self.shared_gateway(link.index, family)
            .or_else(|| alone.then_some(Gateway { address: None, onlink: false, mtu: None, table: MAIN }))
    }

    /// Another NIC's gateway, when it is on a subnet of this one too: several NICs in one subnet share their router.
    fn shared_gateway(&self, nic: IfIndex, family: Family) -> Option<Gateway> {
        let near = |gateway: IpAddr| own(self.kernel, nic).any(|a| a.net.contains(&gateway));
        let mut others = self.defaults.iter().filter(|d| d.family == family && d.gateway.table == MAIN);
        let route = others.find(|d| d.gateway.address.is_some_and(near))?;
        Some(Gateway { onlink: false, mtu: None, ..route.gateway })
    }

    /// What became of each exit that a NIC holds. The first one's is the way of an address for which others name another gateway.
    fn exits(&mut self, placed: Vec<(ExitSpec, IfIndex, IpAddr)>) {
        let mut ways: BTreeMap<IpAddr, WayKey> = BTreeMap::new();
        for (spec, nic, address) in placed {
            let exit = self.usable(spec.gateway, (nic, address), &mut ways).map(|exit| Exit { ports: spec.source_ports, ..exit });
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
        let own_gateway = own_way.and_then(|number| self.uplinks.ways.get(&number)?.gateways.get(&family).copied());
        let alone = self.kernel.links.get(&nic).is_some_and(|link| link.point_to_point || link.no_arp);
        let is_own = |own: Gateway, gateway| own.address == Some(gateway) || (own.address.is_none() && alone);
        let other = gateway.filter(|gateway| own_gateway.is_none_or(|own| !is_own(own, *gateway)));
        let key = WayKey { nic, gateway: other };
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
        let gateway = self.uplinks.ways.get(&way).and_then(|way| way.gateways.get(&family)?.address).filter(|_| !alone);
        if let Some(gateway) = gateway {
            self.uplinks.gateways.entry((nic, gateway)).or_insert_with(|| asked_from(self.kernel, (nic, gateway)));
        }
        if !up {
            return Err(Reason::InterfaceDown { interface });
        }
        if own(self.kernel, nic).any(|a| a.net.addr() == address && !a.usable) {
            return Err(Reason::AddressNotReady { address, interface });
        }
        if let Some(gateway) = gateway.filter(|gateway| self.inner.facts.dead_gateways.contains((nic, *gateway))) {
            return Err(Reason::GatewayDead { interface, gateway });
        }
        Ok(Exit { address, interface: nic, way, ports: None })
    }

    /// Whether masquerade by the NIC's own gateway gives this address to flows of others: then it does not tell by which gateway a flow goes.
    fn is_masquerade(&self, nic: IfIndex, address: IpAddr, gateway: IpAddr) -> bool {
        let mut primary = own(self.kernel, nic).filter(|a| a.primary);
        primary.any(|a| a.net.addr() == address && a.net.contains(&gateway))
    }

    /// The way by a gateway that is not the NIC's own.
    fn other_way(&mut self, key: WayKey, up: bool, address: IpAddr, own_gateway: Option<Gateway>) -> Option<u8> {
        let on_subnet = own(self.kernel, key.nic).any(|a| a.net.contains(&address)) || is_link_local(address);
        let table = own_gateway.map_or_else(|| self.table_toward(key.nic, address), |own| own.table);
        let gateway = Gateway { address: Some(address), onlink: !on_subnet, mtu: None, table };
        self.way(key, up, BTreeMap::from([(Family::of(address), gateway)]))
    }

    /// The table that has the subnet of a gateway: main, unless only another one does.
    fn table_toward(&self, nic: IfIndex, gateway: IpAddr) -> u32 {
        let reached = outside::reached(self.kernel);
        let routes = self.kernel.routes.iter().filter(|r| reached.contains(&r.table) && r.destination.prefix_len() > 0);
        let covers = routes.filter(|r| r.interface == Some(nic) && r.destination.contains(&gateway));
        covers.map(|r| r.table).min_by_key(|table| (*table != MAIN, *table)).unwrap_or(MAIN)
    }

    /// Which way answers and flows go, and what is inside.
    fn finish(&mut self) {
        self.called();
        let uplinks = &mut *self.uplinks;
        // The one gateway that all bindings of an address name is its gateway for everybody, where the NIC has none.
        for (address, named) in &self.named {
            let [gateway] = named.as_slice() else { continue };
            let mut holders = uplinks.placed.values().filter(|(_, held)| held == address);
            let key = holders.next().map(|(nic, _)| WayKey { nic: *nic, gateway: Some(*gateway) });
            if let Some(way) = uplinks.ways.values().find(|way| Some(way.key) == key) {
                uplinks.called.entry(*address).or_insert(way.number);
            }
        }
        let ways: BTreeSet<WayKey> = uplinks.ways.values().map(|way| way.key).collect();
        self.memory.numbers.keep_only(&ways);
        self.memory.gateways.retain(|(nic, _), _| self.kernel.links.contains_key(nic));
        self.memory.managed.retain(|address, nic| uplinks.managed.contains_key(&(*nic, *address)));
        let number = |key: WayKey| uplinks.ways.values().find(|way| way.key == key).map_or(0, |way| way.number);
        uplinks.borne = self.memory.numbers.exits().map(|(exit, key)| (exit, key.map_or(0, number))).collect();
        let outer: BTreeSet<IfIndex> = uplinks.nics.keys().copied().collect();
        uplinks.tunnelled = outside::tunnelled(self.kernel, &outer);
        let inside = &mut uplinks.inside;
        *inside = outside::inside(self.kernel, &outer);
        for link in self.inner.links.iter().filter(|link| !outer.contains(link)) {
            // A bridge without an address routes nothing: what crosses it stays on it.
            if inside.links.insert(*link) {
                inside.routes.extend([(*link, IpNet::from(Ipv4Net::default())), (*link, IpNet::from(Ipv6Net::default()))]);
            }
        }
        inside.links.extend(self.kernel.links.values().filter(|l| l.kind == LinkKind::Loopback).map(|l| l.index));
    }
}
