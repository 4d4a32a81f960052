//! Frames on a real link, in namespaces of the test's own.

use super::*;
use crate::netlink::testing::{alone, run};

const OTHER: Mac = [2, 0, 0, 0, 0, 9];

#[test]
fn a_socket_hears_of_the_addresses_that_it_is_opened_for_and_of_no_others() {
    alone(|| {
        run("ip link add eth1 type veth peer name wire
             ip link set eth1 up
             ip link set wire up");
        let index = |name: &str| -> IfIndex { run(&format!("ip -o link show {name} | cut -d: -f1")).trim().parse().unwrap() };
        let (eth1, wire) = (index("eth1"), index("wire"));
        for (family, prefix) in [(Family::V4, "10.5.0."), (Family::V6, "fd10:5::")] {
            let ip = |last: u32| -> IpAddr { format!("{prefix}{last}").parse().unwrap() };
            let other = Neighbours::open(wire, family, Some(&BTreeSet::new())).unwrap();
            let some = BTreeSet::from([ip(1), ip(98)]);
            let sockets = [Some(&some), None].map(|only| Neighbours::open(eth1, family, only).unwrap());
            for number in 0..200 {
                other.send(&neighbour::announce(ip(number), OTHER)).unwrap();
            }
            let heard = |socket: &Neighbours| -> BTreeSet<IpAddr> {
                socket.claims(Instant::now() + Duration::from_millis(50)).map(|claim| claim.address).collect()
            };
            let [of_some, of_all] = sockets.each_ref().map(heard);
            assert_eq!(of_some, some);
            assert_eq!(of_all, (0..200).map(ip).collect(), "the control");
        }
    });
}

#[test]
fn a_program_for_more_addresses_than_the_kernel_takes_is_not_written() {
    let many = |most: u128| -> BTreeSet<IpAddr> { (1..=most).map(|last| std::net::Ipv6Addr::from(last).into()).collect() };
    let length = |most| filter::of(Family::V6, Some(&many(most))).map(|program| program.len());
    assert_eq!(length(400), Some(7 + 9 * 400 + 1));
    assert_eq!(length(1000), Some(8), "all of neighbour discovery");
}
