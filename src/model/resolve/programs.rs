//! Who of the host's programs gets which exit.

use std::collections::{BTreeMap, BTreeSet};
use std::slice::from_ref;
use std::sync::Arc;

use super::super::binding::{Binding, ExitSpec, HostSelector, Selector};
use super::super::facts::{Family, is_link_local};
use super::super::known::Facts;
use super::super::outcome::{Guarded, Programs};
use super::super::picked::picked;
use super::super::programs::{ProgramFacts, children, guarded_parent, instances_of, level, with_ancestors};
use super::super::reason::Reason;
use super::super::select::{Held, precedence};
use super::super::spread::spreads;
use super::super::started::{EXEC, Started, started_in};
use super::super::uplinks::{Exit, Uplinks};
use super::super::ways::{Numbers, ProgramExit};
use super::super::workload::{EVERYBODY, Entry, Row, State, Subject, choose};
use super::blank;

/// What programs are known by, as bindings name it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Known {
    User(u32),
    Cgroup(String),
    Everybody,
}

/// Those that bindings name, each with a name for people and with the bindings.
#[derive(Default)]
struct Named<'a> {
    known: BTreeMap<Known, (String, Vec<Held>)>,
    /// What cannot be told yet.
    waiting: Vec<(String, Held, Reason)>,
    /// Groups that are asked for, whether they are there or not.
    asked: BTreeSet<String>,
    /// What those of `egressd exec` were made for. No other binding has a program in them, whoever it is by.
    started: BTreeMap<&'a str, Held>,
}

/// The bindings of `egressd exec --ip`: each leaves by the gateway that the binding which takes precedence of those that name its exit says.
pub(super) fn by_address(facts: &Facts, named: &[&Binding]) -> Vec<Arc<Binding>> {
    let as_named = |exit: &ExitSpec| {
        let naming = named.iter().filter(|binding| binding.stands());
        let specs = naming.flat_map(|binding| binding.exits.iter().map(move |spec| (precedence(binding), spec)));
        let of = specs.filter(|(_, spec)| spec.address == exit.address).min_by(|(a, _), (b, _)| a.cmp(b));
        of.map_or_else(
            || exit.clone(),
            |(_, spec)| ExitSpec { weight: 1, draining: false, source_ports: None, probe: None, ..spec.clone() },
        )
    };
    let own = facts.programs.bindings.iter();
    own.map(|binding| Arc::new(Binding { exits: binding.exits.iter().map(as_named).collect(), ..Binding::clone(binding) })).collect()
}

/// The rows of the host's programs, and what the kernel has to know for them.
pub(super) fn programs(facts: &Facts, exec: &[Arc<Binding>], uplinks: &Uplinks, numbers: &mut Numbers) -> Programs {
    let mut named = Named::default();
    for (at, binding) in facts.manifests.bindings.iter().enumerate() {
        if let Selector::Host(selector) = &binding.selector {
            named.selector(&facts.programs, selector, &facts.manifests.held(at));
        }
    }
    named.started(facts, exec);
    let guarded = named.guarded(&facts.programs);
    let mut rows = named.rows(&facts.programs, uplinks);
    let picked = if rows.iter().any(is_everybody) { picked(&facts.kernel) } else { BTreeSet::new() };
    let spreads = spreads(&rows, uplinks, &facts.full);
    let mut marks = BTreeMap::new();
    let mut used = BTreeSet::new();
    let spread: Vec<Exit> = spreads.values().flat_map(|shares| &shares.shares).map(|share| share.exit).collect();
    for row in &mut rows {
        let State::Bound(exit) = row.state else { continue };
        if number(exit, uplinks, numbers, &mut used).map(|number| marks.insert(exit, number)).is_none() {
            row.state = State::Dropped(Reason::TooManyWays { interface: uplinks.name(exit.interface).to_owned() });
        }
    }
    for exit in spread {
        marks.extend(number(exit, uplinks, numbers, &mut used).map(|number| (exit, number)));
    }
    numbers.keep_only_programs(&used);
    Programs { rows, spreads, marks, guarded, picked, no_zones: facts.programs.no_zones }
}

fn is_everybody(row: &Row) -> bool {
    row.entry == Some(Entry::Everybody)
}

/// The number in the mark of an exit's first packets.
fn number(exit: Exit, uplinks: &Uplinks, numbers: &mut Numbers, used: &mut BTreeSet<ProgramExit>) -> Option<u8> {
    let exit = (uplinks.ways.get(&exit.way)?.key, exit.address, exit.ports);
    let number = numbers.program(exit)?;
    used.insert(exit);
    Some(number)
}

impl<'a> Named<'a> {
    fn selector(&mut self, facts: &ProgramFacts, selector: &HostSelector, held: &Held) {
        if selector.all {
            self.add(Known::Everybody, EVERYBODY.to_owned(), held);
        }
        for user in &selector.users {
            match facts.users.get(user) {
                Some(uid) => self.add(Known::User(*uid), format!("user/{user}"), held),
                None => self.wait(format!("user/{user}"), held, Reason::NoSuchUser { user: user.clone() }),
            }
        }
        for path in &selector.cgroups {
            self.asked.insert(path.clone());
            let absent = || Reason::NoSuchCgroup { path: path.clone() };
            self.cgroup(facts, path, format!("cgroup{path}"), held, absent);
        }
        for unit in &selector.units {
            let name = format!("unit/{unit}");
            self.asked.extend(instances_of(unit));
            let mut paths = facts.units.get(unit).into_iter().flatten().peekable();
            if paths.peek().is_none() {
                let absent = facts.no_cgroups.clone().map(|why| Reason::NoCgroups { why });
                self.wait(name, held, absent.unwrap_or_else(|| Reason::UnitNotRunning { unit: unit.clone() }));
                continue;
            }
            for path in paths {
                // Of a template each instance by itself.
                let name = format!("unit/{}", path.rsplit('/').next().unwrap_or(unit));
                self.cgroup(facts, path, name, held, || Reason::UnitNotRunning { unit: unit.clone() });
            }
        }
    }

    fn cgroup(&mut self, facts: &ProgramFacts, path: &str, name: String, held: &Held, absent: impl FnOnce() -> Reason) {
        match (&facts.no_cgroups, facts.cgroups.contains_key(path)) {
            (Some(why), _) => self.wait(name, held, Reason::NoCgroups { why: why.clone() }),
            (None, true) => self.add(Known::Cgroup(path.to_owned()), name, held),
            (None, false) => self.wait(name, held, absent()),
        }
    }

    fn add(&mut self, known: Known, name: String, held: &Held) {
        let bindings = &mut self.known.entry(known).or_insert_with(|| (name, Vec::new())).1;
        if bindings.iter().all(|other| other.name != held.name) {
            bindings.push(held.clone());
        }
    }

    fn wait(&mut self, name: String, held: &Held, reason: Reason) {
        self.waiting.push((name, held.clone(), reason));
    }

    /// Groups of `egressd exec`: each is for a binding of the files, or for one of its own.
    fn started(&mut self, facts: &'a Facts, exec: &[Arc<Binding>]) {
        for (path, _) in children(&facts.programs.cgroups, EXEC) {
            let held = match started_in(path) {
                Some(Started::By(name)) => {
                    let at = facts.manifests.bindings.iter().position(|binding| binding.name.name == name);
                    at.map(|at| facts.manifests.held(at))
                }
                Some(Started::As(address)) => {
                    let mut own = exec.iter().filter(|binding| binding.exits.iter().any(|exit| exit.address == address));
                    own.next().map(|binding| Held::Listed(binding.clone()))
                }
                None => None,
            };
            if let Some(held) = held {
                self.add(Known::Cgroup(path.to_owned()), format!("cgroup{path}"), &held);
                self.started.insert(path, held);
            }
        }
    }

    /// The groups whose new children are held. What `egressd exec` started for a binding that is gone is held, too.
    fn guarded(&self, facts: &ProgramFacts) -> BTreeSet<Guarded> {
        let units = facts.units.values().flatten().map(String::as_str);
        let mut parents: BTreeSet<&str> = self.asked.iter().map(String::as_str).chain(units).filter_map(guarded_parent).collect();
        parents.insert(EXEC);
        let guard = |parent: &str| {
            let named = |path: &str| self.known.contains_key(&Known::Cgroup(path.to_owned()));
            let ours = |path: &str| parent != EXEC || self.started.contains_key(path) || (started_in(path).is_none() && named(path));
            let known = children(&facts.cgroups, parent).filter(|(path, _)| ours(path)).map(|(_, id)| id).collect();
            Some(Guarded { id: *facts.cgroups.get(parent)?, level: level(parent), known })
        };
        parents.into_iter().filter_map(guard).collect()
    }

    /// Those that take precedence first. What `egressd exec` started comes ahead of all: nobody else's binding may have it.
    fn rows(&self, facts: &ProgramFacts, uplinks: &Uplinks) -> Vec<Row> {
        let (mut started, mut rows) = (Vec::new(), Vec::new());
        let spoken = families(uplinks, self.known.values().flat_map(|(_, held)| held));
        for (known, (name, own)) in &self.known {
            // Who is in a group is in those above it, too.
            let mut held: Vec<Held> = own.clone();
            let mut first = None;
            let entry = match known {
                Known::Everybody => Entry::Everybody,
                Known::User(uid) => Entry::User { uid: *uid },
                Known::Cgroup(path) => {
                    let above = with_ancestors(path).skip(1).filter_map(|path| self.known.get(&Known::Cgroup(path.to_owned())));
                    for binding in above.flat_map(|(_, held)| held) {
                        if held.iter().all(|other| other.name != binding.name) {
                            held.push(binding.clone());
                        }
                    }
                    first = with_ancestors(path).find_map(|path| self.started.get(path));
                    let Some(id) = facts.cgroups.get(path) else { continue };
                    Entry::Cgroup { id: *id, level: level(path) }
                }
            };
            held.sort_by_key(|binding| first.is_some_and(|first| first.name != binding.name));
            held[usize::from(first.is_some())..].sort_by(|a, b| precedence(a).cmp(&precedence(b)));
            let Some(binding) = held.first() else { continue };
            // Of a family that it has no exit for, too: a user's binding may have one.
            let families = if first.is_some() { spoken.clone() } else { families(uplinks, [binding].into_iter()) };
            for family in families {
                let net = family.everything();
                let state = choose(uplinks, binding, net.addr());
                let blank = blank(Subject::Programs(name.as_str().into()), &held);
                let row = Row { address: Some(net), entry: Some(entry), state, ..blank };
                if first.is_some() { &mut started } else { &mut rows }.push(row);
            }
        }
        // Who names some programs has them, whatever the priority of who names all.
        rows.sort_by(|a, b| {
            is_everybody(a)
                .cmp(&is_everybody(b))
                .then_with(|| a.binding.as_deref().map(precedence).cmp(&b.binding.as_deref().map(precedence)))
        });
        rows.splice(0..0, started);
        let waiting = self.waiting.iter().map(|(name, held, reason)| {
            let blank = blank(Subject::Programs(name.as_str().into()), from_ref(held));
            Row { state: State::Waiting(reason.clone()), ..blank }
        });
        rows.extend(waiting);
        rows
    }
}

/// The families that the host speaks outside, or that one of the bindings has exits for.
fn families<'h>(uplinks: &Uplinks, bindings: impl Iterator<Item = &'h Held>) -> Vec<Family> {
    let exits = bindings.flat_map(|binding| &binding.exits).map(|exit| exit.address);
    let spoken = uplinks.nics.values().flat_map(|nic| &nic.addresses).copied().filter(|address| !is_link_local(*address));
    let all: BTreeSet<Family> = exits.chain(spoken).map(Family::of).chain([Family::V4]).collect();
    all.into_iter().collect()
}
