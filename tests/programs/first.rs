//! First and last packets: of programs that send as their first act, in groups that were not there before, and of sockets that are closed.

use world::{
    Nic, Programs, World, count,
    layout::{SERVER, SERVER6},
    status::until,
};

use crate::lab::{BATCH, assert_leaves_by, await_state, binding, servers};

pub fn groups_made_anew() {
    let world = World::builder().build();
    let programs = Programs::new();
    programs.make(BATCH);
    let batch = programs.within(BATCH);
    let starts = count(24, 250);
    let restart = || {
        programs.remove(BATCH);
        let ((), seen) = world.watch(|| {
            batch.shout(SERVER.into());
            batch.shout(SERVER6.into());
        });
        seen
    };
    assert!(restart().by(Nic::Eth0) > 0, "without egressd they leave by the default route");
    world.bind(&binding(&world, "batch", "cgroups: [/jobs/batch]", Nic::Eth1));
    let _egressd = world.egressd_alone();
    let mut bound = 0;
    for _ in 0..starts {
        let seen = restart();
        assert_eq!(seen.by(Nic::Eth0), 0, "{seen}");
        bound += seen.by(Nic::Eth1);
    }
    assert!(world.foreign().is_empty(), "{}", world.foreign());
    // The group is known a few milliseconds after it is made.
    await_state(&world, "cgroup/jobs/batch", "Bound");
    world.await_handled();
    assert_leaves_by(&world, &batch, Nic::Eth1);
    // Not made anew, each of them leaves.
    let ((), seen) = world.watch(|| (0..starts).for_each(|_| batch.shout(SERVER.into())));
    assert!(seen.by(Nic::Eth1) >= 2 * starts && seen.by(Nic::Eth0) == 0, "{seen}, and {bound} before");
}

pub fn below_a_bound_group() {
    let world = World::builder().ipv6(false).build();
    let programs = Programs::new();
    programs.make(BATCH);
    world.bind(&binding(&world, "jobs", "cgroups: [/jobs]", Nic::Eth0));
    world.bind(&binding(&world, "batch", "cgroups: [/jobs/batch]", Nic::Eth1));
    let _egressd = world.egressd_alone();
    let (jobs, batch) = (programs.within("/jobs"), programs.within(BATCH));
    assert_leaves_by(&world, &jobs, Nic::Eth0);
    assert_leaves_by(&world, &batch, Nic::Eth1);
    for _ in 0..count(24, 250) {
        programs.remove(BATCH);
        let ((), seen) = world.watch(|| batch.shout(SERVER.into()));
        assert_eq!(seen.by(Nic::Eth0), 0, "the exit of the group above is not its own: {seen}");
    }
    // One that nobody names leaves as the group above does, once it is known.
    programs.make("/jobs/other");
    world.await_handled();
    assert_leaves_by(&world, &programs.within("/jobs/other"), Nic::Eth0);
}

pub fn a_unit() {
    let world = World::builder().build();
    let programs = Programs::new();
    let unit = "/system.slice/crawler.service";
    programs.make("/system.slice/other.service");
    world.bind(&binding(&world, "crawler", "systemdUnits: [crawler.service, egressd-crawler.slice]", Nic::Eth1));
    let _egressd = world.egressd_alone();
    await_state(&world, "unit/crawler.service", "Waiting");
    for _ in 0..3 {
        programs.make(unit);
        await_state(&world, "unit/crawler.service", "Bound");
        assert_leaves_by(&world, &programs.within(unit), Nic::Eth1);
        assert_leaves_by(&world, &programs.within("/system.slice/other.service"), Nic::Eth0);
        programs.remove(unit);
        await_state(&world, "unit/crawler.service", "Waiting");
    }
    // A slice stays, whatever becomes of its services.
    programs.make("/egressd.slice/egressd-crawler.slice");
    await_state(&world, "unit/egressd-crawler.slice", "Bound");
    // Below a unit that is named itself, as `crawler.service` is, a new group is held until it is known.
    let service = "/egressd.slice/egressd-crawler.slice/job.service";
    for _ in 0..count(10, 100) {
        let ((), seen) = world.watch(|| programs.within(service).shout(SERVER.into()));
        assert!(seen.by(Nic::Eth0) == 0 && seen.by(Nic::Eth1) >= 2, "{seen}");
        programs.remove(service);
    }
}

pub fn instances_of_a_template() {
    let world = World::builder().ipv6(false).build();
    let programs = Programs::new();
    let slice = "/system.slice/system-web\\x2dbatch.slice";
    let instance = |name: &str| format!("{slice}/web-batch@{name}.service");
    programs.make(slice);
    programs.make("/system.slice/other@1.service");
    let shout = |name: &str| {
        let ((), seen) = world.watch(|| programs.within(&instance(name)).shout(SERVER.into()));
        seen
    };
    assert!(shout("0").by(Nic::Eth0) > 0, "without egressd it leaves by the default route");
    programs.remove(&instance("0"));
    world.bind(&binding(&world, "batch", "systemdUnits: ['web-batch@.service']", Nic::Eth1));
    let mut egressd = world.egressd_alone();
    await_state(&world, "unit/web-batch@.service", "Waiting");
    // The first one, too, since the slice is there.
    for number in 0..count(10, 100) {
        let seen = shout(&number.to_string());
        assert_eq!(seen.by(Nic::Eth0), 0, "{seen}");
    }
    await_state(&world, "unit/web-batch@3.service", "Bound");
    for name in ["0", "3"] {
        assert_leaves_by(&world, &programs.within(&instance(name)), Nic::Eth1);
    }
    assert_leaves_by(&world, &programs.within("/system.slice/other@1.service"), Nic::Eth0);
    egressd.kill();
    let seen = shout("later");
    assert!(seen.is_empty(), "it is held until it is known: {seen}");
    egressd.start();
    await_state(&world, "unit/web-batch@later.service", "Bound");
    assert_leaves_by(&world, &programs.within(&instance("later")), Nic::Eth1);
}

pub fn orphans() {
    let world = World::builder().build();
    let programs = Programs::new();
    programs.make(BATCH);
    world.bind(&binding(&world, "batch", "cgroups: [/jobs/batch]", Nic::Eth1));
    world.bind(&binding(&world, "crawler", "users: ['4242']", Nic::Eth1));
    let (batch, crawler) = (programs.within(BATCH), programs.program().user(4242));
    let (server, server6) = (servers(&world)[0], servers(&world)[1]);
    let ((), seen) = world.watch(|| crawler.leave(server));
    assert!(seen.by(Nic::Eth0) > 0, "without egressd they leave by the default route");
    let _egressd = world.egressd_alone();
    for program in [&batch, &crawler] {
        let ((), seen) = world.watch(|| {
            for _ in 0..count(20, 200) {
                program.leave(server);
                program.leave(server6);
            }
        });
        assert!(seen.by(Nic::Eth0) == 0 && seen.by(Nic::Eth1) > 0, "{seen}");
    }
    // The other side ends the connection later: the kernel alone acknowledges that.
    until("nothing is left to be said", || if world.foreign().is_empty() { Ok(()) } else { Err(world.foreign().to_string()) });
}
