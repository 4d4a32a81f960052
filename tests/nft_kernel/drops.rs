//! Sets that count what is dropped, filled by the kernel: exact counts, no more elements than there may be, no drift, and a listing that loads again.

use std::collections::BTreeMap;
use std::net::UdpSocket;
use std::process::Command;

use egressd::effects::nft::{Nft, drops};
use egressd::nft::build::{oif, rule, saddr};
use egressd::nft::{Chain, ChainKind, Change, Datatype, Family, Hook, Ruleset, Set, Table};
use egressd::plan::datapath::drops::{GUARD, links, sources};

use crate::lab::*;
use crate::plan::wanted;

const DAY: u64 = 86_400_000;
/// `LOOPBACK_IFINDEX`.
const LO: u32 = 1;

/// Counts what leaves by an interface, of two sources at most.
fn counting() -> Ruleset {
    let (by_link, by_source) = (links(GUARD), sources(GUARD, false));
    let rules = [
        rule().count_in(&by_link, [oif()], DAY).done(),
        rule().count_in(&by_source, [oif(), saddr(false)], DAY).done(),
        rule().counter(GUARD).accept(),
    ];
    let mut table = Table::default();
    table.chains.insert("output".into(), Chain::base(ChainKind::Filter, Hook::Output, 0, rules));
    table.sets.insert(by_link, Set::of([Datatype::IfIndex]).filled_by_rules(4));
    table.sets.insert(by_source, Set::of([Datatype::IfIndex, Datatype::Ipv4]).filled_by_rules(2));
    Ruleset { tables: [(Family::Ip, table)].into() }
}

fn send(from: [u8; 4], packets: usize) {
    let socket = UdpSocket::bind((std::net::IpAddr::from(from), 0)).unwrap();
    // Its own port: nobody answers.
    let to = socket.local_addr().unwrap();
    (0..packets).for_each(|_| assert_eq!(socket.send_to(b"?", to).unwrap(), 1));
}

/// By reason, by interface, and by source.
fn read() -> (u64, BTreeMap<u32, u64>, BTreeMap<String, u64>) {
    let all = drops().unwrap();
    let by_source = all.by_source.iter().map(|((link, source), reasons)| {
        assert_eq!(*link, LO);
        (source.to_string(), reasons[GUARD])
    });
    let by_link = all.by_link.iter().map(|((reason, family, link), packets)| {
        assert_eq!((*reason, family.as_str()), (GUARD, "ip"));
        (*link, *packets)
    });
    (all.by_reason.iter().map(|(_, _, packets)| packets).sum(), by_link.collect(), by_source.collect())
}

/// What `nft` lists of these tables, and has loaded again.
fn listed_and_loaded(nft: &mut Nft, families: &[Family]) -> String {
    let listing = golden_listing().replace("\tflags owner\n\n", "");
    nft.commit(&families.iter().copied().map(Change::DeleteTable).collect::<Vec<_>>()).unwrap();
    let output = load(&listing);
    assert!(output.status.success(), "{}\n{listing}", String::from_utf8_lossy(&output.stderr));
    listing
}

#[test]
fn the_chains_that_count_are_listed_and_loaded_in_every_family() {
    in_namespace(|| {
        let mut wanted = wanted();
        for table in wanted.tables.values_mut() {
            table.chains.retain(|name, _| name.starts_with("drop-"));
            table.sets.retain(|name, _| name.starts_with("dropped-"));
        }
        assert_eq!(wanted.tables.len(), Family::ALL.len());
        let mut nft = Nft::open().unwrap();
        put(&mut nft, &wanted);
        assert_eq!(nft.read().unwrap(), wanted);
        let listing = listed_and_loaded(&mut nft, &Family::ALL);
        // `nft` says of a reset what it goes without saying.
        assert_eq!(golden_listing().replace("meta l4proto tcp counter", "counter"), listing);
        for reason in ["Guard", "NoExit", "Seal", "ForeignMark", "Departed", "ServerLimit", "ClientLimit", "Rate", "Spoofed"] {
            assert!(listing.contains(&format!("comment \"{reason} ")), "{reason}: {listing}");
        }
    });
}

#[test]
fn what_finds_no_room_by_source_is_counted_by_interface_and_reason() {
    in_namespace(|| {
        assert!(Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap().success());
        let mut nft = Nft::open().unwrap();
        let wanted = counting();
        put(&mut nft, &wanted);
        assert_eq!(read(), (0, BTreeMap::new(), BTreeMap::new()), "nothing was sent yet");
        send([127, 0, 0, 1], 3);
        send([127, 0, 0, 2], 1);
        send([127, 0, 0, 3], 5);
        send([127, 0, 0, 1], 1);
        let two = || BTreeMap::from([("127.0.0.1".to_owned(), 4), ("127.0.0.2".to_owned(), 1)]);
        assert_eq!(read(), (10, [(LO, 10)].into(), two()), "the third source finds no room, and those that are there go on");
        assert_eq!(nft.read().unwrap(), wanted, "what rules put in is no drift");
        let listing = listed_and_loaded(&mut nft, &[Family::Ip]);
        assert!(listing.contains("size 2") && listing.contains("\"lo\" . 127.0.0.1 counter packets 4"), "{listing}");
        assert_eq!(read(), (10, [(LO, 10)].into(), two()), "with its counts");
    });
}
