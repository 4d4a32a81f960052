//! What holds for every manifest.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::model::binding::{Assignment, SourcePorts};
use crate::model::health::{ExitProbe, HealthCheck};
use crate::model::rate::Rate;

/// The manifest that says this binding.
fn printed(binding: &Binding) -> Value {
    let (namespace, name) = binding.name.name.split_once('/').expect("a full name");
    let mut spec = match &binding.selector {
        Selector::Container(_) | Selector::Pods { .. } => unreachable!("not of files"),
        Selector::Containers { names, match_labels, compose } => {
            let compose = compose.as_ref().map(|c| json!({"project": c.project, "service": c.service}));
            json!({"containerSelector": {"names": names, "matchLabels": match_labels, "compose": compose}})
        }
        Selector::Addresses(all) => {
            let all: Vec<_> = all.iter().map(|s| json!({"cidr": s.net, "interface": s.interface})).collect();
            json!({"addresses": all})
        }
        Selector::Namespaces(names) => json!({"networkNamespaces": names}),
        Selector::Host(HostSelector { users, cgroups, units, all }) => {
            json!({"hostSelector": {"all": all, "users": users, "cgroups": cgroups, "systemdUnits": units}})
        }
    };
    spec["exits"] = binding
        .exits
        .iter()
        .map(|e| json!({"address": e.address, "interface": e.interface, "gateway": e.gateway, "weight": e.weight, "draining": e.draining, "assignment": format!("{:?}", e.assignment), "publicAddress": e.public,
            "sourcePorts": e.source_ports.map(|ports| ports.to_string()), "probe": e.probe.as_ref().map(|probe| json!({"tcp": probe.to}))}))
        .collect();
    spec["rate"] = json!(binding.rate.map(|rate| format!("{}bit", rate.bytes * 8)));
    spec["burst"] = json!(binding.rate.map(|rate| format!("{}B", rate.burst)));
    spec["spread"] = json!(format!("{:?}", binding.spread));
    spec["to"] = binding.traffic.to().iter().map(|d| json!({"cidr": d.cidr, "except": d.except})).collect();
    let port = |p: &Ports| json!({"protocol": format!("{:?}", p.protocol).to_uppercase(), "port": p.first, "endPort": p.last});
    spec["ports"] = binding.traffic.ports().iter().map(port).collect();
    spec["whenUnavailable"] = json!(format!("{:?}", binding.when_unavailable));
    spec["existingFlows"] = json!(format!("{:?}", binding.existing_flows));
    spec["priority"] = json!(binding.priority);
    json!({"apiVersion": API_VERSION, "kind": BINDING, "metadata": {"name": name, "namespace": namespace}, "spec": spec})
}

prop_compose! {
    fn any_net()(bits in any::<u128>(), v4 in any::<bool>(), length in 8u8..=32) -> IpNet {
        let address: IpAddr = if v4 {
            std::net::Ipv4Addr::from_bits(bits as u32).into()
        } else {
            std::net::Ipv6Addr::from_bits(bits | 1 << 127).into()
        };
        IpNet::new_assert(address, length).trunc()
    }
}

fn any_assignment() -> impl Strategy<Value = (Assignment, bool)> {
    (prop_oneof![Just(Assignment::Existing), Just(Assignment::Managed), Just(Assignment::Routed)], any::<bool>())
}

prop_compose! {
    fn any_exit()(host in 1u8..255, v4 in any::<bool>(), interface in proptest::option::of("[a-z][a-z0-9-]{0,14}"), (routed, draining) in any::<(bool, bool)>(), weight in 1u16..=100, (assignment, public) in any_assignment(), ports in proptest::option::of(1u16..60_000), probed in any::<bool>()) -> ExitSpec {
        let address = if v4 { ip(&format!("172.31.0.{host}")) } else { ip(&format!("2001:db8::{host:x}")) };
        let gateway = routed.then(|| ip(if v4 { "172.31.1.1" } else { "fe80::1" }));
        let source_ports = ports.map(|first| SourcePorts { first, last: first + 1000 });
        let how = HealthCheck { interval: 1000, failures: 3, ..HealthCheck::default() };
        let probe = (probed && assignment != Assignment::Routed).then(|| ExitProbe { to: (address, 443).into(), how: Arc::new(how) });
        ExitSpec { address, interface, gateway, weight, draining, assignment, public: public.then_some(address), source_ports, probe }
    }
}

prop_compose! {
    fn any_destination()(cidr in any_net(), deeper in proptest::option::of(1u8..=8)) -> Destination {
        let except = deeper.and_then(|by| IpNet::new(cidr.addr(), cidr.prefix_len() + by).ok());
        Destination { cidr, except: except.into_iter().collect() }
    }
}

fn any_programs() -> impl Strategy<Value = HostSelector> {
    let users = proptest::collection::vec("[a-z0-9_][a-z0-9_-]{0,20}", 1..4);
    let cgroups = proptest::collection::vec("(/[a-z][a-z0-9 ._-]{0,12}){1,4}", 0..4);
    let units = proptest::collection::vec("[a-z][a-z0-9@._-]{0,12}[a-z0-9]\\.(service|slice|scope)", 0..4);
    let named = (users, cgroups, units).prop_map(|(users, cgroups, units)| HostSelector { users, cgroups, units, all: false });
    prop_oneof![named, Just(HostSelector { all: true, ..HostSelector::default() })]
}

fn any_selector() -> impl Strategy<Value = Selector> {
    let name = "[a-zA-Z0-9][a-zA-Z0-9_.-]{0,20}";
    let names = proptest::collection::vec(name, 1..4);
    let labels = proptest::collection::btree_map("\\PC{0,12}", "\\PC{0,12}", 0..4);
    let compose = proptest::option::of((name, proptest::option::of(name)).prop_map(|(project, service)| Compose { project, service }));
    let source =
        (any_net().prop_filter("packets come from it", |net| values::source(*net).is_ok()), proptest::option::of("[a-z][a-z0-9]{0,14}"))
            .prop_map(|(net, interface)| RoutedSource { net, interface });
    prop_oneof![
        (names, labels, compose).prop_map(|(names, match_labels, compose)| Selector::Containers { names, match_labels, compose }),
        proptest::collection::vec(source, 1..4).prop_map(Selector::Addresses),
        proptest::collection::vec("[a-z][a-z0-9 ._-]{0,20}", 1..4).prop_map(Selector::Namespaces),
        any_programs().prop_map(Selector::Host),
    ]
}

prop_compose! {
    fn any_binding()(
        selector in any_selector(),
        exits in proptest::collection::vec(any_exit(), 1..4),
        to in proptest::collection::vec(any_destination(), 0..4),
        ports in proptest::collection::vec((prop_oneof![Just(Protocol::Tcp), Just(Protocol::Udp), Just(Protocol::Sctp)], 1u16.., 1u16..), 0..4),
        spread in prop_oneof![Just(Spread::RoundRobin), Just(Spread::Random), Just(Spread::BySource), Just(Spread::ByDestination)],
        (fallback, reset, priority) in any::<(bool, bool, i32)>(),
        rate in proptest::option::of((Rate::BITS.start() / 8..=Rate::BITS.end() / 8, 0..=Rate::BURST)),
    ) -> Binding {
        let rate = rate.filter(|_| !matches!(selector, Selector::Host(_))).map(|(bytes, burst)| Rate { bytes, burst });
        let mut exits = exits;
        exits.sort();
        exits.dedup_by_key(|exit| exit.address);
        let ports = ports.into_iter().map(|(protocol, a, b)| Ports { protocol, first: a.min(b), last: a.max(b) }).collect();
        Binding {
            name: BindingName { source: Source::File, name: "shop/crawler".to_owned() },
            copy_of: None,
            selector,
            lapsed: false,
            warnings: values::idle_families(&exits, &to).into_iter().collect(),
            exits,
            spread,
            rate,
            inbound: Vec::new(),
            pool: None,
            refusal: None,
            traffic: Traffic::new(to, values::merge_ports(ports)),
            when_unavailable: if fallback { WhenUnavailable::Fallback } else { WhenUnavailable::Drop },
            existing_flows: if reset { ExistingFlows::Reset } else { ExistingFlows::Keep },
            priority,
            created: 0,
            errors: Vec::new(),
        }
    }
}

proptest! {
    #[test]
    fn a_binding_that_is_printed_is_read_as_the_same(binding in any_binding()) {
        let document = printed(&binding);
        let yaml = serde_saphyr::to_string(&document).expect("plain data");
        prop_assert_eq!(&read(&yaml), &Manifests { bindings: vec![Arc::new(binding.clone())], ..Manifests::default() }, "{}", yaml);
        prop_assert_eq!(&read(&document.to_string()).bindings, &[Arc::new(binding)]);
    }

    #[test]
    fn no_bytes_make_the_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        parse([("bytes.yaml", bytes.as_slice())]);
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in "[ \\n:,{}\\[\\]&*!|>'\"%@`#?~<-]{0,20}\\PC{0,40}[a-z: \\n\\[\\]{}&*-]{0,60}") {
        parse([("text.yaml", text.as_bytes())]);
    }

    #[test]
    fn a_manifest_with_anything_in_one_place_is_held_or_refused(binding in any_binding(), field in 0usize..9, value in any_value()) {
        let mut document = printed(&binding);
        let fields = ["exits", "to", "ports", "whenUnavailable", "existingFlows", "priority", "containerSelector", "addresses", "other"];
        document["spec"][fields[field]] = value;
        let read = read(&document.to_string());
        prop_assert_eq!(read.bindings.len() + usize::from(!read.errors.is_empty()), 1, "{}", document);
    }
}

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "\\PC{0,12}".prop_map(Value::from)
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map("address|cidr|names|port|protocol|\\PC{0,8}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}
