//! The ground that workloads stand on: the uplinks with their gateways, and the exits on them. It changes seldom.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::binding::{Binding, ExitSpec};
use super::facts::{Address, Family, IfIndex, KernelFacts, LinkKind, Place, Route, RouteKind};
use super::numbers::{Numbers, unmark};
use super::reason::Reason;
use super::select::precedence;
use crate::contract::{PROTOCOL, TABLE_BASE};

/// Number of the kernel's main route table (`RT_TABLE_MAIN`).
pub const MAIN: u32 = 254;
/// `RTPROT_RA`: learned by router advertisement, so that its going means something.
const BY_ADVERTISEMENT: u8 = 9;

/// How an uplink reaches the outside in one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Gateway {
    /// `None`: everything is on the link (point to point).
    pub address: Option<IpAddr>,
    pub onlink: bool,
    pub mtu: Option<u32>,
    pub by_advertisement: bool,
}

/// A NIC that holds an exit or a default route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uplink {
    pub index: IfIndex,
    pub name: String,
    /// 1 to 127, in marks and as the offset of its table.
    pub number: u8,
    /// Up and with a carrier.
    pub up: bool,
    pub group: u32,
    pub addresses: Vec<IpAddr>,
    pub gateways: BTreeMap<Family, Gateway>,
    /// It holds an exit that a binding names.
    pub holds_exit: bool,
}

impl Uplink {
    /// Number of its route table.
    pub fn table(&self) -> u32 {
        TABLE_BASE + u32::from(self.number)
    }
}

/// One usable exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Exit {
    pub address: IpAddr,
    pub interface: IfIndex,
    /// The claim of its workloads, and the conntrack mark of their flows.
    pub mark: u32,
}

/// What outlives one resolution: numbers, gateways that were found, who came first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    pub numbers: Numbers,
    gateways: BTreeMap<(IfIndex, Family), Gateway>,
}

/// Uplinks and exits as of now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ground {
    pub uplinks: BTreeMap<IfIndex, Uplink>,
    exits: BTreeMap<ExitSpec, Result<Exit, Reason>>,
    /// Addresses that `from` rules are for: every exit that a NIC holds.
    pub held: BTreeSet<(IpAddr, IfIndex)>,
    /// NICs that hold an exit or a default route now (other uplinks only wait for their flows to end).
    pub needed: BTreeSet<IfIndex>,
}

impl Ground {
    /// Finds uplinks and exits for the bindings.
    pub fn survey<'a>(kernel: &KernelFacts, bindings: impl Iterator<Item = &'a Binding>, memory: &mut Memory) -> Self {
        let mut ground = Self::default();
        // Each exit once, with the binding that takes precedence of those that name it.
        let mut wanted: BTreeMap<&ExitSpec, &Binding> = BTreeMap::new();
        let mut any = false;
        for binding in bindings {
            any = true;
            for spec in &binding.exits {
                let first = wanted.entry(spec).or_insert(binding);
                // It matters only for whose gateway counts.
                if spec.gateway.is_some() && precedence(binding) < precedence(first) {
                    *first = binding;
                }
            }
        }
        if !any {
            return ground;
        }
        let holders: BTreeMap<&ExitSpec, Result<IfIndex, Reason>> = wanted.keys().map(|spec| (*spec, holder(kernel, spec))).collect();
        let mut explicit: BTreeMap<(IfIndex, Family), IpAddr> = BTreeMap::new();
        let mut ordered: Vec<_> = wanted.iter().filter(|(spec, _)| spec.gateway.is_some()).collect();
        ordered.sort_by_key(|(_, binding)| precedence(binding));
        for (spec, _) in ordered {
            if let (Ok(nic), Some(gateway)) = (&holders[spec], spec.gateway) {
                explicit.entry((*nic, family(spec.address))).or_insert(gateway);
            }
        }
        let with_exit: BTreeSet<IfIndex> = holders.values().flatten().copied().collect();
        let with_default = kernel.routes.iter().filter(|r| r.table == MAIN && is_default(r)).filter_map(|r| r.interface);
        ground.needed = with_exit.iter().copied().chain(with_default).collect();
        let kept = memory.numbers.nics().map(|(nic, _)| nic);
        let nics: BTreeSet<IfIndex> = ground.needed.iter().copied().chain(kept).collect();
        for index in nics {
            let Some(link) = kernel.links.get(&index).filter(|l| l.kind != LinkKind::Loopback) else { continue };
            let Some(number) = memory.numbers.nic(index) else { continue };
            let gateways = [Family::V4, Family::V6]
                .into_iter()
                .filter_map(|f| Some((f, gateway(kernel, index, f, explicit.get(&(index, f)).copied(), memory)?)))
                .collect();
            let uplink = Uplink {
                index,
                name: link.name.clone(),
                number,
                up: link.up && link.carrier,
                group: link.group,
                addresses: own(kernel, index).map(|a| a.net.addr()).collect(),
                gateways,
                holds_exit: with_exit.contains(&index),
            };
            ground.uplinks.insert(index, uplink);
        }
        for (spec, holder) in holders {
            let exit = holder.and_then(|nic| ground.usable(kernel, spec, nic, explicit.get(&(nic, family(spec.address))), memory));
            ground.exits.insert(spec.clone(), exit);
        }
        ground
    }

    /// What became of an exit that a binding names; `None` when no binding did at the time of the survey.
    pub fn exit(&self, spec: &ExitSpec) -> Option<&Result<Exit, Reason>> {
        self.exits.get(spec)
    }

    /// All usable exits.
    pub fn exits(&self) -> impl Iterator<Item = &Exit> {
        self.exits.values().flatten()
    }

    /// Name of an uplink.
    pub fn name(&self, index: IfIndex) -> &str {
        self.uplinks.get(&index).map_or("?", |u| &u.name)
    }

    fn usable(
        &mut self,
        kernel: &KernelFacts,
        spec: &ExitSpec,
        nic: IfIndex,
        gateway: Option<&IpAddr>,
        memory: &mut Memory,
    ) -> Result<Exit, Reason> {
        self.held.insert((spec.address, nic));
        let uplink = self.uplinks.get(&nic).ok_or(Reason::TooManyNics)?;
        let interface = || uplink.name.clone();
        if let (Some(asked), Some(taken)) = (spec.gateway, gateway)
            && asked != *taken
        {
            return Err(Reason::GatewayConflict { interface: interface(), gateway: *taken });
        }
        if !uplink.up {
            return Err(Reason::InterfaceDown { interface: interface() });
        }
        if own(kernel, nic).any(|a| a.net.addr() == spec.address && !a.usable) {
            return Err(Reason::AddressNotReady { address: spec.address, interface: interface() });
        }
        if !uplink.gateways.contains_key(&family(spec.address)) {
            return Err(Reason::GatewayNotFound { interface: interface() });
        }
        let mark = memory.numbers.exit(nic, spec.address).ok_or_else(|| Reason::TooManyExits { interface: interface() })?;
        debug_assert!(unmark(mark).is_some());
        Ok(Exit { address: spec.address, interface: nic, mark })
    }
}

/// The family of an address.
pub fn family(address: IpAddr) -> Family {
    if address.is_ipv4() { Family::V4 } else { Family::V6 }
}

/// A default route that leads somewhere.
pub fn is_default(route: &Route) -> bool {
    route.destination.prefix_len() == 0 && route.kind == RouteKind::Unicast
}

fn own(kernel: &KernelFacts, index: IfIndex) -> impl Iterator<Item = &Address> {
    kernel.addresses_at(Place { nsid: None, index })
}

/// The NIC that holds an exit's address.
fn holder(kernel: &KernelFacts, spec: &ExitSpec) -> Result<IfIndex, Reason> {
    let address = spec.address;
    if let Some(name) = &spec.interface {
        let link = kernel.link(name).ok_or_else(|| Reason::NoSuchInterface { interface: name.clone() })?;
        if own(kernel, link.index).any(|a| a.net.addr() == address) {
            return Ok(link.index);
        }
        // An address of IPv6 goes with its link: that it is down is the better news.
        if !link.up {
            return Err(Reason::InterfaceDown { interface: name.clone() });
        }
        let elsewhere = kernel.own_links_with(address).next().map(|l| l.name.clone());
        return Err(Reason::AddressNotOnInterface { address, interface: name.clone(), elsewhere });
    }
    kernel.own_links_with(address).next().map(|l| l.index).ok_or(Reason::AddressNotFound { address })
}

/// The way out of a NIC: what a binding says, else its default route in main, else in any table, else what was found before, else the
/// router that it shares with another NIC.
fn gateway(kernel: &KernelFacts, nic: IfIndex, family: Family, explicit: Option<IpAddr>, memory: &mut Memory) -> Option<Gateway> {
    if let Some(address) = explicit {
        let on_subnet = own(kernel, nic).any(|a| a.net.contains(&address)) || is_link_local(address);
        return Some(Gateway { address: Some(address), onlink: !on_subnet, mtu: None, by_advertisement: false });
    }
    let defaults = kernel.routes.iter().filter(|r| is_default(r) && r.interface == Some(nic) && family_of(&r.destination) == family);
    let ours = |r: &&Route| r.protocol == PROTOCOL;
    let found = defaults
        .clone()
        .filter(|r| !ours(r))
        .min_by_key(|r| (r.table != MAIN, r.metric, r.table))
        .or_else(|| defaults.filter(ours).min_by_key(|r| r.table));
    if let Some(route) = found {
        let gateway = Gateway {
            address: route.gateway,
            onlink: route.onlink,
            mtu: route.mtu(),
            by_advertisement: route.protocol == BY_ADVERTISEMENT,
        };
        memory.gateways.insert((nic, family), gateway);
        return Some(gateway);
    }
    // A static route goes with its link and does not come back with it; one by advertisement is told again.
    let before = memory.gateways.get(&(nic, family)).copied().filter(|g| !g.by_advertisement);
    before.or_else(|| shared_gateway(kernel, nic, family))
}

/// Another NIC's gateway, when it is on a subnet of this one too: several NICs in one subnet share their router.
fn shared_gateway(kernel: &KernelFacts, nic: IfIndex, family: Family) -> Option<Gateway> {
    let defaults = kernel.routes.iter().filter(|r| r.table == MAIN && is_default(r) && family_of(&r.destination) == family);
    let near = defaults.filter(|r| r.gateway.is_some_and(|gateway| own(kernel, nic).any(|a| a.net.contains(&gateway))));
    let route = near.min_by_key(|r| r.metric)?;
    Some(Gateway { address: route.gateway, onlink: false, mtu: None, by_advertisement: false })
}

fn family_of(net: &IpNet) -> Family {
    family(net.addr())
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(a) => a.is_link_local(),
        IpAddr::V6(a) => a.is_unicast_link_local(),
    }
}
