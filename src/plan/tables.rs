//! The desired ruleset of an outcome: fixed rules, and sets filled from its rows.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::datapath::sets::Sets;
use super::datapath::{self, Shape, drops, gate, inbound, names, programs, rate, sockets, source_ports, spread, traffic};
use crate::model::binding::{ExistingFlows, SourcePorts, Traffic};
use crate::model::facts::{Family as IpFamily, IfIndex, KernelFacts};
use crate::model::policy::{NO_EXIT, Standing, is_held_unknown, standing};
use crate::model::resolve::{Guard, Outcome};
use crate::model::uplinks::outside::Inside;
use crate::model::ways;
use crate::model::workload::{Entry, Row, State};
use crate::nft::{Bytes, Data, Datatype, Family, Key, Ruleset, Set, Table, Verdict};

/// Interface and source of who was bound until just now.
pub type Departed = BTreeSet<(IfIndex, IpAddr)>;

/// What is costly to make, and follows from bindings and exits alone.
#[derive(Clone, Debug, Default)]
pub struct Cache {
    traffic: traffic::Cache,
    spread: spread::Cache,
    inbound: inbound::Cache,
}

impl Cache {
    /// Forgets what is not needed any more.
    pub fn keep_only(&mut self, ruleset: &Ruleset, outcome: &Outcome) {
        self.traffic.keep_only(ruleset);
        self.spread.keep_only(&outcome.spreads);
        self.inbound.keep_only(&outcome.inbound.all);
    }
}

/// The ruleset that an outcome needs; no table at all when nothing is bound.
pub fn ruleset(outcome: &Outcome, kernel: &KernelFacts, made: &mut Cache) -> Ruleset {
    if outcome.is_idle() {
        return Ruleset::default();
    }
    let rows: Vec<Stood> = outcome.rows.iter().map(|row| (row, standing(row))).collect();
    let mut ip = |v6| table(outcome, &rows, kernel, v6, made);
    let tables = [(Family::Ip, ip(false)), (Family::Ip6, ip(true)), (Family::Bridge, bridge(&rows, kernel))];
    let rate = rate::table(outcome).map(|table| (Family::Inet, table));
    Ruleset { tables: tables.into_iter().chain(rate).collect() }
}

/// What some rows put into the tables: of the sets that are filled from rows alone, and no others.
pub fn of_rows(outcome: &Outcome, rows: &[Row], kernel: &KernelFacts) -> Ruleset {
    let rows: Vec<Stood> = rows.iter().map(|row| (row, standing(row))).collect();
    let ip = |v6| {
        let mut sets = datapath::sets(v6);
        sources(&mut sets, outcome, &rows, v6);
        let mut table = sets.with(BTreeMap::new());
        table.sets.retain(|name, _| names::OF_SOURCES.contains(&name.as_str()));
        table
    };
    let bridge = Table { chains: BTreeMap::new(), ..bridge(&rows, kernel) };
    Ruleset { tables: [(Family::Ip, ip(false)), (Family::Ip6, ip(true)), (Family::Bridge, bridge)].into() }
}

/// Holds back what leaves from those who were bound until just now.
pub fn hold_back(desired: &mut Ruleset, departed: &Departed) {
    hold(desired, departed);
    if !departed.is_empty() {
        desired.tables.iter_mut().for_each(|(family, table)| look_up(*family, table));
    }
}

/// Makes the rules anew that look up what is in the sets of a table.
pub fn look_up(family: Family, table: &mut Table) {
    match family {
        Family::Ip | Family::Ip6 => table.chains.extend(datapath::chains(Shape::of(&table.sets, family == Family::Ip6))),
        Family::Inet => table.chains.extend([rate::look_ups(&table.sets)]),
        Family::Bridge => {}
    }
}

/// The elements of those who were bound until just now.
pub fn hold(tables: &mut Ruleset, departed: &Departed) {
    for (family, v6) in [(Family::Ip, false), (Family::Ip6, true)] {
        let held = departed.iter().filter(|(_, address)| address.is_ipv6() == v6);
        if let Some(set) = tables.tables.get_mut(&family).and_then(|table| table.sets.get_mut(names::DEPARTED)) {
            set.elements.extend(held.map(|(interface, address)| (source(*interface, *address), Data::None)));
        }
    }
}

/// The keys of an address in the sets of who owns what: by each of these ports, and by whichever.
pub fn owner_keys(ports: &BTreeSet<IfIndex>, address: IpAddr) -> [(&'static str, Vec<Key>); 3] {
    let family = usize::from(address.is_ipv6());
    let by_port: Vec<Key> = ports.iter().map(|port| source(*port, address)).collect();
    [
        (names::OWNERS[family], by_port.clone()),
        (names::BESIDE[family], by_port),
        (names::OWNED[family], vec![Key::one(Bytes::default().address(address))]),
    ]
}

/// A row, and what the kernel knows its source by.
type Stood<'a> = (&'a Row, Standing);

/// Who owns which address at which port.
fn bridge(rows: &[Stood], kernel: &KernelFacts) -> Table {
    let (chains, mut sets) = datapath::identity();
    for (row, standing) in rows {
        let (Some(Entry::Port { port, bridge }), Some(net)) = (row.entry, row.address) else { continue };
        let (address, family) = (net.addr(), usize::from(net.addr().is_ipv6()));
        if *standing == Standing::Unknown {
            continue;
        }
        sets.put(names::OWNERS[family], source(port, address), Data::None);
        sets.one(names::OWNED[family], Bytes::default().address(address), Data::None);
        // Another bridge may have the same subnet; where the workload has a port there as well, the address is its own.
        let is_own = |master: IfIndex| master == bridge || row.beside.iter().any(|entry| entry.bridge() == Some(master));
        for other in kernel.near_ends_of(address).filter(|link| link.master.is_some_and(|master| !is_own(master))) {
            sets.put(names::OWNERS[family], source(other.index, address), Data::None);
        }
        row.beside.iter().for_each(|entry| sets.put(names::BESIDE[family], source(entry.link(), address), Data::None));
    }
    let mut table = sets.with(chains);
    datapath::add_identity_drops(&mut table);
    table
}

fn table(outcome: &Outcome, rows: &[Stood], kernel: &KernelFacts, v6: bool, made: &mut Cache) -> Table {
    let mut sets = datapath::sets(v6);
    let mut traffics = sources(&mut sets, outcome, rows, v6);
    for (bridge, _) in outcome.guards.iter().filter(|(_, guard)| **guard == Guard::Closed) {
        let faces = outcome.faces.get(bridge).into_iter().flatten();
        faces.chain([bridge]).for_each(|interface| sets.one(names::GUARDS, Bytes::of_number(*interface), Data::None));
    }
    guard_programs(&mut sets, rows, kernel, v6);
    for (address, number) in outcome.uplinks.borne.iter().filter(|(address, _)| address.is_ipv6() == v6) {
        sets.one(names::WAYS, Bytes::default().address(*address), Data::mark(ways::mark(*number)));
    }
    for (set, addresses) in [(names::CALLED, &outcome.uplinks.called), (names::ANSWERED, &outcome.uplinks.answered)] {
        for (address, number) in addresses.iter().filter(|(address, _)| address.is_ipv6() == v6) {
            sets.one(set, Bytes::default().address(*address), Data::mark(ways::mark(*number)));
        }
    }
    for nic in outcome.uplinks.nics.values() {
        for address in nic.addresses.iter().filter(|a| a.is_ipv6() == v6) {
            sets.put(names::OWN, source(nic.index, *address), Data::None);
        }
    }
    put_inside(&mut sets, &outcome.uplinks.inside, v6);
    put_subnets(&mut sets, names::TUNNELLED, outcome.uplinks.tunnelled.iter().filter(|(_, net)| net.addr().is_ipv6() == v6));
    let mut table = sets.with(BTreeMap::new());
    drops::add_sets(&mut table, v6);
    table.sets.insert(names::INSIDE.to_owned(), inside_set(outcome.inside.iter(), v6));
    table.sets.insert(names::CLAIMED.to_owned(), claimed(outcome, rows, v6));
    for (policy, shares) in outcome.spreads.iter().filter(|(_, shares)| shares.shares.iter().any(|one| one.exit.address.is_ipv6() == v6)) {
        spread::add(&mut table, *policy, shares, v6, &mut made.spread);
    }
    programs::add(&mut table, outcome, v6);
    sockets::add(&mut table, outcome.rows.iter(), v6);
    source_ports::add(&mut table, &outcome.uplinks.source_ports(), v6);
    traffics.extend(programs::traffics(&outcome.programs, v6));
    inbound::add(&mut table, outcome, kernel, v6, &mut made.inbound);
    gate::add(&mut table, kernel, v6);
    table.chains.extend(datapath::chains(Shape::of(&table.sets, v6)));
    traffics.into_iter().for_each(|(name, traffic)| traffic::add(&mut table, &name, traffic, v6, &mut made.traffic));
    table
}

/// Guards the links to programs in network namespaces: who is root in one may give itself any address. What falls back is known there.
fn guard_programs(sets: &mut Sets, rows: &[Stood], kernel: &KernelFacts, v6: bool) {
    let links: BTreeSet<IfIndex> = kernel.isolated().map(|(link, _)| link.index).collect();
    links.iter().for_each(|link| sets.one(names::GUARDS, Bytes::of_number(*link), Data::None));
    for (row, standing) in rows.iter().filter(|_| !links.is_empty()) {
        let (Standing::Free, Some(Entry::Routed { interface }), Some(net)) = (standing, row.entry, row.address) else { continue };
        if links.contains(&interface) && net.addr().is_ipv6() == v6 {
            sets.put(names::KNOWN, source(interface, net.addr()), Data::None);
        }
    }
}

/// Puts what the rows are known by into the sets. Returns what traffic their bindings are for, where it is not everything.
fn sources<'a>(sets: &mut Sets, outcome: &Outcome, rows: &[Stood<'a>], v6: bool) -> BTreeMap<String, &'a Traffic> {
    let mut traffics: BTreeMap<String, &Traffic> = BTreeMap::new();
    for (row, standing) in rows {
        let (Some(_), Some(net)) = (row.entry, row.address) else { continue };
        if net.addr().is_ipv6() != v6 {
            continue;
        }
        // What is wrong with a binding is wrong with what it is for: all of it is held.
        let valid = !matches!(standing, Standing::Bound(NO_EXIT));
        let limited = row.binding.as_ref().map(|b| &b.traffic).filter(|t| valid && !t.is_everything());
        let limited = limited.map(|traffic| (traffic::name(traffic), traffic));
        let is_guarded = row.entries().any(|entry| guarded(outcome, entry));
        for interface in outcome.entrances(row) {
            match standing {
                Standing::Bound(policy) => bound(sets, outcome, row, (interface, net), *policy, limited.as_ref().map(|(name, _)| name)),
                Standing::Free => {
                    if is_guarded {
                        sets.put(names::KNOWN, source(interface, net.addr()), Data::None);
                    }
                    fell_back(sets, row, interface, net);
                }
                Standing::Unknown => {}
            }
        }
        traffics.extend(limited);
    }
    traffics
}

/// The element of a source whose connections go on by the exits that they began with, while new ones take the default route.
fn fell_back(sets: &mut Sets, row: &Row, interface: IfIndex, net: IpNet) {
    let keeps = row.binding.as_ref().is_some_and(|binding| binding.existing_flows == ExistingFlows::Keep);
    if !(keeps && matches!(row.state, State::FellBack(_))) {
        return;
    }
    if net.prefix_len() == net.max_prefix_len() {
        sets.put(names::FELL_BACK, source(interface, net.addr()), Data::None);
    } else {
        sets.put(names::FELL_BACK_NETS, Key::prefix(interface, net), Data::None);
    }
}

/// The elements of a bound source: its policy, the policy's way, and its exit on each NIC that it may leave by.
fn bound(sets: &mut Sets, outcome: &Outcome, row: &Row, (interface, net): (IfIndex, IpNet), policy: u32, limited: Option<&String>) {
    let single = net.prefix_len() == net.max_prefix_len();
    let key = || if single { source(interface, net.addr()) } else { Key::prefix(interface, net) };
    sets.put(if single { names::POLICIES } else { names::POLICIES_NETS }, key(), Data::mark(policy));
    if let Some(traffic) = limited {
        let jump = Data::Verdict(Verdict::Jump(traffic.clone()));
        sets.put(if single { names::LIMITED } else { names::LIMITED_NETS }, key(), jump);
    }
    let spread = outcome.spreads.contains_key(&policy);
    let left_by = |nic: IfIndex| {
        if single {
            Key::one(Bytes::default().number(nic).number(interface).address(net.addr()))
        } else {
            Key::pair_prefix(nic, interface, net)
        }
    };
    let mut nics: Vec<IfIndex> = Vec::new();
    let mut exit = |nic: IfIndex, address: IpAddr, ports: Option<SourcePorts>| {
        // The exit that was chosen comes first, and has its NIC.
        if nics.contains(&nic) {
            return;
        }
        nics.push(nic);
        if let Some(ports) = ports.filter(|_| !spread) {
            sets.put(if single { names::SOURCE_PORTS } else { names::SOURCE_PORTS_NETS }, left_by(nic), source_ports::jump(ports));
        }
        if spread {
            let jump = Data::Verdict(Verdict::Jump(spread::exit_chain(policy)));
            sets.put(if single { names::SPREAD_EXITS } else { names::SPREAD_EXITS_NETS }, left_by(nic), jump);
        } else {
            sets.put(if single { names::EXITS } else { names::EXITS_NETS }, left_by(nic), Data::address(address));
        }
    };
    if let State::Bound(chosen) = &row.state {
        exit(chosen.interface, chosen.address, chosen.ports);
    }
    // The others are there beforehand: a NIC that goes down changes the policy, and nothing of who has it.
    if policy != NO_EXIT {
        let specs = row.binding.iter().flat_map(|binding| &binding.exits);
        let placed = specs.filter(|spec| IpFamily::of(spec.address) == IpFamily::of(net.addr()));
        let placed = placed.filter_map(|spec| Some((outcome.uplinks.holder(spec)?, spec.source_ports)));
        placed.for_each(|((nic, address), ports)| exit(nic, address, ports));
    }
    if let State::Bound(chosen) = &row.state {
        sets.one(names::POLICY_WAYS, Bytes::of_number(policy), Data::mark(ways::mark(chosen.way)));
    }
}

/// The interfaces and destinations that are inside.
fn put_inside(sets: &mut Sets, inside: &Inside, v6: bool) {
    for interface in &inside.links {
        sets.one(names::INSIDE_LINKS, Bytes::of_number(*interface), Data::None);
    }
    let of_family = inside.routes.iter().filter(|(_, net)| net.addr().is_ipv6() == v6);
    let (hosts, subnets): (Vec<&(IfIndex, IpNet)>, Vec<_>) = of_family.partition(|(_, net)| net.prefix_len() == net.max_prefix_len());
    hosts.into_iter().for_each(|(interface, net)| sets.put(names::INSIDE_HOSTS, source(*interface, net.addr()), Data::None));
    put_subnets(sets, names::INSIDE_ROUTES, subnets.into_iter());
}

/// Subnets by interface. Those of one interface that lie in others are left out.
fn put_subnets<'a>(sets: &mut Sets, set: &str, all: impl Iterator<Item = &'a (IfIndex, IpNet)>) {
    let mut subnets: BTreeMap<IfIndex, Vec<IpNet>> = BTreeMap::new();
    all.for_each(|(interface, net)| subnets.entry(*interface).or_default().push(*net));
    for (interface, nets) in subnets {
        IpNet::aggregate(&nets).into_iter().for_each(|net| sets.put(set, Key::prefix(interface, net), Data::None));
    }
}

fn guarded(outcome: &Outcome, entry: Entry) -> bool {
    entry.bridge().is_some_and(|bridge| outcome.guards.get(&bridge) == Some(&Guard::Closed))
}

/// Sources that bindings name where no bridge is guarded: by another interface than theirs they do not leave.
fn claimed(outcome: &Outcome, rows: &[Stood], v6: bool) -> Set {
    let open = rows.iter().filter(|(_, standing)| matches!(standing, Standing::Bound(_))).map(|(row, _)| row);
    let open = open.filter(|row| row.entry.is_some_and(|entry| !guarded(outcome, entry)));
    let unknown = outcome.rows.iter().filter(|row| is_held_unknown(row));
    // Whoever comes in by one interface, whatever its address: by others it is somebody else.
    let nets = open.copied().chain(unknown).filter_map(|row| row.address).filter(|net| net.prefix_len() > 0);
    let nets: Vec<IpNet> = nets.collect();
    inside_set(nets.iter(), v6)
}

/// Subnets of one family, by whatever interface the packet comes. None lies in another: the kernel takes no nested ones.
pub fn inside_set<'a>(inside: impl Iterator<Item = &'a IpNet>, v6: bool) -> Set {
    let family: Vec<IpNet> = inside.filter(|net| net.addr().is_ipv6() == v6).copied().collect();
    let mut set = Set::of([Datatype::IfIndex, Datatype::address(v6)]).with_ranges();
    set.elements.extend(IpNet::aggregate(&family).into_iter().map(|net| (Key::any_interface(net), Data::None)));
    set
}

fn source(interface: IfIndex, address: IpAddr) -> Key {
    Key::one(Bytes::default().number(interface).address(address))
}

/// The same tables with nobody bound: no flow begins with an exit any more, and those of who was bound are held until they have ended, by
/// whoever ends them.
pub fn unbound(observed: &Ruleset, departed: &Departed) -> Ruleset {
    let mut tables = observed.clone();
    for table in tables.tables.values_mut() {
        for name in [names::POLICIES, names::POLICIES_NETS] {
            table.sets.entry(name.to_owned()).and_modify(|set| set.elements.clear());
        }
        table.sets.iter_mut().filter(|(name, _)| names::is_of_programs(name)).for_each(|(_, set)| set.elements.clear());
    }
    hold_back(&mut tables, departed);
    tables
}
