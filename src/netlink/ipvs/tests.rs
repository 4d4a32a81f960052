//! Messages as Linux 6.1 sends them, and those that it takes.

use super::*;
use crate::wire::messages;

/// `ipvsadm -A -t 172.31.0.14:80 -s mh -p 300 -M 255.255.255.0`, without its counters.
const TCP: &str = "01010000540001000600010002000000060002000600000014000300ac1f000e0000000000000000000000000600040000500000070006006d6800000c00070003000000ffffffff080008002c01000008000900ffffff00";
/// `ipvsadm -A -u [fd00::1]:53 -s rr`.
const UDP: &str = "0101000054000100060001000a000000060002001100000014000300fd000000000000000000000000000001060004000035000007000600727200000c00070002000000ffffffff08000800000000000800090080000000";
/// `ipvsadm -a -t 172.31.0.14:80 -r 10.0.0.2:8080 -m -w 3 -x 100 -y 50`.
const SERVER: &str = "0501000078000200140001000a000002000000000000000000000000060002001f9000000800030000000000080004000300000005000d000000000006000e000000000006000f00000000000800050064000000080006003200000008000700010000000800080002000000080009000000000006000b0002000000";
/// `ipvsadm -a -u [fd00::1]:53 -r [fd00::2]:5353 -m -w 0`.
const SERVER6: &str = "050100005800020014000100fd0000000000000000000000000000020600020014e9000008000300000000000800040000000000080005000000000008000600000000000800070000000000080008000000000006000b000a000000";

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn received<T>(hex: &str, read: impl Fn(&Received<'_>) -> T) -> T {
    let payload = bytes(hex);
    read(&Received { kind: 32, flags: 0, sequence: 1, port: 0, payload: &payload })
}

fn called(address: &str, protocol: Protocol, port: u16) -> Called {
    (address.parse().unwrap(), Ports { protocol, first: port, last: port })
}

fn mh() -> Settings {
    Settings { scheduler: "mh".to_owned(), persistence: Some(Persistent { seconds: 300, prefix_length: 24 }), flags: 0 }
}

fn rr() -> Settings {
    Settings { scheduler: "rr".to_owned(), persistence: None, flags: 0 }
}

#[test]
fn services_and_servers_are_read_as_the_kernel_tells_them() {
    assert_eq!(received(TCP, service), Some((called("172.31.0.14", Protocol::Tcp, 80), mh())));
    assert_eq!(received(UDP, service), Some((called("fd00::1", Protocol::Udp, 53), rr())));
    let thresholds = Thresholds { upper: 100, lower: 50 };
    let there = RealServer { forwarding: Forwarding::Nat, weight: 3, thresholds, connections: 3 };
    assert_eq!(received(SERVER, |message| server(message, false)), Some((("10.0.0.2".parse().unwrap(), 8080), there)));
    let drained = RealServer::default();
    assert_eq!(received(SERVER6, |message| server(message, true)), Some((("fd00::2".parse().unwrap(), 5353), drained)));
}

#[test]
fn what_is_cut_short_or_of_a_firewall_mark_is_passed_over() {
    for end in 0..bytes(TCP).len() - 4 {
        let payload = &bytes(TCP)[..end];
        let message = Received { kind: 32, flags: 0, sequence: 1, port: 0, payload };
        assert!(service(&message).is_none_or(|(of, _)| of == called("172.31.0.14", Protocol::Tcp, 80)), "{end} bytes");
    }
    // Its protocol is 0.
    let mark = TCP.replace("0600020006000000", "0600020000000000");
    assert_eq!(received(&mark, service), None);
}

#[test]
fn what_is_written_is_what_is_read() {
    for (of, settings) in [(called("172.31.0.14", Protocol::Tcp, 80), mh()), (called("fd00::1", Protocol::Udp, 53), rr())] {
        let written = change(32, of, &Change::AddService(&settings)).finish(1, 0);
        let message = messages(&written).next().unwrap();
        assert_eq!((message.kind, message.payload[0]), (32, 1));
        assert_eq!(service(&message), Some((of, settings)));
    }
    let endpoint = ("fd00::2".parse().unwrap(), 5353);
    let one = RealServer { weight: 3, thresholds: Thresholds { upper: 9, lower: 4 }, ..RealServer::default() };
    let written = change(32, called("fd00::1", Protocol::Udp, 53), &Change::EditServer(endpoint, &one)).finish(1, 0);
    let message = messages(&written).next().unwrap();
    assert_eq!((message.payload[0], server(&message, true)), (6, Some((endpoint, one))));
}

#[test]
fn masks_with_gaps_are_none_of_ours() {
    for length in [1, 24, 32] {
        assert_eq!(prefix_length(&netmask(length, false), false), length);
    }
    assert_eq!(prefix_length(&[255, 0, 255, 0], false), 0);
    assert_eq!(prefix_length(&netmask(64, true), true), 64);
}
