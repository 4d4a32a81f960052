//! Which new flows of a published port are let in, and to which server, where the balance alone does not say: clients that stay at a server,
//! servers that are full, clients that begin too many.
//!
//! With an affinity or a limit of servers, each server of a service has a chain of its own, and the service's chain tries them in this order: the
//! server that the client is with, the one that the balance chooses, and, where servers may be full, each of the others. The kernel knows clients
//! and full servers by sets that rules fill, so all of it goes on while the daemon is dead.

use super::published::{called, calls, port_key, service_name};
use super::{drops, names};
use crate::model::ports::{Ports, Protocol};
use crate::model::services::{Endpoint, LimitedServer, Service, limited};
use crate::nft::build::{Operand, RuleBuilder, daddr, iif, l4proto, oif, rule, saddr};
use crate::nft::{Bytes, Chain, Change, Data, Datatype, Family, Key, Rate, Refusal, Rule, Set, Table, Verdict};
use crate::plan::elements::address_in;

/// Milliseconds that a server counts as full without being looked at again: if nobody took it out of `full` meanwhile, one new flow tries it.
const FULL: u64 = 30_000;
/// Milliseconds that a client's rate is remembered: it is fresh again after one second.
const REMEMBERED: u64 = 10_000;

/// Elements of one set, at most.
const MOST: u32 = 65_536;

/// Whether each server of a service has a chain of its own.
pub fn has_server_chains(service: &Service) -> bool {
    service.affinity.is_some() || service.limits.per_server.is_some()
}

/// The verdict of a slot that leads to a server's chain.
pub fn to_server(service: &Service, endpoint: Endpoint) -> Data {
    Data::Verdict(Verdict::Jump(server_name("server", service, endpoint)))
}

/// The server that a chain is for.
pub fn server_of(chain: &str) -> Option<Endpoint> {
    let mut parts = chain.strip_prefix("server-")?.rsplit('-');
    let port = parts.next()?.parse().ok()?;
    Some((parts.next()?.replace('_', ":").parse().ok()?, port))
}

/// Refuses what a client begins beyond its rate; nothing without such a limit. Adds the set of clients.
pub fn rate(table: &mut Table, service: &Service, v6: bool) -> Option<Rule> {
    let per_second = service.limits.per_client?;
    let set = service_name(names::CLIENT_RATES, service);
    let rate = Rate { per_second, burst: per_second };
    let refused = refused(table, service, drops::CLIENT_LIMIT, v6);
    let rule = rule().exceeds(&set, [saddr(v6)], REMEMBERED, rate).goto(&refused);
    table.sets.insert(set, Set::of([Datatype::address(v6)]).filled_by_rules(MOST));
    Some(rule)
}

/// The rules that choose a server by `slot`, of a service whose servers have chains, which are added.
pub fn servers(table: &mut Table, service: &Service, slots: &str, slot: Operand, v6: bool) -> Vec<Rule> {
    let mut servers: Vec<Endpoint> = service.weighted().into_iter().map(|(endpoint, _)| endpoint).collect();
    servers.sort_unstable();
    servers.dedup();
    let (mut known, mut others) = (Vec::new(), Vec::new());
    for endpoint in servers {
        let (address, port) = endpoint;
        let chain = server_name("server", service, endpoint);
        let mut rules = Vec::new();
        // The server of last resort has no limit.
        if service.limits.per_server.is_some() && service.servers.iter().any(|server| server.endpoint() == endpoint) {
            let full = limited_name("full", LimitedServer { address, protocol: service.ports.protocol, port });
            rules.push(rule().found(full.as_str(), [l4proto()]).ret());
            others.push(rule().jump(&chain));
        }
        if let Some(seconds) = service.affinity {
            let clients = server_name("clients", service, endpoint);
            rules.push(rule().update(&clients, [saddr(v6)], u64::from(seconds) * 1000).done());
            known.push(rule().found(clients.as_str(), [saddr(v6)]).jump(&chain));
            table.sets.insert(clients, Set::of([Datatype::address(v6)]).filled_by_rules(MOST));
        }
        rules.push(rule().dnat_to(address, (port != 0).then_some(port)));
        table.chains.insert(chain, Chain::regular(rules));
    }
    if service.limits.per_server.is_some() {
        others.push(rule().goto(&refused(table, service, drops::SERVER_LIMIT, v6)));
    }
    known.into_iter().chain([rule().vmap(slots, [slot])]).chain(others).collect()
}

/// Counts the flows of servers that have a limit once they are chosen.
pub fn add_limits<'a>(table: &mut Table, services: impl Iterator<Item = &'a Service>, v6: bool) {
    for (server, most) in limited(services) {
        let (full, chain) = (limited_name("full", server), limited_name("limit", server));
        // Two counts of the same flows: the last one that is let in makes the server full, and none comes in beside it on another processor.
        let last = rule().more_flows_than(most - 1).update(&full, [l4proto()], FULL);
        let last = last.update(names::FULL, calls(v6), FULL).done();
        let last_word = rule().counter(drops::SERVER_LIMIT).drop();
        let dropped = drops::add_end(table, (drops::SERVER_LIMIT, "server"), v6, [oif(), daddr(v6)], last_word);
        let beyond = rule().more_flows_than(most).goto(&dropped);
        table.sets.insert(full, Set::of([Datatype::Protocol]).filled_by_rules(MOST));
        table.sets.entry(names::FULL.to_owned()).or_insert_with(|| Set::of(called(v6)).filled_by_rules(MOST));
        table.chains.insert(chain.clone(), Chain::regular([last, beyond]));
        let key = key(server);
        table.sets.entry(names::SERVER_LIMITS.to_owned()).and_modify(|set| {
            set.elements.insert(key, Data::Verdict(Verdict::Jump(chain)));
        });
    }
}

/// The changes by which a server that the kernel takes for full counts as free again, each by itself: its time in one of the sets may be over.
pub fn free(server: LimitedServer) -> [Change; 2] {
    let family = Family::ip(server.address.is_ipv6());
    let protocol = Key::one(Bytes::exact(&[server.protocol.number()]));
    [
        Change::DeleteElements(family, limited_name("full", server), vec![protocol]),
        Change::DeleteElements(family, names::FULL.to_owned(), vec![key(server)]),
    ]
}

/// The server that bytes of a key of [`names::FULL`] stand for.
pub fn server_in(bytes: &[u8], v6: bool) -> Option<LimitedServer> {
    let rest = bytes.get(if v6 { 16 } else { 4 }..)?;
    let protocol = rest.first().copied().and_then(Protocol::numbered)?;
    Some(LimitedServer { address: address_in(bytes, v6)?, protocol, port: u16::from_be_bytes(*rest.get(4..)?.first_chunk()?) })
}

fn key(LimitedServer { address, protocol, port }: LimitedServer) -> Key {
    port_key(address, protocol.number(), port)
}

/// The chain that counts and refuses calls: by the address that is called, since clients are everybody. Adds it.
fn refused(table: &mut Table, service: &Service, reason: &'static str, v6: bool) -> String {
    drops::add_end(table, (reason, service.ports.protocol.name()), v6, [iif(), daddr(v6)], refuse(rule().counter(reason), service))
}

/// Refuses a call. An ICMP error about a datagram would not bear the address that was called (the kernel takes that of the route to the client),
/// and so leave by another NIC: datagrams are just dropped. So are calls by SCTP, whose abort no rule can send.
fn refuse(rule: RuleBuilder, service: &Service) -> Rule {
    if service.ports.protocol == Protocol::Tcp { rule.reject(Refusal::TcpReset) } else { rule.drop() }
}

/// `server-tcp-27017-172.31.0.14-10.0.0.2-1234`
fn server_name(what: &str, service: &Service, (address, port): Endpoint) -> String {
    format!("{}-{address}-{port}", service_name(what, service)).replace(':', "_")
}

/// `full-tcp-1234-10.0.0.2`
fn limited_name(what: &str, LimitedServer { address, protocol, port }: LimitedServer) -> String {
    let ports = Ports { protocol, first: port, last: port };
    format!("{what}-{ports}-{address}").replace('/', "-").replace(':', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_tells_its_server() {
        for (chain, address, port) in
            [("server-tcp-27017-172.31.0.14-10.0.0.2-1234", "10.0.0.2", 1234), ("server-udp-53-2001_db8__14-fd00__2-0", "fd00::2", 0)]
        {
            assert_eq!(server_of(chain), Some((address.parse().expect("an address"), port)));
        }
        for other in ["service-tcp-80-172.31.0.14", "server-", "server-tcp-80-x-y"] {
            assert_eq!(server_of(other), None, "{other}");
        }
    }
}
