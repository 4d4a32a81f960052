//! An exit that is gone while egressd is started again: what a workload has open waits for it, as before.

use std::{thread, time::Duration};

use world::{Binding, Nic, Scenario, Seen, Subnets, World, layout::PORT, segment::Plain, talk::Flow};

pub fn scenarios() -> Vec<Scenario> {
    let scenario = |(how, lose): (&'static str, &'static str)| {
        Scenario::new(format!("open connections are held through a restart while their exit's {how}"), move || a_restart_without(lose))
    };
    [("NIC is gone", "link del eth1"), ("addresses are", "addr flush dev eth1"), ("NIC is down", "link set eth1 down")].map(scenario).into()
}

fn a_restart_without(lose: &str) {
    let plain = Plain::new(World::builder().subnets(Subnets::Two).build());
    let (world, blue) = (&plain.world, &plain.blue.netns);
    world.bind(&Binding::of(blue).to(world, Nic::Eth1));
    let mut egressd = world.egressd_alone();
    let open = |server| Flow::open(blue, (server, PORT).into()).expect("it is bound");
    let mut flows: Vec<Flow> = world.servers().into_iter().map(open).collect();
    let trickle = world.trickle(blue, false);
    world.host.ip(lose);
    world.await_state("netns/blue", "Dropped");
    // A second: what is not acknowledged is sent again after 0.2, 0.4 and 0.8 seconds.
    let mut seen_while = |act: &mut dyn FnMut()| {
        world.count(|| {
            act();
            flows.iter_mut().for_each(|flow| flow.send().expect("it is open"));
            thread::sleep(Duration::from_secs(1));
        })
    };
    // The cloud's router may send something to the exit's address, which is none of this host's any more, and is forwarded.
    let by_eth0 = |seen: &Seen| -> u64 {
        let bears = |nic, server| seen.count(Nic::Eth0, world.layout.private(nic, server));
        world.servers().into_iter().map(|server| bears(Nic::Eth0, server) + bears(Nic::Eth1, server)).sum()
    };
    let mut held = |when: &str, act: &mut dyn FnMut()| {
        let seen = seen_while(act);
        assert_eq!(by_eth0(&seen), 0, "{when}: {seen}");
    };
    held("alive", &mut || ());
    for when in ["started again", "and once more"] {
        held(when, &mut || {
            egressd.kill();
            egressd.start();
            world.await_state("netns/blue", "Dropped");
        });
    }
    egressd.kill();
    ["ip", "ip6"].iter().for_each(|family| world.host.nft(&format!("delete table {family} egressd")));
    let seen = seen_while(&mut || ());
    assert!(by_eth0(&seen) > 0, "without the tables it goes by the host's NIC: {seen}");
    drop(trickle);
}
