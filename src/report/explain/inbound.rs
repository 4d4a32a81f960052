//! `egressd explain --inbound`: which service a call reaches, which server answers it, and why no other does.

use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};

use crate::contract::HASH_SEED;
use crate::model::facts::Published;
use crate::model::health::{AllDown, Verdict};
use crate::model::inbound::{Balance, ClientSource};
use crate::model::ipvs::{Balancer, Engine};
use crate::model::jhash::slot;
use crate::model::known::Facts;
use crate::model::ports::Protocol;
use crate::model::resolve::Outcome;
use crate::model::services::{Health, Server, Service, slots};

/// What becomes of a call to this address and port, of this client if one is given.
pub fn explain(facts: &Facts, outcome: &Outcome, called: SocketAddr, protocol: Protocol, client: Option<IpAddr>) -> String {
    let mut out = String::new();
    // Writing into a String cannot fail.
    let _ = write(&mut out, facts, outcome, called, protocol, client);
    out
}

fn write(
    out: &mut String,
    facts: &Facts,
    outcome: &Outcome,
    called: SocketAddr,
    protocol: Protocol,
    client: Option<IpAddr>,
) -> std::fmt::Result {
    let word = protocol.name();
    writeln!(out, "{word}/{called}")?;
    let has = |service: &&Service| service.address == called.ip() && service.ports.has(protocol, called.port());
    let Some(service) = outcome.inbound.all.iter().find(has) else { return not_served(out, facts, outcome, called, protocol) };
    let how = match (service.engine, service.balance) {
        (Engine::Ipvs(balancer), _) => ipvs(balancer, called.is_ipv6()),
        (_, Balance::RoundRobin) => "by turn".to_owned(),
        (_, Balance::Random) => "at random".to_owned(),
        (_, Balance::BySource) => "by a hash of the client's address".to_owned(),
    };
    writeln!(out, "  service   {} of {}; new connections go {how}", service.called(), service.binding)?;
    let sees = match service.client_source {
        ClientSource::Preserve => "the client's address, or this host's if the client is on its link",
        ClientSource::Masquerade => "this host's address",
        ClientSource::RouteBack => {
            "the client's address, also on its own link: a rule in its network namespace routes its answers back through this host"
        }
    };
    writeln!(out, "  source    a server sees {sees}")?;
    if let Some(seconds) = service.affinity {
        writeln!(out, "  affinity  a client stays at its server for {} after its last new connection", lasting(seconds))?;
    }
    if let Some(most) = service.limits.per_server {
        writeln!(
            out,
            "  limit     a server has at most {most} connections; then the next one gets them, and when all are full the call is refused"
        )?;
    }
    if let Some(most) = service.limits.per_client {
        writeln!(out, "  limit     a client opens at most {most} connections a second; more are refused")?;
    }
    let weighted = service.weighted();
    for server in &service.servers {
        let gets = weighted.iter().any(|(endpoint, _)| *endpoint == server.endpoint());
        let limit = Some(server.thresholds.upper).filter(|upper| *upper > 0).map(|upper| format!(", up to {upper} connections"));
        writeln!(
            out,
            "  server    {}, weight {}{}{}",
            named(server, outcome),
            server.weight,
            limit.unwrap_or_default(),
            standing(server, gets)
        )?;
    }
    if let Some(last) = &service.last_resort {
        let uses = if service.resorted().is_some() {
            "gets all calls: no server gets new connections"
        } else {
            "gets no call while a server does"
        };
        writeln!(out, "  reserve   {}, the server of last resort: {uses}", at(last.address, last.port))?;
        if service.resorted().is_some() {
            return Ok(());
        }
    }
    if weighted.is_empty() {
        return writeln!(out, "  call      is refused by this host: no server gets new connections");
    }
    if service.all_down == AllDown::KeepAll && !service.servers.iter().any(Server::takes) {
        writeln!(out, "  call      goes to all servers, as none is healthy (allDown: KeepAll)")?;
    }
    if service.engine.ipvs().is_some() {
        return client.map_or(Ok(()), |client| {
            writeln!(out, "  client    {client} gets the server that the kernel's scheduler chooses: `ipvsadm -Lcn` lists its connections")
        });
    }
    match (service.balance, client) {
        (Balance::BySource, Some(client)) if client.is_ipv4() != called.is_ipv4() => {
            writeln!(out, "  client    {client} is of the other family, and cannot call {}", called.ip())
        }
        (Balance::BySource, Some(client)) => {
            let slots = slots(service.balance, &weighted, service.servers.len());
            let at = slot(client, slots.len() as u32, HASH_SEED);
            let server = slots.get(at as usize).and_then(|endpoint| service.servers.iter().find(|server| server.endpoint() == *endpoint));
            let name = server.map(|server| named(server, outcome)).unwrap_or_default();
            writeln!(out, "  client    {client} has slot {at} of {}: {name}", slots.len())
        }
        (Balance::BySource, None) => writeln!(out, "  client    add the client's address to the command to see its server"),
        (balance, Some(client)) => {
            let how = if balance == Balance::Random { "they are chosen at random" } else { "they take turns" };
            writeln!(out, "  client    {client} may get any of them: {how}, for all clients")
        }
        (_, None) => Ok(()),
    }
}

/// Seconds as users write them.
fn lasting(seconds: u32) -> String {
    match seconds {
        hours if hours % 3600 == 0 => format!("{}h", hours / 3600),
        minutes if minutes % 60 == 0 => format!("{}m", minutes / 60),
        seconds => format!("{seconds}s"),
    }
}

/// How a virtual service chooses.
fn ipvs(balancer: Balancer, v6: bool) -> String {
    let kept = balancer.persistence.map(|persistence| {
        let length = if v6 { persistence.ipv6_prefix_length } else { persistence.ipv4_prefix_length };
        format!("; clients of a /{length} keep their server for {} s", persistence.seconds)
    });
    format!("as IPVS's scheduler {} says{}", balancer.scheduler, kept.unwrap_or_default())
}

/// Workload, address and port.
fn named(server: &Server, outcome: &Outcome) -> String {
    let workload = outcome.rows.get(server.row).map(|row| row.subject.to_string()).unwrap_or_default();
    format!("{workload} at {}", at(server.address, server.port))
}

/// Address and port.
fn at(address: IpAddr, port: Option<u16>) -> String {
    port.map_or_else(|| format!("{address}, on the port that is called"), |port| SocketAddr::new(address, port).to_string())
}

/// Why a server gets new connections, or not.
fn standing(server: &Server, gets: bool) -> String {
    let health = match &server.health {
        Health::Unchecked => String::new(),
        Health::Unknown { .. } => ", has not answered yet".to_owned(),
        Health::Known(Verdict::Healthy) => ", healthy".to_owned(),
        Health::Known(Verdict::Unhealthy(why)) => format!(", unhealthy ({why})"),
    };
    let rest = match (gets, server.weight) {
        (true, _) => "",
        (false, 0) => ": drains: it gets no new connection and keeps the open ones",
        (false, _) => ": gets no new connection, and keeps the open ones",
    };
    health + rest
}

fn not_served(out: &mut String, facts: &Facts, outcome: &Outcome, called: SocketAddr, protocol: Protocol) -> std::fmt::Result {
    let at = |one: &Published| {
        let address = one.address == called.ip() || (one.address.is_unspecified() && one.address.is_ipv4() == called.is_ipv4());
        address && one.protocol == protocol && one.port == called.port()
    };
    if let Some(container) = facts.containers().find(|container| container.running && container.published.iter().any(at)) {
        return writeln!(out, "  call      goes to container {}, for which the engine publishes this port", container.name);
    }
    let protocol = protocol.name();
    if !outcome.uplinks.held().any(|(address, _)| address == called.ip()) {
        return writeln!(out, "  call      is none of egressd's: no binding has {} as an exit", called.ip());
    }
    writeln!(out, "  call      goes to this host's own programs, or follows another program's rules: no binding serves this port")?;
    // What is refused names the address and the port as they are called.
    let of = format!("{protocol}/{}", SocketAddr::new(called.ip(), 0));
    let of = of.trim_end_matches('0');
    for problem in outcome.inbound.problems.iter().filter(|problem| problem.error.message.contains(of)) {
        writeln!(out, "  problem   {problem}")?;
    }
    Ok(())
}
