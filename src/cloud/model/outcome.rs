//! From what is shown, what is due and what has failed to what users see of a pool.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use egressd::model::cloud::CloudPool;

use super::call::{Plan, Planned};
use super::elastic;
use super::facts::{Facts, Target};
use super::plan::is_ready;
use super::release::{self, Kept};
use super::report::{AddressReport, Aspect, Condition, PoolReport, Reason};

/// Messages of one condition.
const MAX_MESSAGES: usize = 5;

/// A call that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    pub planned: Planned,
    pub reason: Reason,
    pub message: String,
}

/// The report. `kept`: what is still asked for, by others as well. `shown`: what the cloud itself shows, without what it has only answered.
/// `plan`: what is due after all that was answered.
pub fn report(pool: &CloudPool, kept: &Kept, shown: &Facts, plan: &Plan, failed: &[Failed]) -> PoolReport {
    let conditions: BTreeMap<Aspect, Condition> =
        aspects(pool).into_iter().map(|aspect| (aspect, condition(pool, shown, aspect, plan, failed))).collect();
    let address = |address: &Ipv4Addr| {
        let ready = is_ready(pool, shown, *address);
        let elastic = elastic::bound(pool, shown, *address);
        let problem = plan.problems.iter().find(|problem| problem.address == Some(*address)).map(|problem| problem.message.clone());
        let of_addresses =
            |failed: &&Failed| matches!(failed.planned.aspect, Aspect::AddressesAssigned | Aspect::ElasticAddressesAssociated);
        let failed = failed.iter().filter(of_addresses).find(|failed| failed.planned.call.is_for(*address));
        let waits = || failed.map_or_else(|| "is not shown by the cloud yet".to_owned(), |failed| failed.message.clone());
        let message = if ready { String::new() } else { problem.unwrap_or_else(waits) };
        let report = AddressReport {
            ready,
            public_address: elastic.map(|elastic| elastic.public),
            elastic_address: elastic.map(|elastic| elastic.id.clone()),
            message,
        };
        (*address, report)
    };
    PoolReport {
        network_interface: Some(shown.nic.id.clone()),
        ready: conditions.values().all(|condition| condition.ready),
        problem: None,
        conditions,
        addresses: pool.addresses.iter().map(address).collect(),
        surplus: release::surplus(&pool.name, kept, shown),
    }
}

/// What the pool asks for.
fn aspects(pool: &CloudPool) -> Vec<Aspect> {
    let asked = [
        (Aspect::AddressesAssigned, true),
        (Aspect::ElasticAddressesAssociated, pool.aws.elastic.is_some()),
        (Aspect::SourceDestCheckDisabled, pool.aws.forwards),
        (Aspect::RoutesPointed, !pool.aws.route_tables.is_empty()),
    ];
    asked.into_iter().filter_map(|(aspect, asked)| asked.then_some(aspect)).collect()
}

fn condition(pool: &CloudPool, shown: &Facts, aspect: Aspect, plan: &Plan, failed: &[Failed]) -> Condition {
    let problems = plan.problems.iter().filter(|problem| problem.aspect == aspect).map(|problem| (problem.reason, &problem.message));
    let failures = failed.iter().filter(|failed| failed.planned.aspect == aspect).map(|failed| (failed.reason, &failed.message));
    let wrong: Vec<(Reason, &String)> = failures.chain(problems).collect();
    if let Some((reason, _)) = wrong.first() {
        let mut messages: Vec<&str> = Vec::new();
        for (_, message) in &wrong {
            if !messages.contains(&message.as_str()) {
                messages.push(message);
            }
        }
        let more = messages.len().saturating_sub(MAX_MESSAGES);
        messages.truncate(MAX_MESSAGES);
        let more = if more > 0 { format!(" (and {more} more)") } else { String::new() };
        return Condition { ready: false, reason: *reason, message: format!("{}{more}", messages.join(". ")) };
    }
    let (done, of, what) = progress(pool, shown, aspect);
    let due = plan.calls.iter().filter(|planned| planned.aspect == aspect).count();
    let ready = done == of;
    let reason = if ready { Reason::Done } else { Reason::Pending };
    let wait = match due {
        _ if ready => "",
        0 => "; the cloud does not show all of them yet",
        _ => "; calls are pending",
    };
    Condition { ready, reason, message: format!("{what}: {done} of {of}{wait}") }
}

/// How much of an aspect the cloud shows.
fn progress(pool: &CloudPool, shown: &Facts, aspect: Aspect) -> (usize, usize, &'static str) {
    let addresses = |is: &dyn Fn(Ipv4Addr) -> bool| pool.addresses.iter().filter(|address| is(**address)).count();
    match aspect {
        Aspect::AddressesAssigned => {
            (addresses(&|address| shown.nic.holds(address)), pool.addresses.len(), "addresses on the network interface")
        }
        Aspect::ElasticAddressesAssociated => (
            addresses(&|address| elastic::bound(pool, shown, address).is_some()),
            pool.addresses.len(),
            "addresses with an elastic address",
        ),
        Aspect::SourceDestCheckDisabled => (usize::from(!shown.nic.source_dest_check), 1, "network interfaces with the check off"),
        Aspect::RoutesPointed => {
            let here = Some(Target::Nic(shown.nic.id.clone()));
            let leads = |table: &&String| shown.tables.get(*table).is_some_and(|route| route.target == here);
            let tables = &pool.aws.route_tables;
            (tables.iter().filter(leads).count(), tables.len(), "route tables that lead to the network interface")
        }
    }
}
