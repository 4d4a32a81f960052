//! Objects as the API server writes them, and what is read of them.

use std::net::IpAddr;

use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::*;
use crate::model::binding::Selector;

fn object<K: DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).expect("it is such an object")
}

fn a_binding(spec: Value, status: Value) -> DynamicObject {
    object(json!({
        "apiVersion": "egressd.dev/v1alpha1",
        "kind": "EgressBinding",
        "metadata": {
            "name": "crawler", "namespace": "shop", "uid": "u", "generation": 3, "creationTimestamp": "1970-01-01T00:01:40Z",
            "managedFields": [{"manager": "kubectl", "operation": "Apply"}],
        },
        "spec": spec,
        "status": status,
    }))
}

#[test]
fn a_binding_is_read_with_its_age_and_generation() {
    let (key, read) = binding(a_binding(json!({"podSelector": {}, "exits": [{"address": "172.31.0.14"}]}), Value::Null));
    let api = read.expect("it is good");
    assert_eq!((key.as_str(), api.namespace.as_str(), api.name.as_str()), ("shop/crawler", "shop", "crawler"));
    assert_eq!((api.uid.as_str(), api.generation, api.binding.created), ("u", 3, 100));
    assert_eq!(api.binding.name.to_string(), "api/shop/crawler");
    assert!(api.binding.errors.is_empty(), "{:?}", api.binding.errors);
}

#[test]
fn of_a_status_only_addresses_of_the_present_pool_matter() {
    let status = |exits: Value| json!({"exits": exits, "pool": "public", "summary": {"workloads": 7}});
    let by_number = json!({"podSelector": {}, "pool": {"name": "public", "count": 2}});
    let allocated = |spec: &Value, exits| binding(a_binding(spec.clone(), status(exits))).1.expect("it is good").allocated;
    let addresses: Vec<IpAddr> = vec![[172, 31, 0, 14].into(), [172, 31, 0, 15].into()];
    assert_eq!(allocated(&by_number, json!(["172.31.0.14", "172.31.0.15", "none", 7])), addresses);
    let by_address = json!({"podSelector": {}, "pool": {"name": "public", "addresses": ["172.31.0.14"]}});
    let by_itself = json!({"podSelector": {}, "exits": [{"address": "172.31.0.14"}]});
    assert_eq!(allocated(&by_address, json!(["172.31.0.14"])), addresses[..1]);
    let of_another = json!({"podSelector": {}, "pool": {"name": "other"}});
    for spec in [of_another, by_itself] {
        assert_eq!(allocated(&spec, json!(["172.31.0.14"])), Vec::<IpAddr>::new());
    }
}

#[test]
fn a_binding_of_a_newer_definition_holds_its_pods_and_names_the_fields_that_cannot_be_read() {
    let spec = json!({"podSelector": {"matchLabels": {"app": "a"}}, "exits": "everywhere", "whenUnavailable": "Queue"});
    let api = binding(a_binding(spec, Value::Null)).1.expect("it says who is meant");
    assert!(matches!(&api.binding.selector, Selector::Pods { namespace, .. } if namespace == "shop"), "{:?}", api.binding.selector);
    let fields: Vec<&str> = api.binding.errors.iter().map(|error| error.field.as_str()).collect();
    assert_eq!(fields, ["spec.exits", "spec.whenUnavailable"], "each once");
}

#[test]
fn a_binding_that_does_not_say_who_is_meant_is_an_error_that_names_it() {
    let selectors = [json!({}), json!({"podSelector": {"matchExpressions": [{"key": "a", "operator": "Like"}]}}), Value::Null];
    for spec in selectors {
        let (key, read) = binding(a_binding(spec.clone(), Value::Null));
        let error = read.expect_err("nobody is meant");
        assert_eq!(key, "shop/crawler");
        assert!(error.starts_with("EgressBinding shop/crawler: ") && error.contains("spec"), "{spec}: {error}");
    }
}

#[test]
fn a_pool_is_read_with_its_errors() {
    let pool = |spec: Value| pool(object(json!({"metadata": {"name": "public", "generation": 2}, "spec": spec})));
    let (key, good) = pool(json!({"blocks": [{"cidr": "172.31.0.16/28"}], "allowedNamespaces": {"names": ["shop"]}}));
    let good = good.expect("pools are always told");
    assert_eq!((key.as_str(), good.generation, good.size()), ("public", 2, 16));
    assert!(good.errors.is_empty() && good.allowed_names.contains("shop"), "{good:?}");
    let bad = pool(json!({"blocks": 7})).1.expect("pools are always told");
    assert_eq!(bad.errors.iter().map(|error| error.field.as_str()).collect::<Vec<_>>(), ["spec.blocks"]);
}

#[test]
fn pods_are_read_in_all_their_states() {
    let read = |annotations: Value, spec: Value, status: Value| {
        let metadata = json!({"name": "web", "namespace": "shop", "uid": "u", "labels": {"app": "web"}, "annotations": annotations});
        pod(object(json!({"metadata": metadata, "spec": spec, "status": status}))).1.expect("pods are always told")
    };
    let spec = json!({"containers": [{"name": "c", "image": "i"}]});
    let fresh = read(Value::Null, spec.clone(), json!({"phase": "Pending"}));
    let expected = Pod {
        uid: "u".to_owned(),
        namespace: "shop".to_owned(),
        name: "web".to_owned(),
        labels: Labels::from([("app".to_owned(), "web".to_owned())]),
        ..Pod::default()
    };
    assert_eq!(fresh, expected);
    let ips = json!([{"ip": "10.244.1.7"}, {"ip": "fd00::7"}]);
    let running = read(Value::Null, spec.clone(), json!({"phase": "Running", "podIP": "10.244.1.7", "podIPs": ips}));
    assert_eq!(running.addresses, ["10.244.1.7".parse::<IpAddr>().unwrap(), "fd00::7".parse().unwrap()]);
    assert!(!running.finished && !running.host_network && !running.terminating);
    let state = |name: &str, at: &str| json!({"name": "c", "state": {name: {"startedAt": at}}});
    let states = json!([state("running", "2026-01-01T00:00:00Z"), state("running", "2026-01-01T00:05:00Z"), state("terminated", "2026-01-01T00:09:00Z"), {"name": "d"}]);
    let started = read(Value::Null, spec.clone(), json!({"phase": "Running", "containerStatuses": states})).started;
    assert_eq!(started.as_deref(), Some("2026-01-01T00:05:00Z"), "of those that run");
    let going = json!({"name": "web", "namespace": "shop", "uid": "u", "deletionTimestamp": "1970-01-01T00:01:40Z"});
    let going = pod(object(json!({"metadata": going, "spec": spec, "status": {"phase": "Running"}}))).1.expect("pods are always told");
    assert!(going.terminating && !going.finished && going.leaves());
    for phase in ["Succeeded", "Failed"] {
        assert!(read(Value::Null, spec.clone(), json!({"phase": phase, "podIPs": ips})).finished);
    }
    assert!(read(Value::Null, json!({"hostNetwork": true}), Value::Null).host_network);
    let mirrored = read(json!({"kubernetes.io/config.mirror": "hash"}), spec, Value::Null);
    assert_eq!(mirrored.uid, "hash", "what the container runtime calls it");
}

#[test]
fn a_daemonset_tells_whether_it_wants_a_node() {
    let read = |deleted: Value, selector: Value| {
        let metadata = json!({"name": "egressd", "deletionTimestamp": deleted});
        let template = json!({"spec": {"nodeSelector": selector, "containers": []}});
        daemonset(object(json!({"metadata": metadata, "spec": {"template": template}}))).1.expect("it is always told")
    };
    let (worker, none) = (Labels::from([("role".to_owned(), "worker".to_owned())]), Labels::new());
    assert!(read(Value::Null, Value::Null).wants(&none));
    let selective = read(Value::Null, json!({"role": "worker"}));
    assert_eq!((selective.wants(&worker), selective.wants(&none)), (true, false));
    assert!(!read(json!("1970-01-01T00:01:40Z"), Value::Null).wants(&none));
}

#[test]
fn a_daemonset_s_required_affinity_tells_which_nodes_it_wants() {
    let read = |terms: Value| {
        let required = json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}});
        let spec = json!({"metadata": {"name": "egressd"}, "spec": {"template": {"spec": {"affinity": required, "containers": []}}}});
        daemonset(object(spec)).1.expect("it is always told")
    };
    let demand = |operator: &str, values: Value| json!({"key": "role", "operator": operator, "values": values});
    let (worker, none) = (Labels::from([("role".to_owned(), "worker".to_owned())]), Labels::new());
    for (terms, wants) in [
        (json!([{"matchExpressions": [demand("In", json!(["worker", "edge"]))]}]), [true, false]),
        (json!([{"matchExpressions": [demand("NotIn", json!(["worker"]))]}]), [false, true]),
        (
            json!([{"matchExpressions": [demand("Exists", Value::Null)]}, {"matchExpressions": [demand("DoesNotExist", Value::Null)]}]),
            [true, true],
        ),
        (json!([{"matchExpressions": [demand("Exists", Value::Null), demand("In", json!(["edge"]))]}]), [false, false]),
        (json!([{"matchExpressions": [demand("Gt", json!(["3"]))]}]), [true, true]),
    ] {
        let daemonset = read(terms);
        assert_eq!([daemonset.wants(&worker), daemonset.wants(&none)], wants, "{daemonset:?}");
    }
}

#[test]
fn subnets_are_read_a_line_each_and_what_is_none_is_kept_to_be_named() {
    let text = "10.244.0.0/16\n\n  10.96.3.4/16 \nhere\nfd00::/64\n";
    let (_, read) = inside(object(json!({"metadata": {"name": "egressd-inside"}, "data": {"cidrs": text, "other": "x"}})));
    let read = read.expect("it is always told");
    let subnets = ["10.244.0.0/16", "10.96.0.0/16", "fd00::/64"].map(|net| net.parse::<IpNet>().unwrap());
    assert_eq!(read.subnets, BTreeSet::from(subnets));
    assert_eq!(read.unreadable, ["here"]);
    assert_eq!(inside(object(json!({"metadata": {"name": "egressd-inside"}}))).1, Ok(Inside::default()));
}
