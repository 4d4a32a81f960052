//! Ports of exits that workloads serve: who shares one, who is refused, and which flows end.

use super::*;
use crate::model::facts::Published;
use crate::model::listeners::{Holder, Listener, Listeners};
use crate::model::ports::{Ports, Protocol};
use crate::model::services::Services;
use crate::nft::Family as Table;
use crate::plan::read_back::read_back;

const IP: (&str, &str) = ("egress.ip", "172.31.0.14");

fn services(facts: &Facts) -> Services {
    resolve(facts, &mut Past::default()).inbound
}

/// What is wrong, as it is told.
fn told(services: &Services) -> Vec<String> {
    services.problems.iter().map(ToString::to_string).collect()
}

/// Services with the last bytes of their servers' addresses.
fn said(services: &Services) -> Vec<(String, Vec<u8>)> {
    let last = |address: IpAddr| if let IpAddr::V4(v4) = address { v4.octets()[3] } else { 0 };
    services.all.iter().map(|one| (one.called(), one.servers.iter().map(|server| last(server.address)).collect())).collect()
}

#[test]
fn containers_that_publish_the_same_share_it() {
    let mut facts = host();
    start(&mut facts, 4, &[IP, ("egress.publish", "80:8080,172.31.0.14:53/udp")]);
    start(&mut facts, 5, &[IP, ("egress.publish", "80"), ("egress.weight", "3")]);
    let services = services(&facts);
    assert_eq!(said(&services), [("tcp/172.31.0.14:80".to_owned(), vec![4, 5]), ("udp/172.31.0.14:53".to_owned(), vec![4])]);
    assert_eq!(told(&services), Vec::<String>::new());
    let servers = &services.all[0].servers;
    assert_eq!((servers[0].port, servers[1].port, servers[1].weight), (Some(8080), Some(80), 3));
}

#[test]
fn the_younger_that_serves_a_port_in_another_way_is_refused() {
    let mut facts = host();
    start(&mut facts, 4, &[IP, ("egress.publish", "80")]);
    start(&mut facts, 5, &[IP, ("egress.publish", "80"), ("egress.balance", "random")]);
    start(&mut facts, 6, &[IP, ("egress.publish", "80"), ("egress.client-source", "masquerade")]);
    start(&mut facts, 7, &[IP, ("egress.publish", "79-81")]);
    start(&mut facts, 8, &[IP, ("egress.publish", "80/udp")]);
    let services = services(&facts);
    assert_eq!(said(&services), [("tcp/172.31.0.14:80".to_owned(), vec![4]), ("udp/172.31.0.14:80".to_owned(), vec![8])]);
    for (problem, words) in told(&services).iter().zip([
        "label/web-5: egress.balance: tcp/172.31.0.14:80 is shared with label/web-4",
        "label/web-6: egress.client-source: tcp/172.31.0.14:80 is shared with label/web-4",
        "label/web-7: egress.publish: tcp/172.31.0.14:80 is served by label/web-4; choose another port",
    ]) {
        assert!(problem.starts_with(words), "{problem}");
    }
}

#[test]
fn a_port_stays_whose_it_is_while_the_exit_is_away() {
    let (mut facts, mut past) = (host(), Past::default());
    let mut round = |facts: &Facts| {
        let inbound = resolve(facts, &mut past).inbound;
        past.serve(&inbound, true);
        said(&inbound)
    };
    start(&mut facts, 5, &[IP, ("egress.publish", "80")]);
    let own = [("tcp/172.31.0.14:80".to_owned(), vec![5])];
    assert_eq!(round(&facts), own);
    // It would come first.
    start(&mut facts, 4, &[IP, ("egress.publish", "80"), ("egress.balance", "random")]);
    assert_eq!(round(&facts), own);
    let place = Place { nsid: None, index: ETH1 };
    let address = *facts.kernel.addresses_at(place).find(|address| address.net.addr().to_string() == IP.1).expect("it is there");
    facts.kernel.apply(KernelChange::AddressGone(place, address.net));
    assert_eq!(round(&facts), []);
    facts.kernel.apply(KernelChange::Address(place, address));
    assert_eq!(round(&facts), own);
    let first = facts.containers.values().find(|known| known.container.name == "web-5").expect("it runs").container.id.clone();
    facts.apply(EngineChange::ContainerGone(first));
    assert_eq!(round(&facts), [("tcp/172.31.0.14:80".to_owned(), vec![4])], "nobody else asks for it");
}

#[test]
fn calls_go_to_the_server_of_last_resort_while_no_server_takes_any() {
    let labels = [IP, ("egress.publish", "80:8080"), ("egress.last-resort", "172.19.0.9:81"), ("egress.weight", "0")];
    let mut facts = host();
    start(&mut facts, 4, &labels);
    let last = (IpAddr::from([172, 19, 0, 9]), 81);
    let down = services(&facts);
    assert_eq!((down.all[0].weighted(), down.all[0].resorted().is_some()), (vec![(last, 1)], true));
    assert!(down.served().values().any(|servers| *servers == [last]), "it is served");
    start(&mut facts, 5, &labels[..3]);
    let up = services(&facts);
    assert_eq!((up.all[0].weighted(), up.all[0].resorted()), (vec![((IpAddr::from([172, 19, 0, 5]), 8080), 1)], None));
    // Two that share a port have the same.
    start(&mut facts, 6, &[IP, ("egress.publish", "80:8080"), ("egress.last-resort", "172.19.0.8")]);
    // One that no route leads to is told.
    start(&mut facts, 7, &[IP, ("egress.publish", "81"), ("egress.last-resort", "198.51.100.9")]);
    let all = services(&facts);
    for (problem, words) in told(&all).iter().zip([
        "label/web-6: egress.last-resort: tcp/172.31.0.14:80 is shared with label/web-4, which has another server of last resort",
        "label/web-7: egress.last-resort: 198.51.100.9 is not used: no route but the default one leads to it",
    ]) {
        assert!(problem.starts_with(words), "{problem}");
    }
    assert_eq!((told(&all).len(), all.all[1].last_resort), (2, None));
}

#[test]
fn a_binding_with_nobody_has_its_port_by_its_last_resort_after_a_restart() {
    let (mut facts, mut past) = (host(), Past::default());
    let binding = |name: &str, more: &str| {
        format!(
            "apiVersion: egressd.dev/v1alpha1\nkind: EgressBinding\nmetadata: {{name: {name}}}\nspec: {{networkNamespaces: [{name}], exits: [{{address: 172.31.0.14}}], inbound: [{{protocol: TCP, port: 80{more}}}]}}\n"
        )
    };
    let later = binding("zoo", ", lastResort: [{address: 172.19.0.9}]");
    facts.manifests = Index::new(manifest::parse([("zoo.yaml", later.as_bytes())]));
    let first = plan(&facts, &mut past, &Ruleset::default());
    // The next process knows no more than the tables. The other one would take precedence.
    let (mut past, other) = (Past::default(), binding("ape", ""));
    read_back(tables_of(&first), &facts.kernel, &mut past);
    facts.manifests = Index::new(manifest::parse([("ape.yaml", other.as_bytes()), ("zoo.yaml", later.as_bytes())]));
    let services = resolve(&facts, &mut past).inbound;
    assert_eq!(services.all[0].binding.to_string(), "file/default/zoo", "{:?}", services.problems);
}

#[test]
fn a_call_by_sctp_that_was_refused_ends_when_its_port_is_served() {
    let (mut facts, mut past) = (host(), Past::default());
    start(&mut facts, 4, &[IP, ("egress.publish", "80,3868/sctp")]);
    let cuts = plan(&facts, &mut past, &Ruleset::default()).server_cuts;
    let [cut] = cuts.as_slice() else { panic!("{cuts:?}") };
    assert_eq!((cut.server, cut.protocol, cut.ports), (IpAddr::from([172, 31, 0, 14]), 132, (3868, 3868)));
}

#[test]
fn a_workload_of_the_other_family_alone_is_told() {
    let mut facts = host();
    let manifest = "apiVersion: egressd.dev/v1alpha1\nkind: EgressBinding\nmetadata: {name: six}\nspec: {addresses: ['fd00::2/128'], exits: [{address: 172.31.0.14}], inbound: [{protocol: TCP, port: 80}]}\n";
    facts.kernel.apply(address(BRIDGE, "fd00::1/64"));
    let fd00 = Route { destination: "fd00::/64".parse().expect("a net"), ..route("172.19.0.0/16", None, BRIDGE) };
    let mut routes = facts.kernel.routes.clone();
    routes.push(fd00);
    facts.kernel.apply(KernelChange::Routing { routes, rules: Vec::new() });
    facts.manifests = Index::new(manifest::parse([("six.yaml", manifest.as_bytes())]));
    let services = services(&facts);
    assert_eq!(said(&services), [("tcp/172.31.0.14:80".to_owned(), vec![])]);
    assert!(told(&services)[0].starts_with("file/default/six: spec.inbound[0].port: none of its workloads"), "{:?}", services.problems);
}

#[test]
fn a_server_that_comes_or_goes_changes_its_service_alone() {
    let (mut facts, mut past) = (host(), Past::default());
    for n in [4, 5] {
        start(&mut facts, n, &[IP, ("egress.publish", "80"), ("egress.balance", "by-source")]);
        start(&mut facts, n + 10, &[IP, ("egress.publish", "81/udp")]);
    }
    let first = plan(&facts, &mut past, &Ruleset::default());
    let [begun] = first.server_cuts.as_slice() else { panic!("datagrams to a port that nobody served: {:?}", first.server_cuts) };
    assert_eq!((begun.server, begun.ports), (IpAddr::from([172, 31, 0, 14]), (81, 81)));
    start(&mut facts, 6, &[IP, ("egress.publish", "80"), ("egress.balance", "by-source")]);
    let second = plan(&facts, &mut past, tables_of(&first));
    let rules: Vec<_> = second.ruleset.iter().filter(|change| matches!(change, Change::AddRule(..) | Change::FlushChain(..))).collect();
    assert_eq!(rules, Vec::<&Change>::new(), "slots of a hash are elements");
    assert_eq!(second.server_cuts, []);
    // One of the others goes: its datagrams end, and the turn is of those that are left.
    facts.apply(EngineChange::ContainerGone(
        facts.containers.values().find(|c| c.container.name == "web-14").expect("it runs").container.id.clone(),
    ));
    let third = plan(&facts, &mut past, tables_of(&second));
    let servers: Vec<IpAddr> = third.server_cuts.iter().map(|cut| cut.server).collect();
    assert_eq!(servers, [IpAddr::from([172, 19, 0, 14])]);
    assert!(third.server_cuts[0].hits([172, 31, 0, 14].into(), 17, 81) && !third.server_cuts[0].hits([172, 31, 0, 14].into(), 6, 81));
    // With nobody left, nothing of it stays.
    for name in ["web-4", "web-5", "web-6", "web-15"] {
        let id = facts.containers.values().find(|known| known.container.name == name).expect("it runs").container.id.clone();
        facts.apply(EngineChange::ContainerGone(id));
    }
    let last = plan(&facts, &mut past, tables_of(&third));
    let sets = tables_of(&last).tables.values().flat_map(|table| table.sets.keys().chain(table.chains.keys()));
    let ours: Vec<_> = sets.filter(|name| name.starts_with("serv") || name.starts_with("inbound") || name.contains("forward")).collect();
    assert_eq!(ours, Vec::<&String>::new());
}

#[test]
fn a_server_that_comes_or_goes_leaves_the_clients_of_others_alone() {
    let (mut facts, mut past) = (host(), Past::default());
    let labels = [IP, ("egress.publish", "80"), ("egress.affinity", "10m")];
    for n in [4, 5] {
        start(&mut facts, n, &labels);
    }
    let first = plan(&facts, &mut past, &Ruleset::default());
    let of = |plan: &Plan, what: &str| -> Vec<String> {
        let table = &tables_of(plan).tables[&Table::Ip];
        let names = table.sets.keys().chain(table.chains.keys()).filter_map(|name| name.strip_prefix(what));
        names.map(str::to_owned).collect()
    };
    let both = ["172.19.0.4-80", "172.19.0.5-80"];
    assert_eq!(of(&first, "clients-tcp-80-172.31.0.14-"), both);
    assert_eq!(of(&first, "server-tcp-80-172.31.0.14-"), both);
    assert_eq!(plan(&facts, &mut past, tables_of(&first)).ruleset, [], "what is read back is what was written");
    start(&mut facts, 6, &labels);
    let second = plan(&facts, &mut past, tables_of(&first));
    let touched = |plan: &Plan| {
        let of_others = |name: &String| both.iter().any(|other| name.ends_with(other));
        plan.ruleset.iter().any(|change| match change {
            Change::DeleteSet(_, name) | Change::FlushChain(_, name) => of_others(name),
            Change::DeleteTable(_) => true,
            _ => false,
        })
    };
    assert!(!touched(&second), "{:?}", second.ruleset);
    // Another container with another time is refused.
    start(&mut facts, 7, &[IP, ("egress.publish", "80"), ("egress.affinity", "1h")]);
    let problems = told(&services(&facts));
    assert!(problems[0].starts_with("label/web-7: egress.affinity: tcp/172.31.0.14:80 is shared with label/web-4"), "{problems:?}");
}

/// Somebody listens on a port of all addresses, as far as it was asked for.
fn listening(facts: &mut Facts, port: u16) {
    let asked = services(facts).asked;
    let holder = Holder::Process { name: "sshd".to_owned(), pid: 812 };
    let address = IpAddr::from([0, 0, 0, 0]);
    let listener = Listener { protocol: Protocol::Tcp, address, port, dual_stack: false, interface: None, holder };
    facts.listeners = Some(Listeners { asked, all: [((Protocol::Tcp, port), vec![listener])].into(), problem: None });
}

#[test]
fn a_port_is_served_once_nobody_is_known_to_have_it() {
    let mut facts = host();
    facts.listeners = Some(Listeners::default());
    start(&mut facts, 4, &[IP, ("egress.publish", "80,20-30")]);
    let unknown = services(&facts);
    assert_eq!((said(&unknown), unknown.pending), (Vec::new(), true), "it is not known yet who listens there");
    listening(&mut facts, 22);
    let known = services(&facts);
    assert_eq!((said(&known), known.pending), (vec![("tcp/172.31.0.14:80".to_owned(), vec![4])], false));
    let problem = "label/web-4: egress.publish: tcp/172.31.0.14:20-30 is taken by sshd (process 812), which listens on 0.0.0.0:22; stop it";
    assert!(told(&known)[0].starts_with(problem), "{:?}", known.problems);
    // Who was served before goes on, and the other is told.
    let mut past = Past::default();
    past.served.insert((IpAddr::from([172, 31, 0, 14]), Ports { protocol: Protocol::Tcp, first: 20, last: 30 }), [].into());
    let held = resolve(&facts, &mut past).inbound;
    assert_eq!(said(&held).len(), 2);
    assert!(told(&held)[0].contains("stays with the binding, which had it first; it is also used by sshd"), "{:?}", held.problems);
}

#[test]
fn a_port_that_an_engine_publishes_is_refused_unless_its_container_serves_it() {
    let mut facts = host();
    start(&mut facts, 4, &[IP, ("egress.publish", "80")]);
    start(&mut facts, 5, &[]);
    let publish = |facts: &mut Facts, n: u8, asks: &[(&str, &str)]| {
        let published = Published { protocol: Protocol::Tcp, port: 80, address: IpAddr::from([0, 0, 0, 0]) };
        facts.apply(EngineChange::Container(Box::new(Container { published: vec![published], ..container(n, asks) })));
    };
    publish(&mut facts, 5, &[]);
    // The engine's own proxy is nobody else.
    listening(&mut facts, 80);
    let taken = services(&facts);
    assert_eq!(said(&taken), []);
    let problem = "label/web-4: egress.publish: tcp/172.31.0.14:80 is taken by container web-5, which the engine publishes at 0.0.0.0:80";
    assert!(taken.problems.len() == 1 && told(&taken)[0].starts_with(problem), "{:?}", taken.problems);
    start(&mut facts, 5, &[]);
    publish(&mut facts, 4, &[IP, ("egress.publish", "80")]);
    assert_eq!(said(&services(&facts)), [("tcp/172.31.0.14:80".to_owned(), vec![4])]);
}

#[test]
fn there_are_as_many_rules_with_ten_servers_as_with_one() {
    let rules = |servers: u8| -> usize {
        let mut facts = host();
        (4..4 + servers).for_each(|n| start(&mut facts, n, &[IP, ("egress.publish", "80,81/udp")]));
        let target = plan(&facts, &mut Past::default(), &Ruleset::default()).target.expect("all tables");
        target.tables.values().flat_map(|table| table.chains.values()).map(|chain| chain.rules.len()).sum()
    };
    assert_eq!(rules(10), rules(1));
}

/// Bindings of one port of one exit, each of the address `172.19.0.N`.
fn asking(bindings: &[(&str, u8, &str)]) -> Index {
    let text: Vec<String> = bindings
        .iter()
        .map(|(name, server, more)| {
            format!(
                "apiVersion: egressd.dev/v1alpha1\nkind: EgressBinding\nmetadata: {{name: {name}}}\nspec: {{addresses: [172.19.0.{server}/32], exits: [{{address: 172.31.0.14}}]{more}}}\n"
            )
        })
        .collect();
    Index::new(manifest::parse([("all.yaml", text.join("---\n").as_bytes())]))
}

#[test]
fn a_port_stays_with_the_binding_that_serves_it_whoever_else_comes() {
    let port = |more: &str| format!(", inbound: [{{protocol: TCP, port: 80{more}}}]");
    let (mut facts, mut past) = (host(), Past::default());
    facts.manifests = asking(&[("m", 4, &port(""))]);
    let mut round = |manifests: Index, restarted: bool| {
        facts.manifests = manifests;
        if restarted {
            past.holders.clear();
        }
        let inbound = resolve(&facts, &mut past).inbound;
        past.serve(&inbound, true);
        let named: Vec<_> = inbound.all.iter().map(|one| (one.binding.name.clone(), one.servers.len())).collect();
        (named, told(&inbound))
    };
    let m = |servers| vec![("default/m".to_owned(), servers)];
    assert_eq!(round(asking(&[("m", 4, &port(""))]), false).0, m(1));
    // By name and by priority it would be the other one's.
    let stronger = format!("{}, priority: 9", port(""));
    for restarted in [false, true] {
        let (named, problems) = round(asking(&[("a", 5, &stronger), ("m", 4, &port(""))]), restarted);
        assert_eq!(named, m(1));
        assert!(
            problems.len() == 1 && problems[0].contains("default/a") && problems[0].contains("is served by file/default/m"),
            "{problems:?}"
        );
    }
    // It is edited: another server, another target, a range around it.
    for edited in [("m", 6, port("")), ("m", 6, port(", targetPort: 8080")), ("m", 6, port(", endPort: 90"))] {
        assert_eq!(round(asking(&[("a", 5, &stronger), (edited.0, edited.1, &edited.2)]), false).0, m(1), "{edited:?}");
    }
    // Once it asks for the port no more, it is the other one's.
    assert_eq!(round(asking(&[("a", 5, &stronger), ("m", 6, "")]), false).0, vec![("default/a".to_owned(), 1)]);
}

#[test]
fn a_workload_that_another_binding_has_now_takes_its_port_along() {
    let port = ", inbound: [{protocol: TCP, port: 80}]";
    let (mut facts, mut past) = (host(), Past::default());
    for (manifests, holder) in
        [(asking(&[("m", 4, port)]), "default/m"), (asking(&[("m", 4, port), ("z", 4, &format!("{port}, priority: 9"))]), "default/z")]
    {
        facts.manifests = manifests;
        let inbound = resolve(&facts, &mut past).inbound;
        past.serve(&inbound, true);
        let named: Vec<_> = inbound.all.iter().map(|one| (one.binding.name.as_str(), one.servers.len())).collect();
        assert_eq!(named, [(holder, 1)]);
    }
}

#[test]
fn this_host_itself_is_no_server() {
    let mut facts = host();
    let text = "apiVersion: egressd.dev/v1alpha1\nkind: EgressBinding\nmetadata: {name: web}\nspec: {addresses: [172.19.0.4/32, 172.31.0.8/32], exits: [{address: 172.31.0.14}], inbound: [{protocol: TCP, port: 80, servers: [{address: 172.31.0.14, weight: 2}]}]}\n";
    facts.manifests = Index::new(manifest::parse([("web.yaml", text.as_bytes())]));
    let services = services(&facts);
    assert_eq!(said(&services), [("tcp/172.31.0.14:80".to_owned(), vec![4])]);
    let own = "file/default/web: spec.inbound[0].servers: 172.31.0.14 is an address of this host itself";
    assert!(told(&services).iter().any(|problem| problem.starts_with(own)), "{:?}", services.problems);
}

#[test]
fn hairpin_mode_goes_with_the_last_service_unless_ports_that_serve_nothing_have_it_as_well() {
    for (of_all, off) in [(false, vec![104]), (true, Vec::new())] {
        let (mut facts, mut past) = (host(), Past::default());
        start(&mut facts, 4, &[IP, ("egress.publish", "80")]);
        start(&mut facts, 5, &[IP]);
        for port in if of_all { vec![104, 105] } else { Vec::new() } {
            facts.kernel.apply(KernelChange::Hairpin(port, true));
        }
        let modes = |plan: &Plan| -> Vec<(IfIndex, bool)> {
            let steps = plan.before.iter().chain(&plan.after);
            steps.filter_map(|step| if let RouteStep::SetHairpin { index, on } = step { Some((*index, *on)) } else { None }).collect()
        };
        let first = plan(&facts, &mut past, &Ruleset::default());
        assert_eq!(modes(&first), if of_all { Vec::new() } else { vec![(104, true)] });
        start(&mut facts, 4, &[IP]);
        facts.kernel.apply(KernelChange::Hairpin(104, true));
        let second = plan(&facts, &mut past, tables_of(&first));
        assert_eq!(modes(&second), off.into_iter().map(|port| (port, false)).collect::<Vec<_>>());
    }
}
