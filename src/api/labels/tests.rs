//! What labels may say, and what is said of those that may not.

mod inbound;

use std::collections::BTreeMap;
use std::net::IpAddr;

use proptest::prelude::*;

use super::*;
use crate::model::binding::{ExistingFlows, Spread, WhenUnavailable};
use crate::model::ports::{Ports, Protocol};
use crate::model::rate::Rate;

fn container<'a>(labels: impl IntoIterator<Item = (&'a str, &'a str)>) -> Container {
    Container {
        id: "4f1c".to_owned(),
        name: "web-1".to_owned(),
        labels: labels.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        network_mode: "eip_bridge".to_owned(),
        running: true,
        created: 7,
        attachments: Vec::new(),
        published: Vec::new(),
        asked: None,
    }
}

fn binding_of<'a>(labels: impl IntoIterator<Item = (&'a str, &'a str)>) -> Binding {
    parse(&container(labels)).and_then(|asked| asked.binding).expect("a binding")
}

fn errors_of<'a>(labels: impl IntoIterator<Item = (&'a str, &'a str)>) -> Vec<String> {
    binding_of(labels).errors.iter().map(ToString::to_string).collect()
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn net(text: &str) -> IpNet {
    text.parse().expect("a subnet")
}

#[test]
fn a_container_without_our_labels_asks_for_nothing() {
    assert_eq!(parse(&container([("com.docker.compose.project", "shop"), ("egress", "x"), ("egresss.ip", "x")])), None);
}

#[test]
fn an_address_is_all_that_is_needed() {
    let exits = vec![ExitSpec::new(ip("172.31.0.14"))];
    let selector = Selector::Container("4f1c".to_owned());
    let expected = Binding { exits, created: 7, ..Binding::plain(Source::Label, "web-1", selector) };
    assert_eq!(binding_of([("egress.ip", "172.31.0.14")]), expected);
}

#[test]
fn several_exits_have_weights_and_a_spread() {
    let spread = binding_of([("egress.ip", "10.0.1.98*3, 10.0.1.64/31"), ("egress.spread", "Round-Robin")]);
    let heavy = ExitSpec { weight: 3, ..ExitSpec::new(ip("10.0.1.98")) };
    assert_eq!(spread.exits, [heavy, ExitSpec::new(ip("10.0.1.64")), ExitSpec::new(ip("10.0.1.65"))]);
    assert_eq!((spread.spread, spread.errors, spread.warnings), (Spread::RoundRobin, vec![], vec![]));
    let wrong = |ip: &str, spread: &str| binding_of([("egress.ip", ip), ("egress.spread", spread)]).errors[0].to_string();
    assert_eq!(
        wrong("10.0.1.98", "robin"),
        "egress.spread: `robin` is unknown; write `first` or `round-robin` or `random` or `by-source` or `by-destination`"
    );
    assert_eq!(wrong("10.0.1.98", "randon"), "egress.spread: `randon` is unknown; did you mean `random`?");
    assert_eq!(wrong("10.0.1.64/31,10.0.1.65", "random"), "egress.ip: `10.0.1.65` is given twice; keep one");
    let many = (0..17).map(|net| format!("10.{net}.0.0/24")).collect::<Vec<_>>().join(",");
    assert_eq!(wrong(&many, "random"), "egress.ip: has 4352 addresses, and 4096 are read; write fewer");
}

#[test]
fn a_rate_has_a_unit_and_a_burst_a_rate() {
    let of = |rate: &str, burst: &str| binding_of([("egress.ip", "10.0.1.98"), ("egress.rate", rate), ("egress.burst", burst)]);
    assert_eq!(of("20Mbit", "256kB").rate, Some(Rate { bytes: 2_500_000, burst: 256_000 }));
    assert_eq!(
        of("20", "256kB").errors[0].to_string(),
        "egress.rate: `20` is no rate in bit, kbit, Mbit or Gbit; write for instance `20Mbit`"
    );
    let alone = binding_of([("egress.ip", "10.0.1.98"), ("egress.burst", "256kB")]);
    assert!(alone.errors[0].to_string().starts_with("egress.burst: is given without `egress.rate`"), "{:?}", alone.errors);
}

#[test]
fn a_nic_alone_is_its_own_address_of_both_families() {
    let exit = |address: &str, gateway| ExitSpec { interface: Some("ppp0".to_owned()), gateway, ..ExitSpec::new(ip(address)) };
    assert_eq!(binding_of([("egress.interface", "ppp0")]).exits, [exit("0.0.0.0", None), exit("::", None)]);
    let named = binding_of([("egress.interface", "ppp0"), ("egress.gateway", "172.31.0.1")]);
    assert_eq!(named.exits, [exit("0.0.0.0", Some(ip("172.31.0.1"))), exit("::", None)]);
}

#[test]
fn all_labels_together_say_all_of_a_binding() {
    let asked = parse(&container([
        ("egress.ip", " 172.31.0.14 , 2001:db8::14"),
        ("egress.interface", "eth1"),
        ("egress.gateway", "fe80::1,172.31.0.1"),
        ("egress.to", "0.0.0.0/0,2001:db8:1::/48"),
        ("egress.except", "10.0.0.0/8"),
        ("egress.ports", "tcp/443-445,udp/53"),
        ("egress.unavailable", "Fallback"),
        ("egress.existing", "reset"),
        ("egress.priority", "-5"),
        ("egress.network", "eip_bridge"),
        ("egress.container-ip", "172.19.0.100"),
    ]))
    .expect("asked");
    assert_eq!(asked.placement.network.as_deref(), Some("eip_bridge"));
    assert_eq!(asked.placement.address, Some(ip("172.19.0.100")));
    let binding = asked.binding.expect("a binding");
    let exit = |address: &str, gateway: &str| ExitSpec {
        interface: Some("eth1".to_owned()),
        gateway: Some(ip(gateway)),
        ..ExitSpec::new(ip(address))
    };
    assert_eq!(binding.exits, [exit("172.31.0.14", "172.31.0.1"), exit("2001:db8::14", "fe80::1")]);
    assert_eq!(
        binding.traffic,
        Traffic::new(
            vec![
                Destination { cidr: net("0.0.0.0/0"), except: vec![net("10.0.0.0/8")] },
                Destination { cidr: net("2001:db8:1::/48"), except: Vec::new() },
            ],
            vec![Ports { protocol: Protocol::Tcp, first: 443, last: 445 }, Ports { protocol: Protocol::Udp, first: 53, last: 53 }],
        )
    );
    assert_eq!(binding.when_unavailable, WhenUnavailable::Fallback);
    assert_eq!(binding.existing_flows, ExistingFlows::Reset);
    assert_eq!(binding.priority, -5);
    assert!(binding.errors.is_empty() && binding.warnings.is_empty());
}

#[test]
fn a_bad_value_names_the_label_what_is_wrong_and_what_would_be_right() {
    for (label, value, expected) in [
        ("egress.ip", "172.31.0.300", "egress.ip: `172.31.0.300` is not an IP address; write for instance `172.31.0.14`"),
        ("egress.ip", "", "egress.ip: is empty; write for instance `172.31.0.14`"),
        ("egress.ip", "172.31.0.14,", "egress.ip: has a comma with nothing beside it; remove the comma"),
        ("egress.ip", "172.31.0.14,172.31.0.14", "egress.ip: `172.31.0.14` is given twice; keep one"),
        ("egress.interface", "eth1/2", "egress.interface: `eth1/2` is not an interface name; write for instance `eth1`"),
        (
            "egress.gateway",
            "172.31.0.1,172.31.0.2",
            "egress.gateway: has two gateways of one family; keep one of each; exits with gateways of their own need a manifest, \
             or leave it out to have them found",
        ),
        (
            "egress.gateway",
            "fe80::1",
            "egress.gateway: `fe80::1` is IPv6, but the exit `172.31.0.8` is IPv4; write the IPv4 gateway of that NIC, \
             or leave it out to have it found",
        ),
        ("egress.to", "10.0.0.1/8", "egress.to: `10.0.0.1/8` has host bits set; write `10.0.0.0/8`"),
        ("egress.ports", "tcp/445-443", "egress.ports: `445-443` is reversed; write `443-445`"),
        ("egress.unavailable", "dorp", "egress.unavailable: `dorp` is unknown; did you mean `drop`?"),
        ("egress.unavailable", "maybe", "egress.unavailable: `maybe` is unknown; write `drop` or `fallback`"),
        ("egress.existing", "cut", "egress.existing: `cut` is unknown; write `keep` or `reset`"),
        ("egress.priority", "1e3", "egress.priority: `1e3` is not a whole number that fits; write for instance `10`"),
    ] {
        let labels = BTreeMap::from([("egress.ip", "172.31.0.8"), (label, value)]);
        assert_eq!(errors_of(labels), [expected]);
    }
}

#[test]
fn an_exception_has_to_be_inside_a_destination() {
    let with = |to, except| binding_of([("egress.ip", "172.31.0.8"), ("egress.to", to), ("egress.except", except)]);
    assert_eq!(
        with("10.0.0.0/8", "192.168.0.0/16").errors[0].to_string(),
        "egress.except: `192.168.0.0/16` is inside no destination of `egress.to`, so it excepts nothing; remove it"
    );
    assert_eq!(
        with("10.0.0.0/8", "10.0.0.0/8").errors[0].to_string(),
        "egress.except: `10.0.0.0/8` covers all of a destination; remove it from `egress.to` and here"
    );
    assert_eq!(with("0.0.0.0/0,10.0.0.0/8", "10.1.0.0/16").traffic.to()[1].except, [net("10.1.0.0/16")]);
}

#[test]
fn an_exception_alone_is_from_everywhere() {
    let binding = binding_of([("egress.ip", "172.31.0.8"), ("egress.except", "10.0.0.0/8,fd00::/8")]);
    assert_eq!(
        binding.traffic.to(),
        [
            Destination { cidr: net("0.0.0.0/0"), except: vec![net("10.0.0.0/8")] },
            Destination { cidr: net("::/0"), except: vec![net("fd00::/8")] },
        ]
    );
}

#[test]
fn who_asks_without_an_address_is_held() {
    assert_eq!(
        errors_of([("egress.gateway", "172.31.0.1")]),
        [
            "egress.ip: is missing; write the source address that the container is to leave with, for instance `172.31.0.14`, or the NIC whose own address it is (`egress.interface`)"
        ]
    );
}

#[test]
fn a_mistyped_label_asks_too_and_names_what_was_meant() {
    let binding = binding_of([("egress.pi", "172.31.0.14")]);
    assert_eq!(binding.warnings, ["`egress.pi` is unknown; did you mean `egress.ip`?"]);
    assert_eq!(binding.errors[0].field, "egress.ip");
}

#[test]
fn an_unknown_label_is_a_warning_and_no_more() {
    let binding = binding_of([("egress.ip", "172.31.0.14"), ("egress.department", "sales")]);
    assert!(binding.errors.is_empty());
    assert!(binding.warnings[0].starts_with("`egress.department` is unknown; known are `egress.ip`, "), "{:?}", binding.warnings);
    let asked = parse(&container([("egress.department", "sales")])).expect("something to say");
    assert_eq!(asked.binding, None);
    assert_eq!(asked.placement.errors.len(), 1);
}

#[test]
fn labels_that_place_a_container_do_not_bind_it() {
    let asked = parse(&container([("egress.network", "eip_bridge")])).expect("asked");
    assert_eq!(asked.binding, None);
    assert_eq!(asked.placement, Placement { network: Some("eip_bridge".to_owned()), ..Placement::default() });
}

#[test]
fn a_bad_place_does_not_move_the_container_and_leaves_its_exit() {
    let asked =
        parse(&container([("egress.ip", "172.31.0.14"), ("egress.network", "eip_bridge"), ("egress.container-ip", "172.19.0.300")]))
            .expect("asked");
    assert!(asked.binding.expect("a binding").errors.is_empty());
    assert_eq!(asked.placement.network, None);
    assert_eq!(
        asked.placement.errors[0].to_string(),
        "egress.container-ip: `172.19.0.300` is not an IP address; write for instance `172.19.0.100`"
    );
}

#[test]
fn an_address_on_the_default_bridge_cannot_be_chosen() {
    let placed = |mode: &str| {
        let container = Container { network_mode: mode.to_owned(), ..container([("egress.container-ip", "172.17.0.9")]) };
        parse(&container).expect("asked").placement
    };
    assert!(placed("default").errors[0].message.contains("add `egress.network`"));
    assert_eq!(placed("eip_bridge").address, Some(ip("172.17.0.9")));
}

#[test]
fn network_modes_without_packets_of_their_own_are_refused_with_the_cure() {
    for (mode, cure) in [
        ("host", "run it on a bridge network"),
        ("none", "run it on a bridge network"),
        ("container:4f1c", "put the labels on that container"),
    ] {
        let container = Container { network_mode: mode.to_owned(), ..container([("egress.ip", "172.31.0.14")]) };
        let errors = parse(&container).and_then(|asked| asked.binding).expect("a binding").errors;
        assert_eq!(errors[0].field, "network mode");
        assert!(errors[0].message.ends_with(cure), "{}", errors[0]);
    }
}

#[test]
fn a_network_is_guarded_as_it_says() {
    let asked = |name: &str, value: &str| parse_network(&BTreeMap::from([(name.to_owned(), value.to_owned())]));
    assert_eq!(asked("egress.guard", "on").guard, Some(true));
    assert_eq!(asked("egress.guard", "off").guard, Some(false));
    assert_eq!(asked("com.example", "x"), NetworkAsked::default());
    let bad = asked("egress.guard", "yes");
    assert_eq!((bad.guard, bad.errors[0].to_string().as_str()), (None, "egress.guard: `yes` is unknown; write `on` or `off`"));
    assert_eq!(asked("egress.gaurd", "on").warnings, ["`egress.gaurd` is unknown; did you mean `egress.guard`?"]);
    assert_eq!(asked("egress.ip", "x").warnings, ["egress.ip: belongs on a container, not on a Docker network"]);
}

#[test]
fn ten_thousand_labels_are_reported_as_twenty_and_a_number() {
    let names: Vec<String> = (0..10_000).map(|i| format!("egress.{}{i}", "x".repeat(50))).collect();
    let labels = names.iter().map(|name| (name.as_str(), "value"));
    let binding = binding_of(labels.chain([("egress.ip", "172.31.0.14")]));
    assert!(binding.errors.is_empty());
    assert_eq!(binding.warnings.len(), 21);
    assert_eq!(binding.warnings[20], "9980 more labels that begin with `egress.` are unknown");
}

#[test]
fn a_value_of_a_megabyte_is_refused_and_not_repeated() {
    let long = "172.31.0.14,".repeat(100_000);
    let errors = errors_of([("egress.ip", long.as_str())]);
    assert_eq!(errors, ["egress.ip: is 1200000 bytes long, and 4096 are read; write fewer entries"]);
}

#[test]
fn every_labels_own_example_is_right() {
    for label in &LABELS {
        assert!((label.read)(&mut Draft::default(), label.example).is_ok(), "{}", label.name);
        assert!(label.name.starts_with(PREFIX));
    }
}

proptest! {
    #[test]
    fn no_labels_make_the_parser_panic(labels in proptest::collection::btree_map("(egress\\.)?\\PC{0,12}|egress\\.(ip|to|ports|except|gateway|interface)", ".{0,40}|[0-9a-f:./,-]{0,40}", 0..8)) {
        let container = container(labels.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        let asked = parse(&container);
        prop_assert_eq!(asked.is_some(), labels.keys().any(|name| name.starts_with(PREFIX)));
        if let Some(binding) = asked.and_then(|asked| asked.binding) {
            prop_assert!(!binding.exits.is_empty() || !binding.errors.is_empty());
        }
        parse_network(&labels);
    }
}

#[test]
fn addresses_are_managed_when_it_is_asked_for_and_they_are_named() {
    for (value, assignment) in [("true", Assignment::Managed), ("false", Assignment::Existing)] {
        let binding = binding_of([("egress.ip", "10.0.1.98-10.0.1.99"), ("egress.manage", value)]);
        assert!(binding.errors.is_empty(), "{:?}", binding.errors);
        assert_eq!(binding.exits.iter().map(|exit| exit.assignment).collect::<Vec<_>>(), [assignment; 2]);
    }
    let said = errors_of([("egress.interface", "eth1"), ("egress.manage", "true")]);
    assert_eq!(said, ["egress.manage: is given without `egress.ip`; add the address that is to be put on the NIC, or leave it out"]);
    assert_eq!(errors_of([("egress.ip", "10.0.1.98"), ("egress.manage", "yes")]).len(), 1);
}
