//! What is told of programs of the host.

use ipnet::IpNet;

use super::*;
use crate::api::manifest;
use crate::model::facts::{Address, KernelChange, LinkKind, Place, Rule};
use crate::model::programs::ProgramFacts;
use crate::model::resolve::{Past, resolve};
use crate::model::select::Index;
use crate::report::status::{Counted, Status};
use crate::report::table;

/// A host with two NICs, two addresses on the second one.
fn host(spec: &str, stub: Option<&str>) -> (Facts, Outcome) {
    let mut facts = Facts::default();
    for (index, nic, net) in [(2, "eth0", "172.31.0.8/20"), (3, "eth1", "172.31.0.14/20"), (3, "eth1", "172.31.0.65/20")] {
        let link = Link { up: true, carrier: true, ..Link::new(index, nic.to_owned(), LinkKind::Other(String::new())) };
        facts.kernel.apply(KernelChange::Link(link));
        let net: IpNet = net.parse().unwrap();
        facts.kernel.apply(KernelChange::Address(Place { nsid: None, index }, Address::new(net)));
        facts.kernel.routes.push(Route { interface: Some(index), ..Route::new(MAIN, net.trunc()) });
    }
    let gateway = "172.31.0.1".parse().ok();
    facts.kernel.routes.push(Route { gateway, interface: Some(2), ..Route::new(MAIN, Family::V4.everything()) });
    let binding = format!("apiVersion: egressd.dev/v1alpha1\nkind: EgressBinding\nmetadata: {{name: one}}\nspec: {{{spec}}}\n");
    facts.manifests = Index::new(manifest::parse([("one.yaml", binding.as_bytes())]));
    facts.programs = ProgramFacts {
        users: [("crawler".to_owned(), 998)].into(),
        stub: stub.map(|stub| stub.parse().unwrap()),
        ..ProgramFacts::default()
    };
    let outcome = resolve(&facts, &mut Past::default());
    (facts, outcome)
}

fn told(who: &str, more: &str, stub: Option<&str>, name: &str) -> String {
    let (facts, outcome) = host(&format!("hostSelector: {{{who}}}, exits: [{{address: 172.31.0.14}}]{more}"), stub);
    explain(&facts, &outcome, &Drops::default(), name, None).expect("it is bound")
}

#[test]
fn lookups_of_names_are_told_where_another_program_asks_for_them() {
    let of = |who: &str, stub, name: &str| told(who, "", stub, name).lines().find(|line| line.starts_with("  names ")).map(str::to_owned);
    let (who, name) = ("users: [crawler]", "user/crawler");
    let told = of(who, Some("127.0.0.53"), name).expect("it is a stub");
    assert!(told.contains("127.0.0.53") && told.contains("systemd-resolved.service") && told.contains("resolv.conf of its own"), "{told}");
    assert_eq!(of(who, None, name), None, "the program asks by itself");
    assert_eq!(of("all: true", Some("127.0.0.53"), "host/all"), None, "the resolver is one of them");
}

#[test]
fn what_becomes_of_connections_from_before_is_told() {
    let of = |more: &str| told("users: [crawler]", more, None, "user/crawler");
    assert!(of("").contains("had this exit continue"), "{}", of(""));
    assert!(of(", existingFlows: Reset").contains("had this exit end"), "{}", of(", existingFlows: Reset"));
}

const IN_PART: &str =
    "exits: [{address: 172.31.0.14, weight: 2}, {interface: wan2}, {address: 172.31.0.8, draining: true}, {addresses: 172.31.0.64/30}]";

#[test]
fn exits_that_are_not_used_are_told_as_they_were_written() {
    let (facts, outcome) = host(&format!("hostSelector: {{users: [crawler]}}, spread: ByDestination, {IN_PART}"), None);
    let of = |to: Option<&str>| {
        let to = to.map(|to| to.parse().unwrap());
        explain(&facts, &outcome, &Drops::default(), "user/crawler", to).expect("it is bound")
    };
    let said = of(None);
    for line in [
        "  spread    ByDestination: each new flow leaves as one of 172.31.0.14*2, 172.31.0.65\n            the destination's address decides, but is not given; the lines below are for the first one\n",
        "  draining  172.31.0.8: it gets no new flow, and open ones continue\n",
        "  lost      wan2: there is no interface wan2",
        "  lost      172.31.0.64, 172.31.0.66-172.31.0.67: no interface holds these 3",
    ] {
        assert!(said.contains(line), "no {line:?} in\n{said}");
    }
    let mut sources = std::collections::BTreeSet::new();
    for last in 1..40 {
        let said = of(Some(&format!("198.51.100.{last}")));
        let exit = said.lines().find_map(|line| line.strip_prefix("  source    ")).expect("it leaves").to_owned();
        assert!(said.contains(&format!(" of 256: {exit}, which the lines below are for\n")), "{said}");
        sources.insert(exit);
    }
    assert_eq!(sources.len(), 2, "both are used: {sources:?}");
}

#[test]
fn a_family_that_a_binding_is_not_for_is_as_without_it() {
    let state = |exits: &str, to: &str| {
        let (_, outcome) = host(&format!("hostSelector: {{all: true}}, exits: [{exits}]{to}"), None);
        outcome.programs.rows.iter().find(|row| row.address == Some(Family::V4.everything())).expect("IPv4 is spoken").state.clone()
    };
    let (v4, v6) = ("{address: 172.31.0.14}", "{address: 'fd00::1'}");
    assert!(matches!(state(v4, ""), State::Bound(_)));
    assert!(matches!(state(v6, ""), State::Dropped(_)));
    assert_eq!(state(v6, ", to: [{cidr: '::/0'}]"), State::Free);
    assert!(matches!(state(v6, ", to: [{cidr: '::/0'}, {cidr: 198.51.100.0/24}]"), State::Dropped(_)), "some of it is what it is for");
}

#[test]
fn status_says_which_exits_are_not_used_and_which_selector_fits_nobody() {
    let of = |spec: &str| {
        let (facts, outcome) = host(spec, None);
        let status = Status::of(&facts, &outcome, Counted::default(), Vec::new(), |_| None);
        table::render(&status, k8s_openapi::jiff::Timestamp::UNIX_EPOCH, true)
    };
    let said = of(&format!("hostSelector: {{users: [crawler]}}, spread: RoundRobin, {IN_PART}"));
    for line in [
        "172.31.0.14*2,172.31.0.65*1 (RoundRobin),172.31.0.8 (draining)",
        "\nfile/default/one: exit wan2 is not used: there is no interface wan2",
        "\nfile/default/one: exit 172.31.0.64, 172.31.0.66-172.31.0.67 is not used: no interface holds these 3",
    ] {
        assert!(said.contains(line), "no {line:?} in\n{said}");
    }
    assert!(!said.contains("matches no container"), "{said}");
    let said = of("containerSelector: {names: [crawlr], matchLabels: {a: b}}, exits: [{address: 172.31.0.14}]");
    let line = "file/default/one: its containerSelector matches no container of this host (names: crawlr; matchLabels: a=b)";
    assert!(said.starts_with("No workload is bound.\n") && said.contains(line), "{said}");
}

#[test]
fn what_another_table_takes_and_what_a_table_has_a_hole_for_is_told() {
    let (mut facts, _) = host("hostSelector: {users: [crawler]}, exits: [{address: 172.31.0.14}]", None);
    facts.kernel.apply(KernelChange::Link(Link { up: true, ..Link::new(9, "tailscale0".to_owned(), LinkKind::Tun) }));
    let net = |text: &str| text.parse::<IpNet>().unwrap();
    facts.kernel.routes.push(Route { interface: Some(9), ..Route::new(52, net("100.64.0.0/10")) });
    facts.kernel.routes.push(Route { kind: RouteKind::Blackhole, ..Route::new(MAIN, net("10.66.0.0/16")) });
    facts.kernel.rules.push(Rule::new(Family::V4, 5270, 52));
    let outcome = resolve(&facts, &mut Past::default());
    let of = |to: &str| explain(&facts, &outcome, &Drops::default(), "user/crawler", to.parse().ok()).expect("it is bound");
    for (to, line) in [
        ("100.64.0.9", "table 52 routes 100.64.0.0/10 over tailscale0"),
        ("10.66.0.1", "main has no way to 10.66.0.0/16 (blackhole)"),
        ("198.51.100.1", "172.31.0.14"),
    ] {
        assert!(of(to).contains(line), "no {line:?} in\n{}", of(to));
    }
}

#[test]
fn of_subnets_in_one_another_the_smallest_that_has_the_address_is_told() {
    let (mut facts, _) = host("addresses: [10.0.0.0/8], exits: [{address: 172.31.0.14}]", None);
    facts.kernel.routes.push(Route { interface: Some(2), ..Route::new(MAIN, "10.0.0.0/8".parse().unwrap()) });
    let binding = |name: &str, spec: &str| {
        format!("apiVersion: egressd.dev/v1alpha1\nkind: EgressBinding\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n")
    };
    let wide = binding("wide", "addresses: [10.0.0.0/8], exits: [{address: 172.31.0.14}]");
    let narrow = binding("narrow", "addresses: [10.0.0.0/24], priority: 10, exits: [{address: 172.31.0.65}]");
    facts.manifests = Index::new(manifest::parse([("a.yaml", wide.as_bytes()), ("b.yaml", narrow.as_bytes())]));
    let outcome = resolve(&facts, &mut Past::default());
    let of = |who: &str| explain(&facts, &outcome, &Drops::default(), who, None).expect("it is bound");
    for (who, name) in [("10.0.0.6", "file/default/narrow"), ("10.0.0.0", "file/default/narrow"), ("10.1.0.6", "file/default/wide")] {
        let told = of(who);
        assert!(told.contains(name) && told.matches("  binding ").count() == 1, "{who}: {told}");
    }
}
