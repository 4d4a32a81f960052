//! A Docker engine that is not well, or is not Docker: wrong dates, odd answers, silence, losses. What counts is by which NIC packets leave.

mod claims;

use std::{process::ExitCode, thread, time::Duration};

use serde_json::{Value, json};
use world::{
    Container, Nic, Scenario, World,
    egressd::Egressd,
    scripted::{Dates, Manner, Scripted, network_id},
    status::{until, until_within},
};

const HOUR: Duration = Duration::from_secs(3600);
/// For scenarios that wait until the agent gives a question up.
const LONG: Duration = Duration::from_secs(180);

fn main() -> ExitCode {
    let mut scenarios = Vec::new();
    for (dates, name) in [(Dates::Right, "right"), (Dates::Behind(HOUR), "an hour back"), (Dates::Ahead(HOUR), "an hour ahead")] {
        scenarios.push(Scenario::new(
            format!("dates {name}: a container on a new network leaves by its exit, and is gone at its end"),
            move || dates_say_nothing(dates),
        ));
        scenarios.push(Scenario::new(
            format!("dates {name}: a container that is just made is placed, one that has started is not"),
            move || only_what_is_made_is_placed(dates),
        ));
    }
    let mut add = |name: &str, run: fn()| scenarios.push(Scenario::new(name, run).within(LONG));
    add("what is missed while the subscription begins is found a moment later", what_is_missed_is_found);
    add("a start that was under way before egressd listened is found on the network", a_start_under_way_is_found);
    add("an odd container harms only itself", an_odd_container_harms_only_itself);
    add("a network that does not answer harms only its containers", a_network_that_does_not_answer);
    add("a container on a network that is not known says so, and is bound once it is", an_unknown_network);
    add("internal networks and networks without a bridge here are not bound", networks_that_cannot_be);
    add("Podman's bridges are found by its own API", podman);
    add("an address that the engine tells of two stays its owner's, and is nobody's where nothing tells which", claims::an_address_of_two);
    add("a container that names another gateway takes none from who was there, whatever their names", claims::another_gateway);
    add("a network with the name of a NIC takes it from nobody", claims::a_network_with_a_nics_name);
    add("an end that an engine tells of what is still there is believed of neither container nor network", claims::an_end_that_is_none);
    add("an engine that knows no pages is asked once more, and no further", claims::an_engine_without_pages);
    add("an engine that is lost is seen in status, metrics and readiness until it is back", a_lost_engine_is_seen);
    for manner in [Manner::Half, Manner::Reset, Manner::Error] {
        scenarios.push(Scenario::new(format!("{manner:?} in place of the list: status says why, and all is well afterwards"), move || {
            lists_that_fail(manner)
        }));
    }
    world::harness::main(scenarios)
}

/// A bridge as an engine makes it, with a container on it that is not known to any engine yet.
fn stage(world: &World, name: &str, subnet: u8) -> Container {
    let bridge = world.bridge(&format!("br-{name}"), subnet);
    world.masquerade(&bridge);
    world.container(name, &bridge, 10)
}

fn world() -> World {
    World::builder().ipv6(false).build()
}

fn exit(world: &World) -> Value {
    json!({ "egress.ip": world.layout.address(Nic::Eth1).to_string() })
}

/// The engine says that the container of [`stage`] runs on the network of its name, and asks for eth1.
fn run(engine: &Scripted, world: &World, container: &Container, more: Value) {
    let name = container.netns.name();
    engine.run(name, name, container.address, &exit(world), more);
}

/// A container on a network, bound to eth1: without egressd it leaves by eth0.
fn bound() -> (World, Scripted, Container, Egressd) {
    let world = world();
    let engine = world.scripted_engine();
    let web = stage(&world, "web", 28);
    leaves_by(&world, &web, Nic::Eth0);
    create_network(&engine, "web");
    run(&engine, &world, &web, json!({}));
    let egressd = world.egressd_for_script();
    world.await_nic("web", Nic::Eth1);
    (world, engine, web, egressd)
}

fn create_network(engine: &Scripted, name: &str) {
    engine.create_network(name, &format!("br-{name}"), json!({}));
}

fn has_no_row(world: &World, workload: &str) -> Result<(), String> {
    let status = world.status();
    let rows = status["workloads"].as_array().expect("a list of workloads");
    if rows.iter().any(|row| row["workload"] == workload) { Err(format!("{status:#}")) } else { Ok(()) }
}

fn leaves_by(world: &World, container: &Container, nic: Nic) {
    world.leaves_by(&container.netns, nic).unwrap_or_else(|error| panic!("{error}"));
}

/// After a clock was set back every event is older than the session. A filter by date made egressd deaf until the clock had caught up.
fn dates_say_nothing(dates: Dates) {
    let world = world();
    let engine = world.scripted_engine();
    engine.date(dates);
    let web = stage(&world, "web", 28);
    leaves_by(&world, &web, Nic::Eth0);
    let egressd = world.egressd_for_script();
    create_network(&engine, "web");
    run(&engine, &world, &web, json!({}));
    world.await_nic("web", Nic::Eth1);
    leaves_by(&world, &web, Nic::Eth1);
    engine.remove("web");
    until("it is gone", || has_no_row(&world, "web"));
    drop(egressd);
    world.cleanup();
    leaves_by(&world, &web, Nic::Eth0);
}

fn only_what_is_made_is_placed(dates: Dates) {
    let world = world();
    let engine = world.scripted_engine();
    engine.date(dates);
    let running = stage(&world, "running", 28);
    create_network(&engine, "running");
    create_network(&engine, "shop");
    let _egressd = world.egressd_for_script();
    until("the engine has been listed", || world.no_problems());
    let asks = |engine: &Scripted| engine.asked().into_iter().filter(|line| line.starts_with("POST")).collect::<Vec<_>>();
    let labels = json!({ "egress.network": "shop" });
    engine.create("made", &labels);
    until("it is moved", || {
        let asked = asks(&engine);
        let both = ["/disconnect", "/connect"].iter().all(|end| asked.iter().any(|line| line.ends_with(end)));
        if both { Ok(()) } else { Err(format!("{asked:?}")) }
    });
    engine.remove("made");
    until("all is asked", || world.no_problems());
    let before = asks(&engine);
    // Its start is told in the same breath as its making: egressd was not there to listen meanwhile.
    engine.run("running", "running", running.address, &labels, json!({}));
    until("it is left where it is", || world.problem(&["container running", "is not moved"]));
    assert_eq!(asks(&engine), before);
}

/// The engine begins the stream of events before it subscribes.
fn what_is_missed_is_found() {
    let world = world();
    let engine = world.scripted_engine();
    let web = stage(&world, "web", 28);
    create_network(&engine, "web");
    engine.mute(true);
    let _egressd = world.egressd_started(&["--docker-socket", world::docker::SOCKET]);
    until_within(Duration::from_secs(10), Duration::from_millis(5), "the list is read", || {
        let asked = engine.asked();
        if asked.iter().any(|line| line == "GET /containers/json") { Ok(()) } else { Err(format!("{asked:?}")) }
    });
    thread::sleep(Duration::from_millis(100));
    run(&engine, &world, &web, json!({}));
    until("the socket is there", || world.egressctl(&["status"]).map(drop));
    world.await_nic("web", Nic::Eth1);
    leaves_by(&world, &web, Nic::Eth1);
}

fn a_start_under_way_is_found() {
    let world = world();
    let engine = world.scripted_engine();
    let web = stage(&world, "web", 28);
    create_network(&engine, "web");
    // The network has it, and the list shows no address before the start is over.
    let networks = json!({ "Networks": { "web": { "NetworkID": "", "IPAddress": "" } } });
    run(&engine, &world, &web, json!({ "State": "created", "NetworkSettings": networks }));
    let _egressd = world.egressd_for_script();
    world.await_nic("web", Nic::Eth1);
    leaves_by(&world, &web, Nic::Eth1);
}

fn an_odd_container_harms_only_itself() {
    let world = world();
    let engine = world.scripted_engine();
    let web = stage(&world, "web", 28);
    create_network(&engine, "web");
    let odd = [
        ("sleeper", json!({ "State": "hibernating" })),
        ("broken", json!({ "Labels": ["x"] })),
        ("bare", json!({ "Names": null, "NetworkSettings": null })),
    ];
    for (name, more) in odd {
        engine.run(name, "elsewhere", [10, 9, 9, 9], &json!({}), more);
    }
    let labels: serde_json::Map<String, Value> = (0..10_000).map(|n| (format!("label-{n}"), "x".repeat(20).into())).collect();
    engine.run(&"n".repeat(253), "elsewhere", [10, 9, 9, 8], &labels.into(), json!({}));
    let _egressd = world.egressd_for_script();
    run(&engine, &world, &web, json!({}));
    world.await_nic("web", Nic::Eth1);
    leaves_by(&world, &web, Nic::Eth1);
    until("the broken one is named", || world.problem(&["container broken", "failed to read"]));
    engine.remove("broken");
    until("it is gone", || world.no_problems());
}

fn a_network_that_does_not_answer() {
    let world = world();
    let engine = world.scripted_engine();
    let (web, stuck) = (stage(&world, "web", 28), stage(&world, "stuck", 29));
    for name in ["web", "stuck"] {
        create_network(&engine, name);
    }
    engine.answer(&format!("/networks/{}", network_id("stuck")), Some(Manner::Half));
    let _egressd = world.egressd_for_script();
    for container in [&stuck, &web] {
        run(&engine, &world, container, json!({}));
    }
    world.await_nic("web", Nic::Eth1);
    leaves_by(&world, &web, Nic::Eth1);
    // The list shows its address once the start is over.
    world.await_nic("stuck", Nic::Eth1);
    until_within(Duration::from_secs(45), Duration::from_millis(200), "the network is named", || {
        world.problem(&["network stuck", "no whole answer"])
    });
    leaves_by(&world, &web, Nic::Eth1);
    engine.answer(&format!("/networks/{}", network_id("stuck")), None);
    // The question that is on its way has to end first.
    until_within(Duration::from_secs(45), Duration::from_millis(200), "it answers again", || world.no_problems());
}

fn an_unknown_network() {
    let world = world();
    let engine = world.scripted_engine();
    let web = stage(&world, "web", 28);
    let _egressd = world.egressd_for_script();
    run(&engine, &world, &web, json!({}));
    world.await_rows("web", |row| {
        row["state"] == "Waiting" && row["reason"] == "NoSuchNetwork" && row["message"].as_str().is_some_and(|m| m.contains("web"))
    });
    engine.mute(true);
    create_network(&engine, "web");
    until_within(Duration::from_secs(15), Duration::from_millis(100), "the networks are listed anew", || {
        let status = world.status();
        if status["workloads"][0]["state"] == "Bound" { Ok(()) } else { Err(format!("{status:#}")) }
    });
    leaves_by(&world, &web, Nic::Eth1);
}

fn networks_that_cannot_be() {
    let world = world();
    let engine = world.scripted_engine();
    let (web, inner) = (stage(&world, "web", 28), stage(&world, "inner", 29));
    engine.create_network("web", "br-nowhere", json!({}));
    engine.create_network("inner", "br-inner", json!({ "Internal": true }));
    let _egressd = world.egressd_for_script();
    run(&engine, &world, &web, json!({}));
    run(&engine, &world, &inner, json!({}));
    world.await_rows("web", |row| {
        row["state"] == "Waiting" && row["reason"] == "NoSuchBridge" && row["message"].as_str().is_some_and(|m| m.contains("br-nowhere"))
    });
    world.await_rows("inner", |row| row["state"] == "Refused" && row["message"].as_str().is_some_and(|m| m.contains("internal")));
}

fn podman() {
    let world = world();
    let engine = world.scripted_engine();
    engine.be_podman();
    let web = stage(&world, "web", 28);
    leaves_by(&world, &web, Nic::Eth0);
    create_network(&engine, "web");
    let _egressd = world.egressd_for_script();
    run(&engine, &world, &web, json!({}));
    world.await_nic("web", Nic::Eth1);
    leaves_by(&world, &web, Nic::Eth1);
}

fn a_lost_engine_is_seen() {
    let (world, engine, web, _egressd) = bound();
    let (lose, return_) = (|| engine.go_away(), || engine.listen());
    world.source_is_lost("docker", "docker", lose, || leaves_by(&world, &web, Nic::Eth1), return_);
}

fn lists_that_fail(manner: Manner) {
    let world = world();
    let engine = world.scripted_engine();
    let web = stage(&world, "web", 28);
    create_network(&engine, "web");
    run(&engine, &world, &web, json!({}));
    engine.answer("/containers/json", Some(manner));
    let _egressd = world.egressd_for_script();
    until_within(Duration::from_secs(45), Duration::from_millis(200), "status says why", || {
        world.problem(&["docker has not sent its first full list (trying since 20", "its containers"])
    });
    engine.answer("/containers/json", None);
    // The next question may have been asked before, and is waited for as long.
    until_within(Duration::from_secs(45), Duration::from_millis(200), "all is well", || world.no_problems());
    world.await_nic("web", Nic::Eth1);
    leaves_by(&world, &web, Nic::Eth1);
}
