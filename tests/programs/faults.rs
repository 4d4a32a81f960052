//! What goes and comes back: the daemon, the NIC, the binding; and what is written wrong.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use world::{
    Binding, Netns, Nic, Programs, World,
    layout::{SERVER, SERVER6},
    status::{until, until_within},
};

use crate::lab::{BATCH, assert_held, assert_leaves_by, await_state, binding, leaves_by, servers};

pub fn a_killed_daemon() {
    let world = World::builder().build();
    let programs = Programs::new();
    programs.make(BATCH);
    programs.make("/jobs/known");
    world.bind(&binding(&world, "batch", "cgroups: [/jobs/batch], users: ['4242']", Nic::Eth1));
    let mut egressd = world.egressd_alone();
    let (batch, crawler) = (programs.within(BATCH), programs.program().user(4242));
    let mut flow = batch.flow(servers(&world)[0]);
    let public = Nic::Eth1.eip().into();
    assert_eq!(flow.seen.as_ref().map(SocketAddr::ip), Ok(public));
    egressd.kill();
    assert_leaves_by(&world, &batch, Nic::Eth1);
    assert_leaves_by(&world, &crawler, Nic::Eth1);
    assert_leaves_by(&world, &programs.within("/jobs/known"), Nic::Eth0);
    assert_eq!(flow.ask().map(|seen| seen.ip()), Ok(public));
    egressd.start();
    world.await_handled();
    assert_eq!(flow.ask().map(|seen| seen.ip()), Ok(public), "a restart changes nothing");
    egressd.kill();
    drop(flow);
    programs.remove(BATCH);
    let held = programs.within(BATCH);
    let ((), seen) = world.watch(|| [IpAddr::from(SERVER), SERVER6.into()].into_iter().for_each(|like| held.shout(like)));
    assert!(seen.is_empty(), "what is made anew is held: {seen}");
    egressd.start();
    await_state(&world, "cgroup/jobs/batch", "Bound");
    assert_leaves_by(&world, &held, Nic::Eth1);
    assert!(world.foreign().is_empty(), "{}", world.foreign());
    drop(egressd);
    world.cleanup();
    leaves_by(&world, &held, Nic::Eth1).expect_err("nothing is bound any more");
}

pub fn the_nic_goes() {
    let world = World::builder().build();
    let programs = Programs::new();
    programs.make(BATCH);
    world.bind(&binding(&world, "batch", "cgroups: [/jobs/batch]", Nic::Eth1));
    let _egressd = world.egressd_alone();
    let batch = programs.within(BATCH);
    let mut datagrams = batch.datagrams(servers(&world)[0]);
    for _ in 0..3 {
        assert_leaves_by(&world, &batch, Nic::Eth1);
        world.host.ip("link set eth1 down");
        await_state(&world, "cgroup/jobs/batch", "Dropped");
        assert_held(&world, &batch);
        let explained = world.egressctl(&["explain", "cgroup/jobs/batch"]).expect("it is known");
        assert!(explained.contains("whenUnavailable: Fallback would send it through the default route"), "{explained}");
        for server in servers(&world) {
            for error in [batch.tcp(server), batch.udp(server)].map(|asked| asked.expect_err("it is held")) {
                assert!(error.contains("No route to host") || error.contains("unreachable"), "{server}: {error}");
            }
        }
        world.host.ip("link set eth1 up");
        world.host.ip(&format!("addr replace {}/64 dev eth1 nodad", world.layout.address6(Nic::Eth1)));
        let back = || batch.tcp(servers(&world)[0]).map(drop);
        until_within(Duration::from_secs(5), Duration::from_millis(5), "it is taken up again", back);
        await_state(&world, "cgroup/jobs/batch", "Bound");
    }
    assert_eq!(datagrams.ask().map(|seen| seen.ip()), Ok(Nic::Eth1.eip().into()), "by the same socket");
    world.bind(&binding(&world, "batch", "cgroups: [/jobs/batch]", Nic::Eth1).with("whenUnavailable: Fallback"));
    world.host.ip("link set eth1 down");
    await_state(&world, "cgroup/jobs/batch", "Fallback");
    assert_leaves_by(&world, &batch, Nic::Eth0);
    until("the socket goes by the default route", || match datagrams.ask()?.ip() {
        seen if seen == IpAddr::from(Nic::Eth0.eip()) => Ok(()),
        other => Err(other.to_string()),
    });
}

pub fn another_interface() {
    let world = World::builder().ipv6(false).build();
    let programs = Programs::new();
    programs.make(BATCH);
    world.bind(&binding(&world, "batch", "cgroups: [/jobs/batch]", Nic::Eth1));
    let mut egressd = world.egressd_alone();
    let (batch, parking) = (programs.within(BATCH), Netns::add("parking"));
    for alive in [true, false] {
        assert_leaves_by(&world, &batch, Nic::Eth1);
        let index = || world.host.run(&["cat", "/sys/class/net/eth1/ifindex"]).trim().to_owned();
        let before = index();
        if !alive {
            egressd.kill();
        }
        // Its number is taken by another meanwhile.
        world.host.ip(&format!("link set eth1 netns parking\nlink add taken{before} index {before} type bridge"));
        assert_held(&world, &batch);
        parking.ip("link set eth1 netns 1");
        world.host.ip(&format!("addr add {}/20 dev eth1\nlink set eth1 up", world.layout.address(Nic::Eth1)));
        assert_ne!(index(), before);
        if !alive {
            assert_held(&world, &batch);
            egressd.start();
        }
        until_within(Duration::from_secs(5), Duration::from_millis(5), "it is taken up again", || batch.tcp(servers(&world)[0]).map(drop));
    }
    assert_leaves_by(&world, &batch, Nic::Eth1);
    assert!(world.foreign().is_empty(), "{}", world.foreign());
}

pub fn unbound() {
    let world = World::builder().build();
    let programs = Programs::new();
    programs.make(BATCH);
    world.bind(&binding(&world, "batch", "cgroups: [/jobs/batch]", Nic::Eth1));
    world.bind(&binding(&world, "crawler", "users: ['4242']", Nic::Eth0));
    let _egressd = world.egressd_alone();
    let (batch, crawler) = (programs.within(BATCH), programs.program().user(4242));
    let (mut flow, mut other) = (batch.flow(servers(&world)[0]), crawler.flow(servers(&world)[0]));
    world.forget();
    world.unbind("batch");
    world.await_handled();
    until("its flows have ended", || flow.ask().map_or(Ok(()), |seen| Err(seen.to_string())));
    assert!(world.foreign().is_empty(), "{}", world.foreign());
    assert_leaves_by(&world, &batch, Nic::Eth0);
    other.ask().expect("the other binding's flows go on");
    assert_leaves_by(&world, &crawler, Nic::Eth0);
    world.unbind("crawler");
    world.await_handled();
    assert_leaves_by(&world, &crawler, Nic::Eth0);
}

pub fn another_exit() {
    let world = World::builder().build();
    let programs = Programs::new();
    programs.make(BATCH);
    world.bind(&binding(&world, "batch", "cgroups: [/jobs/batch]", Nic::Eth1));
    let mut egressd = world.egressd_alone();
    let batch = programs.within(BATCH);
    let all = || servers(&world).into_iter().map(|server| (server, world.layout.public(Nic::Eth1, server.ip())));
    let mut flows: Vec<_> = all().map(|(server, public)| (batch.flow(server), public)).collect();
    let mut go_on = |when: &str| {
        for (flow, public) in &mut flows {
            assert_eq!(flow.ask().map(|seen| seen.ip()), Ok(*public), "{when}");
        }
    };
    go_on("bound");
    world.bind(&binding(&world, "batch", "cgroups: [/jobs/batch]", Nic::Eth0));
    world.await_handled();
    assert_leaves_by(&world, &batch, Nic::Eth0);
    go_on("its binding has another exit");
    // Another group of the binding comes and goes at the same time.
    world.bind(&binding(&world, "batch", "cgroups: [/jobs/batch], users: ['4242']", Nic::Eth0));
    world.await_handled();
    go_on("its binding has a user, too");
    world.bind(&binding(&world, "batch", "cgroups: [/jobs/batch]", Nic::Eth0));
    world.await_handled();
    go_on("and has it no more");
    egressd.kill();
    egressd.start();
    world.await_handled();
    go_on("the daemon is another");
    world.bind(&binding(&world, "batch", "cgroups: [/jobs/batch]", Nic::Eth1).with("existingFlows: Reset"));
    world.await_handled();
    go_on("it is back at its first exit");
    assert!(world.foreign().is_empty(), "{}", world.foreign());
}

pub fn bad_input() {
    let world = World::builder().build();
    let programs = Programs::new();
    programs.make(BATCH);
    world.bind(&binding(&world, "batch", "cgroups: [/jobs/batch]", Nic::Eth1));
    let _egressd = world.egressd_alone();
    let said = |binding: &str| {
        let status = world.status();
        let all = status["bindings"].as_array().into_iter().flatten().filter(|one| one["binding"] == binding);
        all.map(|one| one["errors"].to_string()).chain([status["problems"].to_string()]).collect::<String>()
    };
    // As deep as that one group is, the kernel would refuse a look at it, and all rules with it.
    programs.make(&format!("/deep{}", "/down".repeat(300)));
    let wrong = [
        ("nobody", "", "or `all: true` for every program"),
        ("root", "cgroups: ['/']", "is the root"),
        ("mount", "cgroups: [/sys/fs/cgroup/batch]", "is where the hierarchy is mounted"),
        ("up", "cgroups: [/jobs/../batch]", "is not a path of a control group"),
        ("deep", &format!("cgroups: [/deep{}]", "/down".repeat(300)), "is more than 128 levels below the root"),
        ("unit", "systemdUnits: [crawler]", "is not the whole name of a unit"),
        ("template", "systemdUnits: ['crawler@.slice']", "is not the whole name of a unit"),
        ("user", "users: ['a b']", "is not a user's name"),
    ];
    for (name, who, why) in wrong {
        world.bind(&binding(&world, name, who, Nic::Eth1));
        until("it is said", || if said(&format!("file/default/{name}")).contains(why) { Ok(()) } else { Err(world.status().to_string()) });
    }
    world.bind(&binding(&world, "two", "users: [root]", Nic::Eth1).with("networkNamespaces: [blue]"));
    until("it is said", || if said("file/default/two").contains("are given; keep one") { Ok(()) } else { Err(world.status().to_string()) });
    world.bind(&binding(&world, "absent", "users: [no-such-user], cgroups: [/jobs/none], systemdUnits: [none.service]", Nic::Eth1));
    let reasons = [("user/no-such-user", "NoSuchUser"), ("cgroup/jobs/none", "NoSuchCgroup"), ("unit/none.service", "UnitNotRunning")];
    for (who, reason) in reasons {
        await_state(&world, who, "Waiting");
        let status = world.status();
        let mut rows = status["workloads"].as_array().into_iter().flatten();
        assert!(rows.any(|row| row["workload"] == who && row["reason"] == reason), "{status:#}");
    }
    world.bind(&Binding::new("held", "hostSelector: {users: ['4242']}").with("exits: [{address: 172.31.0.299}]"));
    await_state(&world, "user/4242", "Dropped");
    assert_held(&world, &programs.program().user(4242));
    assert_leaves_by(&world, &programs.within(BATCH), Nic::Eth1);
    assert_leaves_by(&world, &programs.program(), Nic::Eth0);
}
