//! Frames with VLAN tags, which hide what they carry from who looks at the frame alone.

use std::net::IpAddr;

use serde_json::Value;
use world::{
    Binding, Container, Netns, Nic, Scenario, World,
    layout::{PORT, SERVER, SERVER6},
    segment::Plain,
    status::until,
};

pub fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new("what a neighbour hides behind VLAN tags leaves by nobody's exit", hidden_packets),
        Scenario::new("a neighbour that answers ARP behind VLAN tags is not heard", hidden_answers),
        Scenario::new("frames of other VLANs pass a guarded bridge", other_vlans),
    ]
}

/// The customer's tag, and the provider's; with the number 0 and a priority, and with others.
const C: &str = "81000000";
const C_FIRST: &str = "8100e000";
const S: &str = "88a80000";
const C5: &str = "81000005";
const S7: &str = "88a80007";

/// All that the kernel takes off on the way to the bridge's own address.
const HIDING: [&[&str]; 4] = [&[C, C], &[S, C], &[C_FIRST, C_FIRST], &[C, C, C]];

fn hidden_packets() {
    let plain = Plain::new(World::builder().build());
    let (world, blue, thief) = (&plain.world, &plain.blue, &plain.free);
    let addresses: [IpAddr; 2] = [blue.address.into(), blue.address6.into()];
    let sent = |tags: &[&str], as_: IpAddr| {
        let ((), seen) = world.watch(|| (0..3).for_each(|_| send(&thief.netns, &bridge(world), tags, &datagram(as_))));
        seen.0.values().sum::<u64>()
    };
    for tags in HIDING {
        for address in addresses {
            assert!(sent(tags, address) >= 3, "without egressd nothing holds it: {tags:?} {address}");
        }
    }
    world.bind(&Binding::of(&blue.netns).to(world, Nic::Eth1));
    let mut egressd = world.egressd_alone();
    let none = |when: &str| {
        for tags in HIDING {
            for address in addresses {
                assert_eq!(sent(tags, address), 0, "{when}: {tags:?} {address}");
            }
        }
        plain.blue_by_eth1(when);
    };
    none("alive");
    let dropped = world.status()["dropped"].to_string();
    assert!(dropped.contains("Spoofed"), "it is counted: {dropped}");
    egressd.kill();
    none("dead");
}

fn hidden_answers() {
    let plain = Plain::new(World::builder().build());
    let (world, blue, thief) = (&plain.world, &plain.blue, &plain.free);
    let own = hardware(&thief.netns, "eth0");
    let answers = |tags: &[&str]| {
        // That of who is asked is not newer than a second (`locktime`), or it would not be heard either.
        world.host.ip(&format!("neigh replace {} lladdr 02:00:00:00:00:99 dev plain0 nud stale", blue.address));
        (0..3).for_each(|_| send(&thief.netns, &bridge(world), tags, &arp_answer(&own, blue, world)));
        let known = world.host.run(&["ip", "neigh", "show", &blue.address.to_string(), "dev", "plain0"]);
        known.replace(':', "").contains(&own)
    };
    world.host.sysctl("ipv4/neigh/plain0/locktime", "0");
    for tags in HIDING {
        until("it is heard without egressd", || if answers(tags) { Ok(()) } else { Err(format!("{tags:?}")) });
    }
    world.bind(&Binding::of(&blue.netns).to(world, Nic::Eth1));
    let _egressd = world.egressd_alone();
    for tags in HIDING {
        (0..5).for_each(|_| assert!(!answers(tags), "{tags:?}"));
    }
    world.host.ip("neigh flush dev plain0");
    plain.blue_by_eth1("all the while");
}

fn other_vlans() {
    let plain = Plain::new(World::builder().build());
    let (world, blue, free) = (&plain.world, &plain.blue, &plain.free);
    world.bind(&Binding::of(&blue.netns).to(world, Nic::Eth1));
    let _egressd = world.egressd_alone();
    plain.blue_by_eth1("it is bound");
    let to = hardware(&blue.netns, "eth0");
    for tags in [&[C5][..], &[S7, C5]] {
        let before = received(&blue.netns);
        (0..50).for_each(|_| send(&free.netns, &to, tags, &datagram(free.address.into())));
        until("they arrive", || match received(&blue.netns) - before {
            50.. => Ok(()),
            fewer => Err(format!("{tags:?}: {fewer}")),
        });
    }
}

/// Sends a frame as it is: to a hardware address, behind tags, an ethertype with what it carries.
fn send(from: &Netns, to: &str, tags: &[&str], carried: &str) {
    const SEND: &str =
        "import socket, sys; s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW); s.bind(('eth0', 0)); s.send(bytes.fromhex(sys.argv[1]))";
    let frame = [to, &hardware(from, "eth0"), &tags.concat(), carried].concat();
    from.run(&["python3", "-c", SEND, &frame]);
}

/// A datagram of two bytes to the internet, without a checksum.
fn datagram(from: IpAddr) -> String {
    let udp = format!("9c40{PORT:04x}000a00003f0a");
    match from {
        IpAddr::V4(from) => {
            let header = [0x45, 0, 0, 30, 0, 0, 0, 0, 64, 17, 0, 0].into_iter().chain(from.octets()).chain(SERVER.octets());
            let mut header: Vec<u8> = header.collect();
            let checksum = checksum(&header).to_be_bytes();
            header[10..12].copy_from_slice(&checksum);
            format!("0800{}{udp}", hexadecimal(header))
        }
        IpAddr::V6(from) => {
            let header = [0x60, 0, 0, 0, 0, 10, 17, 64].into_iter().chain(from.octets()).chain(SERVER6.octets());
            format!("86dd{}{udp}", hexadecimal(header))
        }
    }
}

/// "The address of `owner` is at `own`", told to the bridge (RFC 826).
fn arp_answer(own: &str, owner: &Container, world: &World) -> String {
    let owner = owner.address.octets();
    let [owner, host] = [owner, [owner[0], owner[1], 0, 1]].map(hexadecimal);
    format!("08060001080006040002{own}{owner}{}{host}", bridge(world))
}

/// RFC 1071.
fn checksum(header: &[u8]) -> u16 {
    let words = header.chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1]));
    let sum = words.sum::<u32>();
    !((sum & 0xffff) + (sum >> 16)) as u16
}

fn hexadecimal(bytes: impl IntoIterator<Item = u8>) -> String {
    bytes.into_iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The bridge's own hardware address.
fn bridge(world: &World) -> String {
    hardware(&world.host, "plain0")
}

fn hardware(netns: &Netns, link: &str) -> String {
    let links: Value = serde_json::from_str(&netns.run(&["ip", "-j", "link", "show", link])).expect("ip prints JSON");
    links[0]["address"].as_str().expect("it has one").replace(':', "")
}

fn received(netns: &Netns) -> u64 {
    let links: Value = serde_json::from_str(&netns.run(&["ip", "-j", "-s", "link", "show", "eth0"])).expect("ip prints JSON");
    links[0]["stats64"]["rx"]["packets"].as_u64().expect("a number")
}
