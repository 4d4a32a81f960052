//! Elastic addresses: which one is for which private address of a pool.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use egressd::model::cloud::{CloudPool, ElasticAddresses};

use super::call::{Call, Plan};
use super::facts::{Elastic, Facts, Tags};
use super::report::{Aspect, Reason};
use super::tags::{self, Claim};

const ASPECT: Aspect = Aspect::ElasticAddressesAssociated;

/// The elastic address that leads to this address, when the pool may count it as its own.
pub fn bound<'a>(pool: &CloudPool, facts: &'a Facts, address: Ipv4Addr) -> Option<&'a Elastic> {
    // Of another pool at the same network interface the tags are true.
    let beside = |elastic: &Elastic| tags::claim(elastic).is_some_and(|claim| claim.nic == facts.nic.id && claim.pool != pool.name);
    leads_to(facts, address).filter(|elastic| is_ours(pool, facts, elastic, address) || (bears_tag(pool, elastic) && !beside(elastic)))
}

fn leads_to(facts: &Facts, address: Ipv4Addr) -> Option<&Elastic> {
    let with = |elastic: &&Elastic| elastic.association.as_ref().is_some_and(|it| it.is_with(&facts.nic.id, address));
    facts.elastics.iter().find(with)
}

/// Whether the elastic address's tags say that it is the pool's, for this address.
fn is_ours(pool: &CloudPool, facts: &Facts, elastic: &Elastic, address: Ipv4Addr) -> bool {
    let is = |claim: Claim<'_>| claim.pool == pool.name && claim.nic == facts.nic.id && claim.private == address;
    tags::claim(elastic).is_some_and(is)
}

/// Whether it bears the tag of those that may be used. Of these the association says whose one is: where two hosts choose one at the same time the
/// tags are those of the last, and the cloud lets it lead to the first.
fn bears_tag(pool: &CloudPool, elastic: &Elastic) -> bool {
    let Some(ElasticAddresses::Tagged { key, value }) = &pool.aws.elastic else { return false };
    elastic.tags.get(key) == Some(value) && tags::claim(elastic).is_none_or(|claim| !claim.allocated)
}

/// One that may be used, and that nobody has yet.
fn is_offered(pool: &CloudPool, elastic: &Elastic) -> bool {
    bears_tag(pool, elastic) && elastic.association.is_none() && tags::claim(elastic).is_none()
}

/// The calls that are due: for each address the next one alone.
pub(super) fn plan(pool: &CloudPool, facts: &Facts, plan: &mut Plan) {
    let Some(source) = &pool.aws.elastic else { return };
    let mut chosen = BTreeSet::new();
    let mut short = Vec::new();
    let most = facts.limits.as_ref().and_then(|limits| limits.elastic);
    let mut room = most.map_or(usize::MAX, |most| most.saturating_sub(facts.elastics.len()));
    for address in pool.addresses.iter().copied().filter(|address| facts.nic.holds(*address)) {
        if in_place(pool, facts, address, plan) {
            continue;
        }
        match own(pool, facts, address) {
            Own::Free(elastic) => associate(facts, elastic, address, plan),
            Own::Elsewhere(elastic) if !is_another_s(pool, facts, elastic) => taken_away(elastic, address, plan),
            Own::Left(elastic) => {
                let tags = Tags::from([(tags::NIC.to_owned(), facts.nic.id.clone())]);
                let reason = format!("{} is for {address}, which is this network interface's now", elastic.public);
                plan.call(ASPECT, Call::Tag { id: elastic.id.clone(), tags }, reason);
            }
            Own::None | Own::Elsewhere(_) => match source {
                ElasticAddresses::Allocate if room > 0 => {
                    room -= 1;
                    let tags = tags::elastic(&pool.name, &facts.nic, address, true);
                    plan.call(ASPECT, Call::Allocate { tags }, format!("{address} has no elastic address"));
                }
                ElasticAddresses::Allocate => short.push(address),
                ElasticAddresses::Tagged { key, value } => {
                    let mut offered: Vec<&Elastic> = facts.elastics.iter().filter(|elastic| is_offered(pool, elastic)).collect();
                    offered.sort_by(|a, b| a.id.cmp(&b.id));
                    match offered.into_iter().find(|elastic| chosen.insert(&elastic.id)) {
                        Some(elastic) => {
                            let tags = tags::elastic(&pool.name, &facts.nic, address, false);
                            let reason = format!("{} is free, has {key}={value}, and is for {address}", elastic.public);
                            plan.call(ASPECT, Call::Tag { id: elastic.id.clone(), tags }, reason);
                        }
                        None => plan.problem(
                            ASPECT,
                            Reason::NoElasticAddress,
                            Some(address),
                            format!("no free elastic address of the account has {key}={value}; tag one more, or remove {address} from `spec.blocks`"),
                        ),
                    }
                }
            },
        }
    }
    if let (Some(most), [_, ..]) = (most, short.as_slice()) {
        let message = format!(
            "the account may have {most} elastic addresses in the region and has {}, and the pool asks for {} more; release some, or have the \
             quota raised (Service Quotas: EC2-VPC Elastic IPs)",
            facts.elastics.len(),
            short.len() + most.saturating_sub(facts.elastics.len()),
        );
        for address in short {
            plan.problem(ASPECT, Reason::LimitReached, Some(address), message.clone());
        }
    }
}

/// Whether an elastic address leads to it already, be it ours or not.
fn in_place(pool: &CloudPool, facts: &Facts, address: Ipv4Addr, plan: &mut Plan) -> bool {
    if let Some(elastic) = bound(pool, facts, address) {
        // Two were allocated for one address: a process was killed, and its successor could not see what it had done.
        for spare in facts.elastics.iter().filter(|spare| spare.id != elastic.id && is_ours(pool, facts, spare, address)) {
            let allocated = tags::claim(spare).is_some_and(|claim| claim.allocated);
            if spare.association.is_none() && allocated {
                let reason = format!("was allocated for {address}, which has {}", elastic.public);
                plan.call(ASPECT, Call::Release { id: spare.id.clone() }, reason);
            }
        }
        if tags::claim(elastic).is_some() && !is_ours(pool, facts, elastic, address) {
            let tags = tags::elastic(&pool.name, &facts.nic, address, false);
            plan.call(ASPECT, Call::Tag { id: elastic.id.clone(), tags }, format!("{} leads to {address}", elastic.public));
        }
        return true;
    }
    let held = facts.nic.addresses.iter().find(|held| held.address == address);
    let message = match (leads_to(facts, address), held.and_then(|held| held.public)) {
        (Some(elastic), _) => {
            let whose = tags::claim(elastic).map_or_else(|| "is not egressd's".to_owned(), |claim| format!("is the pool {}'s", claim.pool));
            format!(
                "{} ({}) leads to {address} and {whose}; disassociate it, or remove {address} from `spec.blocks`",
                elastic.id, elastic.public
            )
        }
        (None, Some(public)) => format!(
            "{address} has the public address {public}, which is no elastic address of this account and would be lost; take {address} out of \
             `spec.blocks`"
        ),
        (None, None) => return false,
    };
    plan.problem(ASPECT, Reason::AddressInUse, Some(address), message);
    true
}

/// An elastic address whose tags say that it is for the address, and that does not lead there.
enum Own<'a> {
    Free(&'a Elastic),
    Elsewhere(&'a Elastic),
    /// It was for the address at a network interface of another node of the cluster, or at one that is gone, and leads nowhere.
    Left(&'a Elastic),
    None,
}

fn own<'a>(pool: &CloudPool, facts: &'a Facts, address: Ipv4Addr) -> Own<'a> {
    let mut ours: Vec<&Elastic> = facts.elastics.iter().filter(|elastic| is_ours(pool, facts, elastic, address)).collect();
    ours.sort_by(|a, b| (a.association.is_some(), &a.id).cmp(&(b.association.is_some(), &b.id)));
    match ours.first() {
        Some(elastic) if elastic.association.is_none() => Own::Free(elastic),
        Some(elastic) => Own::Elsewhere(elastic),
        None => facts.elastics.iter().find(|elastic| is_left(pool, facts, elastic, address)).map_or(Own::None, Own::Left),
    }
}

/// Whether the address has it from another node, or from a network interface that is gone: in one subnet there is no other such address.
fn is_left(pool: &CloudPool, facts: &Facts, elastic: &Elastic, address: Ipv4Addr) -> bool {
    let same = |claim: Claim<'_>| claim.pool == pool.name && claim.private == address && claim.subnet == Some(&facts.nic.subnet.id);
    let is_nobodys = |claim: &Claim<'_>| pool.host.is_some() || facts.gone.contains(claim.nic);
    elastic.association.is_none() && tags::claim(elastic).filter(is_nobodys).is_some_and(same)
}

/// Whether another one that uses the tag was faster, and there is one that is free.
fn is_another_s(pool: &CloudPool, facts: &Facts, elastic: &Elastic) -> bool {
    bears_tag(pool, elastic) && facts.elastics.iter().any(|other| is_offered(pool, other))
}

fn associate(facts: &Facts, elastic: &Elastic, address: Ipv4Addr, plan: &mut Plan) {
    let call = Call::Associate { id: elastic.id.clone(), nic: facts.nic.id.clone(), private: address };
    plan.call(ASPECT, call, format!("{address} is to have it"));
}

fn taken_away(elastic: &Elastic, address: Ipv4Addr, plan: &mut Plan) {
    let other = elastic.association.as_ref().map(ToString::to_string).unwrap_or_default();
    let message = format!(
        "{} ({}) is for {address}, and was made to lead to {other}; disassociate it there, or remove its tag {}",
        elastic.id,
        elastic.public,
        tags::POOL
    );
    plan.problem(ASPECT, Reason::TakenAway, Some(address), message);
}
