//! `egressd exec --namespace` where a firewall drops forwarded packets, and its published ports in all protocols and families.

use std::net::{IpAddr, SocketAddr};

use world::{
    Binding, Nic, Programs, World,
    alone::Lan,
    status::until,
    talk::{ask_tcp, ask_udp},
};

use crate::{
    isolated::{links, through},
    lab::{assert_leaves_by, servers},
};

/// The port that is called, and the one that the program listens on.
const CALLED: u16 = 8090;
const TARGET: u16 = 1234;
/// Of all addresses of the program.
const ANY: &str = "[::]:1234";

const IPTABLES: [&str; 2] = ["iptables", "ip6tables"];

/// A host that drops what no rule lets through, with a server behind it that nobody lets through.
struct Stage {
    world: World,
    programs: Programs,
    lan: Lan,
}

/// The stage, with these rules of each iptables.
fn stage(rules: &[&str]) -> Stage {
    let world = World::builder().build();
    let programs = Programs::new();
    let lan = world.lan();
    for sysctl in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
        world.host.sysctl(sysctl, "1");
    }
    world.bind(&Binding::new("crawler", "networkNamespaces: [blue]").to(&world, Nic::Eth1));
    // Whoever else is bound stays dropped.
    world.bind(&Binding::new("routed", &format!("addresses: [{}/32]", lan.address)).to(&world, Nic::Eth1));
    for iptables in IPTABLES {
        for rule in rules {
            world.host.run(&[&[iptables], rule.split(' ').collect::<Vec<_>>().as_slice()].concat());
        }
    }
    Stage { world, programs, lan }
}

impl Stage {
    /// How many rules of egressd each iptables has in a chain.
    fn rules(&self, chain: &str) -> [usize; 2] {
        IPTABLES.map(|iptables| self.listed(iptables, chain).lines().filter(|line| line.contains("egressd")).count())
    }

    fn listed(&self, iptables: &str, chain: &str) -> String {
        self.world.host.run(&[iptables, "-S", chain])
    }

    fn await_rules(&self, chain: &str, rules: [usize; 2]) {
        until("the firewalls have so many rules of egressd", || {
            let now = self.rules(chain);
            if now == rules { Ok(()) } else { Err(format!("{now:?}")) }
        });
    }

    /// What others send is dropped as ever.
    fn assert_closed_to_others(&self) {
        let sent = self.world.sends_nothing_out(&self.lan.netns);
        sent.unwrap_or_else(|error| panic!("another source, bound or not, is let through: {error}"));
    }
}

/// Where the only program listens: the other end of its link.
fn program_address(world: &World) -> SocketAddr {
    let route = world.host.run(&["sh", "-c", "ip -4 -o route show dev $(ls /sys/class/net | grep ^egx)"]);
    let net: ipnet::Ipv4Net = route.split_whitespace().next().and_then(|net| net.parse().ok()).unwrap_or_else(|| panic!("{route}"));
    (net.broadcast(), TARGET).into()
}

pub fn drops_by_policy() {
    let stage = stage(&["-P FORWARD DROP"]);
    let Stage { world, programs, .. } = &stage;
    let mut daemon = world.egressd_alone();
    world.forget_neighbours();
    assert_eq!(stage.rules("FORWARD"), [0, 0], "nobody asks yet");
    let program = through(programs, &["--binding", "crawler"]);
    // Each of these comes with a namespace of its own, whose first packet counts.
    assert_leaves_by(world, &program, Nic::Eth1);
    let ((), seen) = world.watch(|| (0..5).for_each(|_| servers(world).iter().for_each(|server| program.shout(server.ip()))));
    assert!(seen.by(Nic::Eth1) >= 20 && seen.by(Nic::Eth0) == 0, "from the first packet: {seen}");
    let mut flows: Vec<_> = servers(world).into_iter().map(|server| program.flow(server)).collect();
    stage.await_rules("FORWARD", [1, 1]);
    stage.assert_closed_to_others();
    // Its owner rewrites its rules.
    IPTABLES.iter().for_each(|iptables| drop(world.host.run(&[iptables, "-F", "FORWARD"])));
    stage.await_rules("FORWARD", [1, 1]);
    flows.iter_mut().for_each(|flow| assert!(flow.ask().is_ok(), "it goes on"));
    // Without the rule the firewall drops the same flow.
    daemon.kill();
    flows.iter_mut().for_each(|flow| assert!(flow.ask().is_ok(), "a dead daemon changes nothing"));
    IPTABLES.iter().for_each(|iptables| drop(world.host.run(&[iptables, "-F", "FORWARD"])));
    flows.iter_mut().for_each(|flow| assert!(flow.ask().is_err(), "nothing lets it through"));
    daemon.start();
    stage.await_rules("FORWARD", [1, 1]);
    flows.iter_mut().for_each(|flow| until("it goes on", || flow.ask().map(drop)));
    drop(flows);
    until("its link is gone", || if links() == 0 { Ok(()) } else { Err(links().to_string()) });
    stage.await_rules("FORWARD", [0, 0]);
    // Cleanup takes the rule away while a program still runs.
    let mut flow = program.flow(servers(world)[0]);
    stage.await_rules("FORWARD", [1, 1]);
    daemon.stop();
    world.cleanup();
    assert_eq!(stage.rules("FORWARD"), [0, 0], "cleanup takes it away");
    flow.ask().expect_err("nothing lets it through");
}

pub fn docker_user() {
    let stage = stage(&[
        "-N DOCKER-USER",
        "-A FORWARD -j DOCKER-USER",
        "-P FORWARD DROP",
        "-A DOCKER-USER -p udp --dport 9 -j DROP",
        "-A DOCKER-USER -j RETURN",
    ]);
    let Stage { world, programs, .. } = &stage;
    let _daemon = world.egressd_alone();
    world.forget_neighbours();
    let published = ["--publish", "8090:1234/tcp", "--publish", "8090:1234/udp"];
    let by = [&["--binding", "crawler"][..], &published].concat();
    let called = [IpAddr::from(world.layout.eip(Nic::Eth1)), world.layout.address6(Nic::Eth1).into()].map(|at| SocketAddr::new(at, CALLED));
    for (at, ask) in called.into_iter().flat_map(|at| [(at, ask_tcp as fn(&_, _) -> _), (at, ask_udp)]) {
        ask(&world.internet, at).expect_err("nobody serves it");
    }
    let server = through(programs, &by).serve(ANY.parse().expect("an address"));
    stage.await_rules("DOCKER-USER", [1, 1]);
    assert_eq!(stage.rules("FORWARD"), [0, 0]);
    for iptables in IPTABLES {
        let listed = stage.listed(iptables, "DOCKER-USER");
        let rules: Vec<&str> = listed.lines().filter(|line| line.starts_with("-A")).collect();
        assert!(rules[1].contains("egressd") && rules[2].ends_with("-j RETURN"), "behind what users drop: {listed}");
    }
    let internet = world.internet.run(&["ip", "-o", "addr"]);
    for at in called {
        for ask in [ask_tcp, ask_udp] {
            let (seen, watched) = world.watch(|| ask(&world.internet, at));
            let seen = seen.unwrap_or_else(|error| panic!("{at}: {error}\n{:#}", world.status()));
            let client = seen.ip().to_canonical();
            assert!(internet.contains(&format!(" {client}/")), "the program sees its client: {client}");
            let own = world.layout.private(Nic::Eth1, at.ip());
            assert_eq!(watched.count(Nic::Eth1, own), watched.0.values().sum::<u64>(), "answers leave by the exit: {watched}");
        }
    }
    stage.assert_closed_to_others();
    // What it does not publish is not let in.
    let own = program_address(world);
    ask_tcp(&stage.lan.netns, own).expect_err("nobody may call it at its own address");
    world.host.run(&["iptables", "-P", "FORWARD", "ACCEPT"]);
    ask_tcp(&stage.lan.netns, own).expect("it is the firewall that keeps others out");
    world.host.run(&["iptables", "-P", "FORWARD", "DROP"]);
    // What users drop stays dropped.
    let program = through(programs, &["--binding", "crawler"]);
    let (_, seen) = world.watch(|| program.udp((world.servers()[0], 9).into()).map(drop).expect_err("users drop it"));
    assert!(seen.is_empty(), "{seen}");
    assert_leaves_by(world, &program, Nic::Eth1);
    drop(server);
    stage.await_rules("DOCKER-USER", [0, 0]);
    for at in called {
        ask_tcp(&world.internet, at).expect_err("nobody serves it any more");
        ask_udp(&world.internet, at).expect_err("nobody serves it any more");
    }
    // As an IPv6 address it has that family alone.
    let six = called[1].ip().to_string();
    let server = through(programs, &["--ip", &six, "--publish", "8090:1234/udp"]).serve(ANY.parse().expect("an address"));
    stage.await_rules("DOCKER-USER", [0, 1]);
    ask_udp(&world.internet, called[1]).unwrap_or_else(|error| panic!("{error}\n{:#}", world.status()));
    ask_udp(&world.internet, called[0]).expect_err("it is served by IPv6 alone");
    ask_tcp(&world.internet, called[1]).expect_err("it publishes no port of TCP");
    drop(server);
    stage.await_rules("DOCKER-USER", [0, 0]);
}

pub fn firewalld() {
    let stage = stage(&[]);
    let Stage { world, programs, .. } = &stage;
    // As firewalld has it: what no zone's chain accepts is rejected.
    world.host.nft(
        "table inet firewalld {
         chain filter_FORWARD_POLICIES {
         }
         chain filter_FORWARD {
         type filter hook forward priority 10; policy accept;
         ct state { established, related } accept
         jump filter_FORWARD_POLICIES
         reject with icmpx admin-prohibited
         }
         }",
    );
    let _daemon = world.egressd_alone();
    world.forget_neighbours();
    let problems = || world.status()["problems"].to_string();
    assert!(!problems().contains("firewalld"), "nobody asks yet");
    let program = through(programs, &["--binding", "crawler"]);
    let _server = program.serve(ANY.parse().expect("an address"));
    until("the cure is told", || {
        let told = problems();
        if told.contains("firewalld filter_FORWARD drops what programs") && told.contains("--add-interface=egx+") {
            Ok(())
        } else {
            Err(told)
        }
    });
    program.tcp(servers(world)[0]).expect_err("firewalld rejects it");
    // What the cure makes firewalld load.
    world.host.run(&["nft", "add rule inet firewalld filter_FORWARD_POLICIES iifname \"egx*\" accept"]);
    until("nothing is missing any more", || if problems() == "[]" { Ok(()) } else { Err(problems()) });
    assert_leaves_by(world, &program, Nic::Eth1);
    stage.assert_closed_to_others();
}
