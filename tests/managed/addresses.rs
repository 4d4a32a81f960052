//! `assignment: Managed`.

use std::net::IpAddr;

use world::{
    Binding,
    layout::{PORT, SERVER},
    status::until,
    talk::Flow,
};

use crate::stage::{NIC, Stage, numbered};

pub fn added() {
    let stage = Stage::new();
    let exits = numbered(98);
    // What a neighbour believed until now.
    let stale = "02:00:00:00:00:99";
    for address in exits.into_iter().chain(numbered(97)) {
        stage.router.netns.run(&["ip", "neigh", "replace", &address.to_string(), "lladdr", stale, "dev", "eth0", "nud", "reachable"]);
    }
    let believes = |address: IpAddr| stage.router.netns.run(&["ip", "neigh", "show", &address.to_string()]);
    // The control: who adds it by hand tells nobody, and without being managed nothing is added.
    stage.world.host.ip(&format!("addr add {}/32 dev {NIC}", numbered(97)[0]));
    stage.world.bind(&Binding::of(&stage.blue.netns).with(&stage.exits(&exits, "assignment: Existing")));
    let before = stage.own_source();
    let _egressd = stage.world.egressd_alone();
    stage.await_reason("AddressNotFound");
    assert_eq!(exits.map(|address| stage.on_nic(address)), [None, None]);

    stage.manage(&exits);
    stage.await_exits(&exits);
    stage.serves(&exits);
    let mac = Stage::mac(&stage.world.host, NIC);
    for address in exits {
        until("the neighbour was told", || if believes(address).contains(&mac) { Ok(()) } else { Err(believes(address)) });
        let there = stage.on_nic(address).expect("it is there");
        let alone = if address.is_ipv4() { 32 } else { 128 };
        assert_eq!((there["prefixlen"].as_u64(), there["deprecated"].as_bool()), (Some(alone), Some(true)), "{there}");
    }
    assert!(believes(numbered(97)[0]).contains(stale), "who adds by hand tells nobody");
    assert_eq!((stage.own_source(), before), (["10.5.0.2"; 3].map(str::to_owned), ["10.5.0.2"; 3].map(str::to_owned)));
}

pub fn put_back() {
    let stage = Stage::new();
    let exits = numbered(98);
    stage.manage(&exits);
    let egressd = stage.world.egressd_alone();
    stage.await_exits(&exits);
    let mut open = Flow::open(&stage.blue.netns, (SERVER, PORT).into()).expect("it is bound");
    for address in exits {
        let length = if address.is_ipv4() { 32 } else { 128 };
        stage.world.host.ip(&format!("addr del {address}/{length} dev {NIC}"));
        stage.await_on_nic(address, true);
    }
    open.ask().expect("the flow goes on");
    // As a network manager does that starts anew: nothing stays, and its own address comes later than ours.
    stage.world.host.ip(&format!("addr flush dev {NIC} scope global\naddr flush dev {NIC} scope host"));
    exits.iter().for_each(|address| stage.await_on_nic(*address, true));
    stage.segment.address(&stage.world, crate::stage::SUBNET, 2);
    stage.await_exits(&exits);
    open.ask().expect("the flow goes on");
    stage.serves(&exits);
    assert_eq!(stage.own_source(), ["10.5.0.2"; 3], "the exit was there first, and is no source of the host's own");
    stage.world.host.ip(&format!("link set {NIC} down\nlink set {NIC} up"));
    stage.world.host.ip(&format!("addr replace {}/64 dev {NIC} nodad", numbered(2)[1]));
    stage.await_exits(&exits);
    stage.serves(&exits);
    // The control: nobody else puts it back.
    drop(egressd);
    stage.world.host.ip(&format!("addr del {}/32 dev {NIC}", exits[0]));
    std::thread::sleep(std::time::Duration::from_millis(500));
    stage.await_on_nic(exits[0], false);
}

pub fn duplicate() {
    let stage = Stage::new();
    let exits = numbered(98);
    let thief = stage.segment.silent_router("thief", crate::stage::SUBNET, 98);
    stage.manage(&exits);
    let _egressd = stage.world.egressd_alone();
    let said = stage.await_reason("AddressDuplicate");
    let mac = Stage::mac(&thief.netns, "eth0");
    assert!(said.len() == 2 && said.iter().all(|line| line.contains(&mac) && line.contains(NIC)), "{said:?}");
    assert_eq!(exits.map(|address| stage.on_nic(address)), [None, None], "it was never added");
    stage.holds_back();
    // It is asked for again.
    thief.netns.ip("link set eth0 down");
    stage.await_exits(&exits);
    stage.serves(&exits);
    // Whoever takes it while the link is away keeps it.
    stage.world.host.ip(&format!("link set {NIC} down"));
    thief.netns.ip(&format!("link set eth0 up\naddr replace {}/64 dev eth0 nodad", exits[1]));
    stage.world.host.ip(&format!("link set {NIC} up"));
    stage.await_reason("AddressDuplicate");
    exits.iter().for_each(|address| stage.await_on_nic(*address, false));
}

pub fn lifetime() {
    let stage = Stage::new();
    let exits = numbered(98);
    let before = stage.world.state();
    stage.manage(&exits);
    let mut egressd = stage.world.egressd_alone();
    stage.await_exits(&exits);
    let there = || exits.map(|address| stage.on_nic(address));
    let first = there();
    egressd.kill();
    assert_eq!(there(), first, "it stays without the daemon");
    stage.serves(&exits);
    egressd.start();
    stage.await_exits(&exits);
    stage.serves(&exits);
    assert_eq!(there(), first, "the daemon finds its own again");
    // Another one, and the open flow goes on by the first until it ends.
    let mut open = Flow::open(&stage.blue.netns, (SERVER, PORT).into()).expect("it is bound");
    assert_eq!(open.seen.ip(), exits[0]);
    stage.manage(&numbered(99));
    stage.await_exits(&numbered(99));
    stage.serves(&numbered(99));
    open.ask().expect("the open flow keeps its address");
    open.close().expect("it ends");
    for (family, address) in ["ipv4", "ipv6"].into_iter().zip(exits) {
        stage.world.host.run(&["conntrack", "-D", "-f", family, "--reply-dst", &address.to_string()]);
    }
    // It is gone when the daemon has looked whether flows bear it.
    egressd.kill();
    egressd.start();
    exits.iter().for_each(|address| stage.await_on_nic(*address, false));
    stage.await_exits(&numbered(99));
    stage.world.unbind("blue");
    numbered(99).iter().for_each(|address| stage.await_on_nic(*address, false));
    stage.manage(&exits);
    stage.await_exits(&exits);
    egressd.stop();
    stage.world.cleanup();
    before.assert_same(&stage.world.state(), "all that was added is taken away");
}

pub fn foreign() {
    let stage = Stage::new();
    let exits = numbered(98);
    stage.world.host.ip(&format!("addr add {}/24 dev {NIC}\naddr add {}/64 dev {NIC} nodad", exits[0], exits[1]));
    let there = || exits.map(|address| stage.on_nic(address));
    let first = there();
    stage.manage(&exits);
    let mut egressd = stage.world.egressd_alone();
    stage.await_exits(&exits);
    stage.serves(&exits);
    assert_eq!(there(), first, "it is there already");
    stage.world.unbind("blue");
    stage.world.await_handled();
    assert_eq!(there(), first);
    egressd.stop();
    stage.world.cleanup();
    assert_eq!(there(), first);
}

pub fn refused() {
    let stage = Stage::new();
    let _egressd = stage.world.egressd_alone();
    for (address, reason, cure) in [
        ("10.77.0.5", "NoNicForAddress", "name the NIC"),
        ("10.5.0.255", "NotAHostAddress", "name another address"),
        ("10.5.0.0", "NotAHostAddress", "name another address"),
    ] {
        stage.world.bind(&Binding::of(&stage.blue.netns).with(&format!("exits: [{{address: {address}, assignment: Managed}}]")));
        until(reason, || {
            let status = stage.world.status();
            let row = status["workloads"].as_array().into_iter().flatten().find(|row| row["reason"] == reason).cloned();
            match row.and_then(|row| row["message"].as_str().map(str::to_owned)) {
                Some(message) if message.contains(cure) && message.contains(address) => Ok(()),
                other => Err(format!("{other:?} of {status:#}")),
            }
        });
    }
    // The router has it.
    let own = stage.router.own().map(|own| format!("{{address: '{own}', assignment: Managed}}"));
    stage.world.bind(&Binding::of(&stage.blue.netns).with(&format!("exits: [{}]", own.join(", "))));
    stage.await_reason("AddressDuplicate");
}
