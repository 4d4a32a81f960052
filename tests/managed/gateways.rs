//! Gateways that answer, and do not any more.

use std::net::IpAddr;

use world::{
    Binding, Egressd, Nic,
    layout::{PORT, SERVER, SERVER6},
    status::until,
    talk,
};

use crate::stage::{NIC, Stage, numbered};

/// One exit at the router, and one at the cloud's second NIC, by turn.
fn bind_two(stage: &Stage) {
    let near = stage.exits(&numbered(2), "weight: 1");
    let exits = near.trim_start_matches("exits: [").trim_end_matches(']');
    let far = [IpAddr::from(stage.world.layout.address(Nic::Eth1)), stage.world.layout.address6(Nic::Eth1).into()];
    let far = far.map(|address| format!("{{address: '{address}', gateway: '{}'}}", stage.world.gateway(Nic::Eth1, address)));
    stage.world.bind(&Binding::of(&stage.blue.netns).with(&format!("exits: [{exits}, {}]", far.join(", "))).with("spread: RoundRobin"));
}

/// How many of six new flows in each family left by the router.
fn by_router(stage: &Stage) -> usize {
    stage.router.forget();
    let ((), elsewhere) = stage.world.watch(|| {
        for from in [IpAddr::from(stage.blue.address), stage.blue.address6.into()] {
            (0..6).for_each(|_| talk::shout(&stage.blue.netns, from, world::traffic::nobody(from)));
        }
    });
    let seen: u64 = stage.router.seen().0.values().sum();
    assert_eq!(seen + elsewhere.by(Nic::Eth1), 12, "all leave: {elsewhere}, {seen} by the router");
    seen as usize
}

fn await_lost(stage: &Stage, lost: bool) {
    until(if lost { "the gateway is dead" } else { "the gateway is back" }, || {
        let explained = stage.world.egressctl(&["explain", "netns/blue"])?;
        let said = explained.matches("does not answer on ens5 any more").count();
        if said == if lost { 2 } else { 0 } { Ok(()) } else { Err(explained) }
    });
}

/// Until the daemon has heard an answer in each family: who never answered is not dead later.
fn await_known(egressd: &Egressd) {
    await_answers(egressd, ["10.5.0.1", "fd10:5::1"]);
}

fn await_answers(egressd: &Egressd, gateways: [&str; 2]) {
    until("the router has answered", || {
        let log = egressd.log();
        let known = gateways.iter().all(|gateway| log.contains(&format!("gateway answers gateway={gateway}")));
        if known { Ok(()) } else { Err(log) }
    });
}

/// As long as the daemon needs to find a gateway dead, and twice that again.
fn wait() {
    std::thread::sleep(std::time::Duration::from_millis(1500));
}

pub fn spread() {
    let stage = Stage::new();
    bind_two(&stage);
    let mut egressd = stage.world.egressd_alone();
    stage.await_exits(&numbered(2));
    await_known(&egressd);
    assert_eq!(by_router(&stage), 6);
    stage.mute(true);
    await_lost(&stage, true);
    assert_eq!(by_router(&stage), 0);
    stage.mute(false);
    await_lost(&stage, false);
    assert_eq!(by_router(&stage), 6);
    // The control: without the daemon nobody looks.
    egressd.kill();
    stage.mute(true);
    wait();
    assert_eq!(by_router(&stage), 6);
}

pub fn alone() {
    let stage = Stage::new();
    let bind = |unavailable: &str| {
        let exits = stage.exits(&numbered(2), "weight: 1");
        stage.world.bind(&Binding::of(&stage.blue.netns).with(&exits).with(&format!("whenUnavailable: {unavailable}")));
    };
    bind("Drop");
    let egressd = stage.world.egressd_alone();
    stage.await_exits(&numbered(2));
    let mut open = talk::Flow::open(&stage.blue.netns, (SERVER, PORT).into()).expect("it is bound");
    await_known(&egressd);
    stage.mute(true);
    let said = stage.await_reason("GatewayDead");
    assert!(
        said.iter().all(|line| line.contains("10.5.0.1") || line.contains("fd10:5::1")) && said.iter().all(|line| line.contains(NIC)),
        "{said:?}"
    );
    stage.holds_back();
    // What is dead to questions may still carry what goes by it.
    open.ask().expect("an open flow goes on");
    bind("Fallback");
    stage.world.await_rows("netns/blue", |row| row["state"] == "Fallback");
    stage.world.leaves_by(&stage.blue.netns, Nic::Eth0).expect("it goes the host's way");
    let borne = open.seen;
    assert_eq!(open.ask().expect("a connection goes on by its exit while new ones fall back"), borne);
    let mut fallen = talk::Flow::open(&stage.blue.netns, (SERVER, PORT).into()).expect("it goes the host's way");
    let by_default = fallen.seen;
    stage.mute(false);
    stage.await_exits(&numbered(2));
    assert_eq!(fallen.ask().expect("a connection goes on by the default route when the exit is back"), by_default);
    assert_eq!(open.ask().expect("a connection goes on by its exit"), borne);
    assert_ne!(borne.ip(), by_default.ip());
    stage.serves(&numbered(2));
}

pub fn on_every_link() {
    const GATEWAYS: [&str; 2] = ["169.254.7.1", "fe80::7"];
    let stage = Stage::new();
    let [v4, v6] = GATEWAYS;
    stage.router.netns.ip(&format!("addr add {v4}/32 dev eth0\naddr add {v6}/64 dev eth0 nodad"));
    let exits = numbered(2);
    let named = [format!("{{address: '{}', gateway: '{v4}'}}", exits[0]), format!("{{address: '{}', gateway: '{v6}'}}", exits[1])];
    stage.world.bind(&Binding::of(&stage.blue.netns).with(&format!("exits: [{}]", named.join(", "))));
    let egressd = stage.world.egressd_alone();
    stage.await_exits(&exits);
    await_answers(&egressd, GATEWAYS);
    stage.serves(&exits);
    stage.mute(true);
    let said = stage.await_reason("GatewayDead");
    assert!(said.iter().all(|line| GATEWAYS.iter().any(|gateway| line.contains(gateway))), "{said:?}");
    stage.holds_back();
    stage.mute(false);
    stage.await_exits(&exits);
    stage.serves(&exits);
}

pub fn silent() {
    let stage = Stage::new();
    stage.mute(true);
    // Its link-layer addresses are set by hand, as where nobody answers.
    let mac = Stage::mac(&stage.router.netns, "eth0");
    for own in stage.router.own() {
        stage.world.host.run(&["ip", "neigh", "replace", &own.to_string(), "lladdr", &mac, "dev", NIC, "nud", "permanent"]);
    }
    let mac = Stage::mac(&stage.world.host, NIC);
    for host in stage.router.host() {
        stage.router.netns.run(&["ip", "neigh", "replace", &host.to_string(), "lladdr", &mac, "dev", "eth0", "nud", "permanent"]);
    }
    stage.world.bind(&Binding::of(&stage.blue.netns).with(&stage.exits(&numbered(2), "weight: 1")));
    let _egressd = stage.world.egressd_alone();
    stage.await_exits(&numbered(2));
    wait();
    wait();
    stage.await_exits(&numbered(2));
    for to in [IpAddr::from(SERVER), SERVER6.into()] {
        talk::ask_udp(&stage.blue.netns, (to, PORT).into()).expect("it is answered");
    }
}

pub fn restart() {
    let stage = Stage::new();
    bind_two(&stage);
    let mut egressd = stage.world.egressd_alone();
    stage.await_exits(&numbered(2));
    await_known(&egressd);
    stage.mute(true);
    await_lost(&stage, true);
    egressd.kill();
    egressd.start();
    stage.world.await_handled();
    await_lost(&stage, true);
    wait();
    assert_eq!(by_router(&stage), 0, "it has not answered since");
    stage.mute(false);
    await_lost(&stage, false);
    assert_eq!(by_router(&stage), 6);
    egressd.kill();
    stage.mute(true);
    egressd.start();
    await_lost(&stage, true);
    // The control: who knows nothing of the run before has no gateway that ever answered.
    egressd.kill();
    std::fs::remove_file("/run/egressd/gateways.json").expect("it was kept");
    egressd.start();
    wait();
    await_lost(&stage, false);
}

pub fn moved() {
    let stage = Stage::new();
    let ([exit, _], [moving, exit6]) = (numbered(60), numbered(2));
    stage.world.host.sysctl(&format!("ipv4/conf/{NIC}/promote_secondaries"), "1");
    stage.world.host.ip(&format!("addr add {exit}/24 dev {NIC}"));
    stage.world.bind(&Binding::of(&stage.blue.netns).with(&stage.exits(&[exit, exit6], "weight: 1")));
    let _egressd = stage.world.egressd_alone();
    stage.await_exits(&[exit, exit6]);
    let believed = || stage.router.netns.run(&["ip", "neigh", "show", &moving.to_string()]);
    // The control: as long as the host has it, it is asked from it.
    let own = Stage::mac(&stage.world.host, NIC);
    until("the router knows who asks", || if believed().contains(&own) { Ok(()) } else { Err(believed()) });
    stage.world.host.ip(&format!("addr del {moving}/24 dev {NIC}"));
    stage.world.await_handled();
    let next = stage.segment.silent_router("next", crate::stage::SUBNET, 98);
    next.netns.ip(&format!("addr add {moving}/24 dev eth0"));
    let mac = Stage::mac(&next.netns, "eth0");
    stage.router.netns.run(&["ip", "neigh", "replace", &moving.to_string(), "lladdr", &mac, "dev", "eth0", "nud", "reachable"]);
    for _ in 0..15 {
        std::thread::sleep(std::time::Duration::from_millis(100));
        assert!(believed().contains(&mac), "it is {mac}'s now: {}", believed());
    }
}
