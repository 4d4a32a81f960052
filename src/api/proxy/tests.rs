//! What can be written, and each slip with its name.

use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::api::manifest::parse;
use crate::model::facts::Container;
use crate::model::manifests::Manifests;
use crate::model::proxy::{Namespace, Proxy, ProxyProtocol, Transport};

fn read(spec: &Value) -> Manifests {
    let document = json!({"apiVersion": "egressd.dev/v1alpha1", "kind": "EgressProxy", "metadata": {"name": "web"}, "spec": spec});
    parse([("web.json", document.to_string().as_bytes())])
}

fn proxy(spec: &Value) -> Arc<Proxy> {
    let read = read(spec);
    assert_eq!(read.errors, []);
    Arc::clone(&read.proxies[0])
}

fn errors(spec: &Value) -> Vec<String> {
    let read = read(spec);
    assert!(read.proxies.is_empty(), "it is served as it is written, or not at all");
    read.errors.iter().map(|error| format!("{}: {}", error.object, error.error)).collect()
}

fn whole() -> Value {
    json!({
        "listen": {"networkNamespaces": ["", "blue", "/proc/7/ns/net"], "protocol": "UDP", "address": "::", "port": 53},
        "dial": {"networkNamespace": "red", "address": "2001:db8::1", "port": 5353, "source": "2001:db8::2"},
        "udp": {"sessions": 7, "idleSeconds": 8},
    })
}

#[test]
fn a_manifest_says_each_port_and_where_it_leads() {
    let proxy = proxy(&whole());
    assert_eq!(proxy.object(), "EgressProxy default/web");
    let namespaces: Vec<String> = proxy.listen.iter().map(|endpoint| endpoint.namespace.to_string()).collect();
    assert_eq!(namespaces, ["host", "blue", "/proc/7/ns/net"]);
    assert!(proxy.listen.iter().all(|endpoint| endpoint.transport == Transport::Udp && endpoint.address == "[::]:53".parse().unwrap()));
    assert_eq!(proxy.dial.namespace, Some(Namespace::named("red")));
    assert_eq!(proxy.dial.source, Some("2001:db8::2".parse().unwrap()));
    assert_eq!((proxy.limits.open, proxy.limits.idle.as_secs()), (7, 8));
}

#[test]
fn what_is_not_written_has_its_default() {
    let proxy = proxy(&json!({
        "listen": {"networkNamespaces": ["blue"], "address": "127.0.0.1", "port": 80},
        "dial": {"address": "127.0.0.1", "port": 80},
    }));
    assert_eq!((proxy.listen[0].transport, &proxy.dial.namespace), (Transport::Tcp, &Some(Namespace::Host)));
    assert_eq!(proxy.dial.proxy_protocol, ProxyProtocol::None);
    let limits = proxy.limits;
    assert_eq!((limits.open, limits.idle.as_secs(), limits.half_closed.as_secs()), (10_000, 3600, 300));
    assert!(!proxy.trusts("127.0.0.1".parse().unwrap()));
}

#[test]
fn every_slip_is_named_at_once() {
    let found = errors(&json!({
        "listen": {"networkNamespaces": ["a/b", "blue", "blue"], "address": "224.0.0.1", "port": 0},
        "dial": {"address": "10.0.0.2/24", "port": 80, "source": "127.0.0.1"},
    }));
    assert_eq!(
        found,
        ["EgressProxy default/web: spec.listen.port: `0` is not in 1 to 65535"],
        "the schema's come first: the rest could follow from them"
    );
    let found = errors(&json!({
        "listen": {"networkNamespaces": ["a/b", "blue", "/run/netns/blue"], "address": "0.0.0.0", "port": 1},
        "dial": {"address": "10.0.0.2/24", "port": 80, "source": "127.0.0.1"},
    }));
    assert_eq!(
        found,
        [
            "EgressProxy default/web: spec.listen.networkNamespaces[0]: `a/b` is neither a namespace's name nor an absolute path; write for instance `blue`",
            "EgressProxy default/web: spec.listen.networkNamespaces[2]: `/run/netns/blue` is given twice; keep one",
            "EgressProxy default/web: spec.dial.address: `10.0.0.2/24` has a prefix length; write `10.0.0.2`",
            "EgressProxy default/web: spec.dial.source: `127.0.0.1` is a loopback address; write for instance `10.0.1.98`",
        ]
    );
}

#[test]
fn a_port_may_be_of_sctp_and_be_opened_in_containers() {
    let proxy = proxy(&json!({
        "listen": {"containerSelector": {"matchLabels": {"tier": "web"}}, "protocol": "SCTP", "address": "127.0.0.1", "port": 3868},
        "dial": {"address": "127.0.0.1", "port": 80},
        "maxConnections": 4,
        "sctp": {"idleSeconds": 5, "shutdownSeconds": 6},
    }));
    let ports = proxy.containers.as_ref().expect("it selects containers");
    assert_eq!((ports.transport, ports.address.port(), proxy.listen.len()), (Transport::Sctp, 3868, 0));
    assert_eq!((proxy.limits.open, proxy.limits.idle.as_secs(), proxy.limits.half_closed.as_secs()), (4, 5, 6));
    let container = |tier: &str, mode: &str| Container {
        labels: [("tier".to_owned(), tier.to_owned())].into(),
        network_mode: mode.to_owned(),
        ..Container::default()
    };
    let fits =
        [("web", "bridge"), ("web", "none"), ("web", "host"), ("db", "bridge")].map(|(tier, mode)| ports.fits(&container(tier, mode)));
    assert_eq!(fits, [true, true, false, false]);
    let found = errors(&json!({
        "listen": {"containerSelector": {"names": ["-"]}, "protocol": "SCTP", "address": "0.0.0.0", "port": 1},
        "dial": {"address": "10.0.0.2", "port": 80, "proxyProtocol": "V1"},
    }));
    assert!(
        found[0].contains("spec.listen.containerSelector.names[0]") && found[1].contains("spec.dial.proxyProtocol: is for TCP only"),
        "{found:?}"
    );
    let found = errors(&json!({"listen": {"address": "0.0.0.0", "port": 1}, "dial": {"address": "10.0.0.2", "port": 80}}));
    assert!(found[0].contains("spec.listen: does not say where"), "{found:?}");
}

#[test]
fn a_binding_is_of_the_objects_own_namespace_and_dials_by_itself() {
    let listen = json!({"networkNamespaces": ["blue"], "address": "127.0.0.1", "port": 80});
    let by = proxy(&json!({"listen": listen, "dial": {"address": "10.0.0.2", "port": 80, "binding": "crawler"}}));
    assert_eq!((by.dial.binding.as_deref(), by.dial.source), (Some("default/crawler"), None));
    let dial = json!({"address": "10.0.0.2", "port": 80, "binding": "shop/crawler", "source": "10.0.1.98", "networkNamespace": "red"});
    let found = errors(&json!({"listen": listen, "dial": dial}));
    let of = |field: &str| found.iter().any(|error| error.starts_with(&format!("EgressProxy default/web: spec.dial.{field}: ")));
    assert!(found.len() == 3 && of("binding") && of("source") && of("networkNamespace"), "{found:?}");
}

fn of_cluster(spec: &Value) -> Result<Proxy, String> {
    let object = json!({"metadata": {"name": "web", "namespace": "shop"}, "spec": spec});
    let read = super::super::object::proxy(&serde_json::from_value(object).unwrap());
    read.map_err(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
}

#[test]
fn in_a_cluster_it_is_of_pods_of_its_namespace_and_names_nothing_of_the_node() {
    let listen = json!({"podSelector": {"matchLabels": {"app": "web"}}, "address": "127.0.0.1", "port": 80});
    let dial = json!({"address": "10.0.0.2", "port": 80, "binding": "crawler"});
    let read = of_cluster(&json!({"listen": listen, "dial": dial})).unwrap();
    let pods = read.pods.expect("it is for pods");
    assert_eq!((pods.namespace.as_str(), pods.labels.equal["app"].as_str()), ("shop", "web"));
    assert_eq!((read.dial.namespace, read.dial.binding.as_deref()), (None, Some("shop/crawler")));
    assert!(read.listen.is_empty() && read.containers.is_none());

    for (listens, dials, wrong) in [
        (json!({"networkNamespaces": [""]}), json!({}), "spec.listen.networkNamespaces: is for manifest files"),
        (json!({"containerSelector": {"names": ["web"]}}), json!({}), "spec.listen.containerSelector: is for manifest files"),
        (json!({}), json!({"networkNamespace": "/proc/1/ns/net"}), "spec.dial.networkNamespace: is for manifest files"),
        (json!({}), json!({"source": "10.0.1.98"}), "spec.dial.source: is for manifest files"),
        (json!({}), json!({"binding": "mail/crawler"}), "spec.dial.binding: `mail/crawler`"),
        (json!({"podSelector": null}), json!({}), "spec.listen.podSelector: is missing"),
        (json!({}), json!({"address": "127.0.0.1"}), "spec.dial: is 127.0.0.1:80, where this proxy itself listens"),
        (json!({"port": 0}), json!({}), "spec.listen.port: `0` is not in 1 to 65535"),
    ] {
        let merged = |base: &Value, more: &Value| {
            let mut all = base.as_object().unwrap().clone();
            all.extend(more.as_object().unwrap().clone());
            Value::from(all)
        };
        let refused = of_cluster(&json!({"listen": merged(&listen, &listens), "dial": merged(&dial, &dials)})).unwrap_err();
        assert!(refused.contains(wrong), "{wrong}: {refused}");
    }
    let found = errors(&json!({"listen": listen, "dial": {"address": "10.0.0.2", "port": 80}}));
    assert!(found[0].contains("spec.listen.podSelector: is for a cluster"), "{found:?}");
}

proptest! {
    #[test]
    fn any_value_anywhere_is_read_or_refused(field in 0_usize..9, value in any_value()) {
        let paths = [
            "/listen", "/dial", "/listen/networkNamespaces", "/listen/protocol", "/listen/address", "/listen/port", "/dial/source", "/udp", "/udp/sessions",
        ];
        let mut spec = whole();
        *spec.pointer_mut(paths[field]).expect("it is there") = value;
        let read = read(&spec);
        prop_assert_eq!(read.proxies.len() + usize::from(!read.errors.is_empty()), 1);
    }
}

fn any_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "\\PC{0,12}".prop_map(Value::from),
        proptest::collection::vec("\\PC{0,8}", 0..3).prop_map(Value::from),
        proptest::collection::btree_map("address|port|\\PC{0,8}", any::<i64>(), 0..3).prop_map(|map| json!(map)),
    ]
}
