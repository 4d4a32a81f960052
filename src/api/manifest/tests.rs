//! What manifests may say, and what is said of those that may not.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::*;
use crate::model::binding::{
    Compose, Destination, ExistingFlows, ExitSpec, HostSelector, RoutedSource, Selector, Spread, Traffic, WhenUnavailable,
};
use crate::model::ports::{Ports, Protocol};
use ipnet::IpNet;

mod examples;
mod inbound;
mod property;
mod slips;
mod spread;

fn read(text: &str) -> Manifests {
    parse([("crawler.yaml", text.as_bytes())])
}

/// A binding for container `crawler` with these lines in its spec.
fn with(spec: &str) -> String {
    let lines: String = spec.lines().map(|line| format!("  {line}\n")).collect();
    format!("apiVersion: egressd.dev/v1alpha1\nkind: EgressBinding\nmetadata: {{ name: crawler, namespace: shop }}\nspec:\n{lines}")
}

fn network_with(spec: &str) -> String {
    format!("apiVersion: egressd.dev/v1alpha1\nkind: EgressNetwork\nmetadata: {{ name: eip_bridge }}\nspec: {{ {spec} }}\n")
}

fn errors(manifests: &Manifests) -> Vec<String> {
    manifests.errors.iter().map(|e| format!("{}: {}", e.object, e.error)).collect()
}

fn crawler() -> Selector {
    Selector::Containers { names: vec!["crawler".to_owned()], match_labels: BTreeMap::new(), compose: None }
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn net(text: &str) -> IpNet {
    text.parse().expect("a subnet")
}

#[test]
fn all_fields_together_say_all_of_a_binding() {
    let read = read(&with(
        "containerSelector: { names: [crawler-1], matchLabels: { tier: web }, compose: { project: shop, service: crawler } }
exits:
- { address: 172.31.0.14, interface: eth1, gateway: 172.31.0.1 }
- { address: '2001:db8::14' }
to: [{ cidr: 0.0.0.0/0, except: [10.0.0.0/8] }]
ports: [{ protocol: UDP, port: 53 }, { protocol: TCP, port: 443, endPort: 445 }]
whenUnavailable: Fallback
existingFlows: Reset
priority: 3",
    ));
    let ports = |protocol, first, last| Ports { protocol, first, last };
    let expected = Binding {
        name: BindingName { source: Source::File, name: "shop/crawler".to_owned() },
        copy_of: None,
        selector: Selector::Containers {
            names: vec!["crawler-1".to_owned()],
            match_labels: BTreeMap::from([("tier".to_owned(), "web".to_owned())]),
            compose: Some(Compose { project: "shop".to_owned(), service: Some("crawler".to_owned()) }),
        },
        exits: vec![
            ExitSpec { interface: Some("eth1".to_owned()), gateway: Some(ip("172.31.0.1")), ..ExitSpec::new(ip("172.31.0.14")) },
            ExitSpec::new(ip("2001:db8::14")),
        ],
        pool: None,
        refusal: None,
        spread: Spread::FirstUsable,
        rate: None,
        inbound: Vec::new(),
        traffic: Traffic::new(
            vec![Destination { cidr: net("0.0.0.0/0"), except: vec![net("10.0.0.0/8")] }],
            vec![ports(Protocol::Tcp, 443, 445), ports(Protocol::Udp, 53, 53)],
        ),
        when_unavailable: WhenUnavailable::Fallback,
        existing_flows: ExistingFlows::Reset,
        priority: 3,
        created: 0,
        errors: Vec::new(),
        lapsed: false,
        warnings: Vec::new(),
    };
    assert_eq!(errors(&read), Vec::<String>::new());
    assert_eq!(read.bindings, [Arc::new(expected)]);
}

#[test]
fn addresses_may_be_plain_or_with_their_interface() {
    let read = read(&with("addresses: [10.0.2.0/24, { cidr: '10.0.3.0/24', interface: ens6 }]\nexits: [{ address: 10.0.1.98 }]"));
    let source = |text, interface: Option<&str>| RoutedSource { net: net(text), interface: interface.map(str::to_owned) };
    assert_eq!(read.bindings[0].selector, Selector::Addresses(vec![source("10.0.2.0/24", None), source("10.0.3.0/24", Some("ens6"))]));
}

/// The spec, beside the container it names, and the one error that it must give. The workload is held all the same.
const HELD: &[(&str, &str)] = &[
    ("exits: []", "spec.exits: is empty; write for instance `[{address: 172.31.0.14}]`"),
    ("exit: [{ address: 172.31.0.14 }]", "spec.exit: unknown field; did you mean `exits`?"),
    ("exits: 172.31.0.14", "spec.exits: must be a list, but is text; write it as `[a, b]`, or as lines that begin with `-`"),
    ("exits:", "spec.exits: has no value; write one, or leave the field out"),
    ("exits: [{ address: 172.31.0.300 }]", "spec.exits[0].address: `172.31.0.300` is not an IP address; write for instance `172.31.0.14`"),
    (
        "exits: [{ gateway: 172.31.0.1 }]",
        "spec.exits[0].address: is missing; write for instance `address: 172.31.0.14`, or the interface whose own address it is",
    ),
    (
        "exits: [{ address: 172.31.0.14, colour: red }]",
        "spec.exits[0].colour: unknown field; known here are `address`, `addresses`, `assignment`, `draining`, `gateway`, `interface`, `probe`, `publicAddress`, `sourcePorts`, `weight`",
    ),
    ("exits: [{ address: 172.31.0.14 }, { address: 172.31.0.14 }]", "spec.exits[1].address: `172.31.0.14` is given twice; keep one"),
    (
        "exits: [{ address: 172.31.0.14, gateway: 'fe80::1' }]",
        "spec.exits[0].gateway: `fe80::1` is IPv6, but the exit `172.31.0.14` is IPv4; write the IPv4 gateway of that NIC, or leave it out to have it found",
    ),
    ("exits: [{ address: 127.0.0.1 }]", "spec.exits[0].address: `127.0.0.1` is a loopback address; write for instance `172.31.0.14`"),
    ("to: [{ cidr: 10.0.0.1/8 }]", "spec.to[0].cidr: `10.0.0.1/8` has host bits set; write `10.0.0.0/8`"),
    (
        "to: [{ cidr: 10.0.0.0/8, except: [192.168.0.0/16] }]",
        "spec.to[0].except[0]: `192.168.0.0/16` is not inside `10.0.0.0/8`, so it excepts nothing; remove it, or move it to the `cidr` that contains it",
    ),
    ("ports: [{ protocol: TCP, port: 445, endPort: 443 }]", "spec.ports[0].endPort: `445-443` is reversed; write `443-445`"),
    ("ports: [{ protocol: TCP, port: 70000 }]", "spec.ports[0].port: `70000` is not in 1 to 65535"),
    ("ports: [{ protocol: tcp, port: 443 }]", "spec.ports[0].protocol: `tcp` is unknown; did you mean `TCP`?"),
    ("ports: [{ port: 443 }]", "spec.ports[0].protocol: is missing; write `protocol:` and its value"),
    ("whenUnavailable: Dorp", "spec.whenUnavailable: `Dorp` is unknown; did you mean `Drop`?"),
    ("existingFlows: Cut", "spec.existingFlows: `Cut` is unknown; write one of `Keep`, `Reset`"),
    ("priority: high", "spec.priority: must be a whole number, but is text; write it without quotes"),
    ("priority: 3000000000", "spec.priority: `3000000000` is not in -2147483648 to 2147483647"),
    ("podSelector: {}", "spec.podSelector: pods are the API server's; in a file give `containerSelector`"),
];

#[test]
fn who_is_named_by_a_wrong_manifest_is_held_without_an_exit() {
    for (spec, expected) in HELD {
        let exits = if spec.contains("exit") { "" } else { "\nexits: [{ address: 172.31.0.14 }]" };
        let read = read(&with(&format!("containerSelector: {{ names: [crawler] }}\n{spec}{exits}")));
        assert_eq!(errors(&read), Vec::<String>::new(), "{spec}");
        assert_eq!(read.bindings.len(), 1, "{spec}");
        assert_eq!(read.bindings[0].selector, crawler(), "{spec}");
        let said: Vec<String> = read.bindings[0].errors.iter().map(ToString::to_string).collect();
        assert_eq!(said, [*expected]);
    }
}

#[test]
fn what_does_not_say_who_is_meant_holds_nobody() {
    for (spec, expected) in [
        (
            "containerSelector: {}",
            "spec.containerSelector: is empty and would mean every container; give `names`, `matchLabels` or `compose`",
        ),
        ("containerSelector: { name: [crawler] }", "spec.containerSelector.name: unknown field; did you mean `names`?"),
        (
            "containerSelector: { compose: { project: shop, servce: crawler } }",
            "spec.containerSelector.compose.servce: unknown field; did you mean `service`?",
        ),
        (
            "containerSelector: { matchLabels: { tier: 5, shop: a } }",
            "spec.containerSelector.matchLabels.tier: must be text, but is a number; put the value into quotes",
        ),
        ("addresses: []", "spec.addresses: is empty; write for instance `[10.0.0.0/24]`"),
        ("addresses: [10.0.0.1/24]", "spec.addresses[0].cidr: `10.0.0.1/24` has host bits set; write `10.0.0.0/24`"),
        ("networkNamespaces: [a/b]", "spec.networkNamespaces[0]: `a/b` is not a namespace's name; write for instance `blue`"),
        ("priority: 1", "spec: selects no workload; give one of `containerSelector`, `addresses`, `networkNamespaces`, `hostSelector`"),
    ] {
        let read = read(&with(&format!("{spec}\nexits: [{{ address: 172.31.0.14 }}]")));
        assert_eq!(read.bindings, [], "{spec}");
        assert_eq!(errors(&read), [format!("EgressBinding shop/crawler: {expected}")]);
    }
}

#[test]
fn one_bad_subnet_of_several_leaves_the_others_held() {
    let read = read(&with("addresses: [10.0.0.1/24, 10.0.2.0/24]\nexits: [{ address: 10.0.1.98 }]"));
    assert_eq!(read.bindings[0].selector, Selector::Addresses(vec![RoutedSource { net: net("10.0.2.0/24"), interface: None }]));
    assert_eq!(read.bindings[0].errors.len(), 1);
}

#[test]
fn only_one_kind_of_workload_may_be_given() {
    let read = read(&with("networkNamespaces: [blue]\ncontainerSelector: { names: [crawler] }\nexits: [{ address: 172.31.0.14 }]"));
    assert_eq!(
        read.bindings[0].errors[0].to_string(),
        "spec: `containerSelector` and `networkNamespaces` are given; keep one, and write a binding for each of the others"
    );
}

#[test]
fn what_surrounds_the_spec_is_checked_too() {
    let good = with("containerSelector: { names: [crawler] }\nexits: [{ address: 172.31.0.14 }]");
    for (from, to, expected) in [
        ("v1alpha1", "v1", "apiVersion: `egressd.dev/v1` is not read here; write `egressd.dev/v1alpha1`"),
        ("apiVersion: egressd.dev/v1alpha1\n", "", "apiVersion: is missing; write `egressd.dev/v1alpha1`"),
        ("namespace:", "namspace:", "metadata: unknown field `namspace`; did you mean `namespace`?"),
        ("spec:", "exits: []\nspec:", "document: unknown field `exits`; indent it below `spec:`"),
    ] {
        let read = read(&good.replace(from, to));
        assert_eq!(read.bindings[0].errors.iter().map(ToString::to_string).collect::<Vec<_>>(), [expected]);
    }
    for (from, to, expected) in [
        ("EgressBinding", "EgresBinding", "crawler.yaml: kind: `EgresBinding` is not read here; did you mean `EgressBinding`?"),
        (
            "kind: EgressBinding\n",
            "",
            "crawler.yaml: kind: is missing; write one of `EgressBinding`, `EgressNetwork`, `EgressPool`, `EgressProxy`",
        ),
        (
            "EgressBinding",
            "Deployment",
            "crawler.yaml: kind: `Deployment` is not read here; write one of `EgressBinding`, `EgressNetwork`, `EgressPool`, `EgressProxy`, and keep other manifests out of this folder",
        ),
        (
            "name: crawler,",
            "name: Crawler_1,",
            "crawler.yaml: metadata.name: `Crawler_1` is not an object name (small letters, digits, `-`, `.`; at most 253 bytes); write for instance `crawler`",
        ),
        ("name: crawler,", "name: 5,", "crawler.yaml: metadata.name: `5` is not text; put it into quotes"),
        ("name: crawler,", "", "crawler.yaml: metadata.name: is missing; write for instance `name: crawler`"),
    ] {
        let read = read(&good.replace(from, to));
        assert_eq!((errors(&read), read.bindings.len()), (vec![expected.to_owned()], 0));
    }
}

#[test]
fn a_status_from_a_cluster_is_ignored() {
    let text = with("containerSelector: { names: [crawler] }\nexits: [{ address: 172.31.0.14 }]") + "status: { observedGeneration: 3 }\n";
    assert_eq!(read(&text).bindings[0].errors, []);
}

#[test]
fn of_two_documents_of_one_name_the_later_is_refused_and_both_are_named() {
    let first = with("networkNamespaces: [blue]\nexits: [{ address: 172.31.0.8 }]");
    let second = with("networkNamespaces: [blue]\nexits: [{ address: 172.31.0.14 }]");
    let read = parse([("a.yaml", format!("{first}---\n{second}").as_bytes()), ("b.yaml", second.as_bytes())]);
    let held: Vec<_> = read.bindings.iter().map(|b| (b.name.name.as_str(), b.errors.len())).collect();
    assert_eq!(held, [("shop/crawler", 0), ("shop/crawler (a.yaml#2)", 1), ("shop/crawler (b.yaml)", 1)]);
    assert_eq!(read.bindings[0].exits[0].address, ip("172.31.0.8"));
    assert_eq!(
        errors(&read),
        ["a.yaml#2", "b.yaml"].map(|place| format!(
            "EgressBinding shop/crawler: metadata.name: the document in a.yaml#1 has the same name, so the one in {place} is not used; rename it"
        ))
    );
}

#[test]
fn a_bad_document_leaves_the_others() {
    let good = with("networkNamespaces: [blue]\nexits: [{ address: 172.31.0.8 }]");
    let read = parse([
        ("a.yaml", b"\x7fELF\x00\x01" as &[u8]),
        ("b.yaml", format!("- not\n- a manifest\n---\n---\n~\n---\nkey: 1\nkey: 2\n---\n{good}").as_bytes()),
        ("c.json", b"{\"kind\": "),
    ]);
    assert_eq!(read.bindings.len(), 1);
    let said = errors(&read);
    assert_eq!(said.len(), 4, "{said:#?}");
    assert_eq!(said[0], "a.yaml: byte 5: the file has a control character; only YAML or JSON belongs here");
    assert_eq!(said[1], "b.yaml#2: line 8, column 1: `key` is given twice; keep one");
    assert!(said[2].starts_with("b.yaml#1: document: is not a manifest; "), "{said:#?}");
    assert!(said[3].starts_with("c.json#1: line 1, column "), "{said:#?}");
}

#[test]
fn a_file_of_ten_megabytes_is_one_error_that_names_it_and_the_cure() {
    let big = vec![b'#'; 10 * 1024 * 1024];
    assert_eq!(
        errors(&parse([("big.yaml", big.as_slice())])),
        ["big.yaml: size: the file is larger than 1 MiB; split it into several files"]
    );
}

#[test]
fn bombs_and_depths_are_one_error_each() {
    let mut aliases = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for i in 1..10 {
        let row = format!("*a{}, ", i - 1).repeat(10);
        aliases.push_str(&format!("a{i}: &a{i} [{row}]\n"));
    }
    for bomb in [aliases, "[".repeat(100_000), "a: ".repeat(10_000), "- ".repeat(100_000), "{a: ".repeat(50_000)] {
        let read = read(&bomb);
        let unread = read.errors.iter().filter(|e| e.error.message.starts_with("cannot be read")).count();
        assert_eq!((unread, read.bindings.len()), (1, 0), "{:.40}", bomb);
        assert!(read.errors.iter().all(|e| e.error.message.len() < 400));
    }
}

#[test]
fn a_bomb_in_each_of_many_documents_is_stopped_as_well() {
    let row = "*a, ".repeat(200);
    let document = format!("a: &a [{}]\nb: [{row}]\n---\n", "x, ".repeat(200));
    let read = read(&document.repeat(MAX_FILE / document.len()));
    assert!(read.errors.iter().any(|e| e.error.message.starts_with("cannot be read: too many")), "{:?}", read.errors.first());
}

#[test]
fn ten_thousand_bindings_are_read() {
    let file = |name: &str| -> String {
        let binding = |i| {
            format!(
                "apiVersion: {API_VERSION}\nkind: {BINDING}\nmetadata: {{name: {name}{i}}}\nspec: {{networkNamespaces: [a], exits: [{{address: 10.0.0.1}}]}}\n---\n"
            )
        };
        (0..5_000).map(binding).collect()
    };
    let read = parse([("a.yaml", file("a").as_bytes()), ("b.yaml", file("b").as_bytes())]);
    assert_eq!((read.bindings.len(), read.errors), (10_000, vec![]));
}

#[test]
fn a_hundred_thousand_foreign_documents_are_reported_as_a_hundred_and_a_number() {
    let read = read(&"---\n- x\n".repeat(100_000));
    assert_eq!(read.errors.len(), 101);
    assert_eq!(read.errors[100].error.message, "has 99900 more errors; correct the listed ones first");
}

#[test]
fn a_network_is_read_whole_or_not_at_all() {
    let good =
        network_with("subnets: [172.19.0.0/16, 'fd00:19::/64'], gateways: ['fd00:19::1', 172.19.0.1], bridgeName: eip_bridge, guard: true");
    let expected = ManagedNetwork {
        name: "eip_bridge".to_owned(),
        subnets: vec![net("172.19.0.0/16"), net("fd00:19::/64")],
        gateways: vec![ip("fd00:19::1"), ip("172.19.0.1")],
        bridge: Some("eip_bridge".to_owned()),
        guard: Some(true),
    };
    assert_eq!(read(&good), Manifests { networks: vec![expected], ..Manifests::default() });
    for (spec, expected) in [
        ("", "spec.subnets: is missing; write `subnets:` and its value"),
        ("subnets: []", "spec.subnets: is empty; write for instance `[172.19.0.0/16]`"),
        ("subnets: [0.0.0.0/0]", "spec.subnets[0]: `0.0.0.0/0` is larger than a /8; write for instance `172.19.0.0/16`"),
        ("subnets: [127.0.0.0/8]", "spec.subnets[0]: `127.0.0.0/8` is a loopback address; write for instance `172.19.0.0/16`"),
        ("subnets: [224.0.0.0/8]", "spec.subnets[0]: `224.0.0.0/8` is a multicast address; write for instance `172.19.0.0/16`"),
        ("subnets: ['fe80::/64']", "spec.subnets[0]: `fe80::/64` is link-local; write for instance `172.19.0.0/16`"),
        ("subnets: [172.19.0.1/16]", "spec.subnets[0]: `172.19.0.1/16` has host bits set; write `172.19.0.0/16`"),
        (
            "subnets: [172.19.0.0/16, 172.20.0.0/16]",
            "spec.subnets[1]: `172.20.0.0/16` is a second IPv4 subnet, and Docker's bridges take one of each family; write another network for it",
        ),
        (
            "subnets: [172.19.0.0/16], gateways: [172.20.0.1]",
            "spec.gateways[0]: `172.20.0.1` is in none of the subnets; write for instance `172.19.0.1`",
        ),
        (
            "subnets: [172.19.0.0/16], gateways: [172.19.0.0]",
            "spec.gateways[0]: `172.19.0.0` is the network or broadcast address of `172.19.0.0/16`; write for instance `172.19.0.1`",
        ),
        (
            "subnets: [172.19.0.0/16], bridgeName: a-very-long-bridge",
            "spec.bridgeName: `a-very-long-bridge` is longer than the 15 bytes of an interface name; write for instance `eip_bridge`",
        ),
        ("subnets: [172.19.0.0/16], guard: on", "spec.guard: must be true or false, but is text; write `true` or `false`, without quotes"),
        ("subnets: [172.19.0.0/16], subnet: x", "spec.subnet: unknown field; did you mean `subnets`?"),
    ] {
        let read = read(&network_with(spec));
        assert_eq!((read.networks.len(), errors(&read)), (0, vec![format!("EgressNetwork eip_bridge: {expected}")]));
    }
}
