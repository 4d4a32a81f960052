//! What is dropped is counted: by reason, by the interface that it came in by, and by workload.

use std::net::{IpAddr, UdpSocket};

use serde_json::Value;
use world::{
    Binding, Container, Nic, World,
    layout::{PORT, SERVER},
    status::until,
    talk::{PATIENCE, shout},
    traffic::nobody,
};

use crate::bound;

/// What status and metrics tell of what was dropped.
struct Counts<'a>(&'a World);

impl Counts<'_> {
    /// By reason, as status and metrics say alike.
    fn of(&self, reason: &str, family: &str) -> Option<u64> {
        let told = self.told(reason, family)?["packets"].as_u64();
        let labels = format!("{{reason=\"{reason}\",family=\"{family}\"}}");
        assert_eq!(told, Some(self.0.metric(&format!("egressd_dropped_packets_total{labels}"))), "status and metrics say the same");
        told
    }

    /// The same by interface.
    fn by(&self, interface: &str, reason: &str, family: &str) -> u64 {
        let told = self.told(reason, family).unwrap_or_default();
        let mut by = told["interfaces"].as_array().into_iter().flatten();
        let Some(packets) = by.find(|by| by["interface"] == interface).and_then(|by| by["packets"].as_u64()) else { return 0 };
        let labels = format!("{{reason=\"{reason}\",family=\"{family}\",interface=\"{interface}\"}}");
        assert_eq!(
            packets,
            self.0.metric(&format!("egressd_dropped_packets_by_interface_total{labels}")),
            "status and metrics say the same"
        );
        packets
    }

    /// The same by a workload's address: `2 NoExit`.
    fn of_workload(&self, address: &str) -> String {
        let status = self.0.status();
        let rows = status["workloads"].as_array().into_iter().flatten().filter(|row| row["address"] == address);
        let dropped = rows.flat_map(|row| row["dropped"].as_array().into_iter().flatten());
        dropped.map(|one| format!("{} {}", one["packets"], one["reason"].as_str().unwrap_or("?"))).collect::<Vec<_>>().join(", ")
    }

    fn told(&self, reason: &str, family: &str) -> Option<Value> {
        let status = self.0.status();
        let mut all = status["dropped"].as_array()?.iter();
        all.find(|one| one["reason"] == reason && one["family"] == family).cloned()
    }
}

/// Containers of a bridge, of which the first two are bound to eth1.
fn stage(world: &World) -> [Container; 3] {
    let bridge = world.bridge("plain0", 28);
    world.masquerade(&bridge);
    let all = [("blue", 10), ("green", 12), ("thief", 11)].map(|(name, number)| world.container(name, &bridge, number));
    all[..2].iter().for_each(|one| world.bind(&Binding::of(&one.netns).to(world, Nic::Eth1)));
    all
}

/// All that is bound has no exit any more.
fn without_exit(world: &World) {
    world.host.run(&["ip", "link", "set", "eth1", "down"]);
    world.await_handled();
}

pub fn by_reason_bridge_and_workload() {
    let world = World::builder().build();
    let [blue, green, thief] = stage(&world);
    let mut egressd = world.egressd_alone();
    [&blue, &green].iter().for_each(|one| bound(&world, one));
    let counts = Counts(&world);
    let of = |container: &Container| counts.of_workload(&container.address.to_string());
    assert_eq!((counts.of("Spoofed", "bridge"), counts.of("NoExit", "ip")), (Some(0), Some(0)), "nothing is wrong yet");
    thief.take(blue.address.into());
    // It knows its router from here on: else its first question for that, by the other's address, would be all that is seen of it.
    thief.shout_as(thief.address.into());
    (0..3).for_each(|_| thief.shout_as(blue.address.into()));
    assert_eq!((counts.of("Spoofed", "bridge"), counts.by("plain0", "Spoofed", "bridge")), (Some(3), 3), "by the bridge of its port");
    assert_eq!((of(&blue).as_str(), of(&green).as_str()), ("", ""), "it is another one that sent them");
    without_exit(&world);
    blue.shout_as(blue.address.into());
    assert_eq!((counts.of("NoExit", "ip"), counts.by("plain0", "NoExit", "ip")), (Some(1), 1));
    assert_eq!((of(&blue).as_str(), of(&green).as_str()), ("1 NoExit", ""), "its own alone");
    assert_eq!(counts.of_workload(&blue.address6.to_string()), "", "it has sent nothing in the other family");
    assert_eq!(counts.of("Spoofed", "bridge"), Some(3), "what was counted stays");
    let told = world.egressctl(&["status"]).expect("it answers");
    assert!(told.contains("packets dropped: 1 NoExit (ip: plain0 1), 3 Spoofed (bridge: plain0 3)"), "{told}");
    assert!(told.contains(&format!("netns/blue ({}): packets dropped: 1 NoExit\n", blue.address)), "{told}");
    let explained = |name: &str| world.egressctl(&["explain", name]).expect("it answers");
    assert!(explained("netns/blue").contains("packets dropped: 1 NoExit\n"), "{}", explained("netns/blue"));
    assert!(!explained("netns/green").contains("packets dropped"), "{}", explained("netns/green"));
    // What leaves is not counted.
    world.host.run(&["ip", "link", "set", "eth1", "up"]);
    until("it has its exit again", || world.leaves_by_to(&blue.netns, Nic::Eth1, (SERVER, PORT).into()));
    let before = of(&blue);
    blue.shout_as(blue.address.into());
    assert_eq!(of(&blue), before);
    // A restart changes nothing of it.
    let counted = counts.of("NoExit", "ip");
    egressd.kill();
    egressd.start();
    world.await_ready();
    assert_eq!((counts.of("NoExit", "ip"), of(&blue), world.metric("egressd_kernel_changes_total")), (counted, before, 0));
}

pub fn more_sources_than_remembered() {
    let world = World::builder().ipv6(false).build();
    let [blue, green, _] = stage(&world);
    // A subnet of many sources, all of which may send. They are behind one neighbour: of neighbours the kernel has a thousand, in all namespaces
    // together, and other tests need theirs.
    let lan = world.lan();
    world.host.ip(&format!("route add 10.9.0.0/16 via {} dev lan0", lan.address));
    lan.netns.ip("route add local 10.9.0.0/16 dev lo");
    world.bind(&Binding::new("lan", "addresses: [10.9.0.0/16]").to(&world, Nic::Eth1));
    let _egressd = world.egressd_alone();
    [&blue, &green].iter().for_each(|one| bound(&world, one));
    let counts = Counts(&world);
    let of = |container: &Container| counts.of_workload(&container.address.to_string());
    without_exit(&world);
    blue.shout_as(blue.address.into());
    for number in 0..5000_u16 {
        let [high, low] = number.to_be_bytes();
        shout(&lan.netns, IpAddr::from([10, 9, 1 + high, low]), nobody([0; 4].into()));
    }
    assert_eq!((counts.of("NoExit", "ip"), counts.by("lan0", "NoExit", "ip")), (Some(5001), 5000), "all of them");
    assert_eq!(counts.of_workload("10.9.0.0/16"), "4095 NoExit", "beside the one that was there before");
    // Who is remembered goes on being counted.
    blue.shout_as(blue.address.into());
    green.shout_as(green.address.into());
    assert_eq!((of(&blue).as_str(), of(&green).as_str()), ("2 NoExit", ""));
    assert_eq!((counts.of("NoExit", "ip"), counts.by("plain0", "NoExit", "ip")), (Some(5003), 3));
    // None of it is a change of the tables.
    world.await_handled();
    assert_eq!(world.metric("egressd_drift_total"), 0);
}

pub fn of_translated_flows() {
    let world = World::builder().ipv6(false).build();
    let [blue, green, _] = stage(&world);
    let mut egressd = world.egressd_alone();
    [&blue, &green].iter().for_each(|one| bound(&world, one));
    let socket = blue.netns.enter(|| UdpSocket::bind("0.0.0.0:0")).expect("a port is free");
    socket.set_read_timeout(Some(PATIENCE)).expect("it is a socket");
    let send = || socket.send_to(b"who am I?\n", (SERVER, PORT)).expect("its route is there");
    send();
    socket.recv(&mut [0; 128]).expect("it leaves by its exit");
    // Another program takes the rules away while nobody can put them back.
    egressd.kill();
    world.host.run(&["sh", "-c", "while ip -4 rule del preference 1561 2>/dev/null; do :; done"]);
    let ((), seen) = world.watch(|| (0..3).for_each(|_| assert_eq!(send(), 10)));
    assert!(seen.is_empty(), "{seen}");
    egressd.start();
    world.await_ready();
    let counts = Counts(&world);
    assert_eq!((counts.of("Seal", "ip"), counts.by("plain0", "Seal", "ip")), (Some(3), 3));
    let of = |container: &Container| counts.of_workload(&container.address.to_string());
    assert_eq!((of(&blue).as_str(), of(&green).as_str()), ("3 Seal", ""), "whatever address the packets had by then");
}
