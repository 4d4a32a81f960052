//! What one round of the daemon's loop costs at 10,000 containers, part by part, in process: no kernel, no engine.
//!
//! `cargo run --release --package bench --bin round`. `make bench` measures the same from outside, with the kernel in it.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use egressd::api::labels;
use egressd::model::facts::{Address, Attachment, Container, EngineChange, IfIndex, KernelChange, Link, LinkKind, Network, Place, Route};
use egressd::model::known::Facts;
use egressd::model::policy::{Standing, standing};
use egressd::model::resolve::census::Census;
use egressd::model::resolve::few::resolve_few;
use egressd::model::resolve::{Past, RowInputs, resolve};
use egressd::model::touched::Touched;
use egressd::nft::diff;
use egressd::plan::ahead::plan_ahead;
use egressd::plan::tables::Cache;
use egressd::plan::{Observed, Planner, few, tables};

const CONTAINERS: u32 = 10_000;
/// A Linux bridge has at most 1,023 ports.
const ON_A_BRIDGE: u32 = 1000;
const ROUNDS: usize = 50;

fn main() {
    let mut facts = facts();
    let mut past = Past::default();
    let none = BTreeMap::new();
    let mut outcome = resolve(&facts, &mut past);
    let bound = outcome.rows.iter().filter(|row| matches!(standing(row), Standing::Bound(_)) && row.entry.is_some()).count();
    assert_eq!(bound, CONTAINERS as usize, "all are bound");
    let mut traffic = Cache::default();
    let mut mirror = tables::ruleset(&outcome, &facts.kernel, &mut traffic);
    let mut planner = Planner::default();
    let mut parts: BTreeMap<&str, Vec<Duration>> = BTreeMap::new();
    for round in 0..ROUNDS {
        let mut note = |part, began: Instant| parts.entry(part).or_default().push(began.elapsed());
        let began = Instant::now();
        change(&mut facts, round);
        note("1 facts", began);
        let began = Instant::now();
        outcome = resolve(&facts, &mut past);
        note("2 resolve", began);
        let began = Instant::now();
        let desired = tables::ruleset(&outcome, &facts.kernel, &mut traffic);
        note("3 ruleset", began);
        let began = Instant::now();
        let changes = diff(&desired, &mirror);
        note("4 diff", began);
        assert!(!changes.is_empty() && changes.len() < 20, "a few elements come and go: {changes:?}");
        let began = Instant::now();
        let observed = Observed { kernel: &facts.kernel, ruleset: &mirror, sysctls: &none, ahead: &[] };
        let plan = planner.plan(&outcome, &observed, &past.departed, true);
        note("5 plan as a whole (3 and 4 in it)", began);
        let began = Instant::now();
        drop(desired);
        note("6 dropping a ruleset", began);
        mirror = plan.target.expect("all tables");
    }
    facts.touched = Touched::default();
    let began = Instant::now();
    let mut census = Census::of(&facts, &facts.touched, &outcome);
    parts.entry("7 census, once after 1 to 6").or_default().push(began.elapsed());
    for round in ROUNDS..2 * ROUNDS {
        let began = Instant::now();
        change(&mut facts, round);
        let touched = std::mem::take(&mut facts.touched);
        let changed = resolve_few(&facts, &mut past, &mut outcome, &mut census, &touched).expect("it is nobody else's");
        let plan = few::plan_few(&outcome, &facts.kernel, &mut mirror, &changed, &past.departed);
        parts.entry("8 one container by itself, all of it").or_default().push(began.elapsed());
        assert!(!plan.ruleset.is_empty() && plan.ruleset.len() < 20, "a few elements come and go: {plan:?}");
    }
    for round in 0..ROUNDS {
        let began = Instant::now();
        let eth1 = Link { carrier: round % 2 == 1, ..link(3, "eth1", LinkKind::Other(String::new()), None, None) };
        facts.apply_kernel(KernelChange::Link(eth1));
        let mut note = |part, began: Instant| parts.entry(part).or_default().push(began.elapsed());
        let inputs = RowInputs::discover(&facts, &mut past);
        let ahead = plan_ahead(&outcome, &inputs.uplinks, &mut mirror).ruleset;
        assert_eq!(ahead.is_empty(), round % 2 == 1, "a policy loses its exit when the NIC goes down");
        if !ahead.is_empty() {
            note("9 their NIC goes down: until their policies have changed", began);
        }
        outcome = inputs.resolve(&facts, &mut past);
        note("9 their NIC goes down or up: resolve", began);
        let decided = Instant::now();
        let observed = Observed { kernel: &facts.kernel, ruleset: &mirror, sysctls: &none, ahead: &ahead };
        let plan = planner.plan(&outcome, &observed, &past.departed, true);
        note("9 their NIC goes down or up: plan", decided);
        note("9 their NIC goes down or up: whole", began);
        assert!(plan.ruleset.len() < 20, "its policies change, and no workload: {}", plan.ruleset.len());
        mirror = plan.target.expect("all tables");
    }
    for (part, mut times) in parts {
        times.sort();
        println!("{part:40} least {:>9.1?}  median {:>9.1?}  max {:>9.1?}", times[0], times[times.len() / 2], times[times.len() - 1]);
    }
}

/// A container gets another address.
fn change(facts: &mut Facts, round: usize) {
    let (index, moved) = (round as u32 * 100, round as u8);
    let to = Ipv4Addr::new(10, 99, moved, 2).into();
    facts.apply(EngineChange::Container(Box::new(container(index, to))));
    facts.apply_kernel(KernelChange::AddressGone(far_end(index), address(first_address(index)).net));
    facts.apply_kernel(KernelChange::Address(far_end(index), address(to)));
}

fn facts() -> Facts {
    let mut facts = Facts::default();
    let uplink = |index, name: &str| link(index, name, LinkKind::Other(String::new()), None, None);
    let mut changes: Vec<KernelChange> = vec![KernelChange::Link(uplink(2, "eth0")), KernelChange::Link(uplink(3, "eth1"))];
    changes.push(KernelChange::Address(Place { nsid: None, index: 2 }, address([172, 31, 0, 8].into())));
    changes.push(KernelChange::Address(Place { nsid: None, index: 3 }, address([172, 31, 16, 14].into())));
    let routes = vec![default_route(2, [172, 31, 0, 1].into()), default_route(3, [172, 31, 16, 1].into())];
    changes.push(KernelChange::Routing { routes, rules: Vec::new() });
    let bridges = CONTAINERS / ON_A_BRIDGE;
    changes.extend((0..bridges).map(|n| KernelChange::Link(link(100 + n, &format!("br{n}"), LinkKind::Bridge, None, None))));
    for n in 0..CONTAINERS {
        let name = format!("veth{n}");
        changes.push(KernelChange::Link(link(near_end(n), &name, LinkKind::Veth, Some(100 + n / ON_A_BRIDGE), Some(far_end(n)))));
        changes.push(KernelChange::Address(far_end(n), address(first_address(n))));
    }
    for change in changes {
        facts.kernel.apply(change);
    }
    let networks = (0..bridges).map(|n| Network {
        id: network_id(n),
        name: format!("net{n}"),
        driver: "bridge".to_owned(),
        bridge: Some(format!("br{n}")),
        subnets: vec![format!("10.{}.0.0/16", 10 + n).parse().expect("a subnet")],
        internal: false,
        managed: false,
        guard: None,
        problems: Vec::new(),
    });
    let containers = (0..CONTAINERS).map(|n| container(n, first_address(n))).collect();
    facts.apply(EngineChange::Snapshot { containers, networks: networks.collect() });
    facts
}

fn container(n: u32, address: IpAddr) -> Container {
    let label = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let mut container = Container {
        id: format!("{n:064x}"),
        name: format!("crawler-{n}"),
        labels: BTreeMap::from([label("egress.ip", "172.31.16.14"), label("com.docker.compose.project", "shop")]),
        network_mode: format!("net{}", n / ON_A_BRIDGE),
        running: true,
        created: 1_700_000_000 + u64::from(n),
        attachments: vec![Attachment {
            network_id: network_id(n / ON_A_BRIDGE),
            network: format!("net{}", n / ON_A_BRIDGE),
            addresses: vec![address],
            gateway_priority: 0,
        }],
        published: Vec::new(),
        asked: None,
    };
    container.asked = labels::parse(&container).map(Arc::new);
    container
}

fn network_id(n: u32) -> String {
    format!("{:064x}", 0xfeed_0000 + n)
}

fn near_end(n: u32) -> IfIndex {
    1000 + 2 * n
}

fn far_end(n: u32) -> Place {
    Place { nsid: Some(n as i32), index: 2 }
}

fn first_address(n: u32) -> IpAddr {
    let (net, host) = (n / ON_A_BRIDGE, n % ON_A_BRIDGE);
    Ipv4Addr::new(10, 10 + net as u8, (host / 250) as u8, (2 + host % 250) as u8).into()
}

fn address(address: IpAddr) -> Address {
    Address::new(ipnet::IpNet::new(address, 16).expect("a prefix length"))
}

fn link(index: IfIndex, name: &str, kind: LinkKind, master: Option<IfIndex>, far: Option<Place>) -> Link {
    Link {
        master,
        peer_nsid: far.and_then(|place| place.nsid),
        peer_index: far.map(|place| place.index),
        up: true,
        carrier: true,
        ..Link::new(index, name, kind)
    }
}

fn default_route(interface: IfIndex, gateway: IpAddr) -> Route {
    Route {
        gateway: Some(gateway),
        interface: Some(interface),
        metric: interface,
        protocol: 4,
        ..Route::new(254, "0.0.0.0/0".parse().expect("a prefix"))
    }
}
