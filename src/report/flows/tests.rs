//! Whose a flow is.

use super::super::status::{UplinkStatus, Workload};
use super::*;

fn workload(name: &str, address: &str, exit: Option<&str>) -> Workload {
    let exit = exit.map(|exit| exit.parse().unwrap());
    let json = serde_json::json!({
        "workload": name, "defaultRoute": true, "address": address, "exit": exit as Option<IpAddr>, "state": "Bound", "flows": 0,
    });
    serde_json::from_value(json).unwrap()
}

fn owners() -> Owners {
    let nic = |name: &str, address: &str| UplinkStatus {
        nic: name.to_owned(),
        up: true,
        number: None,
        table: None,
        addresses: vec![address.parse().unwrap()],
        gateways: Vec::new(),
        holds_exit: true,
    };
    Owners::of(&Status {
        workloads: vec![
            workload("web", "172.19.0.100", Some("172.31.0.14")),
            workload("subnet", "10.0.0.0/8", Some("172.31.0.14")),
            workload("host", "10.1.0.0/16", None),
            workload("pod/shop/crawler-1", "10.244.0.7", None),
            workload("pod/other/crawler-1", "10.244.0.8", None),
            workload("user/crawler", "0.0.0.0/0", Some("172.31.0.15")),
        ],
        uplinks: vec![nic("eth0", "172.31.0.8"), nic("eth1", "172.31.0.14")],
        ..Status::default()
    })
}

fn owner<'a>(owners: &'a Owners, addresses: [&str; 4]) -> Option<(Option<&'a str>, Direction, Option<String>)> {
    let [source, destination, answers, answered] = addresses.map(|address| address.parse().unwrap());
    let owned = owners.owner(source, destination, answers, answered)?;
    Some((owned.workload, owned.direction, owned.exit.map(|exit| exit.to_string())))
}

#[test]
fn a_flow_belongs_to_who_began_it_and_leaves_as_what_it_was_translated_to() {
    let owners = owners();
    let exit = Some("172.31.0.14".to_owned());
    let out = |name| Some((Some(name), Direction::Out, exit.clone()));
    assert_eq!(owner(&owners, ["172.19.0.100", "198.51.100.10", "198.51.100.10", "172.31.0.14"]), out("web"));
    assert_eq!(owner(&owners, ["10.2.0.1", "198.51.100.10", "198.51.100.10", "172.31.0.14"]), out("subnet"));
    assert_eq!(owner(&owners, ["10.1.0.1", "198.51.100.10", "198.51.100.10", "172.31.0.14"]), out("host"), "the longest prefix");
    let inside = owner(&owners, ["172.19.0.100", "172.19.0.101", "172.19.0.101", "172.19.0.100"]);
    assert_eq!(inside, Some((Some("web"), Direction::Out, None)), "inside nothing is translated");
}

#[test]
fn a_call_to_an_exit_s_port_belongs_to_the_workload_that_answers() {
    let owners = owners();
    let called = owner(&owners, ["203.0.113.9", "172.31.0.14", "172.19.0.100", "203.0.113.9"]);
    assert_eq!(called, Some((Some("web"), Direction::In, Some("172.31.0.14".to_owned()))));
}

#[test]
fn a_flow_of_nobody_is_told_only_if_it_bears_an_exit_of_a_workload() {
    let owners = owners();
    let of_host = owner(&owners, ["172.31.0.8", "198.51.100.10", "198.51.100.10", "172.31.0.15"]);
    assert_eq!(of_host, Some((None, Direction::Out, Some("172.31.0.15".to_owned()))));
    let untranslated = ["172.31.0.8", "198.51.100.10", "198.51.100.10", "172.31.0.8"];
    let as_before = Some((None, Direction::Out, Some("172.31.0.8".to_owned())));
    assert_eq!(owner(&owners, untranslated), as_before, "it may be from before its program was bound");
    assert_eq!(owner(&owners, ["172.31.0.9", "198.51.100.10", "198.51.100.10", "172.31.0.9"]), None, "no NIC's address");
    assert_eq!(owner(&Owners { of_host: false, ..owners }, untranslated), None, "no programs are bound");
}

#[test]
fn a_name_is_a_workload_s_an_address_or_all_pods_of_that_name() {
    let owners = owners();
    let named = |name: &str| owners.named(name).into_iter().collect::<Vec<_>>();
    assert_eq!(named("web"), ["web"]);
    assert_eq!(named("172.19.0.100"), ["web"]);
    assert_eq!(named("pod/crawler-1"), ["pod/other/crawler-1", "pod/shop/crawler-1"]);
    assert_eq!(named("pod/shop/crawler-1"), ["pod/shop/crawler-1"]);
    assert!(named("crawler-1").is_empty() && named("pod/").is_empty() && named("").is_empty());
}

#[test]
fn the_nic_of_an_exit_is_the_one_that_holds_it() {
    let owners = owners();
    assert_eq!(
        ["172.31.0.8", "172.31.0.14", "172.31.0.15"].map(|exit| owners.nic(exit.parse().unwrap())),
        [Some("eth0"), Some("eth1"), None]
    );
}

#[test]
fn a_table_shows_ports_and_how_many_were_left_out() {
    let flow = OpenFlow {
        workload: Some("web".to_owned()),
        direction: Direction::Out,
        protocol: protocol(6),
        source: "2001:db8::1".parse().unwrap(),
        source_port: Some(4000),
        destination: "2001:db8::2".parse().unwrap(),
        destination_port: Some(443),
        exit: None,
        nic: None,
        state: "ESTABLISHED".to_owned(),
    };
    let text = render(&Flows { flows: vec![flow], more: 7, ..Flows::default() });
    assert!(text.contains("web       out        tcp       [2001:db8::1]:4000  [2001:db8::2]:443  -     -    ESTABLISHED\n"), "{text}");
    assert!(text.ends_with("\nand 7 more; name a workload\n"), "{text}");
}
