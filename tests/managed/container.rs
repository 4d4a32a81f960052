//! `egress.manage=true` on a container of a real engine.

use world::{Engine, s1};

use crate::stage::{Stage, numbered};

pub fn labelled() {
    let stage = Stage::new();
    let exits = numbered(98);
    let docker = stage.world.docker(Engine::Debian);
    s1::create_network(&stage.world, &docker);
    let _egressd = stage.world.egressd_for_docker();
    let named = |addresses: [std::net::IpAddr; 2]| addresses.map(|address| address.to_string()).join(",");
    let network = format!("--network={}", s1::NETWORK);
    let labels = [format!("--label=egress.ip={}", named(exits)), format!("--label=egress.gateway={}", named(stage.router.own()))];
    // The control: nobody is to put them there.
    docker.run("crawler", &[&network, &labels[0], &labels[1]]);
    stage.world.await_rows("crawler", |row| row["reason"] == "AddressNotFound");
    docker.remove("crawler");
    docker.run("crawler", &[&network, &labels[0], &labels[1], "--label=egress.manage=true"]);
    stage.world.await_rows("crawler", |row| row["state"] == "Bound");
    let netns = docker.netns("crawler");
    stage.router.serves_as(&stage.world, &netns, &exits).unwrap_or_else(|error| panic!("{error}"));
    drop(netns);
    docker.remove("crawler");
    exits.iter().for_each(|address| stage.await_on_nic(*address, false));
}
