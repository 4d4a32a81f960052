//! Published ports: a call that comes in by a NIC is answered by that NIC.

use serde_json::json;
use world::{
    Docker, Egressd, Engine, Nic, Scenario, World,
    docker::WEB_PORT,
    s1::{self, CRAWLERS},
};

use crate::support::{await_state, for_each_engine, label};

pub fn scenarios() -> Vec<Scenario> {
    let mut scenarios = for_each_engine("without docker-proxy, a published port of eth1 is answered by eth1", |engine| {
        answered_by_eth1(engine, &json!({ "userland-proxy": false }));
    });
    scenarios.push(Scenario::new("Debian: with docker-proxy alone, a published port of eth1 is answered by eth1", proxy_alone));
    scenarios.extend(for_each_engine("a port that is published on all addresses is answered by the NIC that it was called by", on_all));
    scenarios
}

fn answered_by_eth1(engine: Engine, settings: &serde_json::Value) {
    let world = World::builder().rp_filter(1).build();
    let docker = world.docker_with(engine, settings);
    s1::create_network(&world, &docker);
    let [_, by_eth1] = CRAWLERS;
    by_eth1.run(&world, &docker);
    by_eth1.is_reached(&world).expect_err("without egressd its answers leave by eth0");
    docker.remove(by_eth1.name);
    let _egressd = start(&world);
    by_eth1.run(&world, &docker);
    await_state(&world, by_eth1.name, "Bound");
    by_eth1.is_reached(&world).unwrap_or_else(|error| panic!("{error}"));
    by_eth1.leaves(&world, &docker).unwrap_or_else(|error| panic!("{error}"));
}

/// Before, either NIC answered for the other one's address, and the router remembers that for a while.
fn start(world: &World) -> Egressd {
    let egressd = world.egressd_for_docker();
    world.forget_neighbours();
    egressd
}

/// With `iptables: false` Docker neither masquerades nor translates: all comes in by its proxy, a program of the host.
fn proxy_alone() {
    answered_by_eth1(Engine::Debian, &json!({ "iptables": false, "ip6tables": false }));
}

/// Both NICs lead to one container, whose own calls go by eth1.
fn on_all(engine: Engine) {
    let world = World::builder().build();
    let docker = world.docker(engine);
    s1::create_network(&world, &docker);
    run_on_all(&world, &docker);
    world.reached_by(Nic::Eth0, 8095, s1::ASK).expect("it is the default");
    world.reached_by(Nic::Eth1, 8095, s1::ASK).expect_err("without egressd its answers leave by eth0");
    docker.remove("all");
    let _egressd = start(&world);
    run_on_all(&world, &docker);
    await_state(&world, "all", "Bound");
    for nic in Nic::ALL {
        // Its program calls a server before it answers: that call leaves by eth1, whoever calls it.
        let page = world.get((nic.eip(), 8095).into(), s1::ASK).unwrap_or_else(|error| panic!("called by {}: {error}", nic.name()));
        assert!(page.starts_with(&Nic::Eth1.eip().to_string()), "its own calls leave by eth1: {page}");
        world.reached_by(nic, 8095, "/index.html").unwrap_or_else(|error| panic!("{error}"));
    }
}

fn run_on_all(world: &World, docker: &Docker) {
    docker.run("all", &["--network", s1::NETWORK, &format!("--publish=8095:{WEB_PORT}"), &label(world, Nic::Eth1)]);
    // A page whose making calls nobody.
    docker.cli(&["exec", "all", "sh", "-c", "echo hello >/www/index.html"]);
}
