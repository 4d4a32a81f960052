//! What `ip` writes of links and addresses is read completely.

use nix::libc;

use super::*;
use crate::wire::Received;

#[test]
fn what_a_link_is_and_what_it_is_built_upon_is_read() {
    alone_async(async || {
        run("ip link add eth1 type veth peer name wire
             ip link add link eth1 name mac1 type macvlan
             ip link add vx5 type vxlan id 5 dev eth1 dstport 4789
             ip tuntap add tun0 mode tun
             ip tuntap add tap0 mode tap
             ip link add other type bridge
             ip link set dev mac1 arp off
             ip netns add blue
             ip link add near type veth peer name far netns blue
             ip link add link eth1 name there netns blue type macvlan");
        let facts = Heard::start().await.facts;
        let link = |name| named(&facts, name).unwrap();
        let lower = |name| link(name).lower.map(|index| facts.links[&index].name.clone());
        assert_eq!(link("vx5").kind, LinkKind::Other("vxlan".to_owned()));
        assert_eq!((&link("mac1").kind, lower("mac1").as_deref()), (&LinkKind::Macvlan, Some("eth1")));
        assert_eq!((lower("eth1").as_deref(), lower("wire").as_deref()), (Some("wire"), Some("eth1")));
        assert_eq!((lower("near"), link("near").far_end().is_some()), (None, true));
        assert_eq!(lower("other"), None);
        let tun = link("tun0");
        assert_eq!((&tun.kind, tun.point_to_point, tun.no_arp), (&LinkKind::Tun, true, true));
        assert_eq!((link("tap0").point_to_point, link("tap0").no_arp), (false, false));
        assert_eq!((link("mac1").point_to_point, link("mac1").no_arp), (false, true));
    });
}

/// As bytes, since not every kernel can make such links.
#[test]
fn a_vrf_tells_its_table() {
    let attribute = |kind: u16, value: &[u8]| -> Vec<u8> {
        let mut bytes = [(value.len() as u16 + 4).to_ne_bytes(), kind.to_ne_bytes()].concat();
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    };
    let data = attribute(libc::IFLA_INFO_DATA, &attribute(1, &100_u32.to_ne_bytes()));
    let told = |kind: &[u8]| {
        let information = attribute(libc::IFLA_LINKINFO, &[attribute(libc::IFLA_INFO_KIND, kind), data.clone()].concat());
        let payload = [vec![0; 16], information].concat();
        let message = Received { kind: libc::RTM_NEWLINK, flags: 0, sequence: 0, port: 0, payload: &payload };
        wire::link(&message).map(|link| (link.kind, link.vrf)).unwrap()
    };
    assert_eq!(told(b"vrf\0"), (LinkKind::Vrf, Some(100)));
    assert_eq!(told(b"vlan\0"), (LinkKind::Vlan, None));
    assert_eq!(told(b"team\0"), (LinkKind::Other("team".to_owned()), None));
}

#[test]
fn what_an_address_is_for_is_read() {
    alone_async(async || {
        run("ip link add eth1 type veth peer name wire
             ip link set wire up
             ip link set eth1 up
             ip tuntap add tun0 mode tun
             ip address add 10.1.0.14/24 dev eth1
             ip address add 10.1.0.15/24 dev eth1
             ip address add 10.1.0.15/32 dev eth1 scope link
             ip address add 10.9.0.1 peer 10.9.0.2 dev tun0
             ip address add fd00:1::14/64 nodad dev eth1 preferred_lft 0");
        let mut heard = Heard::start().await;
        let all = |facts: &KernelFacts, net: &str| -> Option<Address> {
            let net = net.parse().unwrap();
            facts.addresses.values().flatten().find(|address| address.net == net).copied()
        };
        let address = |net: &str| {
            let address = all(&heard.facts, net).unwrap();
            assert!(address.added > 0, "{address:?}");
            Address { added: 0, ..address }
        };
        let plain = |net: &str| Address::new(net.parse().unwrap());
        assert_eq!(address("10.1.0.14/24"), plain("10.1.0.14/24"));
        assert_eq!(address("10.1.0.15/24"), Address { primary: false, ..plain("10.1.0.15/24") });
        assert_eq!(address("10.1.0.15/32"), Address { scope: 253, ..plain("10.1.0.15/32") });
        assert_eq!(address("10.9.0.1/32"), Address { peer: Some(ip("10.9.0.2")), ..plain("10.9.0.1/32") });
        assert_eq!(address("fd00:1::14/64"), Address { deprecated: true, ..plain("fd00:1::14/64") });
        run("ip address del 10.1.0.15/32 dev eth1");
        heard.until("its end", |facts| all(facts, "10.1.0.15/32").is_none()).await;
        assert!(all(&heard.facts, "10.1.0.15/24").is_some(), "with the other prefix length it stays");
    });
}
