//! A kernel without IPVS, as many are: who asks for it is told so, and everybody else is served.

use world::{Binding, Nic, World, status::until, talk::ask_tcp};

use crate::{CALLED, TARGET, called, publish, stage};

pub fn without_it() {
    let world = World::builder().build();
    let (_, [one, two, three]) = stage(&world);
    publish(&world, &[&one, &two], "");
    let ipvs = format!("inbound: [{{protocol: TCP, port: 80, targetPort: {TARGET}, engine: Ipvs, scheduler: sed}}]");
    world.bind(&Binding::of(&three.at.netns).to(&world, Nic::Eth1).with(&ipvs));
    let [at, _] = called(&world, Nic::Eth1);
    ask_tcp(&world.internet, at).expect_err("nobody serves it without egressd");
    let _egressd = world.egressd_alone();
    world.forget_neighbours();
    let mut told = String::new();
    let mut served = false;
    until("it is refused, or served", || {
        told = world.status()["problems"].to_string();
        served = ask_tcp(&world.internet, (at.ip(), 80).into()).is_ok();
        if served || told.contains("spec.inbound[0].engine") { Ok(()) } else { Err(told.clone()) }
    });
    // This kernel has IPVS. What else is to be said of it is in `tests/vm/ipvs`.
    if served {
        return;
    }
    assert!(
        ["file/default/s12", "the kernel has no IPVS", "modprobe ip_vs", "engine: Nftables"].iter().all(|word| told.contains(word)),
        "{told}"
    );
    ask_tcp(&world.internet, (at.ip(), 80).into()).expect_err("nothing takes its place");
    for _ in 0..2 {
        ask_tcp(&world.internet, (at.ip(), CALLED).into()).expect("others are served");
    }
    assert_eq!([one.calls(), two.calls(), three.calls()], [1, 1, 0]);
    // Its way out is as if nothing was wrong.
    world.leaves_by(&three.at.netns, Nic::Eth1).unwrap_or_else(|error| panic!("{error}"));
    let explained = world.egressctl(&["explain", "--inbound", &format!("{}:80", world.layout.address(Nic::Eth1))]).expect("it answers");
    assert!(explained.contains("the kernel has no IPVS"), "{explained}");
}
