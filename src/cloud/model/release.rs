//! What a pool has and no longer asks for, given back: only when somebody asks for it, and only what bears our tags.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use super::call::{Call, Plan};
use super::facts::{Facts, Target};
use super::report::{Aspect, Reason};
use super::tags;

/// What is still asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// Addresses of the pool; `None`: there is no such pool any more.
    pub addresses: Option<BTreeSet<Ipv4Addr>>,
    /// A pool with this NIC forwards.
    pub forwards: bool,
    /// Route tables that pools with this NIC name.
    pub tables: BTreeSet<String>,
}

/// What the pool has and no longer asks for, in words.
pub fn surplus(pool: &str, asked: &BTreeSet<Ipv4Addr>, facts: &Facts) -> Vec<String> {
    let elastics = facts.elastics.iter().filter_map(|elastic| {
        let claim =
            tags::claim(elastic).filter(|claim| claim.pool == pool && claim.nic == facts.nic.id && !asked.contains(&claim.private))?;
        Some(format!("{} ({}), which is for {}", elastic.id, elastic.public, claim.private))
    });
    let ledger = tags::ledger(&facts.nic.tags, pool);
    let addresses = ledger.into_iter().filter(|address| !asked.contains(address) && facts.nic.holds(*address));
    elastics.chain(addresses.map(|address| format!("{address} of {}", facts.nic.id))).collect()
}

/// The calls that are due, in the reverse of the order in which things came. None is left when all was given back; what cannot be is a problem.
pub fn release(pool: &str, kept: &Kept, facts: &Facts) -> Plan {
    let mut plan = Plan::default();
    let gone = kept.addresses.is_none();
    let asked = kept.addresses.clone().unwrap_or_default();
    if gone {
        routes(kept, facts, &mut plan);
    }
    if plan.calls.is_empty() {
        elastics(pool, &asked, facts, &mut plan);
    }
    if plan.calls.is_empty() {
        addresses(pool, &asked, facts, &mut plan);
    }
    if plan.calls.is_empty() && gone && !kept.forwards {
        check(facts, &mut plan);
    }
    if plan.calls.is_empty() {
        ledger(pool, &asked, gone, facts, &mut plan);
    }
    plan
}

/// Default routes that still lead to the NIC lead where they led before.
fn routes(kept: &Kept, facts: &Facts, plan: &mut Plan) {
    let aspect = Aspect::RoutesPointed;
    for (key, former) in facts.nic.tags.iter() {
        let Some(table) = key.strip_prefix(tags::ROUTE).filter(|table| !kept.tables.contains(*table)) else { continue };
        let ours = facts.tables.get(table).is_some_and(|route| route.target == Some(Target::Nic(facts.nic.id.clone())));
        let table = table.to_owned();
        match Target::of(former) {
            _ if !ours => {
                plan.call(
                    aspect,
                    Call::Untag { id: facts.nic.id.clone(), keys: vec![key.clone()] },
                    "the route does not lead to the NIC any more",
                );
            }
            _ if former == tags::NO_ROUTE => plan.call(aspect, Call::DeleteRoute { table }, "there was no default route before"),
            Target::Other(_) => {
                let message = format!("the default route of {table} led to {former} before; lead it there by hand");
                plan.problem(aspect, Reason::RouteInUse, None, message);
            }
            target => plan.call(aspect, Call::ReplaceRoute { table, target }, "the route led there before"),
        }
    }
}

fn elastics(pool: &str, asked: &BTreeSet<Ipv4Addr>, facts: &Facts, plan: &mut Plan) {
    let aspect = Aspect::ElasticAddressesAssociated;
    for elastic in &facts.elastics {
        let Some(claim) = tags::claim(elastic) else { continue };
        if claim.pool != pool || claim.nic != facts.nic.id || asked.contains(&claim.private) {
            continue;
        }
        let id = elastic.id.clone();
        match &elastic.association {
            Some(it) if it.is_with(&facts.nic.id, claim.private) => {
                let call = Call::Disassociate { id, association: it.id.clone() };
                plan.call(aspect, call, format!("the pool does not ask for {} any more", claim.private));
            }
            Some(it) => {
                let message = format!("{id} ({}) leads to {it}: somebody else changed it, so it is left alone", elastic.public);
                plan.problem(aspect, Reason::TakenAway, Some(claim.private), message);
            }
            None if claim.allocated => plan.call(aspect, Call::Release { id }, format!("was allocated for {}", claim.private)),
            None => {
                let keys = [tags::POOL, tags::NIC, tags::PRIVATE, tags::SUBNET].map(str::to_owned).to_vec();
                plan.call(aspect, Call::Untag { id, keys }, "is free again for others");
            }
        }
    }
}

/// Addresses that were assigned, that the NIC still has, and that no elastic address leads to.
fn addresses(pool: &str, asked: &BTreeSet<Ipv4Addr>, facts: &Facts, plan: &mut Plan) {
    let aspect = Aspect::AddressesAssigned;
    let mut unused = Vec::new();
    for address in tags::ledger(&facts.nic.tags, pool).into_iter().filter(|address| !asked.contains(address)) {
        let Some(held) = facts.nic.addresses.iter().find(|held| held.address == address) else { continue };
        match held.public {
            Some(public) => {
                let message = format!("{public} leads to {address}: somebody else changed it, so the address stays at {}", facts.nic.id);
                plan.problem(aspect, Reason::AddressInUse, Some(address), message);
            }
            None => unused.push(address),
        }
    }
    if !unused.is_empty() {
        plan.call(aspect, Call::Unassign { nic: facts.nic.id.clone(), addresses: unused }, "the pool does not ask for them any more");
    }
}

fn check(facts: &Facts, plan: &mut Plan) {
    let (nic, aspect) = (&facts.nic, Aspect::SourceDestCheckDisabled);
    if !nic.tags.contains_key(tags::CHECK) {
        return;
    }
    if nic.source_dest_check {
        plan.call(aspect, Call::Untag { id: nic.id.clone(), keys: vec![tags::CHECK.to_owned()] }, "the check is on again");
    } else {
        plan.call(aspect, Call::Check { nic: nic.id.clone(), on: true }, "the check was on before, and nothing forwards any more");
    }
}

/// The note of what was assigned goes last: until then the next try finds what this one has not done.
fn ledger(pool: &str, asked: &BTreeSet<Ipv4Addr>, gone: bool, facts: &Facts, plan: &mut Plan) {
    let (nic, aspect) = (&facts.nic, Aspect::AddressesAssigned);
    let keys: Vec<String> = tags::ledger_keys(&nic.tags, pool).collect();
    if keys.is_empty() || !plan.problems.is_empty() {
        return;
    }
    let old = tags::ledger(&nic.tags, pool);
    let left: BTreeSet<Ipv4Addr> = old.iter().copied().filter(|address| asked.contains(address)).collect();
    if gone {
        plan.call(aspect, Call::Untag { id: nic.id.clone(), keys }, "nothing of the pool is left");
        return;
    }
    let tags = tags::ledger_tags(pool, &left);
    let idle: Vec<String> = keys.into_iter().filter(|key| !tags.contains_key(key)).collect();
    if left != old {
        plan.call(aspect, Call::Tag { id: nic.id.clone(), tags }, "notes what is left");
    } else if !idle.is_empty() {
        plan.call(aspect, Call::Untag { id: nic.id.clone(), keys: idle }, "notes what is left");
    }
}
