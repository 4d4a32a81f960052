//! Unchanged programs of the host: by control group, by user, and started by `egressd exec`.

use std::{
    net::{IpAddr, SocketAddr},
    process::ExitCode,
};

use world::{
    Binding, Nic, Programs, Scenario, Subnets, World,
    layout::{PORT, SERVER},
    programs::{self, Program},
    status::until,
};

fn main() -> ExitCode {
    if let Some(code) = programs::act() {
        return code;
    }
    let mut scenarios = Vec::new();
    for subnets in [Subnets::One, Subnets::Two] {
        scenarios
            .push(Scenario::new(format!("{subnets:?}: a program of a control group leaves by its exit"), move || a_control_group(subnets)));
    }
    scenarios.push(Scenario::new("a program of a user leaves by its exit", a_user));
    world::harness::main_of_waiting(scenarios)
}

const BATCH: &str = "/jobs/batch";

fn server(world: &World) -> impl Iterator<Item = SocketAddr> {
    world.servers().into_iter().map(|address| SocketAddr::new(address, PORT))
}

/// What the world sees of the program, however it speaks: the NIC's address, public where the cloud translates it.
fn leaves_by(world: &World, program: &Program, nic: Nic) -> Result<(), String> {
    for server in server(world) {
        let public = world.layout.public(nic, server.ip());
        for (how, seen) in
            [("TCP", program.tcp(server)), ("a datagram", program.udp(server)), ("a connected datagram", program.connected_udp(server))]
        {
            let seen = seen.map_err(|error| format!("{how} to {server}: {error}"))?.ip();
            if seen != public {
                return Err(format!("{how} to {server}: seen as {seen} and not {public}"));
            }
        }
    }
    Ok(())
}

fn assert_leaves_by(world: &World, program: &Program, nic: Nic) {
    leaves_by(world, program, nic).unwrap_or_else(|error| panic!("{error}\n{}", world.host.run(&["nft", "list", "ruleset"])));
}

fn bind(world: &World, name: &str, who: &str, nic: Nic) {
    world.bind(&Binding::new(name, &format!("hostSelector: {{{who}}}")).to(world, nic));
}

fn a_control_group(subnets: Subnets) {
    let world = World::builder().subnets(subnets).build();
    let programs = Programs::new();
    programs.make(BATCH);
    let (batch, other) = (programs.within(BATCH), programs.within("/jobs/other"));
    bind(&world, "batch", "cgroups: [/jobs/batch]", Nic::Eth1);
    leaves_by(&world, &batch, Nic::Eth1).expect_err("without egressd it is not bound");
    let _egressd = world.egressd_alone();
    until("it is bound", || match world.status()["workloads"][0]["state"].as_str() {
        Some("Bound") => Ok(()),
        _ => Err(world.status().to_string()),
    });
    assert_leaves_by(&world, &batch, Nic::Eth1);
    assert_leaves_by(&world, &other, Nic::Eth0);
    assert!(world.foreign().is_empty(), "{}", world.foreign());
}

fn a_user() {
    let world = World::builder().build();
    let programs = Programs::new();
    let (crawler, root) = (programs.program().user(4242), programs.program());
    bind(&world, "crawler", "users: ['4242']", Nic::Eth1);
    leaves_by(&world, &crawler, Nic::Eth1).expect_err("without egressd it is not bound");
    let _egressd = world.egressd_alone();
    assert_leaves_by(&world, &crawler, Nic::Eth1);
    assert_leaves_by(&world, &root, Nic::Eth0);
    assert!(world.foreign().is_empty(), "{}", world.foreign());
}
