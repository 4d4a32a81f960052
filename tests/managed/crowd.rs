//! Many addresses, programs that take them away, and addresses that are others' whatever is heard on the link.

use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;

use serde_json::Value;
use world::{Binding, service::Service, status::until};

use crate::stage::{NIC, SUBNET, Stage, numbered};

/// Of 10.6.0.0/22, the addresses that nobody has.
const FREE: std::ops::Range<u32> = 1000..1023;

fn crowded(number: u32) -> IpAddr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 6, 0, 0)) + number).into()
}

/// How many addresses of the crowd's subnet the host's NIC has, beside its own.
fn added(stage: &Stage) -> Vec<String> {
    let printed = stage.world.host.run(&["ip", "-4", "-j", "address", "show", "dev", NIC]);
    let printed: Value = serde_json::from_str(&printed).expect("ip prints JSON");
    let all = printed[0]["addr_info"].as_array().into_iter().flatten().filter_map(|one| one["local"].as_str().map(str::to_owned));
    all.filter(|local| local.starts_with("10.6.") && local != "10.6.255.2").collect()
}

pub fn taken() {
    let stage = Stage::new();
    let thief = stage.segment.silent_router("thief", SUBNET, 98);
    thief.netns.ip(&(1..FREE.start).map(|number| format!("addr add {}/16 dev eth0\n", crowded(number))).collect::<String>());
    stage.world.host.ip(&format!("addr add 10.6.255.2/16 dev {NIC}"));
    let exits = format!("exits: [{{addresses: {}-{}, assignment: Managed, gateway: 10.6.255.1}}]", crowded(1), crowded(FREE.end - 1));
    stage.world.bind(&Binding::of(&stage.blue.netns).with(&exits).with("spread: RoundRobin"));
    let _egressd = stage.world.egressd_alone();
    let free: Vec<String> = FREE.map(|number| crowded(number).to_string()).collect();
    until("what is free is added", || match added(&stage) {
        some if free.iter().all(|address| some.contains(address)) => Ok(()),
        some => Err(format!("{} are there", some.len())),
    });
    let mut there = added(&stage);
    there.retain(|address| !free.contains(address));
    assert!(there.is_empty(), "{} addresses of a neighbour were added: {:?} ...", there.len(), there.first());
}

pub fn contested() {
    let stage = Stage::new();
    let exits = numbered(98);
    stage.manage(&exits);
    let _egressd = stage.world.egressd_alone();
    stage.await_exits(&exits);
    // As a network manager does that removes what it does not know, each time that it hears of it.
    let remove = format!("while :; do ip address delete {}/32 dev {NIC} 2>/dev/null || sleep 0.001; done", exits[0]);
    let mut command = Command::new("sh");
    command.args(["-c", &remove]);
    let mut other = Service::start("other", command);
    let said = stage.await_row("AddressContested");
    assert!(said.contains(NIC) && said.contains("ip monitor address"), "{said}");
    stage.await_on_nic(exits[1], true);
    other.kill();
    stage.await_exits(&exits);
    stage.serves(&exits);
}

pub fn known() {
    let stage = Stage::new();
    let [router, router6] = stage.router.own();
    stage.mute(true);
    stage.world.host.ip(&format!("route add 192.0.2.0/24 via {router} dev {NIC}"));
    let _egressd = stage.world.egressd_alone();
    let bind = |exit: &str| stage.world.bind(&Binding::of(&stage.blue.netns).with(&format!("exits: [{{{exit}, assignment: Managed}}]")));
    let workload = stage.blue.address;
    for (exit, reason, word) in [
        (format!("address: {router}"), "NotAHostAddress", "is a gateway"),
        (format!("address: '{router6}', gateway: '{router6}'"), "Invalid", "the exit's own address"),
        (format!("address: {router}, gateway: {router}"), "Invalid", "the exit's own address"),
        (format!("address: {workload}, interface: {NIC}, gateway: {router}"), "NotAHostAddress", "leads to workloads"),
    ] {
        bind(&exit);
        let said = stage.await_row(reason);
        assert!(said.contains(word), "{exit}: {said}");
        stage.world.await_handled();
    }
    bind("address: 'fd10:5::', gateway: 'fd10:5::1'");
    stage.world.await_handled();
    // As long as a probe takes, and as long again.
    std::thread::sleep(std::time::Duration::from_secs(2));
    for address in [router, router6, IpAddr::from(workload), "fd10:5::".parse().expect("an address")] {
        assert_eq!(stage.on_nic(address), None, "{address} is another machine's");
    }
    // The control: nobody has this one, and nobody answers for it either.
    stage.manage(&numbered(98));
    stage.await_exits(&numbered(98));
}

pub fn conflict() {
    let stage = Stage::new();
    let exits = numbered(98);
    let thief = stage.segment.silent_router("thief", SUBNET, 97);
    stage.manage(&exits);
    let _egressd = stage.world.egressd_alone();
    stage.await_exits(&exits);
    let mac = Stage::mac(&thief.netns, "eth0");
    let told = || stage.world.status()["problems"].as_array().into_iter().flatten().filter(|text| text.to_string().contains(&mac)).count();
    assert_eq!(told(), 0, "the control");
    let own = Stage::mac(&stage.world.host, NIC);
    for (address, length) in exits.into_iter().zip([24, 64]) {
        thief.netns.ip(&format!("addr add {address}/{length} dev eth0 nodad"));
        stage.router.netns.run(&["ip", "neigh", "replace", &address.to_string(), "lladdr", &mac, "dev", "eth0", "nud", "reachable"]);
    }
    for setting in ["ipv4/conf/eth0/arp_notify", "ipv6/conf/eth0/ndisc_notify"] {
        thief.netns.sysctl(setting, "1");
    }
    // It tells its neighbours, as one that starts.
    thief.netns.ip("link set eth0 address 02:00:00:00:00:97");
    thief.netns.ip(&format!("link set eth0 address {mac}"));
    until("both are told", || match told() {
        2 => Ok(()),
        told => Err(format!("{told} of {:#}", stage.world.status()["problems"])),
    });
    for address in exits {
        let believed = || stage.router.netns.run(&["ip", "neigh", "show", &address.to_string()]);
        until("the router was told again whose it is", || if believed().contains(&own) { Ok(()) } else { Err(believed()) });
        stage.await_on_nic(address, true);
    }
}
