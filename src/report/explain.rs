//! `egressd explain`: what happens to a packet of a workload, step by step, and why.

mod host;
pub mod inbound;
mod spread;

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::columns::list;
use super::drops::Drops;
use super::flows::protocol;
use super::lost::lost;
use super::status::shown;
use crate::contract::{MARK_MASK, PROTOCOL, UPLINK_GROUP};
use crate::model::binding::{Binding, Destination, ExistingFlows, Source, Traffic};
use crate::model::facts::{Container, Family, Link, Route, RouteKind};
use crate::model::known::Facts;
use crate::model::reason::Reason;
use crate::model::resolve::Outcome;
use crate::model::uplinks::outside::MAIN;
use crate::model::uplinks::{Exit, Uplinks};
use crate::model::ways::{self, Way};
use crate::model::workload::{Entry, Row, State, Subject};

/// Destinations that are told of, of those that exits are full for.
const MANY: usize = 8;

/// What becomes of the packets of `workload` (a name, an address, or a container's id) to `destination`, or to the outside at large.
/// `None`: no such workload is known.
pub fn explain(facts: &Facts, outcome: &Outcome, drops: &Drops, workload: &str, destination: Option<IpAddr>) -> Option<String> {
    let mut rows = workload.parse().map_or_else(|_| Vec::new(), |address| holding(outcome, address));
    if rows.is_empty() {
        rows = outcome.all_rows().filter(|row| named(row, workload)).collect();
    }
    if rows.is_empty() {
        let container = facts.containers().find(|c| c.name == workload || is_id(&c.id, workload))?;
        return Some(format!("{}: {}\n", container.name, without_a_row(facts, container)));
    }
    let mut out = String::new();
    for row in rows.iter().filter(|r| same_family(r, destination)) {
        // Writing into a String cannot fail.
        let _ = one(&mut out, facts, outcome, row, spread::Ends { source: source(row, workload), destination });
        let dropped = drops.of(row, outcome);
        if !dropped.is_empty() {
            let _ = writeln!(out, "  counted   packets dropped: {}", list(&dropped));
        }
    }
    if let (true, Some(to)) = (out.is_empty(), destination) {
        let family = if to.is_ipv4() { "IPv4" } else { "IPv6" };
        out = format!("{}: egressd knows no {family} address of it, so it does not reach {to}\n", rows[0].subject);
    }
    Some(out)
}

/// A container's id, or as much of it as `docker ps` prints.
fn is_id(id: &str, word: &str) -> bool {
    word.len() >= 12 && id.starts_with(word)
}

/// What becomes of a container that no row is for.
fn without_a_row(facts: &Facts, container: &Container) -> String {
    if !container.running {
        return match facts.manifests.of(container).first() {
            Some(held) => format!("it does not run; once it is started it has the binding {}", held.name),
            None => "it does not run, and no binding selects it".to_owned(),
        };
    }
    let networks = || container.attachments.iter().filter_map(|at| facts.networks.values().find(|network| network.name == at.network));
    match () {
        () if container.attachments.is_empty() => "no binding selects it, and it is on no network of its own".to_owned(),
        () if networks().all(|network| network.internal) => "no binding selects it, and its networks are internal".to_owned(),
        () if networks().all(|network| network.driver != "bridge") => {
            "no binding selects it, and its packets cross no bridge of this host".to_owned()
        }
        () => "no binding selects it; it takes the host's default route".to_owned(),
    }
}

fn named(row: &Row, name: &str) -> bool {
    let id = match &row.subject {
        Subject::Container(container) => is_id(&container.id, name),
        // Without its namespace: all of that name.
        Subject::Pod(pod) => name.strip_prefix("pod/") == Some(pod.name.as_str()),
        _ => false,
    };
    id || row.subject.to_string() == name || row.address.is_some_and(|net| net.to_string() == name)
}

/// The rows of the smallest part of a subnet that has this address, those that are known by an interface first: they are what the kernel looks up.
fn holding(outcome: &Outcome, address: IpAddr) -> Vec<&Row> {
    let of_host = |row: &Row| row.entry.is_some_and(Entry::is_of_host);
    let has = |row: &&Row| !of_host(row) && row.address.is_some_and(|net| net.contains(&address));
    let rank = |row: &Row| (row.entry.is_some(), row.address.map_or(0, |net| net.prefix_len()));
    let most = outcome.all_rows().filter(has).map(rank).max();
    outcome.all_rows().filter(has).filter(|row| Some(rank(row)) == most).collect()
}

/// The address that a row's packets have: its own, or the one of its subnet that is asked for.
fn source(row: &Row, name: &str) -> Option<IpAddr> {
    let net = row.address?;
    let asked = name.parse().ok().filter(|address| net.contains(address));
    if net.prefix_len() == net.max_prefix_len() { Some(net.addr()) } else { asked }
}

fn same_family(row: &Row, destination: Option<IpAddr>) -> bool {
    match (row.address, destination) {
        (Some(net), Some(to)) => net.addr().is_ipv4() == to.is_ipv4(),
        _ => true,
    }
}

fn one(out: &mut String, facts: &Facts, outcome: &Outcome, row: &Row, ends: spread::Ends) -> std::fmt::Result {
    let (subject, address) = (row.subject.to_string(), row.address.map_or_else(|| "no address yet".to_owned(), shown));
    if subject == address {
        writeln!(out, "{subject}")?
    } else {
        writeln!(out, "{subject} ({address})")?
    }
    match &row.binding {
        Some(binding) => writeln!(out, "  binding   {}", binding.name)?,
        None => writeln!(out, "  binding   none: it is known to be unbound, and takes the host's default route")?,
    }
    for loser in &row.losers {
        writeln!(
            out,
            "            {loser} asks for it too, but this binding takes precedence (priority, then source, then age, then name)"
        )?;
    }
    let link = |index| facts.kernel.links.get(&index).map_or("?", |l: &Link| l.name.as_str());
    match row.entry {
        Some(Entry::Port { port, bridge }) => writeln!(out, "  known by  port {} of bridge {}", link(port), link(bridge))?,
        Some(Entry::Routed { interface }) => writeln!(out, "  known by  interface {}", link(interface))?,
        Some(Entry::Socket) => writeln!(out, "  known by  the address that sockets of this host are bound to")?,
        Some(Entry::User { uid }) => writeln!(out, "  known by  user {uid} of its sockets")?,
        Some(Entry::Cgroup { id, level }) => writeln!(out, "  known by  control group {id} of its sockets, at level {level}")?,
        Some(Entry::Everybody) => writeln!(out, "  known by  a socket that no other binding names")?,
        None => writeln!(out, "  known by  nothing yet: no interface of this host has its address")?,
    }
    let concerned = matches!(row.state, State::Bound(_) | State::Dropped(_) | State::FellBack(_));
    if let Some(how) = ends.destination.filter(|_| concerned).and_then(|to| not_by_an_exit(facts, outcome, row, to)) {
        return writeln!(out, "  {how}");
    }
    if row.entry.is_none() && concerned {
        return writeln!(out, "  waiting   nothing is programmed for it until an interface shows its address");
    }
    match &row.state {
        State::Bound(exit) => bound(out, facts, outcome, row, exit, ends),
        State::Dropped(reason) => {
            writeln!(out, "  dropped   it has no usable exit: {reason}")?;
            if matches!(reason, Reason::NoExitInFamily(_)) {
                return Ok(());
            }
            let fallback = match row.binding.as_ref().map(|binding| binding.name.source) {
                Some(Source::Label) => "egress.unavailable=fallback",
                Some(Source::File | Source::Api) => "whenUnavailable: Fallback",
                Some(Source::Exec) | None => return Ok(()),
            };
            writeln!(out, "            ({fallback} would send it through the default route)")
        }
        State::FellBack(reason) => writeln!(out, "  fallback  it takes the host's default route: {reason}"),
        State::Waiting(reason) | State::Refused(reason) => {
            writeln!(out, "  {}   {reason}", crate::report::status::word(row).to_lowercase())
        }
        State::Free => {
            let Some(binding) = &row.binding else { return Ok(()) };
            let traffic = describe(&binding.traffic);
            writeln!(out, "  not ours  the binding has no traffic of this family ({traffic}): it takes the host's default route")
        }
    }
}

/// Why a destination is reached without an exit, whether the row has one or not.
fn not_by_an_exit(facts: &Facts, outcome: &Outcome, row: &Row, to: IpAddr) -> Option<String> {
    let is_program = row.entry.is_some_and(Entry::is_of_host);
    let its_own = |to: IpAddr| to.is_loopback() || to.is_unspecified();
    if its_own(to) && !is_program && row.entry != Some(Entry::Socket) {
        return Some(format!("inside    {to} is the workload itself: such packets never reach this host"));
    }
    if is_host(facts, to) {
        return Some(format!(
            "inside    {to} is this host itself: it answers over the interface that it was called on, and sees the workload's own address"
        ));
    }
    if to.is_multicast() || to == IpAddr::V4(Ipv4Addr::BROADCAST) {
        return Some(format!("inside    {to} is for the workload's own subnet, and is not routed"));
    }
    if let Some(how) = inside(facts, outcome, to) {
        return Some(format!("inside    {to} is not outside: {how}; source and route stay as they are"));
    }
    if let Some(how) = host::elsewhere(facts, outcome, to).filter(|_| row.entry == Some(Entry::Everybody)) {
        return Some(format!("not ours  {how}; source and route stay as they are"));
    }
    let traffic = row.binding.as_ref().map(|b| &b.traffic).filter(|traffic| !traffic.reaches(to))?;
    Some(format!("not ours  {to} is outside what the binding is for ({}): it takes the host's default route", describe(traffic)))
}

fn bound(out: &mut String, facts: &Facts, outcome: &Outcome, row: &Row, first: &Exit, ends: spread::Ends) -> std::fmt::Result {
    let traffic = row.binding.as_ref().map(|b| &b.traffic);
    if let Some(traffic) = traffic.filter(|t| !t.is_everything()) {
        writeln!(out, "  traffic   {}; the rest takes the host's default route", describe(traffic))?;
    }
    let of_host = row.entry.is_some_and(Entry::is_of_host);
    let exit = &spread::write(out, outcome, row, *first, ends)?;
    for ((number, to, port), closed) in outcome.shares_of(row).iter().flat_map(|shares| &shares.closed).take(MANY) {
        let to = SocketAddr::new(*to, *port);
        writeln!(
            out,
            "  full      {} have hardly a source port left for {to} ({}): new flows there use the other exits",
            list(closed),
            protocol(*number)
        )?;
    }
    if let Some(rate) = row.binding.as_ref().and_then(|binding| binding.rate).filter(|_| !of_host && row.entry != Some(Entry::Socket)) {
        writeln!(out, "  rate      {rate}, for all workloads of the binding together; packets above it are dropped")?;
    }
    if let Some(binding) = &row.binding {
        others(out, outcome, binding, Family::of(exit.address))?;
    }
    way(out, facts, outcome, row, exit, ends.destination)
}

/// The exits of the binding that take no new flow.
fn others(out: &mut String, outcome: &Outcome, binding: &Binding, family: Family) -> std::fmt::Result {
    for spec in binding.exits.iter().filter(|spec| spec.draining && Family::of(spec.address) == family) {
        writeln!(out, "  draining  {}: it gets no new flow, and open ones continue", spec.written())?;
    }
    for exit in lost(binding, &outcome.uplinks, family) {
        writeln!(out, "  lost      {}: {}", exit.exits, exit.message)?;
    }
    Ok(())
}

/// How what leaves by an exit goes on.
fn way(out: &mut String, facts: &Facts, outcome: &Outcome, row: &Row, exit: &Exit, destination: Option<IpAddr>) -> std::fmt::Result {
    let Some(way) = outcome.uplinks.ways.get(&exit.way) else { return Ok(()) };
    let of_host = row.entry.is_some_and(Entry::is_of_host);
    writeln!(out, "  flow      leaves as {}, and from then on this address gives its way", exit.address)?;
    if of_host {
        let how =
            if row.binding.as_ref().is_some_and(|binding| binding.existing_flows == ExistingFlows::Reset) { "end" } else { "continue" };
        writeln!(out, "  before    connections that were open before the program had this exit {how} (existingFlows)")?;
    }
    if let Some(names) = names(facts, row) {
        writeln!(out, "  names     {names}")?;
    }
    writeln!(
        out,
        "  route     packet mark {:#x}/{MARK_MASK:#x}, table {}: {}",
        outcome.programs.marks.get(exit).filter(|_| of_host).map_or_else(|| way.mark(), |number| ways::mark(*number)),
        way.table(),
        leads(facts, way, exit, destination)
    )?;
    writeln!(out, "  NIC       {}", outcome.uplinks.name(exit.interface))?;
    let ports = exit.ports.map(|ports| format!(", ports {ports}")).unwrap_or_default();
    match outcome.public_of(row, exit) {
        Some(public) => writeln!(out, "  source    {}{ports}, which the outside sees as {public}", exit.address),
        None => writeln!(out, "  source    {}{ports}", exit.address),
    }
}

/// What becomes of the names that programs look up, where another program asks for them.
fn names(facts: &Facts, row: &Row) -> Option<String> {
    // Of all programs that one is one.
    let entry = row.entry.filter(|entry| entry.is_of_host() && *entry != Entry::Everybody);
    let stub = facts.programs.stub.filter(|_| entry.is_some())?;
    let cure = "bind that one, too (systemdUnits: [systemd-resolved.service], for instance), or give the program a resolv.conf of its own";
    Some(format!("are resolved by {stub}, whose queries use its own exit: {cure}"))
}

/// How the way's table leads there.
fn leads(facts: &Facts, way: &Way, exit: &Exit, destination: Option<IpAddr>) -> String {
    let direct = destination
        .and_then(|to| most_specific(facts.kernel.routes.iter().filter(|r| r.table == way.table() && r.kind == RouteKind::Unicast), to));
    match direct.filter(|r| r.destination.prefix_len() > 0) {
        Some(Route { gateway: None, destination, .. }) => format!("{destination} is on the link"),
        Some(Route { gateway: Some(gateway), destination, .. }) => format!("{destination} via {gateway}"),
        None => match way.gateways.get(&Family::of(exit.address)).and_then(|g| g.address) {
            Some(gateway) => format!("default via {gateway}"),
            None => "everything is on the link".to_owned(),
        },
    }
}

/// An address of this host's own.
fn is_host(facts: &Facts, to: IpAddr) -> bool {
    to.is_loopback() || to.is_unspecified() || facts.kernel.own_links_with(to).next().is_some()
}

/// What makes a destination inside: a subnet that is told to be, or a route that is not by an uplink.
fn inside(facts: &Facts, outcome: &Outcome, to: IpAddr) -> Option<String> {
    let name = |index| facts.kernel.links.get(&index).map_or("?", |l: &Link| l.name.as_str());
    if let Some(net) = outcome.inside.iter().find(|net| net.contains(&to)) {
        let by = most_specific(main(facts), to).and_then(|route| route.interface).map_or("?", name);
        return Some(format!("{net} is configured as inside; it goes over {by}"));
    }
    let mut tables = outcome.uplinks.inside.tables.iter().chain([&MAIN]);
    tables.find_map(|table| reached(facts, outcome, *table, to))
}

/// How a table that is looked up ahead of the ways leads to a destination, or that it lets nothing get there.
fn reached(facts: &Facts, outcome: &Outcome, table: u32, to: IpAddr) -> Option<String> {
    let told = if table == MAIN { "main".to_owned() } else { format!("table {table}") };
    let of_table = facts.kernel.routes.iter().filter(|route| route.table == table && route.protocol != PROTOCOL);
    let route = most_specific(of_table, to).filter(|route| route.destination.prefix_len() > 0)?;
    let how = match route.kind {
        RouteKind::Unicast if is_outer(facts, &outcome.uplinks, route) => return None,
        RouteKind::Unicast => {
            let link = route.interface.and_then(|index| facts.kernel.links.get(&index));
            return Some(format!("{told} routes {} over {}", route.destination, link.map_or("?", |link| &link.name)));
        }
        RouteKind::Unreachable => "unreachable",
        RouteKind::Blackhole => "blackhole",
        RouteKind::Prohibit => "prohibit",
        RouteKind::Throw | RouteKind::Other(_) => return None,
    };
    Some(format!("{told} has no way to {} ({how})", route.destination))
}

fn is_outer(facts: &Facts, uplinks: &Uplinks, route: &Route) -> bool {
    let has_group = |index| facts.kernel.links.get(&index).is_some_and(|l| l.group == UPLINK_GROUP);
    route.interfaces().any(|index| uplinks.nics.contains_key(&index) || has_group(index))
}

fn main(facts: &Facts) -> impl Iterator<Item = &Route> {
    facts.kernel.routes.iter().filter(|r| r.table == MAIN && r.kind == RouteKind::Unicast)
}

fn most_specific<'a>(routes: impl Iterator<Item = &'a Route>, to: IpAddr) -> Option<&'a Route> {
    let covers = routes.filter(|r| r.destination.contains(&to));
    covers.max_by_key(|r| (r.destination.prefix_len(), std::cmp::Reverse(r.metric)))
}

fn describe(traffic: &Traffic) -> String {
    let destination = |d: &Destination| match d.except.as_slice() {
        [] => d.cidr.to_string(),
        except => format!("{} (except {})", d.cidr, list(except)),
    };
    let to: Vec<String> = traffic.to().iter().map(destination).collect();
    let ports = traffic.ports().iter().map(|p| {
        let name = format!("{:?}", p.protocol).to_lowercase();
        if p.first == p.last { format!("{name}/{}", p.first) } else { format!("{name}/{}-{}", p.first, p.last) }
    });
    let ports: Vec<String> = ports.collect();
    match (to.is_empty(), ports.is_empty()) {
        (true, true) => "everything".to_owned(),
        (false, true) => format!("to {}", to.join(", ")),
        (true, false) => ports.join(", "),
        (false, false) => format!("{}, to {}", ports.join(", "), to.join(", ")),
    }
}

#[cfg(test)]
mod tests;
