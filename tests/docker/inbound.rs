//! Ports that containers publish by label: calls to eth1's address are shared among them, through Docker's own firewall.

use serde_json::json;
use world::{Docker, Engine, Nic, Scenario, World, docker::WEB_PORT, s1, status::until};

use crate::support::{await_problem, await_state, for_each_engine, label};

/// The port that is called.
const CALLED: u16 = 8090;

pub fn scenarios() -> Vec<Scenario> {
    let mut scenarios = for_each_engine("containers that publish one port share its calls, also after the engine's restart", shared);
    scenarios.push(Scenario::new("Debian: a port that Docker publishes for another container is refused, with its name", taken));
    scenarios.push(Scenario::new("CurrentNftables: an engine that drops calls to published ports is told, with the setting", told));
    scenarios
}

/// What lets the marked flows through Docker's own rules where users have no chain.
fn settings(engine: Engine) -> serde_json::Value {
    match engine {
        Engine::CurrentNftables => json!({ "bridge-accept-fwmark": "0x280/0xffff0f80" }),
        Engine::Debian | Engine::CurrentIptables => json!({}),
    }
}

/// Starts a container that serves a page with its name, and publishes its port by label.
fn run(world: &World, docker: &Docker, name: &str, more: &[&str]) {
    let published = format!("--label=egress.publish={CALLED}:{WEB_PORT}/tcp");
    docker.run(name, &[&["--network", s1::NETWORK, &label(world, Nic::Eth1), &published], more].concat());
    page(docker, name);
}

fn page(docker: &Docker, name: &str) {
    docker.cli(&["exec", name, "sh", "-c", "echo $0 >/www/index.html", name]);
}

/// Calls so often, and returns the names of who answered, in their order.
fn call(world: &World, times: usize) -> Vec<String> {
    let one = || world.reached_by(Nic::Eth1, CALLED, "/index.html").unwrap_or_else(|error| panic!("{error}\n{:#}", world.status()));
    let mut names: Vec<String> = (0..times).map(|_| one().trim().to_owned()).collect();
    names.sort();
    names
}

fn await_served(world: &World) {
    until("it is served", || world.reached_by(Nic::Eth1, CALLED, "/index.html").map(drop));
}

fn shared(engine: Engine) {
    let world = World::builder().build();
    let mut docker = world.docker_with(engine, &settings(engine));
    s1::create_network(&world, &docker);
    run(&world, &docker, "one", &[]);
    world.reached_by(Nic::Eth1, CALLED, "/index.html").expect_err("nobody serves it without egressd");
    docker.remove("one");
    let _egressd = world.egressd_for_docker();
    world.forget_neighbours();
    for name in ["one", "two"] {
        run(&world, &docker, name, &[]);
        await_state(&world, name, "Bound");
    }
    await_served(&world);
    assert_eq!(call(&world, 6), ["one", "one", "one", "two", "two", "two"]);
    // The younger one balances in another way: it is refused, and goes on leaving by its exit.
    run(&world, &docker, "three", &["--label=egress.balance=random"]);
    await_problem(&world, &["label/three: egress.balance", "is shared with label/one"]);
    await_state(&world, "three", "Bound");
    assert_eq!(call(&world, 4), ["one", "one", "two", "two"]);
    docker.cli(&["kill", "two"]);
    until("it is gone", || if world.status().to_string().contains("\"two\"") { Err("not yet".to_owned()) } else { Ok(()) });
    assert_eq!(call(&world, 4), ["one"; 4]);
    docker.restart();
    docker.cli(&["start", "one", "two"]);
    ["one", "two"].iter().for_each(|name| drop(await_state(&world, name, "Bound")));
    ["one", "two"].iter().for_each(|name| page(&docker, name));
    await_served(&world);
    assert_eq!(call(&world, 6), ["one", "one", "one", "two", "two", "two"]);
}

fn taken() {
    let world = World::builder().build();
    let docker = world.docker(Engine::Debian);
    s1::create_network(&world, &docker);
    let _egressd = world.egressd_for_docker();
    world.forget_neighbours();
    let published = format!("{CALLED}:{WEB_PORT}");
    docker.run("other", &["--network", s1::NETWORK, "-p", &published]);
    page(&docker, "other");
    run(&world, &docker, "one", &[]);
    await_problem(&world, &["label/one: egress.publish", "is taken by container other, which the engine publishes at 0.0.0.0:8090"]);
    assert_eq!(call(&world, 3), ["other"; 3], "it keeps its calls");
    docker.remove("other");
    until("its port is free", || {
        let answer = world.reached_by(Nic::Eth1, CALLED, "/index.html")?;
        if answer.trim() == "one" { Ok(()) } else { Err(answer) }
    });
    // Who publishes by both means is in nobody's way.
    run(&world, &docker, "two", &["-p", &published]);
    await_state(&world, "two", "Bound");
    assert_eq!(call(&world, 4), ["one", "one", "two", "two"]);
    let problems = world.status()["problems"].clone();
    assert!(!problems.to_string().contains("taken"), "{problems}");
}

fn told() {
    let world = World::builder().build();
    let docker = world.docker(Engine::CurrentNftables);
    s1::create_network(&world, &docker);
    let _egressd = world.egressd_for_docker();
    world.forget_neighbours();
    run(&world, &docker, "one", &[]);
    await_problem(&world, &["docker-bridges filter-FORWARD", "\"bridge-accept-fwmark\": \"0x280/0xffff0f80\""]);
    world.reached_by(Nic::Eth1, CALLED, "/index.html").expect_err("Docker drops it");
}
