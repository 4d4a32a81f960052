//! Neighbours that send with a bound container's address, whatever its flows do, or say that they have it.

use std::{
    net::IpAddr,
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use world::{
    Binding, Container, Nic, Scenario, World,
    layout::{PORT, SERVER},
    segment::Plain,
    status::until,
    talk::{self, Flow},
};

pub fn scenarios() -> Vec<Scenario> {
    let mut scenarios = vec![Scenario::new("a spoofer gets nothing before, during and after the owner's flow", a_spoofer_around_a_flow)];
    for (what, v6) in [("answers ARP for a bound address", false), ("advertises a bound IPv6 address", true)] {
        scenarios.push(Scenario::new(format!("a neighbour that {what} is not heard"), move || a_thief_of_answers(v6)));
    }
    scenarios
}

/// How many packets leave by any NIC, with any source, when a container sends with an address.
fn sent_as(world: &World, from: &Container, address: IpAddr) -> u64 {
    let ((), seen) = world.watch(|| (0..3).for_each(|_| from.shout_as(address)));
    seen.0.values().sum()
}

fn a_spoofer_around_a_flow() {
    let plain = Plain::new(World::builder().build());
    let (world, blue, spoofer) = (&plain.world, &plain.blue, &plain.free);
    let both: [IpAddr; 2] = [blue.address.into(), blue.address6.into()];
    for address in both {
        spoofer.take(address);
        assert!(sent_as(world, spoofer, address) >= 3, "without egressd nothing holds it");
    }
    world.leaves_by(&blue.netns, Nic::Eth1).expect_err("it is not bound");
    world.bind(&Binding::of(&blue.netns).to(world, Nic::Eth1));
    let _egressd = world.egressd_alone();
    let never = |when: &str| {
        for address in both {
            assert_eq!(sent_as(world, spoofer, address), 0, "{when}: as {address}");
        }
    };
    never("before");
    let mut flow = Flow::open(&blue.netns, (SERVER, PORT).into()).expect("it is bound");
    assert_eq!(flow.seen.ip(), IpAddr::from(Nic::Eth1.eip()));
    never("during");
    assert_eq!(flow.ask().expect("it goes on").ip(), IpAddr::from(Nic::Eth1.eip()));
    flow.close().expect("it ends");
    never("after");
    plain.blue_by_eth1("all the while");
}

/// Whoever is taken for the owner of an address reads what is sent to it.
fn a_thief_of_answers(v6: bool) {
    let plain = Plain::new(World::builder().build());
    let (world, blue, thief) = (&plain.world, &plain.blue, &plain.free);
    let address: IpAddr = if v6 { blue.address6.into() } else { blue.address.into() };
    if v6 {
        // As a proxy it advertises another one's address with a source of its own, which no look at sources tells from others.
        for (setting, value) in [("conf/all/forwarding", "1"), ("conf/eth0/proxy_ndp", "1"), ("neigh/eth0/proxy_delay", "0")] {
            thief.netns.sysctl(&format!("ipv6/{setting}"), value);
        }
        thief.netns.ip(&format!("neigh add proxy {address} dev eth0"));
    } else {
        thief.take(address);
    }
    let hardware = thief.netns.run(&["ip", "-j", "link", "show", "eth0"]);
    let hardware: Value = serde_json::from_str(&hardware).expect("ip prints JSON");
    let hardware = hardware[0]["address"].as_str().expect("it has a NIC");
    blue.netns.nft(SILENT);
    ask_for(world, address);
    until("the thief is heard without egressd", || match neighbour(world, address) {
        heard if heard.contains(hardware) => Ok(()),
        other => Err(other),
    });
    blue.netns.nft(SPEAKING);
    world.leaves_by(&blue.netns, Nic::Eth1).expect_err("it is not bound");
    world.bind(&Binding::of(&blue.netns).to(world, Nic::Eth1));
    let mut egressd = world.egressd_alone();
    let not_heard = |when: &str| {
        blue.netns.nft(SILENT);
        ask_for(world, address);
        let began = Instant::now();
        while began.elapsed() < ASKED {
            let known = neighbour(world, address);
            assert!(!known.contains(hardware), "{when}: the thief is heard: {known}");
            thread::sleep(Duration::from_millis(50));
        }
        blue.netns.nft(SPEAKING);
        world.host.ip("neigh flush dev plain0");
        plain.blue_by_eth1(when);
    };
    not_heard("alive");
    egressd.kill();
    not_heard("dead");
}

/// Somewhat longer than the kernel asks for whom it does not find: three times, one second apart (`mcast_solicit`, arp(7)).
const ASKED: Duration = Duration::from_millis(3_200);

/// An owner that tells nobody where its address is: so the thief alone does.
const SILENT: &str = "
    table arp silent { chain out { type filter hook output priority 0; arp operation { request, reply } drop; }; }
    table ip6 silent { chain out { type filter hook output priority 0; icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } drop; }; }
";
/// The end of that.
const SPEAKING: &str = "delete table arp silent\ndelete table ip6 silent\n";

/// The host forgets where an address is, and asks for it.
fn ask_for(world: &World, address: IpAddr) {
    world.host.ip("neigh flush dev plain0");
    let from = if address.is_ipv4() { IpAddr::from([0; 4]) } else { IpAddr::from([0; 16]) };
    talk::shout(&world.host, from, (address, PORT).into());
}

/// What the host knows of where an address is. Whom it did not find it forgets, also early where all namespaces together have more than 128
/// neighbours: then it asks again.
fn neighbour(world: &World, address: IpAddr) -> String {
    let known = world.host.run(&["ip", "neigh", "show", &address.to_string(), "dev", "plain0"]);
    if known.is_empty() {
        ask_for(world, address);
    }
    known
}
