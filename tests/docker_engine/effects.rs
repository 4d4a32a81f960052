//! Networks made and containers placed on a real Docker engine: Debian's 20.10 and a current one.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::engines::{Engine, Release};
use crate::ip;
use egressd::effects::docker::{Engine as Effects, Error, Placed};
use egressd::model::binding::Placement;
use egressd::model::facts::Network;
use egressd::model::manifests::ManagedNetwork;
use egressd::plan::engine::Made;
use serde_json::{Value, json};

on_both!(
    a_network_is_made_once_and_removed_when_nobody_uses_it,
    a_network_with_other_settings_is_refused_with_the_field_and_the_cure,
    a_made_container_is_placed_and_starts_there,
    a_container_that_runs_is_not_moved,
    a_container_that_started_as_it_was_made_is_moved_with_its_ports,
    a_placement_that_cannot_be_is_refused_and_changes_nothing,
);

async fn started(release: Release) -> (Engine, Effects) {
    let engine = Engine::start(release);
    let effects = Effects::connect(&engine.socket()).expect("an engine");
    (engine, effects)
}

fn shop() -> ManagedNetwork {
    ManagedNetwork {
        name: "shop".to_owned(),
        subnets: ["10.77.0.0/24", "fd77::/64"].map(|text| text.parse().expect("a subnet")).to_vec(),
        gateways: vec![ip("10.77.0.254")],
        bridge: Some("shop0".to_owned()),
        guard: Some(true),
    }
}

fn placement(network: Option<&str>, address: Option<&str>) -> Placement {
    Placement { network: network.map(str::to_owned), address: address.map(ip), errors: Vec::new() }
}

/// Field and message of a refusal.
#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T, Error>) -> (String, String) {
    match result {
        Err(Error::Refused(error)) => (error.field, error.message),
        other => panic!("not refused: {other:?}"),
    }
}

/// Networks of a container by name, each with its IPv4 address, as the engine tells them.
fn places(engine: &Engine, container: &str) -> BTreeMap<String, String> {
    let seen = inspect(engine, &format!("inspect {container}"));
    let networks = seen["NetworkSettings"]["Networks"].as_object().expect("networks");
    networks.iter().map(|(name, one)| (name.clone(), one["IPAddress"].as_str().unwrap_or_default().to_owned())).collect()
}

fn only(network: &str, address: &str) -> BTreeMap<String, String> {
    BTreeMap::from([(network.to_owned(), address.to_owned())])
}

/// The first object that an inspect command prints.
fn inspect(engine: &Engine, line: &str) -> Value {
    let mut all: Vec<Value> = serde_json::from_str(&engine.docker(line)).expect("JSON");
    all.swap_remove(0)
}

async fn a_network_is_made_once_and_removed_when_nobody_uses_it(release: Release) {
    let (engine, effects) = started(release).await;
    effects.create_network(&shop()).await.expect("a new network");
    let seen = inspect(&engine, "network inspect shop");
    assert_eq!(seen["Labels"], json!({ "egressd.dev/managed": "true", "egress.guard": "on" }));
    assert_eq!((&seen["EnableIPv6"], &seen["Options"]["com.docker.network.bridge.name"]), (&json!(true), &json!("shop0")));
    assert_eq!(seen["IPAM"]["Config"][0]["Gateway"], "10.77.0.254");
    effects.create_network(&shop()).await.expect("it is there already");
    assert_eq!(inspect(&engine, "network inspect shop")["Id"], seen["Id"]);

    engine.docker("run --detach --name web --network shop busybox sleep 1000");
    let (_, message) = refused(effects.remove_network("shop").await);
    assert!(message.contains("in use by web"), "{message}");
    engine.docker("rm --force web");
    effects.remove_network("shop").await.expect("nobody uses it");
    assert!(!engine.docker("network ls --format {{.Name}}").contains("shop"));
    effects.remove_network("shop").await.expect("gone is what was asked for");
}

async fn a_network_with_other_settings_is_refused_with_the_field_and_the_cure(release: Release) {
    let (engine, effects) = started(release).await;
    engine.docker("network create --subnet 10.77.0.0/24 shop");
    let (field, message) = refused(effects.create_network(&shop()).await);
    assert_eq!(field, "spec.subnets");
    assert!(message.contains("10.77.0.0/24, fd77::/64") && message.contains("docker network rm shop"), "{message}");
    let plain =
        ManagedNetwork { subnets: vec!["10.77.0.0/24".parse().expect("a subnet")], gateways: vec![], bridge: None, guard: None, ..shop() };
    effects.create_network(&plain).await.expect("the same, by somebody else");
    let bridge = ManagedNetwork { bridge: Some("shop0".to_owned()), ..plain.clone() };
    assert_eq!(refused(effects.create_network(&bridge).await).0, "spec.bridgeName");
    let gateway = ManagedNetwork { gateways: vec![ip("10.77.0.9")], ..plain.clone() };
    assert_eq!(refused(effects.create_network(&gateway).await).0, "spec.gateways");
    let overlap = ManagedNetwork { name: "other".to_owned(), ..plain };
    let (field, message) = refused(effects.create_network(&overlap).await);
    assert_eq!(field, "spec.subnets", "{message}");
    assert!(refused(effects.remove_network("shop").await).1.contains("was not made by egressd"));
}

async fn a_made_container_is_placed_and_starts_there(release: Release) {
    let (engine, effects) = started(release).await;
    effects.create_network(&shop()).await.expect("a new network");
    engine.docker("network create --subnet 10.78.0.0/24 other");
    let cases = [("", "shop", "10.77.0.20"), ("--network other", "shop", "10.77.0.21"), ("--network shop", "shop", "10.77.0.22")];
    for (n, (arguments, network, address)) in cases.into_iter().enumerate() {
        let id = engine.docker(&format!("create --name c{n} {arguments} busybox sleep 1000"));
        let wanted = placement(Some(network), Some(address));
        assert_eq!(effects.place(&id, &wanted, &Made::Before).await.expect("placed"), Placed::Done, "{arguments}");
        assert_eq!(effects.place(&id, &wanted, &Made::Before).await.expect("placed"), Placed::Already, "{arguments}");
        engine.docker(&format!("start c{n}"));
        assert_eq!(places(&engine, &id), only(network, address), "{arguments}");
    }

    let id = engine.docker("create --name own --network other busybox sleep 1000");
    assert_eq!(effects.place(&id, &placement(None, Some("10.78.0.30")), &Made::Before).await.expect("placed"), Placed::Done);
    engine.docker("start own");
    assert_eq!(places(&engine, &id), only("other", "10.78.0.30"));

    let id = engine.docker("create --name six busybox sleep 1000");
    assert_eq!(effects.place(&id, &placement(Some("shop"), Some("fd77::30")), &Made::Before).await.expect("placed"), Placed::Done);
    engine.docker("start six");
    assert_eq!(inspect(&engine, "inspect six")["NetworkSettings"]["Networks"]["shop"]["GlobalIPv6Address"], "fd77::30");

    let id = engine.docker("create busybox sleep 1000");
    engine.docker(&format!("rm {id}"));
    assert_eq!(effects.place(&id, &placement(Some("shop"), None), &Made::Before).await.expect("no container"), Placed::Gone);
}

async fn a_container_that_runs_is_not_moved(release: Release) {
    let (engine, effects) = started(release).await;
    engine.docker("network create --subnet 10.78.0.0/24 other");
    let id = engine.docker("run --detach --name web busybox sleep 1000");
    let before = places(&engine, &id);
    assert_eq!(effects.place(&id, &placement(Some("other"), None), &Made::Before).await.expect("left"), Placed::Running);
    assert_eq!(places(&engine, &id), before);
}

/// The start that came first in the race, every time.
async fn a_container_that_started_as_it_was_made_is_moved_with_its_ports(release: Release) {
    let (engine, effects) = started(release).await;
    engine.docker("network create --subnet 10.78.0.0/24 other");
    let other = network(&engine, "other");
    let cases = [("", "10.78.0.9", Some(other.clone())), ("--network other", "10.78.0.10", Some(other)), ("", "10.78.0.11", None)];
    for (n, (arguments, address, known)) in cases.into_iter().enumerate() {
        let id = engine.docker(&format!("run --detach --name c{n} --publish 800{n}:80 {arguments} busybox sleep 1000"));
        let wanted = placement(Some("other"), Some(address));
        assert_eq!(effects.place(&id, &wanted, &Made::Now(known)).await.expect("moved"), Placed::Done);
        assert_eq!(places(&engine, &id), only("other", address));
        assert!(engine.docker(&format!("port c{n}")).contains(&format!("80/tcp -> 0.0.0.0:800{n}")));
        let routes = engine.docker(&format!("exec c{n} ip route"));
        assert!(routes.contains("default via 10.78.0.1"), "{routes}");
    }

    // What facts did not tell in time: the address is taken.
    let id = engine.docker("create --name back busybox sleep 1000");
    let taken = placement(Some("other"), Some("10.78.0.9"));
    let (field, _) = refused(effects.place(&id, &taken, &Made::Now(Some(network(&engine, "other")))).await);
    assert_eq!((field.as_str(), places(&engine, &id)), ("egress.container-ip", only("bridge", "")));
}

fn network(engine: &Engine, name: &str) -> Arc<Network> {
    let seen: egressd::facts::docker::wire::Network =
        serde_json::from_value(inspect(engine, &format!("network inspect {name}"))).expect("a network");
    Arc::new(egressd::facts::docker::network(seen))
}

async fn a_placement_that_cannot_be_is_refused_and_changes_nothing(release: Release) {
    let (engine, effects) = started(release).await;
    engine.docker("network create --subnet 10.78.0.0/24 --gateway 10.78.0.1 other");
    engine.docker("run --detach --name owner --network other --ip 10.78.0.5 busybox sleep 1000");
    let id = engine.docker("create --name web busybox sleep 1000");
    let before = places(&engine, &id);
    for (network, address, field, word) in [
        (Some("missing"), None, "egress.network", "docker network create missing"),
        (Some("other"), Some("10.79.0.5"), "egress.container-ip", "choose one in 10.78.0.0/24"),
        (Some("other"), Some("10.78.0.5"), "egress.container-ip", "taken by container owner"),
        (Some("other"), Some("10.78.0.1"), "egress.container-ip", "is the gateway"),
        (None, Some("172.17.0.9"), "egress.container-ip", "no chosen addresses"),
    ] {
        let (said, message) = refused(effects.place(&id, &placement(network, address), &Made::Before).await);
        assert_eq!(said, field);
        assert!(message.contains(word), "{message}");
        assert_eq!(places(&engine, &id), before);
    }
    let host = engine.docker("create --network host busybox sleep 1000");
    let (field, message) = refused(effects.place(&host, &placement(Some("other"), None), &Made::Before).await);
    assert_eq!((field.as_str(), message.contains("--network host")), ("egress.network", true));
}
