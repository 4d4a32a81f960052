//! `assignment: Routed`, and `publicAddress`.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use world::{Binding, World, talk};

use crate::stage::{NIC, Stage, numbered};

/// In a prefix that the router routes to the host.
fn prefix(number: u8) -> [IpAddr; 2] {
    [[192, 0, 2, number].into(), Ipv6Addr::new(0x2001, 0xdb8, 0x99, 0, 0, 0, 0, number.into()).into()]
}

pub fn left_by() {
    let stage = Stage::new();
    let exits = prefix(98);
    let routed = |to: &[IpAddr]| Binding::of(&stage.blue.netns).with(&stage.exits(to, &format!("assignment: Routed, interface: {NIC}")));
    // The control: nobody has it, and what the router sends there goes by the default route.
    assert!(!loops(&stage.world, &stage, exits).is_empty());
    let before = stage.world.state();
    stage.world.bind(&Binding::of(&stage.blue.netns).with(&stage.exits(&exits, "assignment: Existing")));
    let mut egressd = stage.world.egressd_alone();
    stage.await_reason("AddressNotFound");
    stage.world.bind(&routed(&exits));
    stage.await_exits(&exits);
    stage.serves(&exits);
    assert_eq!(exits.map(|address| stage.on_nic(address)), [None, None], "no NIC has it");
    assert_eq!(loops(&stage.world, &stage, exits), "", "what belongs to no flow goes nowhere");
    egressd.kill();
    stage.serves(&exits);
    egressd.start();
    stage.await_exits(&exits);
    stage.world.bind(&routed(&[prefix(98), prefix(99)].concat()).with("spread: RoundRobin"));
    stage.world.await_handled();
    stage.router.forget();
    for to in [IpAddr::from(world::layout::SERVER), world::layout::SERVER6.into()] {
        for _ in 0..4 {
            talk::ask_udp(&stage.blue.netns, SocketAddr::new(to, world::layout::PORT)).expect("it is answered");
        }
    }
    let seen = stage.router.seen();
    for exit in prefix(98).into_iter().chain(prefix(99)) {
        assert_eq!(seen.0.get(&exit), Some(&2), "by turn: {seen}");
    }
    stage.world.unbind("blue");
    stage.world.await_handled();
    egressd.stop();
    stage.world.cleanup();
    before.assert_same(&stage.world.state(), "all that was added is taken away");
}

/// What of the datagrams that the router sends to these leaves the host again.
fn loops(world: &World, stage: &Stage, to: [IpAddr; 2]) -> String {
    stage.router.forget();
    let from = stage.router.own();
    let ((), elsewhere) =
        world.watch(|| from.iter().zip(to).for_each(|(from, to)| talk::shout(&stage.router.netns, *from, (to, 9).into())));
    let back = stage.router.seen().0.into_keys().filter(|source| from.contains(source)).map(|source| source.to_string());
    let away = elsewhere.0.into_keys().filter(|(_, source)| from.contains(source)).map(|(_, source)| source.to_string());
    back.chain(away).collect::<Vec<_>>().join(", ")
}

pub fn public() {
    let stage = Stage::new();
    let own = numbered(2)[0];
    let exit = |more: &str| format!("exits: [{{address: {own}, gateway: 10.5.0.1{more}}}]");
    stage.world.bind(&Binding::of(&stage.blue.netns).with(&exit("")));
    let _egressd = stage.world.egressd_alone();
    let shown = || {
        stage.world.egressctl(&["status"]).expect("it answers") + &stage.world.egressctl(&["explain", "netns/blue"]).expect("it answers")
    };
    assert!(!shown().contains("109.25.48.65"));
    stage.world.bind(&Binding::of(&stage.blue.netns).with(&exit(", publicAddress: 109.25.48.65")));
    stage.world.await_handled();
    assert_eq!(shown().matches("109.25.48.65").count(), 2, "{}", shown());
    assert!(shown().contains("PUBLIC") && shown().contains("which the outside sees as 109.25.48.65"), "{}", shown());
    let row = stage.world.status()["workloads"].as_array().cloned().unwrap_or_default();
    assert!(row.iter().any(|row| row["publicAddress"] == "109.25.48.65"), "{row:?}");
    stage.world.bind(&Binding::of(&stage.blue.netns).with(&exit(", publicAddress: 'fd00::1'")));
    stage.world.await_handled();
    let said = stage.await_reason("Invalid");
    assert!(said.iter().any(|line| line.contains("spec.exits[0].publicAddress")), "{said:?}");
}
