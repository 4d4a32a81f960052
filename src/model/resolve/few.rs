//! A round for a few: everybody else's rows, and all that is shared, stay as they are.
//!
//! [`resolve`](super::resolve) decides everything from nothing. That takes as long as there are workloads, and most changes are those of one
//! container: it is made, gets a port and an address, and goes. So such changes are decided by themselves, by the same functions, where it is
//! certain that nothing shared follows from them. Where it is not, everything is decided from nothing; what comes out is the same.

use std::cell::{Cell, LazyCell};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;

use super::super::facts::{Container, IfIndex, Link, LinkKind, Place};
use super::super::known::Facts;
use super::super::pod::NetworkNamespace;
use super::super::port_owners::{Decided, Key, Others, PortOwners};
use super::super::select::Held;
use super::super::touched::Touched;
use super::super::uplinks::outside;
use super::super::workload::{Entry, Row, Subject};
use super::census::{Census, Kinds, is_plain};
use super::containers::owner;
use super::inner::is_face;
use super::{Guard, Outcome, Past, Pending, Resolver};

/// What became of some containers.
#[derive(Clone, Debug, PartialEq)]
pub struct Changed {
    /// Their rows until now.
    pub before: Vec<Row>,
    pub after: Vec<Row>,
    /// All that have one of their addresses, or had.
    pub addresses: BTreeSet<IpAddr>,
    /// Ports that these may have had.
    pub ports: BTreeSet<IfIndex>,
}

/// Decides anew for those whom a change touches, and brings the outcome up to it. `None` when others may depend on it: then past and outcome are
/// as they were, and the census is of no use any more.
pub fn resolve_few<'a>(
    facts: &'a Facts,
    past: &mut Past,
    outcome: &mut Outcome,
    census: &mut Census,
    touched: &'a Touched,
) -> Option<Changed> {
    if touched.all || !are_ports(facts, outcome, touched) {
        return None;
    }
    let ids = census.together(facts, touched)?;
    let (mut before, mut after) = (Kinds::default(), Kinds::default());
    let mut pending = Pending::default();
    let mut made: Vec<Range<usize>> = Vec::new();
    let resolver = Resolver::new(facts, &outcome.uplinks);
    let mut keys: BTreeSet<Key> = BTreeSet::new();
    for id in &ids {
        let now = facts.containers.get(id);
        let then = touched.containers.get(id).map_or(now.map(|known| &known.container), Option::as_ref);
        let published = |container: Option<&'a Arc<Container>>| container.map_or(&[][..], |container| &container.published);
        if !outcome.inbound.asked.is_empty() && published(then) != published(now.map(|known| &known.container)) {
            return None;
        }
        if let Some(container) = then {
            before.ask(&resolver, container, &held_alone(&resolver, outcome, container)?);
            keys.extend(resolver.keys_of(container));
        }
        let from = pending.rows.len();
        if let Some(known) = now {
            let held = held_alone(&resolver, outcome, &known.container)?;
            after.ask(&resolver, &known.container, &held);
            resolver.container(known, &held, &outcome.guards, &mut pending);
        }
        made.push(from..pending.rows.len());
    }
    let beside =
        Beside { facts, resolver: &resolver, guards: &outcome.guards, owners: &past.port_owners, census, unsure: Cell::new(false) };
    let Decided { owners, answers } = past.port_owners.decide(&pending.requests(), &beside);
    if beside.unsure.get() {
        return None;
    }
    pending.answered(answers);
    for row in &mut pending.rows {
        row.beside = resolver.beside(row);
        // By another link its address may be somebody else's.
        if let (false, Some(net), Subject::Container(container)) = (row.beside.is_empty(), row.address, &row.subject)
            && (census.is_apart(net.addr()) || census.at(net.addr()).iter().any(|other| other.id != container.id))
        {
            return None;
        }
    }
    let spans: Vec<Range<usize>> = ids.iter().map(|id| span(&outcome.rows[..census.rows], id)).collect();
    let old = || spans.iter().flat_map(|span| &outcome.rows[span.clone()]);
    let is_guarded = |row: &Row| row.entries().all(|entry| outcome.guards.get(&entry.interface()) == Some(&Guard::Closed));
    if !pending.rows.iter().chain(old()).all(is_guarded) {
        return None;
    }
    old().for_each(|row| before.row(row));
    pending.rows.iter().for_each(|row| after.row(row));
    if !census.is_alike(&before, &after) {
        return None;
    }
    keys.extend(pending.requests.iter().map(|(request, _)| request.key));
    let ports = old().flat_map(Row::entries).map(Entry::link).chain(touched.links.keys().copied());
    let mut changed = Changed {
        ports: ports.collect(),
        addresses: keys.iter().map(|(_, address)| *address).chain(touched.addresses.iter().copied()).collect(),
        before: Vec::new(),
        after: pending.rows,
    };
    past.port_owners.replace(keys.into_iter(), owners);
    census.settle(&ids, (&before, &after), &changed.after, spans.iter().map(Range::len).sum());
    // From the end on, so that the places of the others stay true.
    for (span, made) in spans.into_iter().zip(made).rev() {
        outcome.inbound.move_rows(span.end, made.len() as isize - span.len() as isize);
        changed.before.extend(outcome.rows.splice(span, changed.after[made].iter().cloned()));
    }
    Some(changed)
}

/// Whether the links that changed are ports of containers, as far as anything depends on them.
fn are_ports(facts: &Facts, outcome: &Outcome, touched: &Touched) -> bool {
    let kernel = &facts.kernel;
    let named = |nsid: i32| kernel.namespaces.values().any(|named| *named == nsid);
    let of_runtime = |nsid: i32| {
        let mut sandboxes = facts.sandboxes.iter().flat_map(BTreeMap::values);
        sandboxes.any(|sandbox| sandbox.network == NetworkNamespace::Numbered(nsid))
    };
    let of_others = |nsid: &i32| named(*nsid) || of_runtime(*nsid) || facts.leaving().any(|one| one.nsid == *nsid);
    if touched.namespaces.iter().any(of_others) {
        return false;
    }
    let routed = |index: IfIndex| kernel.routes.iter().any(|route| route.interfaces().any(|interface| interface == index));
    // A bridge may be above a NIC, which depends on what its other ports are.
    let defaults = LazyCell::new(|| outside::defaults(kernel));
    let leads_in = |bridge: IfIndex| {
        let outside = defaults.iter().any(|default| default.interface == bridge);
        kernel.links.get(&bridge).is_some_and(|link| !outside && !outcome.uplinks.is_named(link, kernel))
    };
    touched.links.iter().all(|(index, before)| {
        let now = kernel.links.get(index);
        let same_name = before.as_ref().zip(now).is_none_or(|(before, now)| before.name == now.name);
        let holds = kernel.addresses_at(Place { nsid: None, index: *index }).next().is_some();
        let carries = kernel.stacked().any(|(upper, lower)| lower.index == *index && is_face(kernel, upper));
        let mut both = before.iter().chain(now);
        let fits = both.all(|link| is_port(link) && link.master.is_none_or(leads_in) && !outcome.uplinks.is_named(link, kernel));
        fits && same_name && !holds && !carries && !routed(*index)
    })
}

fn is_port(link: &Link) -> bool {
    let usual = link.kind == LinkKind::Veth && link.group == 0 && !link.hairpin && link.isolated.is_none();
    usual && link.vrf.is_none() && !link.point_to_point && !link.no_arp && !(link.up && link.lower.is_some())
}

/// What a container is bound by; `None` if more may follow from it than for itself, though there are others like it.
fn held_alone(resolver: &Resolver<'_>, outcome: &Outcome, container: &Container) -> Option<Vec<Held>> {
    let placed = container.asked.as_ref().is_some_and(|asked| asked.placement.asks());
    let mut bridges = resolver.networks_of(container).filter_map(|network| resolver.bridge(network));
    let beside_a_nic = bridges.any(|bridge| outcome.uplinks.nics.contains_key(&bridge));
    let held = resolver.facts.manifests.of(container);
    (!placed && !beside_a_nic && held.iter().all(is_plain)).then_some(held)
}

/// The rows of a container, among all containers' in the order of their ids.
fn span(rows: &[Row], id: &str) -> Range<usize> {
    let of = |row: &Row| {
        if let Subject::Container(container) = &row.subject { container.id.as_str().cmp(id) } else { std::cmp::Ordering::Greater }
    };
    rows.partition_point(|row| of(row).is_lt())..rows.partition_point(|row| of(row).is_le())
}

/// Whose ports are, as far as it is asked.
struct Beside<'a> {
    facts: &'a Facts,
    resolver: &'a Resolver<'a>,
    guards: &'a BTreeMap<IfIndex, Guard>,
    owners: &'a PortOwners,
    census: &'a Census,
    /// Others than containers have to do with it.
    unsure: Cell<bool>,
}

impl Beside<'_> {
    /// Whether a container that is not this one asks for an address.
    fn is_asked(&self, key: Key, but: u64) -> bool {
        if self.census.is_apart(key.1) {
            self.unsure.set(true);
        }
        self.census.at(key.1).iter().filter(|container| owner(&container.id) != but).any(|container| {
            let Some(known) = self.facts.containers.get(&container.id) else { return false };
            let mut pending = Pending::default();
            self.resolver.container(known, &self.facts.manifests.of(container), self.guards, &mut pending);
            pending.requests.iter().any(|(request, _)| request.key == key)
        })
    }
}

impl Others for Beside<'_> {
    fn own(&self, port: IfIndex, owner: u64) -> bool {
        self.owners.keys_of(port).any(|key| self.is_asked(key, owner))
    }

    fn have_only(&self, port: IfIndex, owner: u64) -> bool {
        let kernel = &self.facts.kernel;
        let Some((bridge, far)) = kernel.links.get(&port).and_then(|link| Some((link.master?, link.far_end()?))) else { return false };
        let mut held = kernel.addresses_at(far).map(|address| address.net.addr());
        held.any(|address| self.resolver.ports(bridge, address) == [port] && self.is_asked((bridge, address), owner))
    }
}
