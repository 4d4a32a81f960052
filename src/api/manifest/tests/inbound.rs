//! Ports that a binding's workloads serve.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::*;
use crate::model::health::{AllDown, HealthCheck, Probe};
use crate::model::inbound::{Balance, ClientSource, Inbound, LastResort, Limits};
use crate::model::ipvs::{Balancer, Engine, Persistence, Scheduler, Thresholds};
use crate::model::ports::{Ports, Protocol};

const WHO: &str = "exits: [{ address: 172.31.0.14 }]\n";

fn read_spec(spec: &str) -> Manifests {
    read(&with(&format!("{WHO}{spec}")))
}

/// All that is wrong with it, said of the file or of the binding.
fn wrong(spec: &str) -> String {
    let read = read_spec(spec);
    let of_bindings = read.bindings.iter().flat_map(|binding| binding.errors.iter().map(ToString::to_string));
    errors(&read).into_iter().chain(of_bindings).collect::<Vec<_>>().join("\n")
}

#[test]
fn ports_are_served_by_addresses_containers_and_namespaces() {
    let inbound = "inbound: [{ protocol: TCP, port: 27017, targetPort: 1234, balance: BySource, clientSource: Masquerade }, { protocol: UDP, port: 5000, endPort: 5010 }]";
    for who in ["addresses: [10.0.0.2/32, 10.0.0.3/32]", "containerSelector: { names: [a] }", "networkNamespaces: [a]"] {
        let spec = format!("{who}\n{inbound}");
        assert_eq!(wrong(&spec), "");
        let tcp = Inbound {
            address: None,
            ports: Ports { protocol: Protocol::Tcp, first: 27017, last: 27017 },
            target: Some(1234),
            engine: Engine::Nftables,
            balance: Balance::BySource,
            client_source: ClientSource::Masquerade,
            weight: 1,
            weights: BTreeMap::new(),
            thresholds: BTreeMap::new(),
            health: None,
            all_down: AllDown::Refuse,
            last_resort: Vec::new(),
            drain: None,
            affinity: None,
            limits: Limits::default(),
            refusal: None,
        };
        let udp = Inbound {
            ports: Ports { protocol: Protocol::Udp, first: 5000, last: 5010 },
            target: None,
            balance: Balance::RoundRobin,
            client_source: ClientSource::Preserve,
            ..tcp.clone()
        };
        assert_eq!(read_spec(&spec).bindings[0].inbound, [tcp, udp]);
    }
}

#[test]
fn servers_have_weights_and_are_asked_for_their_health() {
    let read = read_spec(
        "networkNamespaces: [a]\ninbound: [{ protocol: TCP, port: 80, servers: [{ address: 10.0.0.2, weight: 0 }, { address: 'fd00::2', weight: 100 }], health: { http: { path: '/ready?a=1', host: shop.example.com, port: 8081 }, intervalMilliseconds: 100, failures: 3 }, allDown: KeepAll, drainSeconds: 30 }, { protocol: UDP, port: 53, health: { tcp: {} } }]",
    );
    let [tcp, udp] = read.bindings[0].inbound.as_slice() else { panic!("{:?}", read.bindings[0]) };
    assert_eq!(
        tcp.weights.iter().map(|(address, weight)| (address.to_string(), *weight)).collect::<Vec<_>>(),
        [("10.0.0.2".to_owned(), 0), ("fd00::2".to_owned(), 100)]
    );
    let probe = Probe::Http { path: "/ready?a=1".to_owned(), host: Some("shop.example.com".to_owned()), tls: false };
    assert_eq!(tcp.health, Some(Arc::new(HealthCheck { probe, port: Some(8081), interval: 100, failures: 3 })));
    assert_eq!((tcp.all_down, tcp.drain, udp.drain), (AllDown::KeepAll, Some(30), None));
    assert_eq!(udp.health, Some(Arc::new(HealthCheck::default())));
}

#[test]
fn a_port_has_a_server_of_last_resort_in_each_family() {
    let read = read_spec(
        "networkNamespaces: [a]\ninbound: [{ protocol: SCTP, port: 80, lastResort: [{ address: 10.0.0.9, port: 8080 }, { address: 'fd00::9' }] }, { protocol: TCP, port: 80, endPort: 81, engine: Nftables, lastResort: [{ address: 10.0.0.9 }] }]",
    );
    let [sctp, range] = read.bindings[0].inbound.as_slice() else { panic!("{:?}", read.bindings[0]) };
    let last = |address: &str, port| LastResort { address: address.parse().expect("an address"), port };
    assert_eq!((sctp.ports.protocol, &sctp.last_resort), (Protocol::Sctp, &vec![last("10.0.0.9", Some(8080)), last("fd00::9", None)]));
    assert_eq!(range.last_resort, [last("10.0.0.9", None)]);
}

#[test]
fn what_is_wrong_with_health_is_told_with_field_and_cure() {
    for (health, parts) in [
        ("health: {}", ["spec.inbound[0].health", "give one of `tcp`, `http` and `udp`"]),
        ("health: { tcp: {}, http: { path: / } }", ["spec.inbound[0].health", "keep one"]),
        ("health: { http: {} }", ["spec.inbound[0].health.http", "path"]),
        ("health: { http: { path: ready } }", ["spec.inbound[0].health.http.path", "write for instance `/ready`"]),
        ("health: { http: { path: /, host: 'a b' } }", ["spec.inbound[0].health.http.host", "no name of a host"]),
        ("health: { tcp: {}, udp: { send: a } }", ["spec.inbound[0].health", "keep one"]),
        ("health: { udp: {} }", ["spec.inbound[0].health.udp.send", "write for instance `ping`"]),
        ("health: { udp: { send: a, sendBase64: YQ== } }", ["spec.inbound[0].health.udp.sendBase64", "keep one"]),
        ("health: { udp: { sendBase64: '*' } }", ["spec.inbound[0].health.udp.sendBase64", "is not Base64"]),
        ("health: { http: { path: /, scheme: FTP } }", ["spec.inbound[0].health.http.scheme", "HTTPS"]),
        ("affinity: 1d", ["spec.inbound[0].affinity", "write for instance `60s`"]),
        ("affinity: 60", ["spec.inbound[0].affinity", "must be text"]),
        ("maxConnections: 0", ["spec.inbound[0].maxConnections", "0"]),
        ("endPort: 81, maxConnections: 5", ["spec.inbound[0].maxConnections", "leave one of them out"]),
        ("newConnectionsPerSecond: -1", ["spec.inbound[0].newConnectionsPerSecond", "-1"]),
        ("health: { tcp: { port: 0 } }", ["spec.inbound[0].health.tcp.port", "0"]),
        ("health: { tcp: {}, intervalMilliseconds: 99 }", ["spec.inbound[0].health.intervalMilliseconds", "100"]),
        ("health: { tcp: {}, failures: 0 }", ["spec.inbound[0].health.failures", "1"]),
        ("endPort: 81, health: { tcp: {} }", ["spec.inbound[0].health.tcp.port", "a range has no port of its own"]),
        ("drainSeconds: 0", ["spec.inbound[0].drainSeconds", "0"]),
        ("allDown: KeepAll, lastResort: [{ address: 10.0.0.9 }]", ["spec.inbound[0].lastResort", "leave one of them out"]),
        ("lastResort: [{ address: 10.0.0.9 }, { address: 10.0.0.8 }]", ["spec.inbound[0].lastResort[1].address", "one of each family"]),
        ("lastResort: [{ address: 10.0.0.0/24 }]", ["spec.inbound[0].lastResort[0].address", "10.0.0.0/24"]),
        ("lastResort: [{ address: 169.254.169.254 }]", ["spec.inbound[0].lastResort[0].address", "link-local"]),
        ("lastResort: [{ address: 127.0.0.1 }]", ["spec.inbound[0].lastResort[0].address", "loopback"]),
        ("lastResort: [{ address: 10.0.0.9, port: 0 }]", ["spec.inbound[0].lastResort[0].port", "0"]),
        ("endPort: 81, lastResort: [{ address: 10.0.0.9, port: 80 }]", ["spec.inbound[0].lastResort[0].port", "the ports of a range stay"]),
        ("lastResort: [{ port: 80 }]", ["spec.inbound[0].lastResort[0]", "address"]),
        ("allDown: Sorry", ["spec.inbound[0].allDown", "KeepAll"]),
        ("servers: [{ address: 10.0.0.0/24, weight: 1 }]", ["spec.inbound[0].servers[0].address", "10.0.0.0/24"]),
        ("servers: [{ address: 10.0.0.2, weight: 1 }, { address: 10.0.0.2, weight: 2 }]", ["spec.inbound[0].servers[1].address", "twice"]),
        ("servers: [{ address: 10.0.0.2, weight: -1 }]", ["spec.inbound[0].servers[0].weight", "-1"]),
    ] {
        let said = wrong(&format!("networkNamespaces: [a]\ninbound: [{{ protocol: TCP, port: 80, {health} }}]"));
        assert!(parts.iter().all(|part| said.contains(part)), "{health}: {said}");
    }
}

#[test]
fn what_is_wrong_with_a_port_is_told_with_field_and_cure() {
    for (spec, parts) in [
        ("inbound: [{ protocol: TCP, port: 0 }]", ["spec.inbound[0].port", "0"]),
        ("inbound: [{ protocol: TCP, port: 65536 }]", ["spec.inbound[0].port", "65536"]),
        ("inbound: [{ protocol: TCP, port: 90, endPort: 80 }]", ["spec.inbound[0].endPort", "reversed"]),
        ("inbound: [{ protocol: TCP, port: 80, targetPort: 0 }]", ["spec.inbound[0].targetPort", "0"]),
        ("inbound: [{ protocol: TCP, port: 80, endPort: 81, targetPort: 80 }]", ["spec.inbound[0].targetPort", "endPort"]),
        ("inbound: [{ protocol: TCP, port: 80 }, { protocol: TCP, port: 79, endPort: 81 }]", ["spec.inbound[1].endPort", "given twice"]),
        ("inbound: [{ protocol: DCCP, port: 80 }]", ["spec.inbound[0].protocol", "SCTP"]),
        ("inbound: [{ port: 80 }]", ["spec.inbound[0]", "protocol"]),
        ("inbound: [{ protocol: TCP, port: 80, balance: Sideways }]", ["spec.inbound[0].balance", "BySource"]),
        ("inbound: [{ protocol: TCP, port: 80, clientSource: Hide }]", ["spec.inbound[0].clientSource", "Masquerade"]),
        ("inbound: [{ protocol: TCP, port: 80, prot: 80 }]", ["spec.inbound[0].prot", "port"]),
    ] {
        let said = wrong(&format!("networkNamespaces: [a]\n{spec}"));
        assert!(parts.iter().all(|part| said.contains(part)), "{spec}: {said}");
    }
}

#[test]
fn more_entries_than_a_binding_may_have_are_told_by_their_field() {
    let entries = |count: u16| (1..=count).map(|port| format!("{{ protocol: TCP, port: {port} }}")).collect::<Vec<_>>().join(", ");
    let of = |count| with(&format!("networkNamespaces: [blue]\nexits: [{{ address: 172.31.0.14 }}]\ninbound: [{}]", entries(count)));
    assert_eq!(read(&of(64)).bindings[0].errors, []);
    let errors: Vec<String> = read(&of(65)).bindings[0].errors.iter().map(ToString::to_string).collect();
    assert_eq!(errors, ["spec.inbound: has 65 entries; at most 64 are allowed, so split it"]);
}

#[test]
fn what_no_packet_comes_from_is_no_source() {
    for (source, why) in [
        ("127.0.0.1/32", "loopback"),
        ("127.1.0.0/16", "loopback"),
        ("224.0.0.5/32", "multicast"),
        ("0.0.0.0/32", "unspecified"),
        ("'::1/128'", "loopback"),
    ] {
        let read = read(&with(&format!("addresses: [10.0.0.2/32, {source}]\nexits: [{{ address: 172.31.0.14 }}]")));
        let errors: Vec<String> = read.bindings[0].errors.iter().map(ToString::to_string).collect();
        assert!(errors.len() == 1 && errors[0].starts_with("spec.addresses[1].cidr: ") && errors[0].contains(why), "{errors:?}");
    }
    let everybody =
        |interface: &str| read(&with(&format!("addresses: [{{ cidr: 0.0.0.0/0{interface} }}]\nexits: [{{ address: 172.31.0.14 }}]")));
    assert_eq!(everybody(", interface: eth2").bindings[0].errors, []);
    assert!(everybody("").errors[0].error.to_string().contains("name the subnets, or the `interface`"), "the internet is among them");
}

#[test]
fn a_subnet_is_no_server() {
    let said = wrong("addresses: [10.0.0.2/32, 10.0.1.0/24]\ninbound: [{ protocol: TCP, port: 80 }]");
    assert!(said.contains("spec.addresses[1].cidr: is a subnet"), "{said}");
}

#[test]
fn an_entry_may_be_served_by_ipvs() {
    let read = read_spec(
        "networkNamespaces: [a]\ninbound: [{ protocol: TCP, port: 80, engine: Ipvs, scheduler: mh, persistence: { seconds: 300, ipv4PrefixLength: 24 }, servers: [{ address: 10.0.0.2, weight: 3, upperThreshold: 100, lowerThreshold: 80 }] }, { protocol: UDP, port: 53, engine: Ipvs }]",
    );
    let [tcp, udp] = read.bindings[0].inbound.as_slice() else { panic!("{:?}", read.bindings[0]) };
    let persistence = Some(Persistence { seconds: 300, ipv4_prefix_length: 24, ipv6_prefix_length: 128 });
    assert_eq!(tcp.engine, Engine::Ipvs(Balancer { scheduler: Scheduler::Mh, persistence }));
    assert_eq!(tcp.thresholds.values().copied().collect::<Vec<_>>(), [Thresholds { upper: 100, lower: 80 }]);
    assert_eq!(udp.engine, Engine::Ipvs(Balancer { scheduler: Scheduler::Wlc, persistence: None }));
}

#[test]
fn what_is_for_the_other_engine_is_told_with_field_and_cure() {
    let entry = |fields: &str| wrong(&format!("networkNamespaces: [a]\ninbound: [{{ protocol: TCP, port: 80, {fields} }}]"));
    for (fields, words) in [
        ("scheduler: rr", "spec.inbound[0].scheduler: is for the engine Ipvs; write `engine: Ipvs`"),
        ("persistence: { seconds: 9 }", "spec.inbound[0].persistence: is for the engine Ipvs"),
        (
            "servers: [{ address: 10.0.0.2, weight: 1, upperThreshold: 9 }]",
            "spec.inbound[0].servers[0].upperThreshold: is for the engine Ipvs",
        ),
        ("engine: Ipvs, balance: RoundRobin", "spec.inbound[0].balance: is for the engine Nftables; use `scheduler` instead"),
        ("engine: Ipvs, affinity: 60s", "spec.inbound[0].affinity: is for the engine Nftables; use `persistence` instead"),
        ("engine: Ipvs, maxConnections: 9", "spec.inbound[0].maxConnections: is for the engine Nftables; use `upperThreshold`"),
        ("engine: Ipvs, newConnectionsPerSecond: 9", "spec.inbound[0].newConnectionsPerSecond: is for the engine Nftables"),
        ("engine: Ipvs, endPort: 90", "spec.inbound[0].endPort: makes a range, and the engine Ipvs serves single ports"),
        ("engine: Ipvs, scheduler: best", "spec.inbound[0].scheduler: `best` is unknown; write one of `rr`"),
        (
            "engine: Ipvs, servers: [{ address: 10.0.0.2, weight: 1, upperThreshold: 9, lowerThreshold: 10 }]",
            "spec.inbound[0].servers[0].lowerThreshold: 10 is above `upperThreshold`, 9; write at most 9",
        ),
        (
            "engine: Ipvs, servers: [{ address: 10.0.0.2, weight: 1, lowerThreshold: 10 }]",
            "spec.inbound[0].servers[0].lowerThreshold: is given without `upperThreshold`",
        ),
    ] {
        let told = entry(fields);
        assert!(told.contains(words), "{fields}: {told}");
    }
    for fields in ["engine: Ipvs, persistence: { seconds: 0 }", "engine: Ipvs, persistence: { seconds: 9, ipv4PrefixLength: 33 }"] {
        assert_ne!(entry(fields), "", "{fields}");
    }
}
