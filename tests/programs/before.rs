//! Flows from before a binding took hold of their program, or gave it another exit.

use std::net::{IpAddr, SocketAddr};
use std::thread;

use world::{
    Nic, Programs, World,
    layout::{PORT, SERVER},
    programs::{Program, Running},
    status::until,
    talk::{self, Flow},
};

use crate::lab::{BATCH, assert_leaves_by, await_state, binding, leaves_by, servers};

const ROW: &str = "cgroup/jobs/batch";
const WHO: &str = "cgroups: [/jobs/batch]";
const RESET: &str = "existingFlows: Reset";

/// A world in which conntrack follows the host's flows before egressd does anything, as with any firewall.
fn world() -> World {
    let world = World::builder().build();
    world.host.nft("table inet firewall { chain input { type filter hook input priority 0; ct state established accept; }; }");
    world
}

/// A connection in each family.
fn flows(program: &Program<'_>, world: &World) -> Vec<(SocketAddr, Running)> {
    servers(world).into_iter().map(|server| (server, program.flow(server))).collect()
}

fn assert_go_on(flows: &mut [(SocketAddr, Running)], world: &World, nic: Nic, when: &str) {
    for (server, flow) in flows {
        assert_eq!(flow.ask().map(|seen| seen.ip()), Ok(world.layout.public(nic, server.ip())), "{when}: {server}");
    }
}

/// The kernel has no such connection any more, though nobody has sent anything; and its program is told.
fn assert_ended(flows: &mut [(SocketAddr, Running)], world: &World) {
    for (server, flow) in flows {
        let port = flow.seen.as_ref().expect("it was open").port();
        until("its socket has ended", || {
            let open = world.host.run(&["ss", "-Htn", &format!("sport = :{port}")]);
            if open.is_empty() { Ok(()) } else { Err(open) }
        });
        let (asked, seen) = world.watch(|| flow.ask());
        assert!(asked.is_err() && seen.is_empty(), "{server}: {asked:?}, and {seen} left");
    }
}

fn bind(world: &World, who: &str, nic: Nic, more: &str) {
    world.bind(&binding(world, "batch", who, nic).with(more));
    world.await_handled();
}

pub fn keep() {
    let world = world();
    let programs = Programs::new();
    programs.make(BATCH);
    let batch = programs.within(BATCH);
    let (mut before, mut datagrams) = (flows(&batch, &world), batch.datagrams(servers(&world)[0]));
    let by = |nic: Nic| Ok(IpAddr::from(nic.eip()));
    assert_eq!(datagrams.seen.clone().map(|seen| seen.ip()), by(Nic::Eth0));
    let mut egressd = world.egressd_alone();
    bind(&world, WHO, Nic::Eth1, "");
    assert_leaves_by(&world, &batch, Nic::Eth1);
    assert_go_on(&mut before, &world, Nic::Eth0, "it is bound");
    assert_eq!(datagrams.ask().map(|seen| seen.ip()), by(Nic::Eth1), "datagrams begin anew");
    egressd.kill();
    assert_go_on(&mut before, &world, Nic::Eth0, "the daemon is dead");
    egressd.start();
    world.await_handled();
    assert_go_on(&mut before, &world, Nic::Eth0, "the daemon is another");
    let listed = world.egressctl(&["flows"]).expect("it answers");
    let open = listed.lines().filter(|line| line.contains("ESTABLISHED") && line.contains("eth0"));
    assert_eq!(open.count(), before.len(), "{listed}");
    let explained = world.egressctl(&["explain", ROW]).expect("it is known");
    assert!(explained.contains("before    connections that were open") && explained.contains("continue"), "{explained}");
    // From now on they are reset, though no exit changes.
    bind(&world, WHO, Nic::Eth1, RESET);
    assert_ended(&mut before, &world);
    let explained = world.egressctl(&["explain", ROW]).expect("it is known");
    assert!(explained.contains("had this exit end"), "{explained}");
}

pub fn ping() {
    let world = world();
    let programs = Programs::new();
    programs.make(BATCH);
    let (batch, server) = (programs.within(BATCH), servers(&world)[0].ip().to_string());
    let _egressd = world.egressd_alone();
    let leaves = |by: Nic| {
        world.forget();
        until("pings leave by the NIC", || {
            let seen = world.seen();
            if seen.by(by) > 2 { Ok(()) } else { Err(seen.to_string()) }
        });
        world.seen()
    };
    thread::scope(|scope| {
        let running = scope.spawn(|| batch.instead(&["ping", "-n", "-i0.1", "-c60", "-w30", &server]));
        leaves(Nic::Eth0);
        bind(&world, WHO, Nic::Eth1, "");
        leaves(Nic::Eth1);
        let seen = leaves(Nic::Eth1);
        assert_eq!(seen.by(Nic::Eth0), 0, "{seen}");
        running.join().expect("it does not panic").expect("it is answered");
    });
}

/// Nothing has conntrack follow the host's connections before the first binding.
pub fn not_followed() {
    let world = World::builder().build();
    let programs = Programs::new();
    programs.make(BATCH);
    let batch = programs.within(BATCH);
    let mut before = flows(&batch, &world);
    let served = batch.serve("0.0.0.0:8090".parse().expect("an address"));
    served.seen.as_ref().expect("the port is free");
    let mut called = Flow::open(&world.internet, (Nic::Eth0.eip(), 8090).into()).expect("it is served");
    let _egressd = world.egressd_alone();
    let known = world.host.run(&["conntrack", "-L"]);
    assert!(known.is_empty(), "{known}");
    bind(&world, WHO, Nic::Eth1, "");
    assert_leaves_by(&world, &batch, Nic::Eth1);
    assert_go_on(&mut before, &world, Nic::Eth0, "it keeps what is open");
    called.ask().expect("who has called goes on");
    let listed = world.egressctl(&["flows"]).expect("it answers");
    let inbound = |line: &&str| line.contains(":8090") && line.contains("eth0");
    assert_eq!(listed.lines().filter(inbound).count(), 0, "it was called, and has not called: {listed}");
    bind(&world, WHO, Nic::Eth1, RESET);
    assert_ended(&mut before, &world);
    called.ask().expect("who has called goes on");
}

pub fn reset() {
    let world = world();
    let programs = Programs::new();
    programs.make(BATCH);
    let bridge = world.bridge("plain0", 28);
    world.masquerade(&bridge);
    let container = world.container("blue", &bridge, 10);
    let _guests = talk::serve(&container.netns, &[container.address.into()], &[PORT]);
    let _unbound = Flow::open(&container.netns, (SERVER, PORT).into()).expect("it is masqueraded");
    // By its number: an entry that is cut is made anew with the next packet.
    let entry = || {
        let listed = world.host.run(&["conntrack", "-L", "-s", &container.address.to_string(), "-p", "tcp", "-o", "id"]);
        listed.split_whitespace().find(|word| word.starts_with("id=")).map(str::to_owned)
    };
    let unbound = entry().expect("conntrack follows it");
    let (batch, root) = (programs.within(BATCH), programs.program());
    let mut before = flows(&batch, &world);
    let mut others = flows(&root, &world);
    let mut inside = batch.flow((container.address, PORT).into());
    let served = batch.serve("0.0.0.0:8090".parse().expect("an address"));
    served.seen.as_ref().expect("the port is free");
    let mut called = Flow::open(&world.internet, (Nic::Eth0.eip(), 8090).into()).expect("it is served");
    let mut datagrams = batch.datagrams(servers(&world)[0]);
    let mut egressd = world.egressd_alone();
    // The address that they have is the exit.
    bind(&world, WHO, Nic::Eth0, RESET);
    await_state(&world, ROW, "Bound");
    assert_go_on(&mut before, &world, Nic::Eth0, "their address is the exit");
    bind(&world, WHO, Nic::Eth1, RESET);
    assert_ended(&mut before, &world);
    assert_leaves_by(&world, &batch, Nic::Eth1);
    let stay = |others: &mut Vec<_>, inside: &mut Running, called: &mut Flow| {
        assert_eq!(entry().as_ref(), Some(&unbound), "what no program of the host has is not looked at");
        assert_go_on(others, &world, Nic::Eth0, "another program's");
        inside.ask().expect("what is inside goes on");
        called.ask().expect("who has called goes on");
    };
    stay(&mut others, &mut inside, &mut called);
    assert_eq!(datagrams.ask().map(|seen| seen.ip()), Ok(Nic::Eth1.eip().into()), "datagrams begin anew");
    let mut bound = flows(&batch, &world);
    egressd.kill();
    egressd.start();
    world.await_handled();
    assert_go_on(&mut bound, &world, Nic::Eth1, "a restart ends nothing that has an exit");
    stay(&mut others, &mut inside, &mut called);
}

pub fn reset_beside_another() {
    let world = world();
    let programs = Programs::new();
    programs.make(BATCH);
    world.bind(&binding(&world, "crawler", "users: ['4242']", Nic::Eth1));
    let mut egressd = world.egressd_alone();
    bind(&world, WHO, Nic::Eth1, "");
    let (batch, crawler) = (programs.within(BATCH), programs.program().user(4242));
    let (mut own, mut others) = (flows(&batch, &world), flows(&crawler, &world));
    assert_go_on(&mut own, &world, Nic::Eth1, "bound");
    egressd.kill();
    // The exit that it leaves is still another's, whose connections have the same addresses.
    world.bind(&binding(&world, "batch", WHO, Nic::Eth0).with(RESET));
    assert_go_on(&mut own, &world, Nic::Eth1, "nobody has read that yet");
    egressd.start();
    world.await_handled();
    assert_ended(&mut own, &world);
    assert_go_on(&mut others, &world, Nic::Eth1, "another binding's");
    assert_leaves_by(&world, &batch, Nic::Eth0);
}

/// Nobody but the rules knows a socket whose group is gone.
pub fn reset_by_the_rules_alone() {
    let world = world();
    let programs = Programs::new();
    let below = "/jobs/batch/below";
    programs.make("/jobs/other");
    let mut before = flows(&programs.within(below), &world);
    for (_, flow) in &before {
        programs.move_to("/jobs/other", flow);
    }
    programs.remove(below);
    let mut egressd = world.egressd_alone();
    bind(&world, WHO, Nic::Eth1, "");
    assert_go_on(&mut before, &world, Nic::Eth0, "it keeps what is open");
    bind(&world, WHO, Nic::Eth1, RESET);
    egressd.kill();
    for (server, flow) in &mut before {
        let (asked, seen) = world.watch(|| flow.ask());
        assert!(asked.as_ref().is_err_and(|error| error.contains("reset")), "{server}: {asked:?}");
        assert!(seen.is_empty(), "{server}: {seen}");
    }
}

pub fn all_programs() {
    let world = world();
    let programs = Programs::new();
    let root = programs.program();
    let (mut before, mut datagrams) = (flows(&root, &world), root.datagrams(servers(&world)[0]));
    let own: SocketAddr = (world.layout.address(Nic::Eth0), 8090).into();
    let served = root.serve(own);
    served.seen.as_ref().expect("the port is free");
    let mut called = Flow::open(&world.internet, (Nic::Eth0.eip(), 8090).into()).expect("it is served");
    leaves_by(&world, &root, Nic::Eth1).expect_err("it is not bound");
    let _egressd = world.egressd_alone();
    bind(&world, "all: true", Nic::Eth1, "");
    assert_leaves_by(&world, &root, Nic::Eth1);
    assert_go_on(&mut before, &world, Nic::Eth0, "it keeps what is open");
    let seen = |datagrams: &mut Running| datagrams.ask().map(|seen| seen.ip());
    until("its datagrams begin anew", || match seen(&mut datagrams) {
        Ok(public) if public == IpAddr::from(Nic::Eth1.eip()) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    bind(&world, "all: true", Nic::Eth1, RESET);
    assert_ended(&mut before, &world);
    called.ask().expect("who has called goes on");
    assert_leaves_by(&world, &root, Nic::Eth1);
}
