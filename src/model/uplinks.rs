//! Uplinks, their ways, and the exits on them: computed in one place, which can say no. They change seldom.

pub mod ahead;
mod beyond;
mod exit;
mod gateway;
mod holder;
mod lost;
mod managed;
mod named;
pub mod outside;
mod place;
mod shared;
mod usable;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use foldhash::HashMap;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::binding::{Assignment, Binding, ExitSpec};
use super::facts::{Family, IfIndex, KernelFacts, Link, LinkKind, Rule};
use super::gateways::Asked;
use super::health::Check;
use super::known::Facts;
use super::managed::{At, Verdict};
use super::reason::{NotAnUplink, Reason};
use super::select::precedence;
use super::ways::{Gateway, Numbers, Way, WayKey};
pub use exit::Exit;
use holder::{not_an_uplink, own};
use managed::Taken;
use outside::{Default as DefaultRoute, Inside};

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
    /// Routers that a NIC has from another one, with that one, and how often its link had gone down.
    shared_gateways: BTreeMap<(IfIndex, Family), (Gateway, IfIndex, u32)>,
    /// The NIC of each address that egressd puts on one: its subnet may be taken from it for a while.
    managed: BTreeMap<IpAddr, IfIndex>,
}

impl Memory {
    /// Takes over the gateway of a NIC that an earlier run went on with, though no route named it any more.
    pub fn read_back(&mut self, nic: IfIndex, family: Family, gateway: Gateway) {
        self.gateways.insert((nic, family), (gateway, gateway::READ_BACK));
    }
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
    /// The same for calls to workloads, where the host's own answers have another: the router of an exit's own subnet.
    pub answered: BTreeMap<IpAddr, u8>,
    /// Addresses that a policy rule of the host leads out by their NIC: its own sockets need no rule of ours.
    pub led: BTreeSet<IpAddr>,
    /// The way of flows that bear an exit; 0 when it is gone.
    pub borne: BTreeMap<IpAddr, u8>,
    pub inside: Inside,
    /// Where tunnels among the uplinks lead, besides their default routes.
    pub tunnelled: BTreeSet<(IfIndex, IpNet)>,
    /// Addresses that egressd puts on NICs, with what a probe found.
    pub managed: BTreeMap<At, Option<Verdict>>,
    /// Addresses of ours that are another node's now. They go at once, whoever still bears them: the other node waits for that.
    pub elsewhere: BTreeSet<IpAddr>,
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
        let ours = kernel.own_addresses().filter(|(_, address)| address.ours).map(|(_, address)| address.net.addr());
        uplinks.elsewhere = ours.filter(|address| inner.facts.cluster.is_elsewhere(*address)).collect();
        if !any {
            return uplinks;
        }
        let defaults = outside::defaults(kernel);
        let mut survey = Survey {
            kernel,
            defaults: &defaults,
            from_rules: gateway::from_rules(kernel),
            nets: kernel.own_addresses().map(|(nic, address)| ((nic, address.net.addr()), address.net)).collect(),
            inner,
            memory,
            uplinks: &mut uplinks,
            named: BTreeMap::new(),
            taken: Taken::default(),
        };
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
    /// The host's rules for single sources, in their order.
    from_rules: Vec<&'a Rule>,
    /// The subnet of each address of the host.
    nets: HashMap<(IfIndex, IpAddr), IpNet>,
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
        self.memory.shared_gateways.retain(|(nic, _), _| self.kernel.links.contains_key(nic));
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
