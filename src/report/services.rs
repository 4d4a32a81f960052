//! Services in `egressd status`: ports of exits, and who serves them.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::columns::columns;
use super::ipvs;
use crate::model::health::Verdict;
use crate::model::inbound::{Balance, ClientSource};
use crate::model::ipvs::Engine;
use crate::model::known::Facts;
use crate::model::ports::Ports;
use crate::model::resolve::Outcome;
use crate::model::services::{Health, LimitedServer, Server, Service};
use crate::model::ways_back::way_back;

/// Servers that a row of the table names.
const SHOWN: usize = 3;

/// A port of an exit's address, or a range of ports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceStatus {
    /// `tcp/172.31.0.14:27017`.
    pub service: String,
    pub address: IpAddr,
    pub port: u16,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub end_port: Option<u16>,
    /// `Nftables` or `Ipvs`.
    pub engine: String,
    /// `RoundRobin`, `Random` or `BySource`; the scheduler's name with the engine `Ipvs`.
    pub balance: String,
    /// `Preserve`, `Masquerade` or `RouteBack`.
    pub client_source: String,
    /// Seconds that a client stays at its server after its last new connection.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub affinity_seconds: Option<u32>,
    /// Connections that a server may have open at a time.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub max_connections: Option<u32>,
    /// New connections that a client may begin each second.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub new_connections_per_second: Option<u32>,
    /// The binding that had the port first.
    pub binding: String,
    pub servers: Vec<ServerStatus>,
    /// Who gets the calls while no server does.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub last_resort: Option<LastResortStatus>,
}

/// The server of last resort of a port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LastResortStatus {
    pub address: IpAddr,
    /// The port that was called when it is not given.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub port: Option<u16>,
    /// No server gets new connections: they go here.
    pub in_use: bool,
}

/// A workload that serves a port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServerStatus {
    pub workload: String,
    pub address: IpAddr,
    /// The port that was called when it is not given.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub port: Option<u16>,
    /// Its part of the new connections; 0 while it drains.
    pub weight: u16,
    /// It has as many connections as it may have.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub full: bool,
    /// `Healthy`, `Unhealthy`, or `Unknown` before its first answer; not given where nobody asks.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub health: Option<String>,
    /// The commands that its network namespace needs, where its answers are to be routed back through this host and egressd has not done so.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub route_back: Option<String>,
    /// egressd keeps the rule in its network namespace by which its answers come back through this host.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub routed_back: bool,
    /// Why egressd cannot.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub not_routed_back: Option<String>,
    /// What was wrong with its last probe when it became unhealthy.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
}

/// All services of an outcome.
pub fn services(facts: &Facts, outcome: &Outcome, full: &BTreeSet<LimitedServer>) -> Vec<ServiceStatus> {
    outcome.inbound.all.iter().map(|service| of_service(service, facts, outcome, full)).collect()
}

fn of_service(service: &Service, facts: &Facts, outcome: &Outcome, full: &BTreeSet<LimitedServer>) -> ServiceStatus {
    let routed_back = |server: &Server| facts.routed_back.get(&way_back(service, server, &facts.kernel)?);
    let Ports { first, last, .. } = service.ports;
    let health = |server: &Server| match &server.health {
        Health::Unchecked => (None, None),
        Health::Unknown { .. } => (Some("Unknown".to_owned()), None),
        Health::Known(Verdict::Healthy) => (Some("Healthy".to_owned()), None),
        Health::Known(Verdict::Unhealthy(why)) => (Some("Unhealthy".to_owned()), Some(why.clone())),
    };
    let server = |server: &Server| ServerStatus {
        workload: outcome.rows.get(server.row).map(|row| row.subject.to_string()).unwrap_or_default(),
        address: server.address,
        port: server.port,
        weight: server.weight,
        full: server
            .port
            .is_some_and(|port| full.contains(&LimitedServer { address: server.address, protocol: service.ports.protocol, port })),
        route_back: ipvs::route_back(service, server).filter(|_| routed_back(server) != Some(&Ok(()))),
        routed_back: routed_back(server) == Some(&Ok(())),
        not_routed_back: routed_back(server).and_then(|done| done.clone().err()),
        health: health(server).0,
        reason: health(server).1,
    };
    let balance = match (service.engine, service.balance) {
        (Engine::Ipvs(balancer), _) => balancer.scheduler.name(),
        (_, Balance::RoundRobin) => "RoundRobin",
        (_, Balance::Random) => "Random",
        (_, Balance::BySource) => "BySource",
    };
    let client_source = match service.client_source {
        ClientSource::Preserve => "Preserve",
        ClientSource::Masquerade => "Masquerade",
        ClientSource::RouteBack => "RouteBack",
    };
    ServiceStatus {
        service: service.called(),
        address: service.address,
        port: first,
        end_port: (last != first).then_some(last),
        engine: if service.engine.ipvs().is_some() { "Ipvs" } else { "Nftables" }.to_owned(),
        balance: balance.to_owned(),
        client_source: client_source.to_owned(),
        affinity_seconds: service.affinity,
        max_connections: service.limits.per_server,
        new_connections_per_second: service.limits.per_client,
        binding: service.binding.to_string(),
        servers: service.servers.iter().map(server).collect(),
        last_resort: service.last_resort.map(|last| LastResortStatus {
            address: last.address,
            port: last.port,
            in_use: service.resorted().is_some(),
        }),
    }
}

/// A table for a terminal, after a blank line; nothing without services.
pub fn render(services: &[ServiceStatus]) -> String {
    if services.is_empty() {
        return String::new();
    }
    let rows = services.iter().map(|service| {
        let shown = service.servers.iter().take(SHOWN).map(|server| format!("{}{}", server.at(), server.note()));
        let mut servers = shown.collect::<Vec<_>>().join(", ");
        match service.servers.len() {
            0 => "none".clone_into(&mut servers),
            many if many > SHOWN => servers.push_str(&format!(" +{}", many - SHOWN)),
            _ => {}
        }
        if let Some(last) = service.last_resort.as_ref().filter(|last| last.in_use) {
            servers.push_str(&format!("; {} (last resort, in use)", place(last.address, last.port)));
        }
        [service.service.clone(), service.binding.clone(), service.balance.clone(), service.client_source.clone(), servers]
    });
    let mut text = format!("\n{}", columns(["SERVICE", "BINDING", "BALANCE", "SOURCE", "SERVERS"], rows));
    let all = services.iter().flat_map(|service| service.servers.iter().map(move |server| (service, server)));
    for (i, (service, server)) in all.filter(|(_, server)| server.reason.is_some()).enumerate() {
        let reason = server.reason.as_deref().unwrap_or_default();
        text.push_str(if i == 0 { "\n" } else { "" });
        text.push_str(&format!("{} of {}, {}: unhealthy: {reason}\n", server.workload, service.service, server.at()));
    }
    for (service, server) in services.iter().flat_map(|service| service.servers.iter().map(move |server| (service, server))) {
        if let Some(commands) = &server.route_back {
            let why = server.not_routed_back.as_ref().map(|why| format!(" (egressd cannot: {why})")).unwrap_or_default();
            text.push_str(&format!(
                "\n{}, {}, needs in its network namespace, for {}{why}:\n  {commands}\n",
                server.workload,
                server.at(),
                service.service
            ));
        }
    }
    text
}

fn place(address: IpAddr, port: Option<u16>) -> String {
    port.map_or_else(|| address.to_string(), |port| SocketAddr::new(address, port).to_string())
}

impl ServerStatus {
    /// Where it is.
    fn at(&self) -> String {
        place(self.address, self.port)
    }

    /// Why it gets no new connections.
    fn note(&self) -> &'static str {
        match self.health.as_deref() {
            _ if self.weight == 0 => " (drains)",
            Some("Unhealthy") => " (unhealthy)",
            Some("Unknown") => " (not asked yet)",
            _ if self.full => " (full)",
            _ => "",
        }
    }
}
