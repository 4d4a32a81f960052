//! The comparison of a host's states sees what changes, and only that: "cleanup leaves all as found" stands on it.

use std::process::ExitCode;

use world::{
    Engine, Scenario, World,
    layout::PORT,
    s1::{self, CRAWLERS},
};

fn main() -> ExitCode {
    let mut scenarios = vec![Scenario::new("the comparison of states sees what changes, and only that", the_comparison_sees_what_changes)];
    for engine in Engine::ALL {
        scenarios.push(Scenario::new(format!("{engine:?}: the comparison of states leaves out what Docker itself changes"), move || {
            the_comparison_leaves_docker_out(engine)
        }));
    }
    world::harness::main(scenarios)
}

fn the_comparison_sees_what_changes() {
    let world = World::builder().build();
    let bridge = world.bridge("plain0", 28);
    world.masquerade(&bridge);
    let blue = world.container("blue", &bridge, 10);
    // Using one of iptables' tables for the first time makes it, and nothing takes it away.
    world.host.run(&["ip6tables", "-P", "FORWARD", "ACCEPT"]);
    let before = world.state();
    blue.ask_tcp((world.servers()[0], PORT)).expect("it is masqueraded");
    before.assert_same(&world.state(), "traffic is not a change");

    for (kind, change, undo) in CHANGES {
        run(&world, change);
        let difference = before.difference(&world.state());
        assert!(difference.iter().any(|line| line.starts_with(kind)), "`{change}` shows no change of {kind}: {difference:?}");
        run(&world, undo);
        before.assert_same(&world.state(), undo);
    }
}

fn the_comparison_leaves_docker_out(engine: Engine) {
    let world = World::builder().build();
    let mut docker = world.docker(engine);
    s1::create_network(&world, &docker);
    for crawler in CRAWLERS {
        crawler.run(&world, &docker);
    }
    let before = world.state();
    docker.cli(&["restart", "--time=0", CRAWLERS[0].name]);
    docker.restart();
    docker.cli(&["start", CRAWLERS[0].name, CRAWLERS[1].name]);
    let after = world.state();
    assert!(!before.difference(&after).is_empty(), "containers come back in another order");
    let before = before.without_docker();
    before.assert_same(&after.without_docker(), "all of it is Docker's");
    if engine != Engine::CurrentNftables {
        run(&world, "iptables -I DOCKER-USER -j RETURN");
        let difference = before.difference(&world.state().without_docker());
        assert!(difference.iter().any(|line| line.contains("DOCKER-USER")), "{difference:?}");
    }
}

/// Kind of the change, the change, and what takes it back.
const CHANGES: [(&str, &str, &str); 15] = [
    ("nftables", "nft add table ip egressd", "nft delete table ip egressd"),
    ("nftables", "nft add table ip nat { flags dormant; }", "nft add table ip nat"),
    ("nftables", "nft add chain ip nat egressd", "nft delete chain ip nat egressd"),
    ("iptables-save", "iptables -t nat -A POSTROUTING -j RETURN", "iptables -t nat -D POSTROUTING -j RETURN"),
    ("ip6tables-save", "ip6tables -P FORWARD DROP", "ip6tables -P FORWARD ACCEPT"),
    ("rules", "ip rule add pref 1561 fwmark 0x1001/0x107f lookup 15601", "ip rule del pref 1561"),
    ("rules, IPv6", "ip -6 rule add pref 1561 fwmark 0x1001/0x107f lookup 15601", "ip -6 rule del pref 1561"),
    ("routes", "ip route add unreachable default table 15601", "ip route del unreachable default table 15601"),
    ("routes", "ip route add 192.0.2.0/24 dev eth1 proto 156", "ip route del 192.0.2.0/24"),
    ("routes, IPv6", "ip route add 2001:db8:99::/64 dev eth1", "ip route del 2001:db8:99::/64"),
    ("links", "ip link set eth1 group 25959", "ip link set eth1 group default"),
    ("addresses", "ip address add 172.31.0.99/32 dev eth1", "ip address del 172.31.0.99/32 dev eth1"),
    ("sysctls", "sysctl -qw net.ipv4.conf.eth1.rp_filter=2", "sysctl -qw net.ipv4.conf.eth1.rp_filter=0"),
    ("sysctls", "sysctl -qw net.ipv4.conf.eth1.arp_ignore=1", "sysctl -qw net.ipv4.conf.eth1.arp_ignore=0"),
    ("sysctls", "sysctl -qw net.ipv6.conf.eth0.accept_ra=2", "sysctl -qw net.ipv6.conf.eth0.accept_ra=1"),
];

fn run(world: &World, line: &str) {
    world.host.run(&line.split(' ').collect::<Vec<_>>());
}
