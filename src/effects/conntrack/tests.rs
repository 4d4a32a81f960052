//! Flows of a real kernel, in namespaces of the test's own.

use std::net::{TcpListener, TcpStream, UdpSocket};

use super::*;
use crate::netlink::testing::{alone, run};

/// Conntrack runs only where somebody's hook asks for it.
fn track() {
    std::fs::write(
        "/run/track.nft",
        "table inet t {
            chain output {
                type filter hook output priority 0
                ct mark set 0x1001
                ct state new counter
            }
            chain nat {
                type nat hook postrouting priority 95
                udp dport 6000 snat ip to 127.0.0.77
            }
        }",
    )
    .unwrap();
    run("ip -6 address add fd00:1::1/128 nodad dev lo
         ip -6 address add fd00:1::2/128 nodad dev lo
         nft -f /run/track.nft");
}

/// Sends one datagram between these, so that there is a flow.
fn send(from: &str, to: &str) {
    UdpSocket::bind(from).unwrap().send_to(b"x", to).unwrap();
}

fn ports(flows: &[Flow]) -> Vec<(u16, u16)> {
    let mut ports: Vec<_> = flows.iter().map(|f| (f.source_port, f.destination_port)).collect();
    ports.sort_unstable();
    ports
}

#[test]
fn a_flow_is_read_with_its_mark_and_the_address_that_the_world_sees() {
    alone(|| {
        track();
        send("127.0.0.1:5000", "127.0.0.2:6000");
        let flows = dump(&mut Flows::open().unwrap(), Family::V4);
        let flow = flows.iter().find(|flow| flow.destination_port == 6000).unwrap();
        assert_eq!((flow.family, i32::from(flow.protocol)), (Family::V4, libc::IPPROTO_UDP));
        assert_eq!((flow.source, flow.source_port), ("127.0.0.1".parse().unwrap(), 5000));
        assert_eq!(flow.destination, "127.0.0.2".parse::<IpAddr>().unwrap());
        assert_eq!(flow.reply_destination, "127.0.0.77".parse::<IpAddr>().unwrap());
        assert_eq!(flow.mark, 0x1001);
        assert_ne!(flow.status & 8, 0, "IPS_CONFIRMED");
        assert_ne!(flow.status & 16, 0, "IPS_SRC_NAT");
        assert!((1..=120).contains(&flow.timeout));
    });
}

#[test]
fn exactly_the_named_flow_is_deleted() {
    alone(|| {
        track();
        let mut flows = Flows::open().unwrap();
        for (family, one, two) in [(Family::V4, "127.0.0.1:5001", "127.0.0.1:7000"), (Family::V6, "[fd00:1::1]:5001", "[fd00:1::2]:7000")] {
            send(one, two);
            send(&one.replace("5001", "5002"), two);
            send(&one.replace("5001", "5003"), two);
            let found = dump(&mut flows, family);
            let udp: Vec<_> = found.into_iter().filter(|flow| flow.protocol == 17).collect();
            assert_eq!(ports(&udp), [(5001, 7000), (5002, 7000), (5003, 7000)]);
            let second = udp.iter().find(|flow| flow.source_port == 5002).unwrap();
            flows.delete(second).unwrap();
            flows.delete(second).unwrap();
            let mut left = dump(&mut flows, family);
            left.retain(|flow| flow.protocol == 17);
            assert_eq!(ports(&left), [(5001, 7000), (5003, 7000)]);
        }
    });
}

#[test]
fn a_flow_that_began_in_a_zone_is_deleted_there_and_nowhere_else() {
    alone(|| {
        track();
        let zone = "table inet z {
            chain output {
                type filter hook output priority -300
            }
        }";
        std::fs::write("/run/zone.nft", zone).unwrap();
        run("nft -f /run/zone.nft");
        let mut flows = Flows::open().unwrap();
        send("127.0.0.1:5004", "127.0.0.1:7000");
        run("nft add rule inet z output udp sport 5004 ct original zone set 77");
        send("127.0.0.1:5004", "127.0.0.1:7000");
        let zones = |flows: &mut Flows| {
            let mut zones: Vec<u16> = dump(flows, Family::V4).iter().filter(|f| f.source_port == 5004).map(|f| f.own_zone).collect();
            zones.sort_unstable();
            zones
        };
        assert_eq!(zones(&mut flows), [0, 77]);
        let own = dump(&mut flows, Family::V4).into_iter().find(|flow| flow.own_zone == 77).unwrap();
        flows.delete(&own).unwrap();
        assert_eq!(zones(&mut flows), [0]);
    });
}

#[test]
fn a_later_flow_with_the_same_tuple_is_left_alone() {
    alone(|| {
        track();
        let mut flows = Flows::open().unwrap();
        send("127.0.0.1:5001", "127.0.0.1:7000");
        let first = dump(&mut flows, Family::V4).into_iter().find(|f| f.source_port == 5001);
        let other = Flow { id: first.unwrap().id.wrapping_add(1), ..first.unwrap() };
        flows.delete(&other).unwrap();
        let left = dump(&mut flows, Family::V4);
        assert!(left.iter().any(|flow| flow.source_port == 5001));
    });
}

#[test]
fn a_flow_that_the_kernel_refuses_to_delete_does_not_keep_the_others() {
    alone(|| {
        track();
        let mut flows = Flows::open().unwrap();
        for from in ["127.0.0.1:5001", "127.0.0.1:5002"] {
            send(from, "127.0.0.1:7000");
        }
        let mut chosen = dump(&mut flows, Family::V4);
        // An IPv6 tuple of IPv4 addresses is no tuple.
        let refused = Flow { family: Family::V6, ..chosen[0] };
        chosen.insert(0, refused);
        let ended = flows.delete_all(chosen);
        assert_eq!(ended.left, [refused]);
        assert!(ended.error.unwrap().to_string().contains("127.0.0.1"));
        assert!(dump(&mut flows, Family::V4).is_empty());
    });
}

fn dump(flows: &mut Flows, family: Family) -> Vec<Flow> {
    let mut all = Vec::new();
    flows.for_each(|flow| all.push(flow)).unwrap();
    all.retain(|flow| flow.family == family);
    all
}

#[test]
fn tcp_and_icmp_flows_of_both_families_are_deleted_too() {
    alone(|| {
        track();
        let mut flows = Flows::open().unwrap();
        run("ping -c 1 -W 1 127.0.0.1 >/dev/null
             ping -c 1 -W 1 fd00:1::1 >/dev/null");
        let listeners = ["127.0.0.1:7000", "[fd00:1::1]:7000"].map(|at| TcpListener::bind(at).unwrap());
        let _open = listeners.each_ref().map(|l| TcpStream::connect(l.local_addr().unwrap()).unwrap());
        for (family, icmp) in [(Family::V4, 1), (Family::V6, 58)] {
            let found = dump(&mut flows, family);
            for protocol in [6, icmp] {
                let flow = found.iter().find(|f| f.protocol == protocol).unwrap();
                flows.delete(flow).unwrap();
                let mut left = 0;
                flows.for_each(|f| left += usize::from(f.id == flow.id)).unwrap();
                assert_eq!(left, 0, "{flow:?}");
            }
        }
    });
}
