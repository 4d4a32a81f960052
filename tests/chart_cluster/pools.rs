//! What a pool lends, what becomes of who lost it, and that one in use stays.

use serde_json::{Value, json};
use world::{ApiServer, cluster::until};

use crate::{NAMESPACE, POOLS, assert_refused, bind, with_chart};

pub fn pools_lend() {
    let api = with_chart(&[]);
    let refuses = |namespace: &str| {
        format!(
            "EgressPool public does not allow namespace {namespace}; add it to spec.allowedNamespaces, or give it labels that are selected there"
        )
    };
    for (namespace, pool, words) in [
        ("shop", "public", String::new()),
        ("gold", "public", String::new()),
        ("silver", "public", refuses("silver")),
        ("default", "public", refuses("default")),
        ("shop", "nobodys", refuses("shop").replace("public", "nobodys")),
        // For the agents to say: nobody has to apply things in order.
        ("default", "not-there-yet", String::new()),
    ] {
        let asked = format!("pool: {{name: {pool}}}");
        assert_refused(bind(&api, namespace, &asked), &format!("{asked} in {namespace}"), "egressd-pools", &words);
    }
    let has = ["172.31.0.16", "172.31.0.31", "172.31.0.99", "172.31.0.255", "172.31.1.0", "172.31.1.4"];
    let has6 = ["2001:db8:1::", "2001:db8:1::ffff", "2001:db8::FFFE", "2001:db8::1:0", "2001:0db8:0:0:0:0:1:2"];
    let has_not = ["172.31.0.15", "172.31.0.32", "172.31.0.98", "172.31.1.5", "17.231.0.100", "1.1.1.1", "255.255.255.255"];
    let has_not6 = ["2001:db8::fffd", "2001:db8::1:3", "2001:db8:1:1::", "::", "::1", "2001:db8:0:1::", "ffff::"];
    for address in has.iter().chain(&has6) {
        assert_refused(bind(&api, "shop", &these(&[address])), address, "egressd-pools", "");
    }
    for address in has_not.iter().chain(&has_not6) {
        let words = format!("{address} is in no block of EgressPool public; name one that is");
        assert_refused(bind(&api, "shop", &these(&[address])), address, "egressd-pools", &words);
    }
    let words = "1.1.1.1, ::1 is in no block of EgressPool public; name one that is";
    assert_refused(bind(&api, "shop", &these(&["172.31.0.99", "1.1.1.1", "::1"])), "one of three", "egressd-pools", words);
    the_longest_lists_are_not_too_much(&api);
}

fn these(addresses: &[&str]) -> String {
    format!("pool: {{name: public, addresses: {}}}", json!(addresses))
}

/// As many blocks and addresses as the schema lets in, in their longest form: what a policy may cost is limited.
fn the_longest_lists_are_not_too_much(api: &ApiServer) {
    let net = |number: u32| format!("2001:db8:ffff:ffff:{:x}:ffff:ffff", number + 0x1000);
    let blocks: Vec<Value> =
        (0..64).map(|block| json!({ "start": format!("{}:1000", net(block)), "end": format!("{}:ffff", net(block)) })).collect();
    let pool = json!({
        "apiVersion": "egressd.dev/v1alpha1",
        "kind": "EgressPool",
        "metadata": { "name": "longest" },
        "spec": { "blocks": blocks, "allowedNamespaces": { "names": ["shop"] } },
    });
    api.apply(&pool.to_string());
    let addresses: Vec<String> = (0..64).map(|number| format!("{}:{:x}", net(63), number + 0x1000)).collect();
    let all = json!(addresses);
    bind(api, "shop", &format!("pool: {{name: longest, addresses: {all}}}")).unwrap_or_else(|error| panic!("{error}"));
}

pub fn what_lost_its_pool() {
    let api = with_chart(&[]);
    let binding = |count: u8| {
        format!(
            "{{apiVersion: egressd.dev/v1alpha1, kind: EgressBinding, metadata: {{name: kept, namespace: gold}}, spec: {{podSelector: {{}}, pool: {{name: public, count: {count}}}}}}}"
        )
    };
    api.apply(&binding(1));
    api.kubectl(&["label", "namespace", "gold", "tier-"]);
    let words = "EgressPool public does not allow namespace gold";
    // The policy sees the namespace as of a moment ago.
    until("the namespace's labels are seen to be gone", || api.try_apply(&binding(2)).err().ok_or("it is let in".to_owned()));
    assert_refused(api.try_apply(&binding(2)), "another count", "egressd-pools", words);
    let kept = ["-n", "gold", "egressbinding", "kept"];
    api.kubectl(&[&["label"], &kept[..], &["seen=yes"]].concat());
    api.kubectl(&[&["patch"], &kept[..], &["--type=merge", "-p", r#"{"metadata": {"finalizers": ["example.com/held"]}}"#]].concat());
    api.kubectl(&[&["delete", "--wait=false"], &kept[..]].concat());
    api.kubectl(&[&["patch"], &kept[..], &["--type=merge", "-p", r#"{"metadata": {"finalizers": null}}"#]].concat());
    api.try_get(&kept).expect_err("it is gone");
}

pub fn pools_in_use() {
    let api = with_chart(&[]);
    // Before there is a leader nobody writes a status.
    api.apply(&format!(
        "{{apiVersion: coordination.k8s.io/v1, kind: Lease, metadata: {{name: egressd, namespace: {NAMESPACE}}}, spec: {{holderIdentity: one}}}}"
    ));
    let used = |bindings: u8| {
        let patch = json!({ "status": { "bindings": bindings } }).to_string();
        let patch = ["patch", "egresspool", "public", "--subresource=status", "--type=merge", "-p", &patch];
        until("the leader is known", || api.try_kubectl(&patch));
    };
    let delete = || api.try_kubectl(&["delete", "egresspool", "public", "--wait=false"]);
    used(2);
    let words = "2 bindings leave through EgressPool public; delete them first, or force it: kubectl annotate egresspool public egressd.dev/force=true";
    until("the policy is in force", || match delete() {
        Err(_) => Ok(()),
        Ok(printed) => {
            api.apply(POOLS);
            used(2);
            Err(printed)
        }
    });
    assert_refused(delete(), "a pool in use", "egressd-pools-in-use", words);
    api.kubectl(&["annotate", "egresspool", "public", "egressd.dev/force=true"]);
    delete().expect("it is forced");
    api.apply(POOLS);
    delete().expect("nobody uses it");
}
