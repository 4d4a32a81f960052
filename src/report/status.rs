//! What `egressd status` shows: the outcome in words, for people and for machines.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use k8s_openapi::jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::columns::list;
use super::drops::{Dropped, DroppedFor, Drops};
use super::lost::{LostExit, lost};
use super::ports;
use super::services::{ServiceStatus, services};
use crate::model::binding::{Binding, BindingName, Compose, ExitSpec, Selector};
use crate::model::facts::Family;
use crate::model::field_error::FieldError;
use crate::model::known::Facts;
use crate::model::port_use::PortUse;
use crate::model::resolve::{Guard, Outcome, pods};
use crate::model::services::LimitedServer;
use crate::model::uplinks::Uplinks;
use crate::model::ways::Way;
use crate::model::workload::{Row, State};

/// The whole report.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    pub workloads: Vec<Workload>,
    pub bindings: Vec<BindingStatus>,
    pub uplinks: Vec<UplinkStatus>,
    /// Ports of exits that workloads serve.
    #[serde(default)]
    pub services: Vec<ServiceStatus>,
    /// Bridges on which a source that nobody vouches for has no way out.
    pub guarded: Vec<String>,
    /// Packets that were not let out, by reason.
    #[serde(default)]
    pub dropped: Vec<Dropped>,
    /// Whether open flows are forwarded through a flowtable: `closed`, `open for 3 ports`, `off: ` and why. Absent where that is not asked for.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub fast_path: Option<String>,
    /// What could not be read or done, each with its cure.
    pub problems: Vec<String>,
}

/// What is counted beside the loop, and told with its report.
#[derive(Clone, Debug, Default)]
pub struct Counted {
    /// Open flows by original source.
    pub flows: BTreeMap<IpAddr, u64>,
    /// Open flows by the address that they leave as.
    pub translated: BTreeMap<IpAddr, u64>,
    /// Source ports of the addresses that flows leave as.
    pub ports: PortUse,
    pub drops: Drops,
    /// Servers that have as many flows as they may have.
    pub full: BTreeSet<LimitedServer>,
}

/// One address of a workload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Workload {
    pub workload: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// Its default route goes by this network.
    pub default_route: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub binding: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit: Option<IpAddr>,
    /// What the outside sees of the exit, as its binding or the cloud says.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub public_address: Option<IpAddr>,
    /// All exits that its new flows are spread over, when they are.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub exits: Vec<IpAddr>,
    /// What the outside sees of each of them, as far as somebody says.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub public_addresses: BTreeMap<IpAddr, IpAddr>,
    /// The part of the new flows that each of them gets, 1 to 100; absent where all have the same.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub weights: BTreeMap<IpAddr, u16>,
    /// Exits of its binding that get no new flow, as they are written; flows that have them go on.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub draining: Vec<String>,
    /// How: `RoundRobin`, `Random`, `BySource` or `ByDestination`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub spread: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nic: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
    /// `Bound`, `Dropped`, `Fallback`, `Unbound`, `Waiting` or `Refused`.
    pub state: String,
    /// Since when, as RFC 3339, as far as the daemon has seen it; absent of one that no binding asks for.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schemars(extend("format" = "date-time"))]
    pub since: Option<String>,
    /// One word, and a sentence with the cure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Bindings that would have had it too, and lost.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub also_asked_by: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub warnings: Vec<String>,
    /// Open flows that it began; 0 of the host's programs, whose source is everybody's.
    pub flows: u64,
    /// Packets of it, or of calls to its published ports, that were not let through, by reason: since the first one, and until there is none for a
    /// day. Of at most 4096 sources for each reason; not of the host's programs.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub dropped: Vec<DroppedFor>,
}

/// One binding, as a Kubernetes object would say it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BindingStatus {
    pub binding: String,
    /// Nothing is wrong with it.
    pub accepted: bool,
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub errors: Vec<String>,
    pub workloads: usize,
    pub programmed: usize,
    /// Workloads that another binding has instead: `web-1 (file/shop/crawler)`.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub lost: Vec<String>,
    /// Its exits that are not used just now, while others of their family are.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub lost_exits: Vec<LostExit>,
    /// What its `containerSelector` demands, where no container of this host fits it: `names: crawler`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub fits_nobody: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UplinkStatus {
    pub nic: String,
    pub up: bool,
    /// Number of its own way, and that way's table; absent while no router is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub number: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub table: Option<u32>,
    pub addresses: Vec<IpAddr>,
    pub gateways: Vec<IpAddr>,
    pub holds_exit: bool,
}

impl Workload {
    /// `egressd exec --ip` started it, and no binding that somebody wrote is for it.
    pub fn is_of_exec(&self) -> bool {
        self.binding.as_deref().is_some_and(|binding| binding.starts_with("exec/"))
    }
}

impl Status {
    /// The report of an outcome. `problems` is what the effects and sources ran into, `since` when a row became what it is.
    pub fn of(
        facts: &Facts,
        outcome: &Outcome,
        counted: Counted,
        mut problems: Vec<String>,
        since: impl Fn(&Row) -> Option<Timestamp>,
    ) -> Self {
        problems.extend(ports::problems(outcome, &counted.ports));
        let guarded = outcome.guards.iter().filter(|(_, guard)| **guard == Guard::Closed);
        let name = |index| facts.kernel.links.get(index).map_or_else(|| index.to_string(), |l| l.name.clone());
        let mut workloads: Vec<Workload> = outcome.all_rows().map(|row| workload(row, outcome, &counted, since(row))).collect();
        workloads.sort_by(|a, b| (&a.workload, &a.network, &a.address).cmp(&(&b.workload, &b.network, &b.address)));
        Self {
            workloads,
            bindings: of_bindings(facts, outcome),
            uplinks: nics(&outcome.uplinks),
            services: services(facts, outcome, &counted.full),
            guarded: guarded.map(|(index, _)| name(index)).collect(),
            dropped: counted.drops.told(&facts.kernel),
            fast_path: None,
            problems,
        }
    }
}

/// The word for what became of a workload's address. One that no interface shows yet is not in the kernel either.
pub fn word(row: &Row) -> &'static str {
    match &row.state {
        State::Bound(_) | State::Dropped(_) | State::FellBack(_) if row.entry.is_none() => "Waiting",
        State::Bound(_) => "Bound",
        State::Dropped(_) => "Dropped",
        State::FellBack(_) => "Fallback",
        State::Free => "Unbound",
        State::Waiting(_) => "Waiting",
        State::Refused(_) => "Refused",
    }
}

/// What is answered where a name is no workload's.
pub fn unknown(workload: &str) -> String {
    format!("no workload is called `{workload}`; `egressd status` lists all")
}

/// A moment as RFC 3339, to the millisecond.
pub fn time(at: Timestamp) -> String {
    format!("{at:.3}")
}

/// A host's address without its length.
pub fn shown(net: IpNet) -> String {
    if net.prefix_len() == net.max_prefix_len() { net.addr().to_string() } else { net.to_string() }
}

fn workload(row: &Row, outcome: &Outcome, counted: &Counted, since: Option<Timestamp>) -> Workload {
    let (uplinks, flows) = (&outcome.uplinks, &counted.flows);
    let exit = match &row.state {
        State::Bound(exit) => Some(exit),
        _ => None,
    };
    let uplink = exit.and_then(|e| uplinks.nics.get(&e.interface));
    let gateway = exit.and_then(|e| uplinks.gateway(e)?.address);
    let count = |net: IpNet| flows.iter().filter(|(source, _)| net.contains(*source)).map(|(_, n)| n).sum();
    let flows = match row.address {
        Some(net) if net.prefix_len() == net.max_prefix_len() => flows.get(&net.addr()).copied().unwrap_or(0),
        // The source of the host's programs tells nobody from others.
        Some(net) if net.prefix_len() > 0 => count(net),
        Some(_) | None => 0,
    };
    let exits: Vec<IpAddr> = match outcome.exits_of(row).as_slice() {
        [] | [_] => Vec::new(),
        several => several.iter().map(|exit| exit.address).collect(),
    };
    let several = outcome.exits_of(row).into_iter().filter(|_| !exits.is_empty());
    let public_addresses = several.filter_map(|exit| Some((exit.address, outcome.public_of(row, &exit)?))).collect();
    Workload {
        workload: row.subject.to_string(),
        network: row.network.clone(),
        default_route: row.default_route,
        address: row.address.map(shown),
        binding: row.binding.as_ref().map(|b| b.name.to_string()),
        exit: exit.map(|e| e.address),
        public_address: exit.and_then(|exit| outcome.public_of(row, exit)),
        weights: weights(row, outcome),
        draining: draining(row),
        spread: row.binding.as_ref().filter(|_| !exits.is_empty()).map(|binding| format!("{:?}", binding.spread)),
        exits,
        public_addresses,
        nic: uplink.map(|u| u.name.clone()),
        gateway,
        state: word(row).to_owned(),
        since: since.map(time),
        reason: row.reason().map(|r| r.word().to_owned()),
        message: row.reason().map(ToString::to_string),
        also_asked_by: row.losers.iter().map(ToString::to_string).collect(),
        warnings: row.binding.as_ref().map(|b| b.warnings.clone()).unwrap_or_default(),
        flows,
        dropped: counted.drops.of(row, outcome),
    }
}

/// The weights of its exits, unless each gets as much as any other.
fn weights(row: &Row, outcome: &Outcome) -> BTreeMap<IpAddr, u16> {
    let Some(shares) = outcome.shares_of(row) else { return BTreeMap::new() };
    let all: BTreeMap<IpAddr, u16> = shares.shares.iter().map(|share| (share.exit.address, share.weight)).collect();
    let differ = all.values().collect::<BTreeSet<_>>().len() > 1;
    if differ { all } else { BTreeMap::new() }
}

/// The exits of its binding and family that drain.
fn draining(row: &Row) -> Vec<String> {
    let (Some(binding), Some(net)) = (&row.binding, row.address) else { return Vec::new() };
    let drain = binding.exits.iter().filter(|spec| spec.draining && Family::of(spec.address) == Family::of(net.addr()));
    drain.map(ExitSpec::written).collect()
}

fn nics(uplinks: &Uplinks) -> Vec<UplinkStatus> {
    let of = |u: &crate::model::uplinks::Uplink| {
        let way = u.way.and_then(|number| uplinks.ways.get(&number));
        UplinkStatus {
            nic: u.name.clone(),
            up: u.up,
            number: u.way,
            table: way.map(Way::table),
            addresses: u.addresses.clone(),
            gateways: way.into_iter().flat_map(|way| way.gateways.values()).filter_map(|g| g.address).collect(),
            holds_exit: u.holds_exit,
        }
    };
    uplinks.nics.values().map(of).collect()
}

/// Everything that asks for an exit: files, the cluster, labels.
pub fn bindings(facts: &Facts) -> impl Iterator<Item = &Binding> {
    let labels = facts.containers().filter_map(|c| c.asked.as_ref()?.binding.as_ref()).chain(pods::labels(facts));
    facts.manifests.bindings.iter().chain(facts.cluster.granted().bindings()).map(Arc::as_ref).chain(labels)
}

fn of_bindings(facts: &Facts, outcome: &Outcome) -> Vec<BindingStatus> {
    let mut all: BTreeMap<BindingName, BindingStatus> = BTreeMap::new();
    for binding in bindings(facts) {
        all.insert(binding.name.clone(), begin(binding, outcome));
    }
    for row in outcome.all_rows() {
        let winner = row.binding.as_ref().map(|b| &b.name);
        if let Some(status) = winner.and_then(|name| all.get_mut(name)) {
            status.workloads += 1;
            status.programmed += usize::from(row.entry.is_some() && matches!(row.state, State::Bound(_)));
        }
        for loser in &row.losers {
            if let (Some(status), Some(winner)) = (all.get_mut(loser), winner) {
                status.lost.push(format!("{} ({winner})", row.subject));
            }
        }
    }
    for binding in &facts.manifests.bindings {
        if let Some(status) = all.get_mut(&binding.name).filter(|status| status.workloads == 0 && status.lost.is_empty()) {
            status.fits_nobody = demands(&binding.selector);
        }
    }
    all.into_values().collect()
}

/// What a selector of containers demands. Others have a row for whatever they name, there or not.
fn demands(selector: &Selector) -> Option<String> {
    let Selector::Containers { names, match_labels, compose } = selector else { return None };
    let labels: Vec<String> = match_labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let service = |compose: &Compose| match &compose.service {
        Some(service) => format!("compose: {}, service {service}", compose.project),
        None => format!("compose: {}", compose.project),
    };
    let all = [
        (!names.is_empty()).then(|| format!("names: {}", list(names))),
        (!labels.is_empty()).then(|| format!("matchLabels: {}", list(&labels))),
        compose.as_ref().map(service),
    ];
    Some(all.into_iter().flatten().collect::<Vec<_>>().join("; "))
}

/// The exits that are not used, of families of which others are.
fn unused(binding: &Binding, outcome: &Outcome) -> Vec<LostExit> {
    let usable = |family: &Family| {
        let mut of = binding.exits.iter().filter(|spec| Family::of(spec.address) == *family && !spec.draining);
        of.any(|spec| matches!(outcome.uplinks.exit(spec), Some(Ok(_))))
    };
    let families = [Family::V4, Family::V6].into_iter().filter(|_| binding.exits.len() > 1).filter(usable);
    families.flat_map(|family| lost(binding, &outcome.uplinks, family)).collect()
}

fn begin(binding: &Binding, outcome: &Outcome) -> BindingStatus {
    BindingStatus {
        binding: binding.name.to_string(),
        accepted: binding.is_accepted(),
        errors: binding.errors.iter().map(FieldError::to_string).chain(binding.refusal.iter().map(ToString::to_string)).collect(),
        workloads: 0,
        programmed: 0,
        lost: Vec::new(),
        lost_exits: unused(binding, outcome),
        fits_nobody: None,
    }
}
