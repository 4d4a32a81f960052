//! Containers, and an engine's words, that come between others and their exits.

use std::time::Duration;

use serde_json::{Value, json};
use world::{Container, Nic, World, status::until_within};

use super::{bound, create_network, exit, has_no_row, leaves_by, run, stage, world};

fn reason(world: &World, workload: &str, reason: &str) {
    world.await_rows(workload, |row| row["reason"] == reason);
}

/// An engine may keep an end of a network that nobody has any more.
pub fn an_address_of_two() {
    let (world, engine, web, mut egressd) = bound();
    let ghost = |labels: &Value| engine.run("ghost", "web", web.address, labels, json!({}));
    let other = json!({ "egress.ip": world.layout.address(Nic::Eth0).to_string() });
    ghost(&other);
    reason(&world, "ghost", "AddressTaken");
    leaves_by(&world, &web, Nic::Eth1);
    world.await_gone(&engine, "ghost");
    ghost(&json!({}));
    world.await_handled_by(&engine);
    leaves_by(&world, &web, Nic::Eth1);
    // To who begins with both nothing tells whose it is.
    egressd.kill();
    egressd.start();
    world.await_handled_by(&engine);
    world.sends_nothing_out(&web.netns).unwrap_or_else(|error| panic!("{error}"));
    engine.remove("ghost");
    world.await_nic("web", Nic::Eth1);
    leaves_by(&world, &web, Nic::Eth1);
}

pub fn another_gateway() {
    let (world, engine, web, mut egressd) = bound();
    let address = world.layout.address(Nic::Eth1);
    let [a, b, c, _] = address.octets();
    for (gateway, told) in [(format!("{a}.{b}.{c}.77"), "GatewayConflict"), (world.layout.address(Nic::Eth0).to_string(), "GatewayIsOwn")] {
        // Its name comes first, and it says that it is as old.
        let labels = json!({ "egress.ip": address.to_string(), "egress.gateway": gateway });
        engine.run("aa", "web", [172, 28, 0, 99], &labels, json!({}));
        reason(&world, "aa", told);
        leaves_by(&world, &web, Nic::Eth1);
        egressd.kill();
        egressd.start();
        reason(&world, "aa", told);
        leaves_by(&world, &web, Nic::Eth1);
        // No engine gives an id twice, and this one does.
        world.await_gone(&engine, "aa");
    }
}

pub fn a_network_with_a_nics_name() {
    let (world, engine, web, _egressd) = bound();
    engine.create_network("odd", "eth1", json!({}));
    world.await_handled_by(&engine);
    leaves_by(&world, &web, Nic::Eth1);
}

/// As Podman does with a network that is removed by force, and a proxy that tells events twice.
pub fn an_end_that_is_none() {
    let (world, engine, web, _egressd) = bound();
    engine.lie_of_the_end("web", "web");
    world.await_handled_by(&engine);
    leaves_by(&world, &web, Nic::Eth1);
}

/// A list of a full page, by an engine that answers the same page again.
pub fn an_engine_without_pages() {
    let world = world();
    let engine = world.scripted_engine();
    engine.know_no_pages();
    let web: Container = stage(&world, "web", 28);
    create_network(&engine, "web");
    for number in 0..500 {
        engine.create(&format!("idle-{number}"), &json!({}));
    }
    run(&engine, &world, &web, json!({}));
    let _egressd = world.egressd_for_script();
    until_within(Duration::from_secs(20), Duration::from_millis(100), "it is bound", || world.leaves_by(&web.netns, Nic::Eth1));
    let lists = engine.asked().iter().filter(|asked| asked.contains("/containers/json")).count();
    assert!(lists < 20, "{lists} lists");
}

/// Waiting for what an engine has told.
trait Handled {
    fn await_handled_by(&self, engine: &world::Scripted);

    /// Ends a container, and waits until its row is gone.
    fn await_gone(&self, engine: &world::Scripted, workload: &str);
}

impl Handled for World {
    /// Until a container that the engine tells now has a row, and none again.
    fn await_handled_by(&self, engine: &world::Scripted) {
        engine.run("last", "web", [172, 28, 0, 200], &exit(self), json!({}));
        self.await_rows("last", |_| true);
        self.await_gone(engine, "last");
    }

    fn await_gone(&self, engine: &world::Scripted, workload: &str) {
        engine.remove(workload);
        world::status::until("it is gone", || has_no_row(self, workload));
    }
}
