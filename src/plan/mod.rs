//! From who-gets-what to what has to change. Pure: a [`Plan`] is data, and one interpreter (`effects::Kernel`) carries it out.

mod addresses;
pub mod ahead;
pub mod boot;
pub mod datapath;
mod elements;
pub mod engine;
pub mod fast_path;
pub mod few;
pub mod flows;
pub mod gates;
pub mod inbound;
pub mod ipvs;
mod keep;
mod program_flows;
pub mod read_back;
pub mod resets;
pub mod route_back;
pub mod routing;
pub mod step;
pub mod sysctls;
pub mod tables;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use crate::model::facts::KernelFacts;
use crate::model::resolve::Outcome;
use crate::nft::{Change, Ruleset, diff};
use flows::Cut;
use inbound::ServerCut;
use resets::Resets;
use routing::Routing;
use step::{InterfaceNames, RouteStep};
use tables::Departed;

/// What has to change, in the order in which it is carried out. Things are added in the order table, rule, elements, and taken away
/// in the reverse, so that a packet that is marked always finds its way; flows end once the rules are right.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Keys (below /proc/sys) and values.
    pub sysctls: Vec<(String, String)>,
    pub before: Vec<RouteStep>,
    /// When the tables are to go: who is bound, ahead of everything. The rest holds flows that had an exit back until they have ended;
    /// without it they would go on by the host's NIC with the exit's address.
    pub disarm: Vec<Change>,
    /// Ahead of the batch, conntrack is to follow the host's open connections: the first tables may make it begin, and programs are bound by them.
    pub follows: bool,
    /// One atomic batch.
    pub ruleset: Vec<Change>,
    /// What the tables are once the batch is applied; `None` where that is known already.
    pub target: Option<Ruleset>,
    pub after: Vec<RouteStep>,
    /// Names of the interfaces in `before` and `after`.
    pub names: InterfaceNames,
    /// Flows to end, once all else is done.
    pub cuts: Vec<Cut>,
    /// The same of servers that have left.
    pub server_cuts: Vec<ServerCut>,
    /// Connections of programs to end, at the same time.
    pub resets: Option<Resets>,
    /// Who was bound until now, and whose flows are being ended.
    pub departed: Departed,
}

/// What the kernel has of ours, or that we would change.
pub struct Observed<'a> {
    pub kernel: &'a KernelFacts,
    pub ruleset: &'a Ruleset,
    pub sysctls: &'a BTreeMap<String, String>,
    /// What was changed of the ruleset just now, ahead of the plan ([`ahead::plan_ahead`]): flows may have to end for it, too.
    pub ahead: &'a [Change],
}

/// Makes plans. What is costly to make, and follows from what bindings say alone, is kept from one to the next.
#[derive(Clone, Debug, Default)]
pub struct Planner {
    made: tables::Cache,
}

impl Planner {
    /// The difference between what an outcome needs and what there is. Unless `whole`, some source has not spoken yet, and nothing is
    /// taken away.
    pub fn plan(&mut self, outcome: &Outcome, observed: &Observed<'_>, departed: &Departed, whole: bool) -> Plan {
        let (earlier, mut departed) = (departed, departed.clone());
        let mut desired = tables::ruleset(outcome, observed.kernel, &mut self.made);
        self.made.keep_only(&desired, outcome);
        if whole {
            departed.extend(flows::departures(observed.ruleset, &desired));
        }
        tables::hold_back(&mut desired, &departed);
        if !whole {
            keep::keep(&mut desired, observed.ruleset);
        }
        let ruleset = diff(&desired, observed.ruleset);
        let routing = Routing::desired(outcome, observed.kernel);
        let (mut before, mut after) = routing.steps(&Routing::observed(observed.kernel), observed.kernel);
        let (first, last) = addresses::steps(outcome, observed.kernel);
        before.splice(0..0, first);
        after.extend(last);
        let (on, off) = inbound::hairpins(observed.ruleset, &desired, observed.kernel);
        before.extend(on);
        after.extend(off);
        // What an earlier run had unbound may have flows still, and without the tables nothing would hold them.
        let go = desired.tables.is_empty() && !observed.ruleset.tables.is_empty();
        let mut cuts = flows::cuts(observed.ahead.iter().chain(&ruleset), (observed.ruleset, &desired), outcome, &outcome.rows);
        cuts.extend(earlier.iter().filter(|_| go).map(|(_, address)| Cut::all((*address).into())));
        cuts.extend(flows::held(observed.ruleset, &outcome.rows));
        cuts.extend(program_flows::cuts(observed.ruleset, &desired, outcome));
        let disarm = if go { diff(&tables::unbound(observed.ruleset, &departed), observed.ruleset) } else { Vec::new() };
        Plan {
            sysctls: sysctls::wanted(outcome, observed.kernel, observed.sysctls),
            names: InterfaceNames::in_steps(before.iter().chain(&after), observed.kernel),
            before,
            disarm,
            cuts,
            server_cuts: inbound::server_cuts(observed.ruleset, &desired, observed.kernel),
            resets: program_flows::resets(observed.ruleset, &desired, outcome),
            follows: observed.ruleset.tables.is_empty() && !outcome.programs.rows.is_empty(),
            ruleset,
            target: Some(desired),
            departed,
            after: if whole { after } else { Vec::new() },
        }
    }
}

impl Plan {
    /// Nothing has to change.
    pub fn is_empty(&self) -> bool {
        let flows_stay = self.cuts.is_empty() && self.server_cuts.is_empty() && self.resets.is_none();
        self.sysctls.is_empty() && self.before.is_empty() && self.ruleset.is_empty() && flows_stay && self.after.is_empty()
    }

    /// One line for each step, as a command of a shell, as far as there is one.
    pub fn words(&self, kernel: &KernelFacts) -> String {
        let nothing = Ruleset::default();
        let target = self.target.as_ref().unwrap_or(&nothing);
        let name = |index| kernel.links.get(&index).map(|link| link.name.clone());
        let steps = |steps: &[RouteStep]| steps.iter().map(|step| step.words(&self.names).to_string()).collect::<Vec<_>>();
        let mut lines: Vec<String> = self.sysctls.iter().map(|(key, value)| format!("sysctl -w {key}='{value}'")).collect();
        lines.extend(steps(&self.before));
        lines.extend(self.follows.then(|| "have conntrack follow the open connections of this host".to_owned()));
        lines.extend(self.ruleset.iter().map(|change| format!("nft '{}'", change.words(target, &name))));
        lines.extend(steps(&self.after));
        lines.extend(self.cuts.iter().map(ToString::to_string));
        lines.extend(self.server_cuts.iter().map(ToString::to_string));
        lines.extend(self.resets.iter().map(ToString::to_string));
        lines.into_iter().map(|line| line + "\n").collect()
    }
}
