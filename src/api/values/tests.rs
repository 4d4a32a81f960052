//! Single values at their edges.

use super::*;

fn refusal<T: std::fmt::Debug>(value: Result<T, Fault>, example: &str) -> String {
    value.expect_err("refused").message(example)
}

#[test]
fn an_exit_address_is_one_that_packets_can_leave_with() {
    assert_eq!(exit_address("172.31.0.14"), Ok("172.31.0.14".parse().expect("an address")));
    assert_eq!(exit_address("2001:db8::14"), Ok("2001:db8::14".parse().expect("an address")));
    for (text, expected) in [
        ("172.31.0.300", "`172.31.0.300` is not an IP address; write for instance `172.31.0.14`"),
        ("172.31.0.14/20", "`172.31.0.14/20` has a prefix length; write `172.31.0.14`"),
        ("::ffff:172.31.0.14", "`::ffff:172.31.0.14` is an IPv4 address in IPv6 form; write `172.31.0.14`"),
        ("127.0.0.1", "`127.0.0.1` is a loopback address; write for instance `172.31.0.14`"),
        ("::1", "`::1` is a loopback address; write for instance `172.31.0.14`"),
        ("0.0.0.0", "`0.0.0.0` is the unspecified address; write for instance `172.31.0.14`"),
        ("::", "`::` is the unspecified address; write for instance `172.31.0.14`"),
        ("224.0.0.1", "`224.0.0.1` is a multicast address; write for instance `172.31.0.14`"),
        ("ff02::1", "`ff02::1` is a multicast address; write for instance `172.31.0.14`"),
        ("255.255.255.255", "`255.255.255.255` is the broadcast address; write for instance `172.31.0.14`"),
        ("0.1.2.3", "`0.1.2.3` is in a reserved range; write for instance `172.31.0.14`"),
        ("fe80::1", "`fe80::1` is a link-local address, which no router forwards; write the address that the NIC has towards its gateway"),
        (
            "169.254.1.1",
            "`169.254.1.1` is a link-local address, which no router forwards; write the address that the NIC has towards its gateway",
        ),
    ] {
        assert_eq!(refusal(exit_address(text), "172.31.0.14"), expected);
    }
}

#[test]
fn a_link_local_gateway_is_usual() {
    assert!(gateway("fe80::1").is_ok());
    assert!(gateway("ff02::2").is_err());
}

#[test]
fn a_gateway_has_its_exits_family_and_is_another_address() {
    let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
    assert_eq!(check_gateway(ip("172.31.0.14"), ip("172.31.0.1")), Ok(()));
    assert_eq!(
        refusal(check_gateway(ip("172.31.0.14"), ip("fe80::1")), ""),
        "`fe80::1` is IPv6, but the exit `172.31.0.14` is IPv4; write the IPv4 gateway of that NIC, or leave it out to have it found"
    );
    assert!(refusal(check_gateway(ip("172.31.0.14"), ip("172.31.0.14")), "").starts_with("`172.31.0.14` is the exit's own address"));
}

#[test]
fn a_subnet_has_a_prefix_length_and_no_host_bits() {
    for text in ["010.0.0.0/8", "10.0.0.0/08", "10.0.0.0/+8", "10.00.0.0/16", "10.0.0.0/", "::/0x0"] {
        assert!(refusal(cidr(text), "10.0.0.0/8").ends_with("is not a subnet; write for instance `10.0.0.0/8`"), "{text}");
    }
    assert!(cidr("10.0.0.0/24").is_ok() && cidr("::/0").is_ok() && cidr("10.0.0.7/32").is_ok());
    for (text, expected) in [
        ("10.0.0.7/24", "`10.0.0.7/24` has host bits set; write `10.0.0.0/24`"),
        ("10.0.0.7", "`10.0.0.7` is not a subnet; write `10.0.0.7/32` for this one address"),
        ("2001:db8::1/64", "`2001:db8::1/64` has host bits set; write `2001:db8::/64`"),
        ("::ffff:10.0.0.0/104", "`::ffff:10.0.0.0/104` is an IPv4 subnet in IPv6 form; write `10.0.0.0/8`"),
        ("10.0.0.0/33", "`10.0.0.0/33` is not a subnet; write for instance `10.0.0.0/8`"),
        ("the internet", "`the internet` is not a subnet; write for instance `10.0.0.0/8`"),
    ] {
        assert_eq!(refusal(cidr(text), "10.0.0.0/8"), expected);
    }
}

#[test]
fn ports_are_a_protocol_and_a_range() {
    assert_eq!(ports("tcp/443"), Ok(Ports { protocol: Protocol::Tcp, first: 443, last: 443 }));
    assert_eq!(ports("UDP/1-65535"), Ok(Ports { protocol: Protocol::Udp, first: 1, last: 65535 }));
    for (text, expected) in [
        ("443", "`443` is not a protocol and a port; write for instance `tcp/443`"),
        ("icmp/8", "`icmp` is not one of `tcp`, `udp`, `sctp`; write for instance `tcp/443`"),
        ("tcp/445-443", "`445-443` is reversed; write `443-445`"),
        ("tcp/0", "`0` is not a port (1 to 65535); write for instance `tcp/443`"),
        ("tcp/65536", "`65536` is not a port (1 to 65535); write for instance `tcp/443`"),
        ("tcp/https", "`https` is not a port or a range of ports (1 to 65535); write for instance `tcp/443`"),
        ("tcp/-5", "`-5` is not a port or a range of ports (1 to 65535); write for instance `tcp/443`"),
    ] {
        assert_eq!(refusal(ports(text), "tcp/443"), expected);
    }
}

#[test]
fn ports_that_overlap_or_adjoin_become_one_range() {
    let read = |texts: &[&str]| merge_ports(texts.iter().map(|t| ports(t).expect("ports")).collect());
    assert_eq!(read(&["tcp/80-90", "tcp/85-100", "tcp/101", "udp/80"]), read(&["udp/80", "tcp/80-101"]));
    assert_eq!(read(&["tcp/65535", "tcp/1-65535", "tcp/5"]), read(&["tcp/1-65535"]));
    assert_eq!(read(&["tcp/80", "tcp/82"]).len(), 2);
}

#[test]
fn an_interface_name_is_one_the_kernel_takes() {
    assert!(interface("eth1").is_ok() && interface("br-0123456789ab").is_ok());
    for text in ["", ".", "..", "eth1/2", "eth 1", "eth:1", "br-0123456789abc", "eth\n1"] {
        assert!(interface(text).is_err(), "{text:?}");
    }
}

#[test]
fn an_error_repeats_a_value_short_and_without_control_characters() {
    assert_eq!(shown("a\x1b[31m\nb"), "`a\\u{1b}[31m\\nb`");
    assert_eq!(shown(&"x".repeat(1_000_000)).chars().count(), 64 + 3);
}

#[test]
fn exits_that_no_destination_can_use_are_warned_of() {
    let exit = |text: &str| ExitSpec::new(text.parse().expect("an address"));
    let to = |text: &str| Destination { cidr: text.parse().expect("a subnet"), except: Vec::new() };
    let said = idle_families(&[exit("172.31.0.14")], &[to("2001:db8::/32")]).expect("a warning");
    assert!(said.starts_with("all exits are IPv4 but all destinations are IPv6"), "{said}");
    assert_eq!(idle_families(&[exit("172.31.0.14")], &[to("2001:db8::/32"), to("0.0.0.0/0")]), None);
    assert_eq!(idle_families(&[exit("172.31.0.14")], &[]), None);
}
