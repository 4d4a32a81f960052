//! Answers of servers on the host, whose clients are beside them: egressd itself leads them back through the host.

use std::net::{IpAddr, SocketAddr};

use world::{
    Nic, World,
    netns::Netns,
    published::{CALLED, Server, TARGET, called, stage},
    status::until,
    talk::{ask_tcp, ask_udp},
};

use super::{listed, publish, until_listed};

const TABLE: &str = "15729";

/// What of it a server's namespace has: policy rules, and routes of their table.
fn made(netns: &Netns) -> String {
    let mut all = String::new();
    for family in ["-4", "-6"] {
        all += &netns.run(&["ip", family, "rule", "show", "table", TABLE]);
        all += &netns.run(&["sh", "-c", &format!("ip {family} route show table {TABLE} 2>/dev/null || true")]);
    }
    all
}

/// Waits until the namespace has a rule for each protocol and a route, in both families; or nothing.
fn until_made(world: &World, netns: &Netns, lines: usize) {
    until(&format!("{} has {lines} rules and routes", netns.name()), || {
        let made = made(netns);
        if made.lines().count() == lines { Ok(()) } else { Err(format!("{made}{:#}", world.status()["services"])) }
    });
}

pub fn kept() {
    let world = World::builder().rp_filter(1).build();
    let (bridge, [one, two, three]) = stage(&world);
    // Else answers that pass the bridge alone are translated there.
    for table in ["iptables", "ip6tables"] {
        world.host.sysctl(&format!("bridge/bridge-nf-call-{table}"), "0");
    }
    let servers = [&one, &two];
    let neighbour = world.container("neighbour", &bridge, 20);
    let at = [IpAddr::from(world.layout.address(Nic::Eth1)), world.layout.address6(Nic::Eth1).into()].map(|at| SocketAddr::new(at, CALLED));
    let own = [IpAddr::from(neighbour.address), neighbour.address6.into()];
    let before = servers.map(|server| redirects(&server.at.netns));
    let more = ", scheduler: rr, clientSource: RouteBack";
    publish(&world, &servers, more);
    ask_tcp(&neighbour.netns, at[0]).expect_err("nobody serves it without egressd");
    let mut egressd = world.egressd_alone();
    world.forget_neighbours();
    until_listed(&world, &["172.28.0.10:1234", "172.28.0.11:1234"], &["172.28.0.12:1234"]);
    // Of TCP and UDP, and the route.
    servers.iter().for_each(|server| until_made(&world, &server.at.netns, 6));
    assert_eq!(made(&three.at.netns), "", "it serves nothing");
    let calls = || {
        for (at, own) in at.into_iter().zip(own) {
            for ask in [ask_tcp, ask_udp] {
                let before = servers.map(Server::calls);
                for _ in 0..2 {
                    let seen = ask(&neighbour.netns, at).map_err(|error| format!("{at}: {error}\n{}", listed(&world)))?;
                    assert_eq!(seen.ip(), own, "it sees its client");
                }
                assert_eq!(servers.map(Server::calls), before.map(|calls| calls + 1), "{at}");
            }
        }
        Ok::<(), String>(())
    };
    until("the neighbour is answered", || ask_tcp(&neighbour.netns, at[0]).map(drop).map_err(|error| error.to_string()));
    calls().unwrap_or_else(|error| panic!("{error}"));
    // Who is elsewhere is served as ever, each answered by the NIC that was called.
    for at in Nic::ALL.into_iter().flat_map(|nic| called(&world, nic)) {
        ask_tcp(&world.internet, at).unwrap_or_else(|error| panic!("{at}: {error}"));
    }
    let status = world.status();
    let services = status["services"].as_array().into_iter().flatten();
    let told: Vec<_> = services.flat_map(|service| service["servers"].as_array().into_iter().flatten()).collect();
    assert!(told.iter().all(|server| server["routedBack"] == true && server["routeBack"].is_null()), "{status:#}");
    let shown = world.egressctl(&["status"]).expect("it answers");
    assert!(!shown.contains("needs in its network namespace"), "{shown}");

    // Nothing else of the server goes another way.
    let way = |port: u16| {
        let port = port.to_string();
        let asked =
            ["ip", "route", "get", &neighbour.address.to_string(), "from", &one.at.address.to_string(), "ipproto", "tcp", "sport", &port];
        one.at.netns.run(&asked)
    };
    assert!(way(TARGET).contains(&format!("via {}", bridge.address(1))), "{}", way(TARGET));
    assert!(!way(TARGET + 1).contains("via"), "{}", way(TARGET + 1));
    world.leaves_by(&one.at.netns, Nic::Eth0).unwrap_or_else(|error| panic!("{error}"));
    for server in servers {
        let got = server.at.netns.run(&["nstat", "-asz", "IcmpInRedirects"]);
        assert!(got.lines().any(|line| line.split_whitespace().nth(1) == Some("0")), "nobody told it of another way: {got}");
    }

    // It stays; and without it the answers go past the host.
    let lose = || {
        for family in ["-4", "-6"] {
            for _ in 0..2 {
                one.at.netns.run(&["ip", family, "rule", "del", "table", TABLE]);
            }
            one.at.netns.run(&["ip", family, "route", "flush", "table", TABLE]);
        }
    };
    lose();
    until_made(&world, &one.at.netns, 6);
    calls().unwrap_or_else(|error| panic!("{error}"));
    egressd.kill();
    calls().unwrap_or_else(|error| panic!("while it is dead: {error}"));
    lose();
    calls().expect_err("its answers go past the host");
    egressd.start();
    world.await_ready();
    until_made(&world, &one.at.netns, 6);
    calls().unwrap_or_else(|error| panic!("{error}"));

    // A server that serves no more keeps nothing, and what goes while egressd is dead is taken away by the next one.
    publish(&world, &[&one], more);
    until_made(&world, &two.at.netns, 0);
    assert_eq!(redirects(&two.at.netns), before[1], "its settings are as they were");
    egressd.kill();
    publish(&world, &[&two], more);
    egressd.start();
    world.await_ready();
    until_made(&world, &one.at.netns, 0);
    until_made(&world, &two.at.netns, 6);
    egressd.stop();
    assert_eq!(made(&two.at.netns).lines().count(), 6, "it stays while egressd is stopped");
    world.cleanup();
    assert_eq!(made(&two.at.netns), "", "cleanup takes it away");
    assert_eq!(servers.map(|server| redirects(&server.at.netns)), before);
}

/// Whether a server believes who tells it of a better router.
fn redirects(netns: &Netns) -> String {
    netns.run(&["sysctl", "-n", "net.ipv6.conf.eth0.accept_redirects"])
}
