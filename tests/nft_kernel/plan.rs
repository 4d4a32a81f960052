//! The rules of the datapath, as the plan has them: the kernel takes them, and `nft` lists them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use egressd::effects::nft::Nft;
use egressd::model::binding::{
    Binding, BindingName, Destination, ExistingFlows, ExitSpec, HostSelector, Selector, Source, SourcePorts, Spread, Traffic,
};
use egressd::model::facts::{KernelChange, KernelFacts, Link, LinkKind};
use egressd::model::health::AllDown;
use egressd::model::inbound::{Balance, ClientSource, Limits};
use egressd::model::ipvs::{Balancer, Engine, Thresholds};
use egressd::model::isolated::Isolated;
use egressd::model::outcome::{Guarded, Programs};
use egressd::model::ports::{Ports, Protocol};
use egressd::model::rate::Rate;
use egressd::model::reason::Reason;
use egressd::model::resolve::{Guard, Outcome};
use egressd::model::select::Held;
use egressd::model::services::{Health, Server, Service};
use egressd::model::spread::{Share, Shares};
use egressd::model::started::Started;
use egressd::model::uplinks::{Exit, Uplink};
use egressd::model::workload::{Entry, Row, State, Subject};
use egressd::nft::build::rule;
use egressd::nft::{Chain, Family, Ruleset, diff};
use egressd::plan::datapath::{Shape, chains, programs, sockets, source_ports, spread, traffic};
use egressd::plan::tables;

use crate::lab::*;
use crate::rulesets::load_words;

const PORTS: SourcePorts = SourcePorts { first: 40_000, last: 49_999 };

/// A user, and a control group and all others that are bound for some traffic, by bindings that reset; new groups beside it are held.
fn host_programs(v6: bool, limited: &Traffic) -> Programs {
    let exit = Exit { address: if v6 { "2001:db8::1" } else { "192.0.2.1" }.parse().unwrap(), interface: 3, way: 1, ports: Some(PORTS) };
    let binding = |name: &str, traffic: &Traffic| Binding {
        exits: vec![ExitSpec::new(exit.address)],
        traffic: traffic.clone(),
        ..Binding::plain(Source::File, name, Selector::Host(HostSelector::default()))
    };
    let resets = |name: &str| Binding { existing_flows: ExistingFlows::Reset, ..binding(name, limited) };
    let row = |entry, binding: Binding| Row {
        subject: Subject::Programs("program".into()),
        network: None,
        default_route: false,
        address: Some(if v6 { "::/0" } else { "0.0.0.0/0" }.parse().unwrap()),
        entry: Some(entry),
        binding: Some(Held::Listed(Arc::new(binding))),
        losers: Vec::new(),
        beside: Vec::new(),
        state: State::Bound(exit),
    };
    Programs {
        rows: vec![
            row(Entry::User { uid: 998 }, binding("a", &Traffic::default())),
            row(Entry::Cgroup { id: 77, level: 2 }, resets("b")),
            row(Entry::Everybody, resets("c")),
        ],
        picked: [(3, exit.address)].into(),
        marks: [(exit, 9)].into(),
        guarded: [Guarded { id: 5, level: 1, known: [77].into() }].into(),
        ..Programs::default()
    }
}

/// A port, a range of ports, a port whose servers have chains of their own, and one that IPVS serves.
fn services(exit: IpAddr) -> [Service; 4] {
    let server = Server {
        address: if exit.is_ipv4() { [172, 19, 0, 2].into() } else { "fd00:19::2".parse().unwrap() },
        port: Some(1234),
        weight: 1,
        thresholds: Thresholds::default(),
        route_back: None,
        health: Health::Unchecked,
        drain: None,
        entry: Entry::Port { port: 7, bridge: 5 },
        row: 0,
    };
    let port = Service {
        address: exit,
        ports: Ports { protocol: Protocol::Tcp, first: 27017, last: 27017 },
        engine: Engine::Nftables,
        balance: Balance::RoundRobin,
        client_source: ClientSource::Masquerade,
        all_down: AllDown::Refuse,
        last_resort: None,
        affinity: None,
        limits: Limits::default(),
        binding: BindingName { source: Source::File, name: "default/front".into() },
        servers: vec![server.clone()],
    };
    let range = Service {
        ports: Ports { protocol: Protocol::Udp, first: 5000, last: 5010 },
        balance: Balance::BySource,
        client_source: ClientSource::Preserve,
        servers: vec![Server { port: None, ..server }],
        ..port.clone()
    };
    // Each server has a chain of its own.
    let kept = Service {
        ports: Ports { protocol: Protocol::Tcp, first: 443, last: 443 },
        affinity: Some(600),
        limits: Limits { per_server: Some(100), per_client: Some(20) },
        ..port.clone()
    };
    let by_ipvs = Service {
        ports: Ports { protocol: Protocol::Udp, first: 53, last: 53 },
        engine: Engine::Ipvs(Balancer::default()),
        client_source: ClientSource::RouteBack,
        ..port.clone()
    };
    [port, range, kept, by_ipvs]
}

/// A subnet with a rate, which has nothing to leave by.
fn limited_by_rate() -> Row {
    let net = "10.9.0.0/24".parse().unwrap();
    let rate = Some(Rate { bytes: 2_500_000, burst: 9_000 });
    let selector = Selector::Addresses(Vec::new());
    Row {
        subject: Subject::Source(net),
        network: None,
        default_route: false,
        address: Some(net),
        entry: Some(Entry::Routed { interface: 5 }),
        binding: Some(Held::Listed(Arc::new(Binding { rate, ..Binding::plain(Source::File, "default/lan", selector) }))),
        losers: Vec::new(),
        beside: Vec::new(),
        state: State::Dropped(Reason::BeingPlaced),
    }
}

/// Sockets of an address of the host itself.
fn socket(v6: bool) -> Row {
    let net = if v6 { "fd00:18::100/128" } else { "172.18.0.100/32" }.parse().unwrap();
    Row { subject: Subject::Source(net), address: Some(net), entry: Some(Entry::Socket), ..limited_by_rate() }
}

/// A program in a network namespace.
fn isolated() -> KernelFacts {
    let addresses = ["10.213.0.1", "fd65:6772:6573:7364::1"].map(|address| address.parse().unwrap()).to_vec();
    let program = Isolated { started: Started::By("default/lan".to_owned()), addresses, inbound: Vec::new() };
    let mut kernel = KernelFacts::default();
    kernel.apply(KernelChange::Link(Link { isolated: Some(Arc::new(program)), ..Link::new(7, "egx0", LinkKind::Veth) }));
    kernel
}

/// What a host with one uplink needs.
pub fn wanted() -> Ruleset {
    let mut outcome = Outcome::default();
    let uplink = Uplink {
        index: 3,
        name: "eth1".into(),
        up: true,
        group: 0,
        addresses: vec!["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()],
        way: Some(1),
        holds_exit: true,
    };
    outcome.uplinks.nics.insert(3, uplink);
    outcome.uplinks.inside.links.insert(5);
    outcome.uplinks.inside.routes.extend([(5, "172.19.0.0/16".parse().unwrap()), (5, "fd00:19::1/128".parse().unwrap())]);
    for address in ["192.0.2.1", "2001:db8::1"] {
        outcome.uplinks.called.insert(address.parse().unwrap(), 1);
        outcome.uplinks.borne.insert(address.parse().unwrap(), 1);
        outcome.inbound.all.extend(services(address.parse().unwrap()));
    }
    outcome.guards.insert(5, Guard::Closed);
    outcome.guards.insert(6, Guard::Open);
    // Some lie within others, and two are neighbours.
    let inside = ["10.244.0.0/24", "10.244.1.0/24", "10.96.0.0/12", "10.96.0.1/32", "fd00::/48", "fd00::1/128"];
    outcome.inside = Arc::new(inside.iter().map(|net| net.parse().unwrap()).collect());
    outcome.rows.push(limited_by_rate());
    let mut ruleset = tables::ruleset(&outcome, &isolated(), &mut tables::Cache::default());
    tables::hold_back(&mut ruleset, &[(5, "172.19.0.9".parse().unwrap())].into());
    ruleset
}

#[test]
fn the_datapaths_rules_are_taken_by_the_kernel_and_listed_by_nft() {
    in_namespace(|| {
        let mut nft = Nft::open().unwrap();
        let mut wanted = wanted();
        put(&mut nft, &wanted);
        assert_eq!(nft.read().unwrap(), wanted);
        // All rules that there can be, and traffic of a kind.
        let limited = Traffic::new(
            vec![Destination { cidr: "198.51.100.0/24".parse().unwrap(), except: vec!["198.51.100.7/32".parse().unwrap()] }],
            vec![Ports { protocol: Protocol::Tcp, first: 80, last: 443 }],
        );
        for (family, v6) in [(Family::Ip, false), (Family::Ip6, true)] {
            let table = wanted.tables.get_mut(&family).unwrap();
            let all = true;
            let shape = Shape {
                v6,
                nets: all,
                limited: all,
                limited_nets: all,
                inside: all,
                tunnelled: all,
                answered: all,
                guards: all,
                claimed: all,
                departed: all,
                fell_back: all,
                fell_back_nets: all,
                spreads: all,
                spread_exits: all,
                spread_exits_nets: all,
                ports: all,
                ports_nets: all,
                program_ports: all,
                programs: all,
                sockets: all,
                services: all,
                services_ranges: all,
                server_limits: all,
                refusals: all,
                ipvs: all,
                isolated: all,
            };
            table.chains.extend(chains(shape));
            programs::add(table, &Outcome { programs: host_programs(v6, &limited), ..Outcome::default() }, v6);
            sockets::add(table, [socket(v6)].iter(), v6);
            for (number, spread) in [Spread::RoundRobin, Spread::Random, Spread::BySource, Spread::ByDestination].into_iter().enumerate() {
                let address = |host: u8| {
                    if v6 { IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, host.into()]) } else { IpAddr::from([198, 51, 100, host]) }
                };
                // The first is full for a destination, and the source ports of the last are bounded.
                let ports = (number == 3).then_some(PORTS);
                let share = |host, way| Share { exit: Exit { address: address(host), interface: 3, way, ports }, weight: 1 };
                let closed = if number == 0 { [((6, address(9), 443), vec![address(1)])].into() } else { BTreeMap::new() };
                let shares = Shares { spread, shares: vec![share(1, 1), share(2, 1), share(3, 2)], named: 3, closed };
                spread::add(table, 0x8000_0001 + number as u32, &shares, v6, &mut spread::Cache::default());
            }
            source_ports::add(table, &[PORTS].into(), v6);
            traffic::add(table, &traffic::name(&limited), &limited, v6, &mut traffic::Cache::default());
        }
        put(&mut nft, &wanted);
        assert_eq!(nft.read().unwrap(), wanted);
        let listing = listing();
        for rule in [
            "snat to oif . iif . ip saddr map @exits",
            "ct direction reply goto answer",
            "meta mark set ct original ip daddr map @called accept",
            "meta mark set ct reply ip daddr map @ways accept",
            "iif . ip saddr map @policies != 0x0",
            "ct status & snat == snat iif . ip saddr @fell_back goto bound_flow",
            "meta mark vmap @spreads",
            "oif . iif . ip saddr vmap @spread_exits",
            "meta mark set meta skuid map @programs-0-users goto program",
            "meta mark set socket cgroupv2 level 2 map @programs-1-cgroups-2 goto program",
            "socket cgroupv2 level 2 vmap @programs-1-cgroups-2-limited",
            "meta l4proto tcp socket cgroupv2 level 2 vmap @programs-1-cgroups-2-resets",
            "jump every_program_resets",
            "ip saddr @program_resets-",
            "oif . ip saddr != @programs-all-picked accept",
            "udp sport 68 udp dport 67 accept",
            "meta skuid != 4294967295 meta mark set iif map @programs-all goto program",
            "snat to oif . meta mark & 0xffff1fff map @program_exits",
            "ip saddr @sockets goto sockets",
            "fib daddr . mark oif . ip daddr @inside_routes meta mark set 0x00001001 return",
            "meta mark set numgen inc mod 3 map @ways-80000001",
            "snat to numgen inc mod 2 map @slots-80000001-1",
            "snat to numgen random mod 2 map @slots-80000002-1",
            "meta mark set jhash ip saddr mod 256 seed 0x65677265 map @ways-80000003",
            "snat to jhash ip saddr mod 256 seed 0x65677265 map @slots-80000003",
            "jhash ip daddr mod 256 seed 0x65677265 vmap @slots-80000004",
            "ip daddr . meta l4proto . th dport vmap @full-ways-80000001",
            "ip daddr . meta l4proto . th dport vmap @full-exits-80000001",
            "198.51.100.9 . tcp . 443 : jump exit-80000001-",
            "snat to numgen inc mod 1 map @spill-slots-80000001-",
            "meta l4proto udp snat to oif . iif . ip saddr map @exits:40000-49999",
            "meta l4proto tcp snat to oif . meta mark & 0xffff1fff map @program_exits:40000-49999",
            "meta l4proto sctp snat to [2001:db8::1]:40000-49999",
            "ip daddr . meta l4proto . th dport vmap @services",
            "ip daddr . meta l4proto . th dport vmap @services_ranges",
            "numgen inc mod 1 map @servers-tcp-27017-192.0.2.1",
            "jhash ip saddr mod 256 seed 0x65677265 map @servers-udp-5000-5010-192.0.2.1",
            "numgen inc mod 1 map @servers-tcp-27017-2001_db8__1",
            "iif . oif . ip saddr @hairpins",
            "iif . ip saddr @isolated meta mark set meta mark | 0x00000280 accept",
            "ct direction reply oif . ip6 daddr @isolated meta mark set meta mark | 0x00000280 accept",
            "update @rates-tcp-443-192.0.2.1 { ip saddr timeout 10s limit rate over 20/second burst 20 packets } goto drop-ClientLimit-tcp",
            "reject with tcp reset",
            "ip saddr @clients-tcp-443-192.0.2.1-172.19.0.2-1234 jump server-tcp-443-192.0.2.1-172.19.0.2-1234",
            "update @clients-tcp-443-192.0.2.1-172.19.0.2-1234 { ip saddr timeout 10m }",
            "numgen inc mod 1 vmap @server_chains-tcp-443-192.0.2.1",
            "dnat to 172.19.0.2:1234",
            "meta l4proto @full-tcp-1234-172.19.0.2 return",
            "ct count over 99 update @full-tcp-1234-172.19.0.2 { meta l4proto timeout 30s } update @full { ip daddr . meta l4proto . th dport timeout 30s }",
            "ct count over 100 goto drop-ServerLimit-server",
            "ip daddr . meta l4proto . th dport vmap @server_limits",
            "masquerade",
            "limit rate over 2375000 bytes/second burst 9000 bytes goto drop-Rate",
            // nft has no name for a source address beside this kind of match.
            "meta mark & 0xffff1f80 == 0x00001000 meta protocol ip iif . @nh,96,32 vmap @rates4_nets",
            "jump rate-file/default/lan",
            "update @dropped-Guard-4 { iif . ip saddr timeout 1d counter }",
            "ct direction original update @dropped-Seal-4 { iif . ct original ip saddr timeout 1d counter }",
            "ct direction reply update @dropped-Seal-6 { iif . ct reply ip6 saddr timeout 1d counter }",
            "update @dropped-ServerLimit-4 { oif . ip daddr timeout 1d counter }",
            "update @dropped-Rate-links { iif timeout 1d counter }",
        ] {
            assert!(listing.contains(rule), "{rule}\n{listing}");
        }
    });
}

/// What `nft` 1.0.6 lists and does not read: a map's number that is compared, a turn or a hash as the key of marks, all interfaces as a range, an
/// address of neighbour discovery beside an interface, and a port without a protocol ahead of it.
/// One that the kernel refuses would take all bindings' changes along.
#[test]
fn the_largest_limits_that_can_be_written_are_taken_by_the_kernel() {
    in_namespace(|| {
        let taken = |rate: Rate| {
            let (bytes, burst) = rate.limit();
            let mut ruleset = Ruleset::default();
            let chain = Chain::regular([rule().over(bytes, burst).drop()]);
            ruleset.tables.entry(Family::Inet).or_default().chains.insert("rate".to_owned(), chain);
            let mut nft = Nft::open().unwrap();
            let present = nft.read().unwrap();
            nft.commit(&diff(&ruleset, &present)).is_ok()
        };
        assert!(taken(Rate { bytes: Rate::BITS.end() / 8, burst: Rate::BURST }));
        assert!(!taken(Rate { bytes: 2 * Rate::BITS.end() / 8, burst: Rate::BURST }), "there is a limit");
    });
}

#[test]
fn the_datapaths_rules_in_words_are_taken_by_nft() {
    in_namespace(|| {
        let compared = |words: &str| words.split(" map @").skip(1).any(|rest| rest.split(' ').nth(1) == Some("!="));
        let mut taken = 0;
        load_words(&wanted(), |words| {
            let refused = compared(words)
                || [" numgen ", " jhash "].iter().any(|number| words.contains(number))
                || words.contains("0-4294967295 . ")
                || words.contains(". icmpv6 taddr")
                || words.contains(" ct id ")
                || words.contains(" server-") && words.contains("dnat to ") && !words.contains("meta l4proto");
            taken += usize::from(!refused);
            !refused
        });
        assert!(taken > 200, "{taken}");
    });
}
