//! From a pool and what the cloud says to the calls that are due.
//!
//! Each call is planned only once what it builds on is there: a tag before what it is about, an elastic address before its association. So
//! a process that is killed between any two calls is followed by one that goes on where it ended.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use egressd::model::cloud::CloudPool;

use super::call::{Call, Plan};
use super::elastic;
use super::facts::{DefaultRoute, Facts, Tags, Target};
use super::report::{Aspect, Reason};
use super::tags;

/// The calls that are due. Nothing is ever taken away here, but a second elastic address that was allocated for one address.
pub fn plan(pool: &CloudPool, facts: &Facts) -> Plan {
    let mut plan = Plan::default();
    check(pool, facts, &mut plan);
    assign(pool, facts, &mut plan);
    elastic::plan(pool, facts, &mut plan);
    routes(pool, facts, &mut plan);
    plan
}

/// The source/destination check. That it was on is noted before, so that it can be put back.
fn check(pool: &CloudPool, facts: &Facts, plan: &mut Plan) {
    let nic = &facts.nic;
    if !pool.aws.forwards || !nic.source_dest_check {
        return;
    }
    let aspect = Aspect::SourceDestCheckDisabled;
    if nic.tags.contains_key(tags::CHECK) {
        plan.call(aspect, Call::Check { nic: nic.id.clone(), on: false }, "a forwarder's NIC passes on packets of other addresses");
    } else {
        let tags = Tags::from([(tags::CHECK.to_owned(), "true".to_owned())]);
        plan.call(aspect, Call::Tag { id: nic.id.clone(), tags }, "notes that the check was on");
    }
}

fn assign(pool: &CloudPool, facts: &Facts, plan: &mut Plan) {
    let (nic, aspect) = (&facts.nic, Aspect::AddressesAssigned);
    let limits = facts.limits.clone().unwrap_or_default();
    let mut fits = Vec::new();
    let mut too_many = Vec::new();
    let used = nic.addresses.len() + nic.prefixes;
    let room = limits.nic.as_ref().map_or(usize::MAX, |(_, most)| most.saturating_sub(used));
    for address in pool.addresses.iter().copied().filter(|address| !nic.holds(*address)) {
        if !nic.subnet.contains(address) {
            let range = nic.subnet.range.map_or_else(String::new, |(first, last)| format!(" ({first} to {last})"));
            let message = format!(
                "{address} is not in subnet {}{range} of {}; correct `spec.blocks`, or name another `spec.cloud.aws.networkInterface`",
                nic.subnet.id, nic.id
            );
            plan.problem(aspect, Reason::NotInSubnet, Some(address), message);
        } else if nic.subnet.reserves(address) {
            let message = format!(
                "{address} is one of the five addresses of subnet {} that Amazon EC2 keeps for itself (the first four and the last); take it out of `spec.blocks`",
                nic.subnet.id
            );
            plan.problem(aspect, Reason::Reserved, Some(address), message);
        } else if let Some(other) = limits.taken.get(&address) {
            let message = format!("{address} is an address of {other}; free it there, or remove it from `spec.blocks`");
            plan.problem(aspect, Reason::AddressInUse, Some(address), message);
        } else if fits.len() < room {
            fits.push(address);
        } else {
            too_many.push(address);
        }
    }
    if let (Some((kind, most)), [first, ..]) = (&limits.nic, too_many.as_slice()) {
        let message = format!(
            "{kind} allows {most} IPv4 addresses for each network interface, {} has {used}, and the pool asks for {} more; take {first} and what \
             follows out of `spec.blocks`, make a pool for another NIC, or use a larger instance type",
            nic.id,
            fits.len() + too_many.len(),
        );
        for address in too_many {
            plan.problem(aspect, Reason::LimitReached, Some(address), message.clone());
        }
    }
    let ledger = tags::ledger(&nic.tags, &pool.name);
    let noted: BTreeSet<Ipv4Addr> = ledger.iter().chain(&fits).copied().collect();
    let unknown = tags::ledger_keys(&nic.tags, &pool.name).next().is_none();
    if unknown || noted != ledger {
        let tags = tags::ledger_tags(&pool.name, &noted);
        plan.call(
            aspect,
            Call::Tag { id: nic.id.clone(), tags },
            "notes on the NIC which addresses are egressd's, before they are assigned",
        );
    } else if !fits.is_empty() {
        plan.call(aspect, Call::Assign { nic: nic.id.clone(), addresses: fits }, "the pool's addresses are to be the NIC's");
    }
}

/// Whether the address can be used: the cloud has all that the pool asks for it.
pub fn is_ready(pool: &CloudPool, facts: &Facts, address: Ipv4Addr) -> bool {
    facts.nic.holds(address) && (pool.aws.elastic.is_none() || elastic::bound(pool, facts, address).is_some())
}

/// Route tables come last: packets are sent to the forwarder once it has an address to leave with.
fn routes(pool: &CloudPool, facts: &Facts, plan: &mut Plan) {
    let (nic, aspect) = (&facts.nic, Aspect::RoutesPointed);
    for table in &pool.aws.route_tables {
        let Some(DefaultRoute { target, alive }) = facts.tables.get(table) else {
            let message = format!("there is no route table {table}; correct `spec.cloud.aws.routeTables`");
            plan.problem(aspect, Reason::NoSuchRouteTable, None, message);
            continue;
        };
        let to = || Target::Nic(nic.id.clone());
        let key = format!("{}{table}", tags::ROUTE);
        // Where it leads to nothing any more, an older note is as good as any.
        let former = match target {
            Some(Target::Nic(id)) if *id == nic.id => continue,
            Some(Target::Nic(id)) if *alive => {
                let message = format!(
                    "the default route of {table} leads to {id}, another network interface; to replace it, delete the route, and egressd-cloud creates it again"
                );
                plan.problem(aspect, Reason::RouteInUse, None, message);
                continue;
            }
            Some(other) if *alive => Some(other.id()),
            _ => None,
        };
        if !pool.addresses.iter().any(|address| is_ready(pool, facts, *address)) {
            // It is told by the addresses' conditions what is missing.
            continue;
        }
        let noted = nic.tags.get(&key).map(String::as_str);
        if noted.is_none() || former.is_some_and(|former| noted != Some(former)) {
            let tags = Tags::from([(key, former.unwrap_or(tags::NO_ROUTE).to_owned())]);
            plan.call(aspect, Call::Tag { id: nic.id.clone(), tags }, format!("notes where {table} led before"));
        } else if let Some(old) = target {
            let call = Call::ReplaceRoute { table: table.clone(), target: to() };
            plan.call(aspect, call, format!("the table's default route leads to {}", old.id()));
        } else {
            plan.call(aspect, Call::CreateRoute { table: table.clone(), target: to() }, "the table has no default route");
        }
    }
}
