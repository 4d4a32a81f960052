//! What a pool has and no longer asks for, given back: only when somebody asks for it, and only what bears our tags.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use egressd::model::cloud::CloudPool;

use super::call::{Call, Plan};
use super::facts::{Facts, Nic, Target};
use super::report::{Aspect, Reason};
use super::tags;

/// What is still asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// Addresses of the pool; `None`: there is no such pool any more.
    pub addresses: Option<BTreeSet<Ipv4Addr>>,
    /// The pool's addresses are to have elastic ones.
    pub elastic: bool,
    /// Addresses that other pools ask for at this NIC, each with such a pool's name.
    pub others: BTreeMap<Ipv4Addr, String>,
    /// All pools that there are, by name.
    pub pools: BTreeSet<String>,
    /// A pool with this NIC forwards.
    pub forwards: bool,
    /// Route tables that pools with this NIC name.
    pub tables: BTreeSet<String>,
}

impl Kept {
    /// What a pool asks for, where `others` may have the same NIC.
    pub fn of<'a>(pool: &CloudPool, others: impl IntoIterator<Item = &'a CloudPool>) -> Self {
        let mut kept = Self {
            addresses: Some(pool.addresses.iter().copied().collect()),
            elastic: pool.aws.elastic.is_some(),
            pools: BTreeSet::from([pool.name.clone()]),
            ..Self::default()
        };
        kept.share(pool);
        for other in others {
            kept.share(other);
            kept.others.extend(other.addresses.iter().map(|address| (*address, other.name.clone())));
        }
        kept
    }

    /// A pool that may have this NIC asks for the check and its routes.
    pub fn share(&mut self, pool: &CloudPool) {
        self.forwards |= pool.aws.forwards;
        self.tables.extend(pool.aws.route_tables.iter().cloned());
    }

    fn asks(&self, address: Ipv4Addr) -> bool {
        self.addresses.as_ref().is_some_and(|asked| asked.contains(&address))
    }

    /// Whether an elastic address that is the pool's for this address is still to be.
    fn asks_elastic(&self, address: Ipv4Addr) -> bool {
        self.elastic && self.asks(address)
    }

    /// The check and the routes are the network interface's: whether it bears the tag of a pool that nobody knows here, which may want them.
    fn has_stranger(&self, pool: &str, nic: &Nic) -> bool {
        tags::pools(&nic.tags).any(|name| name != pool && !self.pools.contains(name))
    }
}

/// What the pool has and no longer asks for, in words.
pub fn surplus(pool: &str, kept: &Kept, facts: &Facts) -> Vec<String> {
    let nic = &facts.nic;
    let elastics = facts.elastics.iter().filter_map(|elastic| {
        let claim = tags::claim(elastic).filter(|claim| claim.pool == pool)?;
        let asked = kept.asks_elastic(claim.private);
        let what = format!("{} ({}), which is for {}", elastic.id, elastic.public, claim.private);
        if facts.gone.contains(claim.nic) {
            // One that is asked for and has none gets it.
            let has_one = nic.addresses.iter().any(|held| held.address == claim.private && held.public.is_some());
            return (!asked || has_one).then(|| format!("{what} of {}, which is gone (name that by --network-interface)", claim.nic));
        }
        (claim.nic == nic.id && !asked).then_some(what)
    });
    let unasked = |address: &Ipv4Addr| !kept.asks(*address) && !kept.others.contains_key(address) && nic.holds(*address);
    let addresses = tags::ledger(&nic.tags, pool).into_iter().filter(unasked).map(|address| format!("{address} of {}", nic.id));
    let mut all: Vec<String> = elastics.chain(addresses).collect();
    if !kept.has_stranger(pool, nic) {
        let tables = noted_tables(kept, facts).filter(|(table, _)| leads_here(table, facts));
        all.extend(tables.map(|(table, _)| format!("the default route of {table}, which leads to {}", nic.id)));
        if !kept.forwards && nic.tags.contains_key(tags::CHECK) && !nic.source_dest_check {
            all.push(format!("the source/destination check of {}, which is off", nic.id));
        }
    }
    all
}

/// The calls that are due, in the reverse of the order in which things came. None is left when all was given back; what cannot be is a problem.
pub fn release(pool: &str, kept: &Kept, facts: &Facts) -> Plan {
    let mut plan = Plan::default();
    let shared = kept.has_stranger(pool, &facts.nic);
    if !shared {
        routes(kept, facts, &mut plan);
    }
    if plan.calls.is_empty() {
        elastics(pool, kept, facts, &mut plan);
    }
    if plan.calls.is_empty() {
        addresses(pool, kept, facts, &mut plan);
    }
    if plan.calls.is_empty() && !shared && !kept.forwards {
        check(facts, &mut plan);
    }
    if plan.calls.is_empty() && plan.problems.is_empty() {
        hand_over(pool, kept, facts, &mut plan);
    }
    if plan.calls.is_empty() && plan.problems.is_empty() {
        ledger(pool, kept, facts, &mut plan);
    }
    plan
}

/// Route tables that led elsewhere before, with where, and that no pool names any more.
fn noted_tables<'a>(kept: &'a Kept, facts: &'a Facts) -> impl Iterator<Item = (&'a str, &'a str)> {
    let noted = facts.nic.tags.iter().filter_map(|(key, former)| Some((key.strip_prefix(tags::ROUTE)?, former.as_str())));
    noted.filter(|(table, _)| !kept.tables.contains(*table))
}

fn leads_here(table: &str, facts: &Facts) -> bool {
    facts.tables.get(table).is_some_and(|route| route.target == Some(Target::Nic(facts.nic.id.clone())))
}

/// Default routes that still lead to the NIC lead where they led before.
fn routes(kept: &Kept, facts: &Facts, plan: &mut Plan) {
    let aspect = Aspect::RoutesPointed;
    for (table, former) in noted_tables(kept, facts) {
        let ours = leads_here(table, facts);
        let table = table.to_owned();
        match Target::of(former) {
            _ if !ours => {
                let keys = vec![format!("{}{table}", tags::ROUTE)];
                plan.call(aspect, Call::Untag { id: facts.nic.id.clone(), keys }, "the route does not lead to the NIC any more");
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

fn elastics(pool: &str, kept: &Kept, facts: &Facts, plan: &mut Plan) {
    let aspect = Aspect::ElasticAddressesAssociated;
    for elastic in &facts.elastics {
        let Some(claim) = tags::claim(elastic) else { continue };
        if claim.pool != pool || claim.nic != facts.nic.id || kept.asks_elastic(claim.private) {
            continue;
        }
        let id = elastic.id.clone();
        match &elastic.association {
            Some(it) if it.is_with(&facts.nic.id, claim.private) => {
                let call = Call::Disassociate { id, association: it.id.clone() };
                plan.call(aspect, call, format!("the pool does not ask for one for {} any more", claim.private));
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

/// Addresses that were assigned, that the NIC still has, that no elastic address leads to, and that no other pool asks for.
fn addresses(pool: &str, kept: &Kept, facts: &Facts, plan: &mut Plan) {
    let aspect = Aspect::AddressesAssigned;
    let mut unused = Vec::new();
    let unasked = |address: &Ipv4Addr| !kept.asks(*address) && !kept.others.contains_key(address);
    for address in tags::ledger(&facts.nic.tags, pool).into_iter().filter(unasked) {
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

/// Addresses that another pool asks for are that one's from now on: nobody would give them back else.
fn hand_over(pool: &str, kept: &Kept, facts: &Facts, plan: &mut Plan) {
    let nic = &facts.nic;
    let mut handed: BTreeMap<&String, BTreeSet<Ipv4Addr>> = BTreeMap::new();
    for address in tags::ledger(&nic.tags, pool).into_iter().filter(|address| !kept.asks(*address) && nic.holds(*address)) {
        if let Some(other) = kept.others.get(&address) {
            handed.entry(other).or_default().insert(address);
        }
    }
    for (other, addresses) in handed {
        let noted = tags::ledger(&nic.tags, other);
        if !addresses.is_subset(&noted) {
            let tags = tags::ledger_tags(other, &noted.union(&addresses).copied().collect());
            plan.call(Aspect::AddressesAssigned, Call::Tag { id: nic.id.clone(), tags }, format!("the pool {other} asks for them"));
        }
    }
}

/// The note of what was assigned goes last: until then the next try finds what this one has not done.
fn ledger(pool: &str, kept: &Kept, facts: &Facts, plan: &mut Plan) {
    let (nic, aspect) = (&facts.nic, Aspect::AddressesAssigned);
    let keys: Vec<String> = tags::ledger_keys(&nic.tags, pool).collect();
    if keys.is_empty() {
        return;
    }
    if kept.addresses.is_none() {
        plan.call(aspect, Call::Untag { id: nic.id.clone(), keys }, "nothing of the pool is left");
        return;
    }
    let old = tags::ledger(&nic.tags, pool);
    let left: BTreeSet<Ipv4Addr> = old.iter().copied().filter(|address| kept.asks(*address)).collect();
    let tags = tags::ledger_tags(pool, &left);
    let idle: Vec<String> = keys.into_iter().filter(|key| !tags.contains_key(key)).collect();
    if left != old {
        plan.call(aspect, Call::Tag { id: nic.id.clone(), tags }, "notes what is left");
    } else if !idle.is_empty() {
        plan.call(aspect, Call::Untag { id: nic.id.clone(), keys: idle }, "notes what is left");
    }
}
