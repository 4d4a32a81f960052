//! What a resolution comes to: who gets what, as of now.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::facts::IfIndex;
use super::policy::{Standing, standing};
use super::reason::Reason;
use super::services::Services;
use super::spread::Shares;
use super::uplinks::{Exit, Uplinks};
use super::workload::{Entry, Row, State};

/// How strict a bridge is with a source that nobody vouches for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guard {
    /// It has no way out by an uplink.
    Closed,
    /// It uses the default route.
    Open,
}

/// Who gets what, as of now.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    pub uplinks: Uplinks,
    pub rows: Vec<Row>,
    /// The same for programs of this host: one row for each of what they are known by and each family, those that take precedence first.
    pub programs: Programs,
    /// What the policies lead to that spread their flows over several exits.
    pub spreads: BTreeMap<u32, Shares>,
    /// What comes in by the exits.
    pub inbound: Services,
    /// Bridges that carry bound workloads, or whose network asks for a guard.
    pub guards: BTreeMap<IfIndex, Guard>,
    /// The devices that a bridge's packets come in by in the ip families, where they are others than the bridge itself.
    pub faces: BTreeMap<IfIndex, Vec<IfIndex>>,
    /// Subnets that are inside, wherever the routes to them lead.
    pub inside: Arc<BTreeSet<IpNet>>,
}

impl Outcome {
    /// Nobody asks for an exit, and nothing of one is left. Who asks is held also where no NIC leads outside yet.
    pub fn is_idle(&self) -> bool {
        self.uplinks.nics.is_empty() && self.guards.is_empty() && self.all_rows().all(|row| row.binding.is_none())
    }

    /// Takes back what was promised to the rows of a way that the kernel refused something of; of all ways, if `way` is none.
    pub fn not_programmed(&mut self, way: Option<u8>, error: &str) {
        for row in self.rows.iter_mut().chain(&mut self.programs.rows) {
            if matches!(&row.state, State::Bound(exit) if way.is_none_or(|way| way == exit.way)) {
                row.state = State::Dropped(Reason::NotProgrammed { error: error.to_owned() });
            }
        }
    }

    /// The rows of workloads and of the host's programs.
    pub fn all_rows(&self) -> impl Iterator<Item = &Row> {
        self.rows.iter().chain(&self.programs.rows)
    }

    /// The interfaces that the ip families see packets from an entry come in by.
    pub fn interfaces(&self, entry: Entry) -> impl Iterator<Item = IfIndex> {
        let faces = entry.bridge().and_then(|bridge| self.faces.get(&bridge));
        std::iter::once(entry.interface()).chain(faces.into_iter().flatten().copied())
    }

    /// The same of all entries of a row.
    pub fn entrances<'a>(&'a self, row: &'a Row) -> impl Iterator<Item = IfIndex> + 'a {
        row.entries().flat_map(|entry| self.interfaces(entry))
    }

    /// The exits that new flows of a row leave by: none when it has none, several when they are spread.
    pub fn exits_of(&self, row: &Row) -> Vec<Exit> {
        let State::Bound(first) = &row.state else { return Vec::new() };
        self.shares_of(row).map_or_else(|| vec![*first], |spread| spread.shares.iter().map(|share| share.exit).collect())
    }

    /// How new flows of a row are spread, when they are.
    pub fn shares_of(&self, row: &Row) -> Option<&Shares> {
        match (standing(row), row.entry) {
            (Standing::Bound(policy), Some(entry)) if entry.is_of_host() => self.programs.spreads.get(&policy),
            (Standing::Bound(policy), _) => self.spreads.get(&policy),
            (Standing::Free | Standing::Unknown, _) => None,
        }
    }

    /// What the outside sees of a row's exit, where its binding or the cloud says so.
    pub fn public_of(&self, row: &Row, exit: &Exit) -> Option<IpAddr> {
        let of = row.binding.iter().flat_map(|binding| &binding.exits).filter(|spec| spec.public.is_some());
        let of = of.filter(|spec| matches!(self.uplinks.exit(spec), Some(Ok(found)) if found.address == exit.address));
        of.filter_map(|spec| spec.public).next().or_else(|| self.uplinks.public.get(&exit.address).copied())
    }

    /// The addresses that flows of a row may bear: those of its exits, and of others that drain.
    pub fn borne_by(&self, row: &Row) -> Vec<IpAddr> {
        let drain = row.binding.iter().flat_map(|binding| &binding.exits).filter(|spec| spec.draining);
        let drain = drain.filter_map(|spec| self.uplinks.exit(spec)?.as_ref().ok()).map(|exit| exit.address);
        self.exits_of(row).into_iter().map(|exit| exit.address).chain(drain).collect()
    }
}

/// A control group of which new children are held.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Guarded {
    pub id: u64,
    pub level: u32,
    /// Children that are known: bound or not, they are not held here.
    pub known: BTreeSet<u64>,
}

/// What became of the host's programs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Programs {
    /// One for each of what they are known by and each family, those that take precedence first.
    pub rows: Vec<Row>,
    /// What the policies lead to that spread their flows over several exits.
    pub spreads: BTreeMap<u32, Shares>,
    /// The number in the mark of each exit's first packets.
    pub marks: BTreeMap<Exit, u8>,
    pub guarded: BTreeSet<Guarded>,
    /// What a socket's address is that has not been chosen by its program, where all programs are bound: the interface, and the address.
    pub picked: BTreeSet<(IfIndex, IpAddr)>,
    /// The kernel cannot keep flows of the same addresses and ports apart.
    pub no_zones: bool,
}
