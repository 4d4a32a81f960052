//! From YAML and labels to a plan, and what every plan has to keep.

mod fast_path;
mod few;
mod flows;
mod gates;
mod inbound;
mod ipvs;
mod managed;
mod networks;
mod nodes;
mod programs;
mod property;
mod routers;
mod silent;
mod traffic;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::step::RouteStep;
use super::*;
use crate::api::{labels, manifest};
use crate::contract::UPLINK_GROUP;
use crate::model::facts::*;
use crate::model::known::Facts;
use crate::model::resolve::{Guard, Past, resolve};
use crate::model::select::Index;
use crate::model::uplinks::outside::MAIN;
use crate::model::workload::State;
use crate::nft::{Bytes, Data, Family as Table, Key};
use datapath::names;
use read_back::read_back;

const ETH0: IfIndex = 2;
const ETH1: IfIndex = 3;
const BRIDGE: IfIndex = 9;

fn link(index: IfIndex, name: &str, kind: LinkKind) -> Link {
    Link { up: true, carrier: true, ..Link::new(index, name, kind) }
}

fn address(index: IfIndex, net: &str) -> KernelChange {
    KernelChange::Address(Place { nsid: None, index }, Address::new(net.parse().expect("a net")))
}

fn route(destination: &str, gateway: Option<&str>, interface: IfIndex) -> Route {
    Route {
        gateway: gateway.map(|g| g.parse().expect("an address")),
        interface: Some(interface),
        scope: if gateway.is_some() { 0 } else { 253 },
        protocol: 2,
        ..Route::new(MAIN, destination.parse().expect("a net"))
    }
}

/// A host with two NICs in one subnet and a Docker bridge.
fn host() -> Facts {
    let mut facts = Facts::default();
    let other = || LinkKind::Other(String::new());
    let changes = [
        KernelChange::Link(link(ETH0, "eth0", other())),
        KernelChange::Link(link(ETH1, "eth1", other())),
        KernelChange::Link(link(BRIDGE, "eip_bridge", LinkKind::Bridge)),
        address(ETH0, "172.31.0.8/20"),
        address(ETH1, "172.31.0.14/20"),
        address(BRIDGE, "172.19.0.1/16"),
        KernelChange::Routing {
            routes: vec![
                route("0.0.0.0/0", Some("172.31.0.1"), ETH0),
                route("172.31.0.0/20", None, ETH0),
                route("172.31.0.0/20", None, ETH1),
                route("172.19.0.0/16", None, BRIDGE),
            ],
            rules: Vec::new(),
        },
    ];
    for change in changes {
        facts.kernel.apply(change);
    }
    facts.apply(EngineChange::Network(Box::new(Network {
        id: "net".to_owned(),
        name: "eip_bridge".to_owned(),
        driver: "bridge".to_owned(),
        bridge: Some("eip_bridge".to_owned()),
        subnets: Vec::new(),
        internal: false,
        managed: false,
        guard: None,
        problems: Vec::new(),
    })));
    facts
}

fn container(n: u8, asks: &[(&str, &str)]) -> Container {
    let labels = asks.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let address = IpAddr::from([172, 19, 0, n]);
    let mut container = Container {
        id: format!("{n:064}"),
        name: format!("web-{n}"),
        labels,
        network_mode: "eip_bridge".to_owned(),
        running: true,
        created: u64::from(n),
        attachments: vec![Attachment {
            network_id: "net".to_owned(),
            network: "eip_bridge".to_owned(),
            addresses: vec![address],
            gateway_priority: 0,
        }],
        published: Vec::new(),
        asked: None,
    };
    container.asked = labels::parse(&container).map(Arc::new);
    container
}

/// A container that runs, as engine and kernel tell it: its port is 100 and its number.
fn start(facts: &mut Facts, n: u8, asks: &[(&str, &str)]) {
    let port = IfIndex::from(n) + 100;
    let veth =
        Link { master: Some(BRIDGE), peer_nsid: Some(n.into()), peer_index: Some(2), ..link(port, &format!("veth{n}"), LinkKind::Veth) };
    let net = IpNet::new(IpAddr::from([172, 19, 0, n]), 16).expect("a prefix");
    facts.kernel.apply(KernelChange::Address(Place { nsid: Some(n.into()), index: 2 }, Address::new(net)));
    facts.kernel.apply(KernelChange::Link(veth));
    facts.apply(EngineChange::Container(Box::new(container(n, asks))));
}

/// All tables that a plan leads to.
fn tables_of(plan: &Plan) -> &Ruleset {
    plan.target.as_ref().expect("a plan for everybody")
}

fn plan(facts: &Facts, past: &mut Past, observed: &Ruleset) -> Plan {
    let outcome = resolve(facts, past);
    let sysctls = BTreeMap::new();
    let plan = Planner::default().plan(
        &outcome,
        &Observed { kernel: &facts.kernel, ruleset: observed, sysctls: &sysctls, ahead: &[] },
        &past.departed,
        true,
    );
    // As if the flows of those who departed were ended at once.
    past.departed.clone_from(&plan.departed);
    plan
}

/// What the kernel makes of routing steps.
fn apply(facts: &mut Facts, steps: &[RouteStep]) {
    let kernel = &mut facts.kernel;
    for step in steps {
        match step {
            RouteStep::AddRoute(route) => {
                let slot = |r: &Route| (r.table, r.destination, r.metric);
                kernel.routes.retain(|r| slot(r) != slot(route));
                kernel.routes.push(route.clone());
            }
            RouteStep::DeleteRoute(route) => kernel.routes.retain(|r| r != route),
            RouteStep::AddRule(rule) => kernel.rules.push(rule.clone()),
            RouteStep::DeleteRule(rule) => kernel.rules.retain(|r| r != rule),
            RouteStep::AddAddress { index, address } => {
                let address = Address { ours: true, ..Address::new(IpNet::from(*address)) };
                kernel.apply(KernelChange::Address(Place { nsid: None, index: *index }, address));
            }
            RouteStep::DeleteAddress { index, net } => {
                kernel.apply(KernelChange::AddressGone(Place { nsid: None, index: *index }, *net));
            }
            RouteStep::SetHairpin { index, on } => {
                let link = Link { hairpin: *on, ..kernel.links[index].clone() };
                kernel.apply(KernelChange::Link(link));
            }
            RouteStep::SetGroup { index, group } => {
                let link = kernel.links.get(index).expect("the plan names links that are there").clone();
                kernel.apply(KernelChange::Link(Link { group: *group, ..link }));
            }
        }
    }
}

/// What the tables say of a container's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    /// It leaves as this.
    Exit(IpAddr),
    /// It is bound, and has no way out.
    NoExit,
    Free,
    Nothing,
}

fn said(plan: &Plan, n: u8) -> Said {
    let Some(table) = tables_of(plan).tables.get(&Table::Ip) else { return Said::Nothing };
    let address = IpAddr::from([172, 19, 0, n]);
    let owner = Key::one(Bytes::of_number(IfIndex::from(n) + 100).address(address));
    let owned = tables_of(plan).tables[&Table::Bridge].sets[names::OWNERS[0]].elements.contains_key(&owner);
    let element = |name: &str, key: Bytes| table.sets[name].elements.get(&Key::one(key));
    let source = Bytes::of_number(BRIDGE).address(address);
    let value = |data: &Data| match data {
        Data::Value(value) => u32::from_ne_bytes(value.as_slice().try_into().expect("a number or an IPv4 address")),
        _ => panic!("{data:?}"),
    };
    match (owned, element(names::POLICIES, source), element(names::KNOWN, source)) {
        (false, ..) | (true, None, None) => Said::Nothing,
        (true, None, Some(_)) => Said::Free,
        (true, Some(policy), _) => match element(names::POLICY_WAYS, Bytes::of_number(value(policy))) {
            None => Said::NoExit,
            Some(way) => {
                let called = |address: &str| element(names::CALLED, Bytes::default().address(address.parse().expect("an address")));
                let nic = if called("172.31.0.8") == Some(way) { ETH0 } else { ETH1 };
                let exit = element(names::EXITS, Bytes::of_number(nic).number(BRIDGE).address(address)).expect("a way has its exit");
                Said::Exit(IpAddr::from(value(exit).to_ne_bytes()))
            }
        },
    }
}

#[test]
fn nothing_is_planned_when_nobody_asks() {
    let mut facts = host();
    start(&mut facts, 1, &[]);
    assert!(plan(&facts, &mut Past::default(), &Ruleset::default()).is_empty());
}

#[test]
fn a_label_binds_its_container_and_its_neighbour_on_the_bridge_is_known_to_be_free() {
    let mut facts = host();
    start(&mut facts, 1, &[("egress.ip", "172.31.0.14")]);
    start(&mut facts, 2, &[]);
    let plan = plan(&facts, &mut Past::default(), &Ruleset::default());
    assert_eq!((said(&plan, 1), said(&plan, 2)), (Said::Exit([172, 31, 0, 14].into()), Said::Free));
}

#[test]
fn a_nic_s_own_address_is_followed() {
    let mut facts = host();
    start(&mut facts, 1, &[("egress.interface", "eth1")]);
    let mut past = Past::default();
    let first = plan(&facts, &mut past, &Ruleset::default());
    assert_eq!(said(&first, 1), Said::Exit([172, 31, 0, 14].into()));
    let change = |net: &str, gone| match gone {
        true => KernelChange::AddressGone(Place { nsid: None, index: ETH1 }, net.parse().expect("a net")),
        false => address(ETH1, net),
    };
    facts.kernel.apply(change("172.31.0.14/20", true));
    assert_eq!(said(&plan(&facts, &mut past, tables_of(&first)), 1), Said::NoExit, "it has no address");
    facts.kernel.apply(change("172.31.0.77/20", false));
    let next = plan(&facts, &mut past, tables_of(&first));
    assert_eq!(said(&next, 1), Said::Exit([172, 31, 0, 77].into()));
    assert!(!next.cuts.is_empty(), "flows with the address that is gone end");
}

#[test]
fn an_invalid_label_holds_its_container() {
    let mut facts = host();
    start(&mut facts, 1, &[("egress.ip", "172.31.0.300")]);
    assert_eq!(said(&plan(&facts, &mut Past::default(), &Ruleset::default()), 1), Said::NoExit);
}

#[test]
fn a_container_that_is_being_moved_is_held_where_it_was_and_bound_where_it_gets() {
    let labels = [("egress.ip", "172.31.0.14"), ("egress.network", "eip_bridge"), ("egress.container-ip", "172.19.0.1")];
    let mut facts = host();
    let made = |n: u8| {
        let container = container(n, &labels);
        let placement = container.asked.expect("it has labels").placement.clone();
        EngineChange::Made { container: container.id, name: container.name, placement }
    };
    for n in [1, 2] {
        facts.apply(made(n));
        start(&mut facts, n, &labels);
    }
    let held = plan(&facts, &mut Past::default(), &Ruleset::default());
    let there = Said::Exit([172, 31, 0, 14].into());
    assert_eq!((said(&held, 1), said(&held, 2)), (there, Said::NoExit));
    facts.moving.clear();
    let after = plan(&facts, &mut Past::default(), &Ruleset::default());
    assert_eq!(said(&after, 2), there, "it could not be moved, and is bound where it is");
}

#[test]
fn a_network_is_guarded_before_a_container_is_put_on_it() {
    let mut made = container(1, &[("egress.ip", "172.31.0.14"), ("egress.network", "eip_bridge")]);
    (made.network_mode, made.running) = ("default".to_owned(), false);
    made.attachments[0] =
        Attachment { network_id: String::new(), network: "bridge".to_owned(), addresses: Vec::new(), gateway_priority: 0 };
    let mut facts = host();
    facts.apply(EngineChange::Container(Box::new(made)));
    assert_eq!(resolve(&facts, &mut Past::default()).guards, BTreeMap::from([(BRIDGE, Guard::Closed)]));
}

#[test]
fn a_guard_that_an_earlier_run_left_is_taken_back() {
    let mut facts = host();
    facts.apply(EngineChange::Container(Box::new(container(1, &[("egress.ip", "172.31.0.14")]))));
    let mut outcome = resolve(&facts, &mut Past::default());
    outcome.guards.insert(BRIDGE + 1, Guard::Open);
    let mut past = Past::default();
    read_back(&tables::ruleset(&outcome, &facts.kernel, &mut tables::Cache::default()), &facts.kernel, &mut past);
    assert_eq!(past.pod_bridges, BTreeSet::from([BRIDGE]));
}

#[test]
fn a_manifest_binds_as_a_label_does() {
    let yaml = "
apiVersion: egressd.dev/v1alpha1
kind: EgressBinding
metadata: { name: crawler }
spec:
  containerSelector: { names: [web-1] }
  exits: [{ address: 172.31.0.14 }]
";
    let mut facts = host();
    start(&mut facts, 1, &[]);
    facts.manifests = Index::new(manifest::parse([("crawler.yaml", yaml.as_bytes())]));
    let by_file = plan(&facts, &mut Past::default(), &Ruleset::default());
    facts.manifests = Index::default();
    start(&mut facts, 1, &[("egress.ip", "172.31.0.14")]);
    let by_label = plan(&facts, &mut Past::default(), &Ruleset::default());
    assert_eq!(by_file.target, by_label.target);
    assert_eq!((by_file.before, by_file.after), (by_label.before, by_label.after));
}

#[test]
fn tables_come_before_rules_and_rules_before_marks() {
    let mut facts = host();
    start(&mut facts, 1, &[("egress.ip", "172.31.0.14")]);
    let plan = plan(&facts, &mut Past::default(), &Ruleset::default());
    let kind = |step: &RouteStep| match step {
        RouteStep::AddAddress { .. } | RouteStep::SetGroup { .. } | RouteStep::SetHairpin { .. } => 0,
        RouteStep::AddRoute(r) if r.kind == RouteKind::Unreachable => 1,
        RouteStep::AddRoute(_) => 2,
        RouteStep::AddRule(_) => 3,
        RouteStep::DeleteRule(_) | RouteStep::DeleteRoute(_) | RouteStep::DeleteAddress { .. } => 4,
    };
    assert!(plan.before.is_sorted_by_key(kind), "{plan:?}");
    assert!(plan.after.is_empty() && !plan.ruleset.is_empty());
}

#[test]
fn a_nic_that_goes_down_keeps_its_table_closed_and_its_gateway_known() {
    let mut facts = host();
    facts.kernel.routes.push(Route { metric: 200, ..route("0.0.0.0/0", Some("172.31.0.2"), ETH1) });
    start(&mut facts, 1, &[("egress.ip", "172.31.0.14")]);
    let mut past = Past::default();
    let up = resolve(&facts, &mut past);
    let link = facts.kernel.links[&ETH1].clone();
    facts.kernel.apply(KernelChange::Link(Link { up: false, carrier: false, ..link.clone() }));
    facts.kernel.routes.retain(|r| r.interface != Some(ETH1));
    let down = resolve(&facts, &mut past);
    assert!(matches!(down.rows[0].state, State::Dropped(_)), "{:?}", down.rows[0].state);
    let table = down.uplinks.ways.values().find(|way| way.key.nic == ETH1).expect("its gateway is remembered").table();
    let routing = Routing::desired(&down, &facts.kernel);
    let kinds: Vec<_> = routing.routes.iter().filter(|r| r.table == table).map(|r| r.kind).collect();
    assert_eq!(kinds, [RouteKind::Unreachable]);
    facts.kernel.apply(KernelChange::Link(link));
    assert_eq!(resolve(&facts, &mut past).rows[0].state, up.rows[0].state);
}

#[test]
fn what_is_taken_away_goes_in_the_reverse_order_and_leaves_nothing() {
    let mut facts = host();
    let found = facts.kernel.clone();
    start(&mut facts, 1, &[("egress.ip", "172.31.0.14")]);
    let mut past = Past::default();
    let there = plan(&facts, &mut past, &Ruleset::default());
    apply(&mut facts, &there.before);
    assert!(facts.kernel.links.values().any(|l| l.group == UPLINK_GROUP));
    let observed = Observed { kernel: &facts.kernel, ruleset: tables_of(&there), sysctls: &BTreeMap::new(), ahead: &[] };
    let gone = Planner::default().plan(&Outcome::default(), &observed, &past.departed, true);
    assert!(gone.before.is_empty() && tables_of(&gone).tables.is_empty());
    let first_route = gone.after.iter().position(|s| matches!(s, RouteStep::DeleteRoute(_)));
    let last_rule = gone.after.iter().rposition(|s| matches!(s, RouteStep::DeleteRule(_)));
    assert!(last_rule < first_route, "{gone:?}");
    apply(&mut facts, &gone.after);
    assert_eq!((facts.kernel.routes.len(), facts.kernel.rules.len()), (found.routes.len(), found.rules.len()));
    assert!(facts.kernel.links.values().all(|l| l.group == 0));
}
