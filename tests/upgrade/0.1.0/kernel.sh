# What egressd 0.1.0 programs for the manifests of this test. Recorded: see main.rs.
nft -f - <<'END'
table ip egressd {

	map exit_marks {
		type mark : verdict
		elements = { 0x01001002 : goto exit-01001002 }
	}

	map exits {
		type iface_index . mark : ipv4_addr
		elements = { "eth1" . 0x01001002 : 172.31.0.14 }
	}

	map ingress {
		type iface_index : verdict
		elements = { "eth0" : jump arrival-1, "eth1" : jump arrival-2, "plain0" : jump from_open_bridge }
	}

	set inside {
		type iface_index . ipv4_addr
		flags interval
	}

	map nic_marks {
		type mark : verdict
		elements = { 0x00001000 : goto nic-0, 0x00001001 : goto nic-1, 0x00001002 : goto nic-2 }
	}

	set own {
		type iface_index . ipv4_addr
		elements = { "eth0" . 172.31.0.8,
			     "eth1" . 172.31.0.14 }
	}

	map routed {
		type iface_index . ipv4_addr : mark
	}

	map routed_nets {
		type iface_index . ipv4_addr : mark
		flags interval
	}

	map traffic {
		type iface_index . ipv4_addr : verdict
		elements = { "plain0" . 172.28.0.11 : goto traffic-79d6282aa556b5a2 }
	}

	map traffic_nets {
		type iface_index . ipv4_addr : verdict
		flags interval
	}

	set uplinks {
		type iface_index
		elements = { "eth0", "eth1" }
	}

	chain arrival-1 {
		ct status ! confirmed ct mark & 0x00001000 == 0x00000000 ct mark set ct mark & 0x00ffff81 | 0x00001001 comment "c8652c1c80d321d1"
	}

	chain arrival-2 {
		ct status ! confirmed ct mark & 0x00001000 == 0x00000000 ct mark set ct mark & 0x00ffff82 | 0x00001002 comment "fc2dfa2f3ce74bd0"
	}

	chain bound {
		ct mark != 0x00000000/8 ct mark & 0x00001000 == 0x00001000 goto restore comment "fb1dec073b782768"
		meta mark & 0xff00107f == 0x01001000 goto free comment "647f67bafc00df48"
		ct status & confirmed == confirmed goto free comment "741f57664c1521eb"
		iif . ip daddr @inside goto free comment "e1fc6ddf3539d44d"
		meta mark & 0x00ff0f80 != 0x00000000 goto strange comment "9ce931607eee6acf"
		meta mark & 0xff00107f == 0x02001000 meta mark set meta mark & 0x00ffff80 | 0x00001000 accept comment "2232423b00e9ed31"
		iif . ip saddr vmap @traffic comment "d0f75a6f23ba70d7"
		iif . ip saddr vmap @traffic_nets comment "93b2991e1c8b56b2"
		goto take comment "bb210f0a952e4e44"
	}

	chain exit-01001002 {
		ct mark set ct mark & 0x01ffff82 | 0x01001002 comment "158b8ea2c9f3f48f"
		goto restore comment "44ba9de174b7f745"
	}

	chain free {
		meta mark set meta mark & 0x00ffef80 accept comment "aeecf0c2ef3d5398"
	}

	chain from_bridge {
		ct direction reply goto reply comment "17851b9dab408230"
		meta mark & 0x00001000 == 0x00000000 jump from_routed comment "2a95383323bab928"
		meta mark & 0x00001000 == 0x00000000 goto unknown comment "4636f3cb79170e75"
		goto bound comment "df75e726aa8da05f"
	}

	chain from_open_bridge {
		ct direction reply goto reply comment "17851b9dab408230"
		meta mark & 0x00001000 == 0x00000000 jump from_routed comment "2a95383323bab928"
		meta mark & 0x00001000 == 0x00000000 return comment "f0a6864d0fa30a69"
		goto bound comment "df75e726aa8da05f"
	}

	chain from_routed {
		ct direction reply goto reply comment "17851b9dab408230"
		meta mark != 0x00000000 goto from_routed_marked comment "8ffc9327a6fa28d3"
		meta mark set iif . ip saddr map @routed comment "aca0c0b86778ee23"
		meta mark 0x00000000 meta mark set iif . ip saddr map @routed_nets comment "3f4539c7d90ba560"
		meta mark & 0x00001000 == 0x00001000 goto bound comment "29e8b5444197ca2c"
	}

	chain from_routed_marked {
	}

	chain nic-0 {
		meta mark set meta mark & 0x00ffff80 | 0x00001000 accept comment "c6c8847b90a79535"
	}

	chain nic-1 {
		meta mark set meta mark & 0x00ffff81 | 0x00001001 accept comment "9d7da47696cefde2"
	}

	chain nic-2 {
		meta mark set meta mark & 0x00ffff82 | 0x00001002 accept comment "bab99b5ec6747397"
	}

	chain output {
		type route hook output priority mangle + 1; policy accept;
		ct direction reply ct mark & 0xff001000 == 0x00001000 meta mark 0x00000000 meta mark set ct mark & 0x0000107f comment "79cf1ff3ebe295b1"
	}

	chain prerouting {
		type filter hook prerouting priority dstnat + 1; policy accept;
		iif vmap @ingress comment "bc8a0138b3959e57"
		ct direction reply ct mark & 0xff001000 == 0x00001000 goto reply comment "30efb467611ac31d"
		ct mark != 0x00000000/8 ct mark & 0x00001000 == 0x00001000 ct direction != reply goto unknown comment "d412223213b8af84"
	}

	chain reply {
		ct mark & 0xff001000 != 0x00001000 goto free comment "c0597f358a32414b"
		meta mark & 0x00ffef80 == 0x00000000 meta mark set ct mark & 0x0000107f accept comment "cd64190ecf4c3ba5"
		meta mark & 0x00ff0f80 == 0x00000000 ct mark & 0x0000107f vmap @nic_marks comment "7cd746128237bb26"
		goto free comment "15c512a78d219d49"
	}

	chain restore {
		meta mark & 0x00ffef80 == 0x00000000 meta mark set ct mark & 0x0000107f accept comment "cd64190ecf4c3ba5"
		meta mark & 0x00ff0f80 != 0x00000000 goto strange comment "9ce931607eee6acf"
		ct mark & 0x0000107f vmap @nic_marks comment "1bc8b43ba30ceab1"
	}

	chain seal {
		type filter hook postrouting priority srcnat + 10; policy accept;
		meta mark & 0x00001000 == 0x00000000 accept comment "d87872ea91b9c323"
		oif . ip saddr @own accept comment "94ed5929bfd57031"
		ct mark & 0xff001000 == 0x00001000 accept comment "7f5313dda38b81a4"
		oif @uplinks counter drop comment "c4b6c56f287e15b8"
	}

	chain source_nat {
		type nat hook postrouting priority srcnat - 5; policy accept;
		snat to oif . ct mark map @exits comment "496701a9ff5a6805"
		ct mark != 0x00000000/8 ct mark & 0x00001000 == 0x00001000 oif @uplinks counter drop comment "fef7d1f3673d7d4f"
	}

	chain strange {
		meta mark set meta mark & 0x00ffef80 comment "1a306862c4cd2f10"
		fib daddr . mark oif @uplinks counter drop comment "26e57cc4433f00f2"
		counter accept comment "fe682df4f883a1af"
	}

	chain take {
		ct mark != 0x00000000 meta mark & 0xff00107f vmap @exit_marks comment "84c876841f838964"
		ct mark 0x00000000 ct mark set meta mark & 0xff00107f comment "0fdc6f19bcf65278"
		meta mark & 0x0000e000 == 0x00000000 meta mark set meta mark & 0x0000107f accept comment "34903723df424c01"
		meta mark & 0x0000107f vmap @nic_marks comment "c2e8c30224a02ee7"
	}

	chain traffic-79d6282aa556b5a2 {
		ip daddr 198.51.100.0/24 jump traffic-79d6282aa556b5a2-to-0 comment "e01153ccf58c31f6"
		goto free comment "15c512a78d219d49"
	}

	chain traffic-79d6282aa556b5a2-to-0 {
		goto take comment "bb210f0a952e4e44"
	}

	chain unknown {
		ip daddr 224.0.0.0/4 accept comment "3a3dcd75dc2cd09a"
		ip daddr 255.255.255.255 accept comment "40c62377eb361b62"
		iif . ip daddr @inside accept comment "6b731702a58b83e7"
		fib daddr . mark oif @uplinks counter drop comment "26e57cc4433f00f2"
	}
}
table ip6 egressd {

	map exit_marks {
		type mark : verdict
		elements = { 0x02001002 : goto exit-02001002 }
	}

	map exits {
		type iface_index . mark : ipv6_addr
		elements = { "eth1" . 0x02001002 : fd31::14 }
	}

	map ingress {
		type iface_index : verdict
		elements = { "eth0" : jump arrival-1, "eth1" : jump arrival-2, "plain0" : jump from_open_bridge }
	}

	set inside {
		type iface_index . ipv6_addr
		flags interval
	}

	map nic_marks {
		type mark : verdict
		elements = { 0x00001000 : goto nic-0, 0x00001001 : goto nic-1, 0x00001002 : goto nic-2 }
	}

	set own {
		type iface_index . ipv6_addr
		elements = { "eth0" . fd31::8,
			     "eth1" . fd31::14 }
	}

	map routed {
		type iface_index . ipv6_addr : mark
	}

	map routed_nets {
		type iface_index . ipv6_addr : mark
		flags interval
	}

	map traffic {
		type iface_index . ipv6_addr : verdict
		elements = { "plain0" . fd72:0:0:1c::b : goto traffic-79d6282aa556b5a2 }
	}

	map traffic_nets {
		type iface_index . ipv6_addr : verdict
		flags interval
	}

	set uplinks {
		type iface_index
		elements = { "eth0", "eth1" }
	}

	chain arrival-1 {
		ct status ! confirmed ct mark & 0x00001000 == 0x00000000 ct mark set ct mark & 0x00ffff81 | 0x00001001 comment "c8652c1c80d321d1"
	}

	chain arrival-2 {
		ct status ! confirmed ct mark & 0x00001000 == 0x00000000 ct mark set ct mark & 0x00ffff82 | 0x00001002 comment "fc2dfa2f3ce74bd0"
	}

	chain bound {
		ct mark != 0x00000000/8 ct mark & 0x00001000 == 0x00001000 goto restore comment "fb1dec073b782768"
		meta mark & 0xff00107f == 0x01001000 goto free comment "647f67bafc00df48"
		ct status & confirmed == confirmed goto free comment "741f57664c1521eb"
		iif . ip6 daddr @inside goto free comment "62e2f6652a1a7439"
		meta mark & 0x00ff0f80 != 0x00000000 goto strange comment "9ce931607eee6acf"
		meta mark & 0xff00107f == 0x02001000 meta mark set meta mark & 0x00ffff80 | 0x00001000 accept comment "2232423b00e9ed31"
		iif . ip6 saddr vmap @traffic comment "490c4364475f152d"
		iif . ip6 saddr vmap @traffic_nets comment "421819c2f80eb688"
		goto take comment "bb210f0a952e4e44"
	}

	chain exit-02001002 {
		ct mark set ct mark & 0x02ffff82 | 0x02001002 comment "f04ee01b53e98c7a"
		goto restore comment "44ba9de174b7f745"
	}

	chain free {
		meta mark set meta mark & 0x00ffef80 accept comment "aeecf0c2ef3d5398"
	}

	chain from_bridge {
		ct direction reply goto reply comment "17851b9dab408230"
		meta mark & 0x00001000 == 0x00000000 jump from_routed comment "2a95383323bab928"
		meta mark & 0x00001000 == 0x00000000 goto unknown comment "4636f3cb79170e75"
		goto bound comment "df75e726aa8da05f"
	}

	chain from_open_bridge {
		ct direction reply goto reply comment "17851b9dab408230"
		meta mark & 0x00001000 == 0x00000000 jump from_routed comment "2a95383323bab928"
		meta mark & 0x00001000 == 0x00000000 return comment "f0a6864d0fa30a69"
		goto bound comment "df75e726aa8da05f"
	}

	chain from_routed {
		ct direction reply goto reply comment "17851b9dab408230"
		meta mark != 0x00000000 goto from_routed_marked comment "8ffc9327a6fa28d3"
		meta mark set iif . ip6 saddr map @routed comment "c09191d06119e419"
		meta mark 0x00000000 meta mark set iif . ip6 saddr map @routed_nets comment "6f43f5ab56241cae"
		meta mark & 0x00001000 == 0x00001000 goto bound comment "29e8b5444197ca2c"
	}

	chain from_routed_marked {
	}

	chain nic-0 {
		meta mark set meta mark & 0x00ffff80 | 0x00001000 accept comment "c6c8847b90a79535"
	}

	chain nic-1 {
		meta mark set meta mark & 0x00ffff81 | 0x00001001 accept comment "9d7da47696cefde2"
	}

	chain nic-2 {
		meta mark set meta mark & 0x00ffff82 | 0x00001002 accept comment "bab99b5ec6747397"
	}

	chain output {
		type route hook output priority mangle + 1; policy accept;
		ct direction reply ct mark & 0xff001000 == 0x00001000 meta mark 0x00000000 meta mark set ct mark & 0x0000107f comment "79cf1ff3ebe295b1"
	}

	chain prerouting {
		type filter hook prerouting priority dstnat + 1; policy accept;
		iif vmap @ingress comment "bc8a0138b3959e57"
		ct direction reply ct mark & 0xff001000 == 0x00001000 goto reply comment "30efb467611ac31d"
		ct mark != 0x00000000/8 ct mark & 0x00001000 == 0x00001000 ct direction != reply goto unknown comment "d412223213b8af84"
	}

	chain reply {
		ct mark & 0xff001000 != 0x00001000 goto free comment "c0597f358a32414b"
		meta mark & 0x00ffef80 == 0x00000000 meta mark set ct mark & 0x0000107f accept comment "cd64190ecf4c3ba5"
		meta mark & 0x00ff0f80 == 0x00000000 ct mark & 0x0000107f vmap @nic_marks comment "7cd746128237bb26"
		goto free comment "15c512a78d219d49"
	}

	chain restore {
		meta mark & 0x00ffef80 == 0x00000000 meta mark set ct mark & 0x0000107f accept comment "cd64190ecf4c3ba5"
		meta mark & 0x00ff0f80 != 0x00000000 goto strange comment "9ce931607eee6acf"
		ct mark & 0x0000107f vmap @nic_marks comment "1bc8b43ba30ceab1"
	}

	chain seal {
		type filter hook postrouting priority srcnat + 10; policy accept;
		meta mark & 0x00001000 == 0x00000000 accept comment "d87872ea91b9c323"
		oif . ip6 saddr @own accept comment "9cd21c6e44ed9387"
		ct mark & 0xff001000 == 0x00001000 accept comment "7f5313dda38b81a4"
		oif @uplinks counter drop comment "c4b6c56f287e15b8"
	}

	chain source_nat {
		type nat hook postrouting priority srcnat - 5; policy accept;
		snat to oif . ct mark map @exits comment "2a36b7d766417519"
		ct mark != 0x00000000/8 ct mark & 0x00001000 == 0x00001000 oif @uplinks counter drop comment "fef7d1f3673d7d4f"
	}

	chain strange {
		meta mark set meta mark & 0x00ffef80 comment "1a306862c4cd2f10"
		fib daddr . mark oif @uplinks counter drop comment "26e57cc4433f00f2"
		counter accept comment "fe682df4f883a1af"
	}

	chain take {
		ct mark != 0x00000000 meta mark & 0xff00107f vmap @exit_marks comment "84c876841f838964"
		ct mark 0x00000000 ct mark set meta mark & 0xff00107f comment "0fdc6f19bcf65278"
		meta mark & 0x0000e000 == 0x00000000 meta mark set meta mark & 0x0000107f accept comment "34903723df424c01"
		meta mark & 0x0000107f vmap @nic_marks comment "c2e8c30224a02ee7"
	}

	chain traffic-79d6282aa556b5a2 {
		ip6 daddr 2001:db8::/32 jump traffic-79d6282aa556b5a2-to-1 comment "9a68dfb14ccc3089"
		goto free comment "15c512a78d219d49"
	}

	chain traffic-79d6282aa556b5a2-to-1 {
		goto take comment "bb210f0a952e4e44"
	}

	chain unknown {
		ip6 daddr ff00::/8 accept comment "2de368c38c19c16b"
		ip6 daddr fe80::/10 accept comment "6fc86843c7bfd767"
		iif . ip6 daddr @inside accept comment "ababe2d8285aa24b"
		fib daddr . mark oif @uplinks counter drop comment "26e57cc4433f00f2"
	}
}
table bridge egressd {

	map claims4 {
		type iface_index . ipv4_addr : mark
		elements = { "v-blue" . 172.28.0.10 : 0x01001002,
			     "v-some" . 172.28.0.11 : 0x01001002 }
	}

	map claims6 {
		type iface_index . ipv6_addr : mark
		elements = { "v-blue" . fd72:0:0:1c::a : 0x02001002,
			     "v-some" . fd72:0:0:1c::b : 0x02001002 }
	}

	chain prerouting {
		type filter hook prerouting priority dstnat; policy accept;
		meta mark set iif . ip saddr map @claims4 comment "14aef8bd09cc28b0"
		meta mark set iif . ip6 saddr map @claims6 comment "e8e0c960290c7a96"
	}
}
END
ip link set eth0 group 25959
ip link set eth1 group 25959
ip route add unicast 172.31.0.0/20 dev eth0 table 15601 proto 156 scope link src 172.31.0.8
ip route add unicast 172.31.0.0/20 dev eth1 table 15602 proto 156 scope link src 172.31.0.14
ip route add unicast default via 172.31.0.1 dev eth0 table 15601 proto 156 scope global
ip route add unicast default via 172.31.0.1 dev eth1 table 15602 proto 156 scope global
ip route add unreachable default table 15600 proto 156 scope global metric 4294967295
ip route add unreachable default table 15601 proto 156 scope global metric 4294967295
ip route add unreachable default table 15602 proto 156 scope global metric 4294967295
ip -6 route add unicast default via fd31::1 dev eth0 table 15601 proto 156 scope global metric 1024 pref medium
ip -6 route add unicast default via fd31::1 dev eth1 table 15602 proto 156 scope global metric 1024 pref medium
ip -6 route add unicast fd31::/64 dev eth0 table 15601 proto 156 scope global metric 256 pref medium
ip -6 route add unicast fd31::/64 dev eth1 table 15602 proto 156 scope global metric 256 pref medium
ip -6 route add unreachable default dev lo table 15600 proto 156 scope global metric 4294967295 pref medium
ip -6 route add unreachable default dev lo table 15601 proto 156 scope global metric 4294967295 pref medium
ip -6 route add unreachable default dev lo table 15602 proto 156 scope global metric 4294967295 pref medium
ip rule add pref 1560 from all fwmark 0x1000/0x1000 lookup main suppress_prefixlength 0 suppress_ifgroup 25959 proto 156
ip rule add pref 1561 from all fwmark 0x1000/0x107f lookup 15600 proto 156
ip rule add pref 1561 from all fwmark 0x1001/0x107f lookup 15601 proto 156
ip rule add pref 1561 from all fwmark 0x1002/0x107f lookup 15602 proto 156
ip rule add pref 1562 from 172.31.0.14 lookup main suppress_prefixlength 0 suppress_ifgroup 25959 proto 156
ip rule add pref 1564 from 172.31.0.14 lookup 15602 proto 156
ip -6 rule add pref 1560 from all fwmark 0x1000/0x1000 lookup main suppress_prefixlength 0 suppress_ifgroup 25959 proto 156
ip -6 rule add pref 1561 from all fwmark 0x1000/0x107f lookup 15600 proto 156
ip -6 rule add pref 1561 from all fwmark 0x1001/0x107f lookup 15601 proto 156
ip -6 rule add pref 1561 from all fwmark 0x1002/0x107f lookup 15602 proto 156
ip -6 rule add pref 1562 from fd31::14 lookup main suppress_prefixlength 0 suppress_ifgroup 25959 proto 156
ip -6 rule add pref 1564 from fd31::14 lookup 15602 proto 156
echo 2 >/proc/sys/net/ipv4/conf/eth0/arp_announce
echo 1 >/proc/sys/net/ipv4/conf/eth0/arp_ignore
echo 2 >/proc/sys/net/ipv4/conf/eth0/rp_filter
echo 2 >/proc/sys/net/ipv4/conf/eth1/arp_announce
echo 1 >/proc/sys/net/ipv4/conf/eth1/arp_ignore
echo 2 >/proc/sys/net/ipv4/conf/eth1/rp_filter
echo 2 >/proc/sys/net/ipv6/conf/eth0/accept_ra
echo 2 >/proc/sys/net/ipv6/conf/eth1/accept_ra
