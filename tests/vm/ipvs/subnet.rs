//! Client, director and servers in one subnet: a server would answer its client directly, with an address that the client never called.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use world::{
    Binding, World,
    published::{CALLED, TARGET},
    segment::Segment,
    talk::{Guests, ask_tcp, ask_udp, serve},
};

use super::{listed, until_listed};

/// The addresses in the subnet that end in this number.
fn numbered(number: u8) -> [IpAddr; 2] {
    [Ipv4Addr::new(10, 30, 0, number).into(), Ipv6Addr::new(0xfd10, 30, 0, 0, 0, 0, 0, number.into()).into()]
}

pub fn answered() {
    let world = World::builder().build();
    let segment = Segment::plug(&world, "lan9");
    let [director, _] = segment.address(&world, 30, 2);
    let called = numbered(20).map(|address| SocketAddr::new(address, CALLED));
    world.host.ip(&format!("addr add {}/32 dev lan9\naddr add {}/128 dev lan9 nodad", called[0].ip(), called[1].ip()));
    let client = segment.client("client", 30, 50);
    let servers = [31, 32].map(|number| segment.client(&format!("s{number}"), 30, number));
    let guests: Vec<Guests> = servers.iter().zip([31, 32]).map(|(netns, number)| serve(netns, &numbered(number), &[TARGET])).collect();
    let calls = || guests.iter().map(|guests| guests.list().len()).collect::<Vec<_>>();

    // By hand: the call arrives, and its answer is nothing that the client has asked for.
    let service = called[0].to_string();
    world.host.run(&["ipvsadm", "-A", "-t", &service, "-s", "rr"]);
    world.host.run(&["ipvsadm", "-a", "-t", &service, "-r", "10.30.0.31:1234", "-m"]);
    ask_tcp(&client, called[0]).expect_err("the server answers past the director");
    world.host.run(&["ipvsadm", "-D", "-t", &service]);

    let addresses: Vec<String> =
        [31, 32].into_iter().flat_map(numbered).map(|at| format!("'{at}/{}'", if at.is_ipv6() { 128 } else { 32 })).collect();
    let entry = |protocol: &str, more: &str| {
        format!("{{protocol: {protocol}, port: {CALLED}, targetPort: {TARGET}, engine: Ipvs, scheduler: rr{more}}}")
    };
    let publish = |more: &str| {
        let exits = called.map(|at| format!("{{address: '{}'}}", at.ip())).join(", ");
        let binding = Binding::new("service", &format!("addresses: [{}]", addresses.join(", "))).with(&format!("exits: [{exits}]"));
        world.bind(&binding.with(&format!("inbound: [{}, {}]", entry("TCP", more), entry("UDP", more))));
    };
    publish(", clientSource: Masquerade");
    let _egressd = world.egressd_alone();
    until_listed(&world, &["10.30.0.32:1234", "[fd10:1e::1f]:1234"], &[]);
    for more in [", clientSource: Masquerade", ""] {
        publish(more);
        world.await_handled();
        for at in called {
            for ask in [ask_tcp, ask_udp] {
                let before = calls();
                for _ in 0..2 {
                    let seen = ask(&client, at).unwrap_or_else(|error| panic!("{at}{more}: {error}\n{}", listed(&world)));
                    assert!(at.is_ipv6() || [director, called[0].ip()].contains(&seen.ip()), "it sees the director: {seen}");
                }
                assert_eq!(calls(), [before[0] + 1, before[1] + 1], "{at}");
                // A server may call itself.
                for _ in 0..2 {
                    ask(&servers[0], at).unwrap_or_else(|error| panic!("{at} by a server{more}: {error}\n{}", listed(&world)));
                }
            }
        }
    }
    // The other way: servers see their clients, and a rule of theirs leads answers back. Without it they would go past the director.
    publish(", clientSource: RouteBack");
    world.await_handled();
    ask_tcp(&client, called[0]).expect_err("nobody has given the commands yet");
    let status = world.status();
    let all = status["services"].as_array().into_iter().flatten().flat_map(|service| service["servers"].as_array().into_iter().flatten());
    for server in all {
        let commands = server["routeBack"].as_str().unwrap_or_else(|| panic!("{status:#}")).replace("DEV", "eth0");
        let at = if server["address"].as_str().is_some_and(|address| address.ends_with("31") || address.ends_with("1f")) { 0 } else { 1 };
        servers[at].run(&["sh", "-c", &commands]);
    }
    for at in called {
        for ask in [ask_tcp, ask_udp] {
            let before = calls();
            for _ in 0..2 {
                let seen = ask(&client, at).unwrap_or_else(|error| panic!("{at}, routed back: {error}\n{}", listed(&world)));
                assert!(numbered(50).contains(&seen.ip()), "it sees its client: {seen}");
            }
            assert_eq!(calls(), [before[0] + 1, before[1] + 1], "{at}");
            for _ in 0..2 {
                ask(&servers[0], at).unwrap_or_else(|error| panic!("{at} by a server, routed back: {error}\n{}", listed(&world)));
            }
        }
    }
    // Nobody was told of a way past the director.
    let redirects = |netns: &world::Netns| netns.run(&["nstat", "-asz", "IcmpInRedirects"]);
    for server in &servers {
        assert!(redirects(server).lines().any(|line| line.split_whitespace().nth(1) == Some("0")), "{}", redirects(server));
    }
}
