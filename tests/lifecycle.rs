//! The daemon's own life: killed, started again, run dry, cleaned up after; and what it tells.

use std::{process::ExitCode, thread, time::Duration};

use world::{
    Binding, Container, Nic, Scenario, State, Subnets, World,
    container::Bridge,
    egressd::{Egressd, manifests},
    layout::{PORT, SERVER},
    talk::Flow,
};

/// For twenty lives of a daemon.
const LONG: Duration = Duration::from_secs(300);

fn main() -> ExitCode {
    let mut scenarios = Vec::new();
    for subnets in [Subnets::One, Subnets::Two] {
        scenarios.push(Scenario::new(format!("{subnets:?}: kill -9 changes nothing, and the next start changes nothing"), move || {
            kill_changes_nothing(subnets)
        }));
        scenarios
            .push(Scenario::new(format!("{subnets:?}: cleanup leaves all as it was found"), move || cleanup_leaves_all_as_found(subnets)));
    }
    scenarios.push(
        Scenario::new("a daemon that is killed at any moment leaves what the next one makes right", killed_at_any_moment).within(LONG),
    );
    scenarios.push(Scenario::new("a dry run prints its steps as commands, and changes nothing", a_dry_run_changes_nothing));
    scenarios.push(Scenario::new("cleanup keeps what somebody else has set since", cleanup_keeps_what_others_set));
    scenarios.push(Scenario::new("status, explain and metrics tell what is", status_explain_and_metrics));
    world::harness::main_of_waiting(scenarios)
}

/// A host on which nothing forwards and every filter is strict: all that egressd sets shows.
fn world(subnets: Subnets) -> World {
    World::builder().subnets(subnets).rp_filter(1).build()
}

fn containers(world: &World) -> (Bridge, Container, Container) {
    let bridge = world.bridge("plain0", 28);
    // Using iptables' tables for the first time makes them.
    world.masquerade(&bridge);
    let blue = world.container("blue", &bridge, 10);
    let free = world.container("free", &bridge, 11);
    world.leaves_by(&blue.netns, Nic::Eth0).expect("the world masquerades it");
    world.leaves_by(&blue.netns, Nic::Eth1).expect_err("it is not bound");
    (bridge, blue, free)
}

fn bound(world: &World, blue: &Container) {
    world.leaves_by(&blue.netns, Nic::Eth1).unwrap_or_else(|error| panic!("{error}"));
}

fn kill_changes_nothing(subnets: Subnets) {
    let world = world(subnets);
    let (_bridge, blue, free) = containers(&world);
    world.bind(&Binding::of(&blue.netns).to(&world, Nic::Eth1));
    world.bind(&Binding::of(&free.netns).to(&world, Nic::Eth0).with("ports: [{protocol: TCP, port: 8000}]"));
    let mut egressd = world.egressd_alone();
    let mut flow = Flow::open(&blue.netns, (SERVER, PORT).into()).expect("it is bound");
    let before = world.state();
    for how in [Egressd::kill, Egressd::stop] {
        how(&mut egressd);
        before.assert_same(&world.state(), "the daemon's end changes nothing");
        bound(&world, &blue);
        flow.ask().expect("it goes on");
        egressd.start();
        world.await_ready();
        thread::sleep(Duration::from_millis(200));
        assert_eq!(world.metric("egressd_kernel_changes_total"), 0, "{}", egressd.log());
        before.assert_same(&world.state(), "the daemon's start changes nothing");
        bound(&world, &blue);
        flow.ask().expect("it goes on");
    }
}

fn cleanup_leaves_all_as_found(subnets: Subnets) {
    let world = world(subnets);
    let (_bridge, blue, free) = containers(&world);
    // As a host is that has never forwarded: egressd has to turn it on, and off again unless somebody needs it.
    let before = world.state();
    world.bind(&Binding::of(&blue.netns).to(&world, Nic::Eth1));
    world.bind(&Binding::of(&free.netns).to(&world, Nic::Eth0).with("to: [{cidr: 198.51.100.0/24}]"));
    for stop in [Egressd::stop, Egressd::kill] {
        let mut egressd = world.egressd_alone();
        bound(&world, &blue);
        assert!(!before.difference(&world.state()).is_empty(), "it has programmed something");
        stop(&mut egressd);
        world.cleanup();
        before.assert_same(&world.state(), "cleanup leaves all as found");
        world.leaves_by(&blue.netns, Nic::Eth0).expect("it is masqueraded again");
        world.leaves_by(&blue.netns, Nic::Eth1).expect_err("it is not bound any more");
    }
}

fn killed_at_any_moment() {
    let world = world(Subnets::One);
    let found = {
        let (_bridge, blue, _free) = containers(&world);
        let found = world.state();
        world.bind(&Binding::of(&blue.netns).to(&world, Nic::Eth1));
        let mut egressd = world.egressd_alone();
        let right = world.state();
        egressd.kill();
        let trickle = world.trickle(&blue.netns, true);
        world.forget();
        for round in 0..20_u64 {
            if round % 2 == 0 {
                world.cleanup();
            } else {
                world.bind(&Binding::of(&blue.netns).to(&world, if round % 4 == 1 { Nic::Eth0 } else { Nic::Eth1 }));
            }
            let mut starting = world.egressd_started(&["--no-docker", "--manifests", &manifests().to_string_lossy()]);
            // Reading what there is takes some milliseconds, programming it some more.
            thread::sleep(Duration::from_micros(1500 * round));
            starting.kill();
            assert!(world.foreign().is_empty(), "round {round}: {}", world.foreign());
        }
        let seen = world.seen();
        assert!(Nic::ALL.iter().all(|nic| seen.by(*nic) > 0), "it sent all the time, and was bound to each NIC: {seen}");
        drop(trickle);
        world.bind(&Binding::of(&blue.netns).to(&world, Nic::Eth1));
        egressd.start();
        bound(&world, &blue);
        let now = world.state();
        assert_same_but_numbers(&right, &now);
        assert_eq!(dry_run(&world).trim(), "nothing to change", "nothing is missing in the kernel, and nothing is too much");
        now.assert_same(&world.state(), "a dry run changes nothing");
        egressd.kill();
        found
    };
    world.cleanup();
    found.assert_same(&world.state(), "cleanup leaves all as found");
}

fn dry_run(world: &World) -> String {
    let printed = world.egressctl(&["run", "--dry-run", "--no-docker", "--manifests", &manifests().to_string_lossy()]);
    printed.expect("it prints the plan, beside a daemon, too")
}

/// Numbers of NICs and exits are those that a daemon in between gave: what is compared is all but the tables and rules that have them, which a
/// dry run compares with what should be.
fn assert_same_but_numbers(right: &State, now: &State) {
    let numbered = ["nftables", "rules", "routes"];
    let mut difference = right.difference(now);
    difference.retain(|line| !numbered.iter().any(|kind| line.starts_with(kind)));
    assert!(difference.is_empty(), "{}", difference.join("\n"));
}

fn a_dry_run_changes_nothing() {
    let world = world(Subnets::One);
    let (_bridge, blue, _free) = containers(&world);
    world.bind(&Binding::of(&blue.netns).to(&world, Nic::Eth1));
    let before = world.state();
    let printed = dry_run(&world);
    before.assert_same(&world.state(), "a dry run changes nothing");
    world.leaves_by(&blue.netns, Nic::Eth0).expect("it is masqueraded as before");
    let address = world.layout.address(Nic::Eth1);
    for line in [
        "sysctl -w net/ipv4/conf/eth1/rp_filter='2'".to_owned(),
        "ip link set eth1 group 25959".to_owned(),
        format!("nft 'add element ip egressd exits {{ \"eth1\" . \"plain0\" . {} : {address} }}'", blue.address),
        "nft 'add chain ip egressd source_nat { type nat hook postrouting priority 95; policy accept; }'".to_owned(),
        format!("end flows of {}", blue.address),
    ] {
        assert!(printed.lines().any(|printed| printed.starts_with(&line)), "no {line} in the plan:\n{printed}");
    }
    assert!(printed.ends_with(" none of them made; addresses of workloads: 2 Bound\n"), "{printed}");
    // What is not bound to this world's tables is what a shell does with it.
    let plain = printed.lines().filter(|line| line.starts_with("sysctl ") || line.starts_with("ip ")).collect::<Vec<_>>();
    world.host.run(&["sh", "-e", "-c", &plain.join("\n")]);
    world.cleanup();
    let _egressd = world.egressd_alone();
    let programmed = world.state();
    assert_eq!(dry_run(&world).trim(), "nothing to change");
    programmed.assert_same(&world.state(), "a dry run changes nothing");
}

fn cleanup_keeps_what_others_set() {
    let world = world(Subnets::One);
    let (_bridge, blue, _free) = containers(&world);
    world.bind(&Binding::of(&blue.netns).to(&world, Nic::Eth1));
    let mut egressd = world.egressd_alone();
    bound(&world, &blue);
    world.host.sysctl("ipv4/conf/eth1/arp_ignore", "3");
    egressd.stop();
    let printed = world.egressctl(&["cleanup"]).expect("it cleans up");
    assert!(printed.contains("arp_ignore"), "{printed}");
    let value = |name: &str| world.host.run(&["sysctl", "-n", name]).trim().to_owned();
    assert_eq!(value("net.ipv4.conf.eth1.arp_ignore"), "3", "somebody else has set it since");
    assert_eq!(value("net.ipv4.conf.eth1.arp_announce"), "0", "nobody else has set it");
    assert_eq!(value("net.ipv4.ip_forward"), "1", "the bridge lives by it");
}

fn status_explain_and_metrics() {
    let world = world(Subnets::One);
    let (_bridge, blue, free) = containers(&world);
    let layout = world.layout;
    world.bind(&Binding::of(&blue.netns).to(&world, Nic::Eth1).with("to: [{cidr: 198.51.100.0/24}, {cidr: '::/0'}]"));
    world.bind(&Binding::of(&free.netns).with("exits: [{address: 172.31.0.77}]"));
    let _egressd = world.egressd_alone();
    let status = world.status();
    let rows = |name: &str| {
        let all = status["workloads"].as_array().expect("a list").clone();
        all.into_iter().filter(|row| row["workload"] == name).collect::<Vec<_>>()
    };
    assert_eq!(rows("netns/blue").len(), 2, "{status:#}");
    for row in rows("netns/blue") {
        let v4 = row["address"] == blue.address.to_string();
        let (exit, gateway) = if v4 {
            (layout.address(Nic::Eth1).to_string(), layout.gateway(Nic::Eth1).to_string())
        } else {
            (layout.address6(Nic::Eth1).to_string(), layout.gateway6(Nic::Eth1).to_string())
        };
        assert_eq!((&row["exit"], &row["gateway"]), (&exit.into(), &gateway.into()));
        assert_eq!((&row["state"], &row["nic"], &row["binding"]), (&"Bound".into(), &"eth1".into(), &"file/default/blue".into()));
    }
    for row in rows("netns/free") {
        assert_eq!(row["state"], "Dropped");
        let message = row["message"].as_str().expect("a dropped one says why");
        assert!(message.contains("172.31.0.77") && message.contains("ip address add") || message.contains("IPv6"), "{message}");
    }
    let table = world.egressctl(&["status"]).expect("it prints a table");
    for part in ["netns/blue", "eth1", "172.31.0.14", "Bound", "netns/free", "Dropped", "172.31.0.77"] {
        assert!(table.contains(part), "no {part:?} in:\n{table}");
    }
    for (arguments, parts) in EXPLAINED {
        let text = world.egressctl(&[&["explain"], *arguments].concat()).unwrap_or_else(|error| panic!("{error}"));
        for part in *parts {
            assert!(text.contains(part), "explain {arguments:?}: no {part:?} in:\n{text}");
        }
    }
    let unknown = world.egressctl(&["explain", "nobody"]).expect_err("nobody knows it");
    assert!(unknown.contains("nobody"), "{unknown}");
    for path in ["/healthz", "/readyz"] {
        world.fetch(path).unwrap_or_else(|error| panic!("{path}: {error}"));
    }
    let metrics = world.fetch("/metrics").expect("metrics are served");
    for part in ["egressd_workloads{state=\"Bound\"} 2", "egressd_workloads{state=\"Dropped\"} 2", "# EOF"] {
        assert!(metrics.contains(part), "no {part:?} in:\n{metrics}");
    }
    assert!(world.metric("egressd_kernel_changes_total") > 0);
}

/// Arguments of `explain`, and what its answer has to name.
type Explained = (&'static [&'static str], &'static [&'static str]);
const EXPLAINED: &[Explained] = &[
    (&["netns/blue", "198.51.100.10"], &["file/default/blue", "v-blue", "plain0", "default via 172.31.0.1", "eth1", "172.31.0.14"]),
    (&["netns/blue", "203.0.113.20"], &["not ours", "198.51.100.0/24"]),
    (&["netns/blue", "172.28.0.11"], &["inside", "plain0"]),
    (&["netns/blue", "2001:db8:10::10"], &["fd31::14", "default via fd31::1"]),
    (&["172.28.0.10"], &["netns/blue", "eth1"]),
    (&["netns/free"], &["dropped", "172.31.0.77", "ip address add"]),
];
