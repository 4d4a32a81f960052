//! Labels of published ports.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::*;
use crate::model::health::{AllDown, HealthCheck, Probe};
use crate::model::inbound::{Balance, ClientSource, Inbound, LastResort, Limits};
use crate::model::ipvs::{Balancer, Engine, Scheduler};

fn of(publish: &str) -> Binding {
    binding_of([("egress.ip", "172.31.0.14,2001:db8::14"), ("egress.publish", publish)])
}

fn published(address: Option<&str>, protocol: Protocol, (first, last): (u16, u16), target: Option<u16>) -> Inbound {
    Inbound {
        address: address.map(ip),
        ports: Ports { protocol, first, last },
        target,
        engine: Engine::Nftables,
        balance: Balance::RoundRobin,
        client_source: ClientSource::Preserve,
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
    }
}

#[test]
fn a_published_port_has_an_address_a_target_and_a_protocol_or_not() {
    let all = of("27017, 27018:1234/tcp, 172.31.0.14:8000-8010/UDP, [2001:db8::14]:53:5353/udp, 172.31.0.14:443, 3868/sctp");
    assert_eq!(all.errors, []);
    assert_eq!(
        all.inbound,
        [
            published(None, Protocol::Tcp, (27017, 27017), None),
            published(None, Protocol::Tcp, (27018, 27018), Some(1234)),
            published(Some("172.31.0.14"), Protocol::Udp, (8000, 8010), None),
            published(Some("2001:db8::14"), Protocol::Udp, (53, 53), Some(5353)),
            published(Some("172.31.0.14"), Protocol::Tcp, (443, 443), None),
            published(None, Protocol::Sctp, (3868, 3868), None),
        ]
    );
}

#[test]
fn how_it_is_served_is_said_for_all_ports_of_a_container() {
    let labels = [
        ("egress.interface", "eth1"),
        ("egress.publish", "172.31.0.14:80"),
        ("egress.balance", "by-source"),
        ("egress.client-source", "masquerade"),
        ("egress.weight", "3"),
    ];
    let binding = binding_of(labels);
    assert_eq!(binding.errors, []);
    let Inbound { balance, client_source, weight, .. } = binding.inbound[0];
    assert_eq!((balance, client_source, weight), (Balance::BySource, ClientSource::Masquerade, 3));
}

#[test]
fn a_container_is_asked_for_its_health() {
    let of = |health: &str| binding_of([("egress.ip", "172.31.0.14"), ("egress.publish", "80"), ("egress.health", health)]);
    let http = |path: &str| Probe::Http { path: path.to_owned(), host: None, tls: false };
    let https = |path: &str| Probe::Http { path: path.to_owned(), host: None, tls: true };
    for (text, probe, port) in [
        ("tcp", Probe::Tcp, None),
        ("tcp:8081", Probe::Tcp, Some(8081)),
        ("http:/ready", http("/ready"), None),
        ("http:8081/a:b/c", http("/a:b/c"), Some(8081)),
        ("https:8443/ready", https("/ready"), Some(8443)),
    ] {
        let binding = of(text);
        assert_eq!(binding.errors, [], "{text}");
        assert_eq!(binding.inbound[0].health, Some(Arc::new(HealthCheck { probe, port, ..HealthCheck::default() })), "{text}");
    }
    for text in ["udp", "http", "http:ready", "http:x/ready", "tcp:0", "tcp:x", "https:ready", "ftp:/ready"] {
        let errors = of(text).errors;
        assert!(errors.len() == 1 && errors[0].field == "egress.health", "{text}: {errors:?}");
    }
    let range = errors_of([("egress.ip", "172.31.0.14"), ("egress.publish", "80-81"), ("egress.health", "tcp")]);
    assert!(range[0].starts_with("egress.health: names no port, and `tcp/80-81` is a range"), "{range:?}");
    let all = [("egress.ip", "172.31.0.14"), ("egress.publish", "80"), ("egress.all-down", "keep-all"), ("egress.weight", "0")];
    let binding = binding_of(all);
    assert_eq!((binding.inbound[0].all_down, binding.inbound[0].weight), (AllDown::KeepAll, 0));
}

#[test]
fn a_container_names_a_server_of_last_resort() {
    let labels = |more: &[(&'static str, &'static str)]| [&[("egress.ip", "172.31.0.14"), ("egress.publish", "80")], more].concat();
    let last = |address: &str, port| LastResort { address: ip(address), port };
    for (text, expected) in [
        ("10.0.0.9:8080, fd00::9", vec![last("10.0.0.9", Some(8080)), last("fd00::9", None)]),
        ("[fd00::9]:8080", vec![last("fd00::9", Some(8080))]),
    ] {
        let binding = binding_of(labels(&[("egress.last-resort", text)]));
        assert_eq!((binding.errors.as_slice(), &binding.inbound[0].last_resort), (&[][..], &expected), "{text}");
    }
    for (text, part) in [
        ("10.0.0.9,10.0.0.8", "one of each family"),
        ("10.0.0.9:0", "not a port"),
        ("10.0.0.9:http", "is no address and port"),
        ("web", "`web`"),
        ("[fd00::9", "[fd00::9"),
        ("fe80::1", "link-local"),
    ] {
        let errors = errors_of(labels(&[("egress.last-resort", text)]));
        assert!(errors.len() == 1 && errors[0].starts_with("egress.last-resort: ") && errors[0].contains(part), "{text}: {errors:?}");
    }
    let beside = errors_of(labels(&[("egress.last-resort", "10.0.0.9"), ("egress.all-down", "keep-all")]));
    assert!(beside[0].starts_with("egress.last-resort: gets no call with `egress.all-down=keep-all`"), "{beside:?}");
    let range = errors_of([("egress.ip", "172.31.0.14"), ("egress.publish", "80-81"), ("egress.last-resort", "10.0.0.9:80")]);
    assert!(range[0].starts_with("egress.last-resort: has a port, and `tcp/80-81` is a range"), "{range:?}");
}

#[test]
fn what_is_wrong_with_a_published_port_is_told_with_its_cure() {
    for (publish, part) in [
        ("0:80", "`0` is not a port (1 to 65535)"),
        ("80:0", "`0` is not a port"),
        ("80:65536", "`65536` is not a port"),
        ("90-80", "is reversed; write `80-90`"),
        ("80-90:80", "gives a range one port; the ports of a range stay as they are"),
        ("80/dccp", "`dccp` is not one of `tcp`, `udp`, `sctp`"),
        ("http", "`http` is not a published port; write for instance `27017:1234/tcp`"),
        ("1:2:3", "`1:2:3` is not a published port"),
        ("[2001:db8::14:80", "is not a published port"),
        ("172.31.0.15:80", "`172.31.0.15` is none of the exits; name it in `egress.ip`"),
        ("127.0.0.1:80", "is a loopback address"),
        ("80,80", "given twice"),
        ("80,80:8080", "is given twice; keep one"),
        ("80,", "comma"),
    ] {
        let errors = of(publish).errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
        assert!(errors.starts_with("egress.publish: ") && errors.contains(part), "{publish}: {errors}");
    }
    let alone = errors_of([("egress.ip", "172.31.0.14"), ("egress.balance", "random")]);
    assert_eq!(alone, ["egress.balance: is about a published port, and none is published; add `egress.publish`, or remove this"]);
    let weight = errors_of([("egress.ip", "172.31.0.14"), ("egress.publish", "80"), ("egress.weight", "101")]);
    assert_eq!(weight, ["egress.weight: `101` is no weight from 0 to 100; write for instance `2`"]);
    assert_eq!(errors_of([("egress.publish", "80")]).len(), 1, "it asks for an exit, and names none");
}

#[test]
fn a_container_may_be_served_by_ipvs() {
    let with = |labels: &[(&str, &str)]| {
        let all = [("egress.ip", "172.31.0.14"), ("egress.publish", "80")];
        let labels: Vec<_> = all.iter().chain(labels).copied().collect();
        let binding = binding_of(labels);
        (
            binding.inbound.first().map(|inbound| inbound.engine),
            binding.errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"),
        )
    };
    let ipvs = |scheduler| Some(Engine::Ipvs(Balancer { scheduler, persistence: None }));
    assert_eq!(with(&[("egress.engine", "ipvs")]), (ipvs(Scheduler::Wlc), String::new()));
    assert_eq!(with(&[("egress.engine", "ipvs"), ("egress.scheduler", "SED")]), (ipvs(Scheduler::Sed), String::new()));
    for (labels, words) in [
        (&[("egress.scheduler", "rr")][..], "egress.scheduler: is for the engine `ipvs`; add `egress.engine=ipvs`"),
        (
            &[("egress.engine", "ipvs"), ("egress.balance", "random")],
            "egress.balance: is for the engine `nftables`; use `egress.scheduler`",
        ),
        (
            &[("egress.engine", "ipvs"), ("egress.affinity", "60s")],
            "egress.affinity: is for the engine `nftables`; remove it, or write a manifest with `persistence`",
        ),
        (
            &[("egress.engine", "ipvs"), ("egress.publish", "80-90")],
            "egress.engine: `ipvs` serves single ports, and `tcp/80-90` is a range",
        ),
        (&[("egress.engine", "ipvs"), ("egress.scheduler", "wlcc")], "did you mean `wlc`?"),
    ] {
        let (_, told) = with(labels);
        assert!(told.contains(words), "{told}");
    }
}
