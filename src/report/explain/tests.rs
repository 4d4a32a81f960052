//! What is told of programs of the host.

use ipnet::IpNet;

use super::*;
use crate::api::manifest;
use crate::model::facts::{Address, KernelChange, LinkKind, Place};
use crate::model::programs::ProgramFacts;
use crate::model::resolve::{Past, resolve};
use crate::model::select::Index;

fn told(who: &str, more: &str, stub: Option<&str>, name: &str) -> String {
    let mut facts = Facts::default();
    for (index, nic, net) in [(2, "eth0", "172.31.0.8/20"), (3, "eth1", "172.31.0.14/20")] {
        let link = Link { up: true, carrier: true, ..Link::new(index, nic.to_owned(), LinkKind::Other(String::new())) };
        facts.kernel.apply(KernelChange::Link(link));
        let net: IpNet = net.parse().unwrap();
        facts.kernel.apply(KernelChange::Address(Place { nsid: None, index }, Address::new(net)));
        facts.kernel.routes.push(Route { interface: Some(index), ..Route::new(MAIN, net.trunc()) });
    }
    let gateway = "172.31.0.1".parse().ok();
    facts.kernel.routes.push(Route { gateway, interface: Some(2), ..Route::new(MAIN, Family::V4.everything()) });
    let binding = format!(
        "apiVersion: egressd.dev/v1alpha1\nkind: EgressBinding\nmetadata: {{name: one}}\nspec: {{hostSelector: {{{who}}}, exits: [{{address: 172.31.0.14}}]{more}}}\n"
    );
    facts.manifests = Index::new(manifest::parse([("one.yaml", binding.as_bytes())]));
    facts.programs = ProgramFacts {
        users: [("crawler".to_owned(), 998)].into(),
        stub: stub.map(|stub| stub.parse().unwrap()),
        ..ProgramFacts::default()
    };
    let outcome = resolve(&facts, &mut Past::default());
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
    assert!(of("").contains("had this exit go on"), "{}", of(""));
    assert!(of(", existingFlows: Reset").contains("had this exit end"), "{}", of(", existingFlows: Reset"));
}
