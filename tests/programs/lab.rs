//! What the scenarios have in common.

use std::net::SocketAddr;

use world::{Binding, Nic, World, layout::PORT, programs::Program, status::until};

/// A group below one that egressd guards.
pub const BATCH: &str = "/jobs/batch";

/// A server on the internet, in each family that there is.
pub fn servers(world: &World) -> Vec<SocketAddr> {
    world.servers().into_iter().map(|address| SocketAddr::new(address, PORT)).collect()
}

/// What the servers see of the program is the NIC's address, however it speaks, and a ping leaves by that NIC.
pub fn leaves_by(world: &World, program: &Program, nic: Nic) -> Result<(), String> {
    for server in servers(world) {
        let public = world.layout.public(nic, server.ip());
        let asked =
            [("TCP", program.tcp(server)), ("a datagram", program.udp(server)), ("a connected socket", program.connected_udp(server))];
        for (how, seen) in asked {
            let seen = seen.map_err(|error| format!("{how} to {server}: {error}"))?.ip();
            if seen != public {
                return Err(format!("{how} to {server}: seen as {seen} and not {public}"));
            }
        }
        let (answer, seen) = world.watch(|| program.ping(server.ip()));
        answer.map_err(|error| format!("ping to {server}: {error}"))?;
        if seen.count(nic, world.layout.private(nic, server.ip())) == 0 {
            return Err(format!("ping to {server}: {seen}"));
        }
    }
    Ok(())
}

pub fn assert_leaves_by(world: &World, program: &Program, nic: Nic) {
    leaves_by(world, program, nic).unwrap_or_else(|error| panic!("{error}\n{:#}", world.status()));
}

/// Nothing of what the program sends leaves the host, and it is told so.
pub fn assert_held(world: &World, program: &Program) {
    let ((), seen) = world.watch(|| {
        for server in servers(world) {
            program.tcp(server).expect_err("it is held");
            program.udp(server).expect_err("it is held");
        }
    });
    assert!(seen.is_empty(), "{seen}");
}

/// A binding of programs to a NIC's addresses.
pub fn binding(world: &World, name: &str, who: &str, nic: Nic) -> Binding {
    Binding::new(name, &format!("hostSelector: {{{who}}}")).to(world, nic)
}

/// Waits until the rows of that name have the state.
pub fn await_state(world: &World, who: &str, state: &str) {
    until("it has the state", || {
        let status = world.status();
        let rows: Vec<_> = status["workloads"].as_array().into_iter().flatten().filter(|row| row["workload"] == who).collect();
        if !rows.is_empty() && rows.iter().all(|row| row["state"] == state) { Ok(()) } else { Err(format!("{status:#}")) }
    });
}
