//! What others do to a host while egressd works on it: other NAT, flushes, rules taken away, NICs that go down.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::ExitCode,
    thread,
    time::Duration,
};

use egressd::contract::PROTOCOL;
use serde_json::{Value, json};
use world::{Binding, Container, Nic, Scenario, State, Subnets, World, container::Bridge, egressd::Egressd, status::until};

/// For a dozen things that are taken away.
const LONG: Duration = Duration::from_secs(300);

fn main() -> ExitCode {
    let mut scenarios = vec![
        Scenario::new("a binding that comes and goes under traffic moves it with no foreign source", a_binding_under_traffic),
        Scenario::new("tables that are flushed while the daemon is dead are made again by its start", flushed_while_dead),
        Scenario::new("a route by advertisement is kept when IPv6 forwarding begins", || a_route_by_advertisement(Subnets::One)),
        Scenario::new("two subnets: a route by advertisement is kept when IPv6 forwarding begins", || {
            a_route_by_advertisement(Subnets::Two)
        }),
    ];
    for subnets in [Subnets::One, Subnets::Two] {
        scenarios
            .push(Scenario::new(format!("{subnets:?}: other programs' NAT changes nothing"), move || other_nat_changes_nothing(subnets)));
        let name = format!("{subnets:?}: what is taken away under traffic leaks nothing and comes back");
        scenarios.push(Scenario::new(name, move || what_is_taken_away_comes_back(subnets)).within(LONG));
        scenarios.push(Scenario::new(format!("{subnets:?}: a NIC that is down drops"), move || a_nic_that_is_down_drops(subnets)));
        scenarios.push(Scenario::new(format!("{subnets:?}: a NIC that is down falls back when asked to"), move || {
            a_nic_that_is_down_falls_back(subnets)
        }));
    }
    world::harness::main_of_waiting(scenarios)
}

/// A bound and an unbound container on one masqueraded bridge.
struct Stage {
    world: World,
    bridge: Bridge,
    blue: Container,
    free: Container,
}

impl Stage {
    fn new(world: World) -> Self {
        let bridge = world.bridge("plain0", 28);
        world.masquerade(&bridge);
        let blue = world.container("blue", &bridge, 10);
        let free = world.container("free", &bridge, 11);
        world.leaves_by(&blue.netns, Nic::Eth1).expect_err("it is not bound");
        world.sends_nothing_out(&blue.netns).expect_err("it is not held");
        Self { world, bridge, blue, free }
    }

    fn start(&self, fields: &[&str]) -> Egressd {
        let binding = fields.iter().fold(Binding::of(&self.blue.netns), |binding, field| binding.with(field));
        self.world.bind(&binding.to(&self.world, Nic::Eth1));
        let egressd = self.world.egressd_alone();
        self.bound("at first");
        egressd
    }

    fn bound(&self, when: &str) {
        self.world.leaves_by(&self.blue.netns, Nic::Eth1).unwrap_or_else(|error| panic!("{when}: {error}"));
    }

    fn free(&self, when: &str) {
        self.world.leaves_by(&self.free.netns, Nic::Eth0).unwrap_or_else(|error| panic!("{when}: {error}"));
    }

    fn host(&self, line: &str) {
        self.world.host.run(&line.split(' ').collect::<Vec<_>>());
    }
}

fn other_nat_changes_nothing(subnets: Subnets) {
    let stage = Stage::new(World::builder().subnets(subnets).build());
    let _egressd = stage.start(&[]);
    for line in ["iptables -t nat -F", "ip6tables -t nat -F"] {
        stage.host(line);
    }
    stage.bound("the masquerade is flushed");
    stage.world.leaves_by(&stage.free.netns, Nic::Eth0).expect_err("nobody masquerades it");
    stage.world.masquerade(&stage.bridge);
    stage.free("the masquerade is back");
    stage.bound("the masquerade is back");
    for iptables in ["iptables", "ip6tables"] {
        stage.host(&format!("{iptables} -t nat -I POSTROUTING -j MASQUERADE"));
    }
    stage.bound("another masquerade is on top");
    stage.world.host.nft(
        "table inet late { chain postrouting { type nat hook postrouting priority srcnat; policy accept; oifname { eth0, eth1 } masquerade; }; }",
    );
    stage.bound("one in a table of its own, too");
    stage.free("in any case");
}

fn a_binding_under_traffic() {
    let Stage { world, blue, .. } = Stage::new(World::builder().build());
    let blue = blue.netns;
    let mut egressd = world.egressd_alone();
    let trickle = world.trickle(&blue, true);
    let unbound = world.count(|| thread::sleep(Duration::from_millis(50)));
    assert_eq!(unbound.by(Nic::Eth1), 0, "nothing moves it without a binding: {unbound}");
    for round in 0..5 {
        let seen = world.count(|| {
            world.bind_to(&blue, Binding::of(&blue), Nic::Eth1);
            world.bind_to(&blue, Binding::of(&blue), Nic::Eth0);
            world.bind_to(&blue, Binding::of(&blue), Nic::Eth1);
        });
        assert!(Nic::ALL.iter().all(|nic| seen.by(*nic) > 0), "round {round}: both were used: {seen}");
        assert!(seen.foreign(world.layout).is_empty(), "round {round}, bound: {seen}");
        let seen = world.count(|| {
            world.unbind("blue");
            until("it is unbound", || if world.status()["workloads"] == json!([]) { Ok(()) } else { Err("not yet".into()) });
            thread::sleep(Duration::from_millis(50));
        });
        assert!(seen.foreign(world.layout).is_empty(), "round {round}, unbound: {seen}");
    }
    world.bind_to(&blue, Binding::of(&blue), Nic::Eth1);
    egressd.stop();
    let seen = world.count(|| world.cleanup());
    assert!(seen.foreign(world.layout).is_empty(), "cleaned up: {seen}");
    drop(trickle);
}

const FLUSH: &str = "nft flush ruleset";

/// What another program may do: lines of commands, each of which has something to take away. What is egressd's bears its protocol number.
fn taken(world: &World) -> Vec<Vec<String>> {
    let mut taken = Vec::new();
    for family in ["-4", "-6"] {
        let rules: Vec<Vec<String>> = rules_away(world, family).into_values().collect();
        assert!(!rules.is_empty(), "egressd has policy rules");
        taken.push(rules.concat());
        taken.extend(rules);
        let routes = ours(world, family, &["route", "show", "table", "all"]);
        let tables: BTreeSet<String> = routes.iter().filter(|route| !route["table"].is_null()).map(|route| text(&route["table"])).collect();
        assert!(!tables.is_empty(), "egressd has routing tables");
        taken.push(tables.iter().map(|table| format!("ip {family} route flush table {table}")).collect());
    }
    let mut flushed = vec!["ip rule flush".to_owned()];
    flushed.extend([("main", 32766), ("default", 32767)].map(|(table, at)| format!("ip rule add pref {at} lookup {table} proto kernel")));
    taken.extend([vec!["ip link set eth1 group default".to_owned()], vec![FLUSH.to_owned()], flushed]);
    taken
}

/// Commands that delete egressd's policy rules, by preference.
fn rules_away(world: &World, family: &str) -> BTreeMap<u64, Vec<String>> {
    let mut away = BTreeMap::<u64, Vec<String>>::new();
    for rule in ours(world, family, &["rule", "show"]) {
        let at = rule["priority"].as_u64().expect("a rule has a preference");
        away.entry(at).or_default().push(format!("ip {family} rule del pref {at}"));
    }
    away
}

/// What `ip` lists, of that what is egressd's.
fn ours(world: &World, family: &str, listing: &[&str]) -> Vec<Value> {
    let printed = world.host.run(&[&["ip", "-j", "-d", family], listing].concat());
    let listed: Vec<Value> = serde_json::from_str(&printed).expect("ip prints JSON");
    listed.into_iter().filter(|one| text(&one["protocol"]) == PROTOCOL.to_string()).collect()
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn what_is_taken_away_comes_back(subnets: Subnets) {
    let stage = Stage::new(World::builder().subnets(subnets).build());
    let _egressd = stage.start(&[]);
    let world = &stage.world;
    for lines in taken(world) {
        let taken = &lines.join("; ");
        let (before, changes) = (world.state(), world.metric("egressd_kernel_changes_total"));
        let ((), seen) = world.watch(|| {
            let trickle = world.trickle(&stage.blue.netns, true);
            thread::sleep(Duration::from_millis(50));
            lines.iter().for_each(|line| stage.host(line));
            thread::sleep(Duration::from_millis(200));
            drop(trickle);
        });
        assert!(seen.foreign(world.layout).is_empty(), "{taken}: {seen}");
        assert!(seen.by(Nic::Eth0) == 0, "{taken}: it left by eth0: {seen}");
        if taken == FLUSH {
            // It took the world's masquerade with it.
            world.masquerade(&stage.bridge);
        }
        await_again(world, &before, taken);
        // From Linux 6.9 on its tables belong to egressd: others cannot flush them.
        let kept = taken == FLUSH && world.host.run(&["nft", "-t", "list", "ruleset"]).contains("owner");
        assert!(kept || world.metric("egressd_kernel_changes_total") > changes, "{taken}: there was something to put back");
        stage.bound(taken);
        stage.free(taken);
    }
}

/// Waits until all is as before. The order of tables, and of policy rules of one preference, tells only their age.
fn await_again(world: &World, before: &State, what: &str) {
    until(&format!("after {what} all is as before"), || {
        let mut difference = before.difference(&world.state());
        difference.retain(|line| !line.ends_with("in another order"));
        if difference.is_empty() { Ok(()) } else { Err(difference.join("\n")) }
    });
}

fn flushed_while_dead() {
    let stage = Stage::new(World::builder().build());
    let mut egressd = stage.start(&[]);
    let before = stage.world.state();
    egressd.kill();
    stage.bound("the daemon is dead");
    let rules = ["-4", "-6"].map(|family| rules_away(&stage.world, family).into_values().next().expect("egressd has policy rules"));
    for line in [FLUSH, "ip link set eth1 group default"].into_iter().chain(rules.iter().flatten().map(String::as_str)) {
        stage.host(line);
    }
    stage.world.masquerade(&stage.bridge);
    stage.world.leaves_by(&stage.blue.netns, Nic::Eth1).expect_err("nothing binds it any more");
    egressd.start();
    await_again(&stage.world, &before, "the start");
    stage.bound("after the start");
    stage.free("after the start");
}

fn a_nic_that_is_down_drops(subnets: Subnets) {
    let stage = Stage::new(World::builder().subnets(subnets).build());
    let world = &stage.world;
    let _egressd = stage.start(&["whenUnavailable: Drop"]);
    let trickle = world.trickle(&stage.blue.netns, true);
    stage.host("ip link set eth1 down");
    world.await_state("netns/blue", "Dropped");
    let seen = world.count(|| thread::sleep(Duration::from_millis(200)));
    assert!(seen.is_empty(), "{seen}");
    drop(trickle);
    world.sends_nothing_out(&stage.blue.netns).unwrap_or_else(|error| panic!("{error}"));
    assert!(world.foreign().is_empty(), "{}", world.foreign());
    up_again(&stage);
    world.await_nic("netns/blue", Nic::Eth1);
    stage.bound("the NIC is up again");
}

fn a_nic_that_is_down_falls_back(subnets: Subnets) {
    let stage = Stage::new(World::builder().subnets(subnets).build());
    let world = &stage.world;
    let _egressd = stage.start(&["whenUnavailable: Fallback"]);
    let trickle = world.trickle(&stage.blue.netns, true);
    world.forget();
    stage.host("ip link set eth1 down");
    world.await_state("netns/blue", "Fallback");
    drop(trickle);
    world.leaves_by(&stage.blue.netns, Nic::Eth0).unwrap_or_else(|error| panic!("it falls back: {error}"));
    up_again(&stage);
    world.await_nic("netns/blue", Nic::Eth1);
    stage.bound("the NIC is up again");
}

/// As an operator or a network manager brings it up: IPv6 addresses went with the link.
fn up_again(stage: &Stage) {
    let layout = stage.world.layout;
    stage.host("ip link set eth1 up");
    stage.host(&format!("ip address replace {}/64 dev eth1 nodad", layout.address6(Nic::Eth1)));
}

fn a_route_by_advertisement(subnets: Subnets) {
    let world = World::builder().subnets(subnets).advertised(Nic::Eth1).default_by_eth1(700).build();
    // Nobody forwards yet; the masquerade comes with the bridge, as an engine's does once egressd runs.
    let bridge = world.bridge("plain0", 28);
    let blue = world.container("blue", &bridge, 10).netns;
    let exits: Vec<String> =
        world.servers().iter().map(|like| format!("{{address: '{}'}}", world.layout.private(Nic::Eth1, *like))).collect();
    let route = || world.host.run(&["ip", "-6", "route", "show", "default", "proto", "ra", "dev", "eth1"]);
    assert!(!route().is_empty());
    world.leaves_by(&blue, Nic::Eth1).expect_err("it is not bound");
    world.bind(&Binding::of(&blue).with(&format!("exits: [{}]", exits.join(", "))));
    let egressd = world.egressd_alone();
    world.await_nic("netns/blue", Nic::Eth1);
    let forwarding = || world.host.run(&["sysctl", "-n", "net.ipv6.conf.all.forwarding"]);
    assert_eq!(forwarding().trim(), "1", "it is needed");
    world.masquerade(&bridge);
    thread::sleep(Duration::from_secs(3));
    assert!(route().contains("expires"), "the advertised route is gone");
    world.leaves_by(&blue, Nic::Eth1).unwrap_or_else(|error| panic!("{error}"));
    drop(egressd);
    world.cleanup();
    assert_eq!(forwarding().trim(), "1", "the bridge needs it");
    let lose = || world.host.run(&["ip", "-6", "route", "del", "default", "proto", "ra", "dev", "eth1"]);
    lose();
    until("the router's advertisement is heard", || if route().is_empty() { Err("no route".to_owned()) } else { Ok(()) });
    world.host.sysctl("ipv6/conf/eth1/accept_ra", "1");
    lose();
    thread::sleep(Duration::from_secs(3));
    assert!(route().is_empty(), "with 1 the kernel hears none");
}
