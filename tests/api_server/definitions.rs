//! The definitions are taken by the API server, and refuse what is wrong with the field and the cure.

use serde_json::{Value, json};
use world::ApiServer;

use crate::objects::{binding, define, pool};

pub fn bad_objects_are_refused() {
    let api = ApiServer::start();
    define(&api);
    for (number, spec) in good_bindings().into_iter().enumerate() {
        let object = binding(&format!("good-{number}"), spec).to_string();
        api.try_apply(&object).unwrap_or_else(|error| panic!("{error}\n{object}"));
    }
    for (number, spec) in good_pools().into_iter().enumerate() {
        let object = pool(&format!("good-{number}"), spec).to_string();
        api.try_apply(&object).unwrap_or_else(|error| panic!("{error}\n{object}"));
    }
    for (spec, field, cure) in bad_bindings() {
        assert_refused(&api, &binding("bad", spec), field, cure);
    }
    for (spec, field, cure) in bad_pools() {
        assert_refused(&api, &pool("bad", spec), field, cure);
    }
    let printed = api.kubectl(&["get", "egb,egp,egn", "--all-namespaces"]);
    assert!(!printed.contains("bad"), "{printed}");
}

fn assert_refused(api: &ApiServer, object: &Value, field: &str, cure: &str) {
    let error = api.try_apply(&object.to_string()).err().unwrap_or_else(|| panic!("it was taken: {object}"));
    assert!(error.contains(&format!("{field}: ")) && error.contains(cure), "not {field:?} and {cure:?}, but:\n{error}\n{object}");
}

/// A binding of all pods to an address, with these fields added or replaced.
fn with(fields: Value) -> Value {
    let mut spec = json!({ "podSelector": {}, "exits": [{ "address": "172.31.0.14" }] });
    for (field, value) in fields.as_object().expect("fields") {
        spec[field] = value.clone();
    }
    // A null takes a field away.
    spec.as_object_mut().expect("a spec").retain(|_, value| !value.is_null());
    spec
}

fn good_bindings() -> Vec<Value> {
    let many =
        |count: usize| -> Vec<Value> { (0..count).map(|n| json!({ "address": format!("10.0.{}.{}", n / 250, n % 250 + 1) })).collect() };
    let except: Vec<String> = (0..256).map(|n| format!("10.{n}.0.0/16")).collect();
    let to: Vec<Value> = (0..256).map(|n| json!({ "cidr": format!("{}.0.0.0/8", n % 223 + 1) })).collect();
    vec![
        with(json!({})),
        with(json!({ "exits": [{ "address": "172.31.0.14", "interface": "eth1", "gateway": "172.31.0.1" }] })),
        with(json!({ "exits": [{ "address": "2001:db8::14", "gateway": "fe80::1" }, { "address": "172.31.0.14" }] })),
        with(json!({ "exits": many(256) })),
        with(json!({ "to": [{ "cidr": "0.0.0.0/0", "except": ["10.0.0.0/8"] }, { "cidr": "::/0" }] })),
        with(json!({ "to": [{ "cidr": "0.0.0.0/0", "except": except }] })),
        with(json!({ "to": to })),
        with(json!({ "ports": [{ "protocol": "TCP", "port": 80, "endPort": 90 }, { "protocol": "SCTP", "port": 1 }] })),
        with(json!({ "whenUnavailable": "Fallback", "existingFlows": "Reset", "priority": -5 })),
        with(json!({ "podSelector": { "matchLabels": { "a": "b" }, "matchExpressions": [
            { "key": "a", "operator": "In", "values": ["b"] }, { "key": "c", "operator": "DoesNotExist" },
        ] } })),
        with(json!({ "exits": null, "pool": { "name": "public" } })),
        with(json!({ "exits": null, "pool": { "name": "public", "count": 3 } })),
        with(json!({ "exits": null, "pool": { "name": "public", "addresses": ["172.31.0.14", "2001:db8::1"] } })),
        with(json!({ "exits": null, "pool": { "name": "public" }, "inbound": many_ports(64) })),
        with(json!({ "inbound": [] })),
    ]
}

/// So many entries of `inbound`, each a range beside the one before, with all that it may have.
fn many_ports(count: usize) -> Vec<Value> {
    let entry = |n: usize| {
        json!({
            "protocol": if n.is_multiple_of(2) { "TCP" } else { "UDP" }, "port": 1000 + 10 * n, "endPort": 1009 + 10 * n,
            "balance": "BySource", "clientSource": "Masquerade", "health": { "tcp": { "port": 80 } }, "allDown": "KeepAll", "affinity": "60s",
            "drainSeconds": 30, "newConnectionsPerSecond": 10,
        })
    };
    (0..count).map(entry).collect()
}

/// A spec, the field that is named, and words of the cure.
fn bad_bindings() -> Vec<(Value, &'static str, &'static str)> {
    let exit = |exit: Value| with(json!({ "exits": [exit] }));
    let pool = |pool: Value| with(json!({ "exits": null, "pool": pool }));
    let published = |inbound: Value| with(json!({ "exits": null, "pool": { "name": "public" }, "inbound": inbound }));
    let tcp = |port: u16| json!({ "protocol": "TCP", "port": port });
    let selector = |expression: Value| with(json!({ "podSelector": { "matchExpressions": [expression] } }));
    let too_many: Vec<Value> = (0..257).map(|n| json!({ "address": format!("10.0.{}.{}", n / 250, n % 250 + 1) })).collect();
    let neither =
        "give either a pool, for instance pool: {name: public}, or at least one exit, for instance exits: [{address: 172.31.0.14}]";
    vec![
        (with(json!({ "podSelector": null })), "spec", "give podSelector, for instance {matchLabels: {app: crawler}}"),
        (with(json!({ "exits": null })), "spec", neither),
        (with(json!({ "exits": [] })), "spec", neither),
        (with(json!({ "pool": { "name": "public" } })), "spec", neither),
        (with(json!({ "exits": too_many })), "spec.exits", "must have at most 256 items"),
        (with(json!({ "containerSelector": { "names": ["web"] } })), "spec", "containerSelector is for manifest files on a node"),
        (with(json!({ "addresses": [{ "cidr": "10.0.0.0/8" }] })), "spec", "here give podSelector"),
        (with(json!({ "networkNamespaces": ["blue"] })), "spec", "networkNamespaces are for manifest files on a node"),
        (exit(json!({})), "spec.exits[0]", "give an address, for instance address: 172.31.0.14, or an interface"),
        (exit(json!({ "address": "172.31.0.14", "addresses": "172.31.0.14/31" })), "spec.exits[0]", "give one of both"),
        (exit(json!({ "address": "172.31.0.14", "weight": 0 })), "spec.exits[0].weight", "greater than or equal to 1"),
        (with(json!({ "spread": "Sideways" })), "spec.spread", "RoundRobin"),
        (exit(json!({ "address": "" })), "spec.exits[0].address", "write the address alone, for instance 172.31.0.14"),
        (exit(json!({ "address": "172.31.0.300" })), "spec.exits[0].address", "write the address alone"),
        (exit(json!({ "address": "172.31.0.14/20" })), "spec.exits[0].address", "write the address alone"),
        (exit(json!({ "address": "172.31.0.14", "gateway": "gw" })), "spec.exits[0].gateway", "write the next hop's address alone"),
        (exit(json!({ "address": "172.31.0.14", "gateway": "fd00::1" })), "spec.exits[0].gateway", "has to be of the address's family"),
        (exit(json!({ "address": "172.31.0.14", "interface": "a-very-long-name" })), "spec.exits[0].interface", "may not be more than 15"),
        (with(json!({ "to": [{ "cidr": "10.0.0.0/33" }] })), "spec.to[0].cidr", "write a subnet, for instance 10.0.0.0/8"),
        (with(json!({ "to": [{ "cidr": "10.0.0.0/8", "except": ["192.168.0.0/16"] }] })), "spec.to[0].except", "a subnet within the cidr"),
        (with(json!({ "to": [{ "cidr": "10.0.0.0/8", "except": ["nonsense"] }] })), "spec.to[0].except", "a subnet within the cidr"),
        (with(json!({ "ports": [{ "protocol": "TCP", "port": 90, "endPort": 80 }] })), "spec.ports[0]", "endPort is below port"),
        (with(json!({ "ports": [{ "protocol": "TCP", "port": 70000 }] })), "spec.ports[0].port", "less than or equal to 65535"),
        (
            with(json!({ "ports": [{ "protocol": "ICMP", "port": 1 }] })),
            "spec.ports[0].protocol",
            r#"supported values: "TCP", "UDP", "SCTP""#,
        ),
        (with(json!({ "whenUnavailable": "Explode" })), "spec.whenUnavailable", r#"supported values: "Drop", "Fallback""#),
        (with(json!({ "existingFlows": "Move" })), "spec.existingFlows", r#"supported values: "Keep", "Reset""#),
        (selector(json!({ "key": "a", "operator": "In" })), "spec.podSelector.matchExpressions[0]", "In and NotIn need values"),
        (selector(json!({ "key": "a", "operator": "Exists", "values": ["b"] })), "spec.podSelector.matchExpressions[0]", "take none"),
        (selector(json!({ "key": "a", "operator": "Like" })), "spec.podSelector.matchExpressions[0].operator", "supported values"),
        (with(json!({ "inbound": many_ports(1) })), "spec", "ports are lent by a pool (its inboundPorts): give a pool"),
        (
            published(json!([tcp(80), { "protocol": "TCP", "port": 70, "endPort": 80 }])),
            "spec.inbound",
            "two entries have a port in common",
        ),
        (
            published(json!([{ "protocol": "TCP", "port": 80, "engine": "Ipvs", "clientSource": "RouteBack" }])),
            "spec.inbound",
            "use Masquerade",
        ),
        (published(json!([{ "protocol": "ICMP", "port": 80 }])), "spec.inbound[0].protocol", r#"supported values: "TCP", "UDP", "SCTP""#),
        (published(json!(many_ports(65))), "spec.inbound", "must have at most 64 items"),
        (pool(json!({})), "spec.pool.name", "Required value"),
        (pool(json!({ "name": "public", "addresses": [] })), "spec.pool.addresses", "should have at least 1 items"),
        (pool(json!({ "name": "public", "addresses": ["x"] })), "spec.pool.addresses", "write addresses alone, for instance 172.31.0.14"),
        (pool(json!({ "name": "public", "count": 0 })), "spec.pool.count", "greater than or equal to 1"),
        (pool(json!({ "name": "public", "count": 1, "addresses": ["172.31.0.14"] })), "spec.pool", "give one of them"),
    ]
}

fn good_pools() -> Vec<Value> {
    let blocks: Vec<Value> = (0..64).map(|n| json!({ "start": format!("10.0.{n}.1"), "end": format!("10.0.{n}.200") })).collect();
    vec![
        json!({ "blocks": [{ "cidr": "172.31.0.16/28" }] }),
        json!({ "blocks": [{ "cidr": "2001:db8::/120" }, { "start": "172.31.0.14", "end": "172.31.0.20" }] }),
        json!({ "blocks": blocks, "gateway": "10.0.0.1", "interface": "eth1", "nodeSelector": { "egress": "yes" },
            "allowedNamespaces": { "names": ["shop"], "matchLabels": { "egress": "yes" } } }),
        json!({ "blocks": [{ "cidr": "172.31.0.16/28" }],
            "inboundPorts": [{ "protocol": "TCP", "port": 80, "endPort": 90 }, { "protocol": "UDP", "port": 65535 }] }),
    ]
}

fn bad_pools() -> Vec<(Value, &'static str, &'static str)> {
    let block = |block: Value| json!({ "blocks": [block] });
    let range = |start: &str, end: &str| json!({ "blocks": [{ "start": start, "end": end }] });
    let lent = |ports: Value| json!({ "blocks": [{ "cidr": "172.31.0.16/28" }], "inboundPorts": [ports] });
    let shape = "give either cidr, for instance 172.31.0.16/28, or start and end";
    let family = "start and end have to be addresses of one family";
    vec![
        (json!({}), "spec.blocks", "Required value"),
        (json!({ "blocks": [] }), "spec.blocks", "should have at least 1 items"),
        (block(json!({})), "spec.blocks[0]", shape),
        (block(json!({ "start": "172.31.0.14" })), "spec.blocks[0]", shape),
        (block(json!({ "cidr": "172.31.0.16/28", "start": "172.31.0.14" })), "spec.blocks[0]", shape),
        (block(json!({ "cidr": "172.31.0.16" })), "spec.blocks[0].cidr", "write a subnet, for instance 172.31.0.16/28"),
        (range("172.31.0.14", "2001:db8::1"), "spec.blocks[0]", family),
        (range("a", "b"), "spec.blocks[0]", family),
        (json!({ "blocks": [{ "cidr": "172.31.0.16/28" }], "gateway": "gw" }), "spec.gateway", "write the next hop's address alone"),
        (json!({ "blocks": [{ "cidr": "172.31.0.16/28" }], "gateway": "fd00::1" }), "spec.gateway", "make a pool for each family"),
        (lent(json!({ "protocol": "TCP", "port": 90, "endPort": 80 })), "spec.inboundPorts[0]", "endPort is below port"),
        (lent(json!({ "protocol": "TCP", "port": 0 })), "spec.inboundPorts[0].port", "greater than or equal to 1"),
        (lent(json!({ "protocol": "TCP", "port": 1, "endPort": 65536 })), "spec.inboundPorts[0].endPort", "less than or equal to 65535"),
        (lent(json!({ "protocol": "ICMP", "port": 1 })), "spec.inboundPorts[0].protocol", r#"supported values: "TCP", "UDP", "SCTP""#),
        (json!({ "blocks": [{ "cidr": "172.31.0.16/28" }], "interface": "" }), "spec.interface", "should be at least 1 chars long"),
    ]
}
