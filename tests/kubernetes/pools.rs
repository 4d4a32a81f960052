//! What a pool lends by number, whom it lends to, and what is left of it when agents come and go.

use serde_json::{Value, json};
use world::{
    Cluster, Nic, Scenario,
    cluster::{NAMESPACE, NODES, Pod, until},
};

use crate::support::{await_failing, await_said, binding, events, pool, restart_agents, restart_controllers};

pub fn scenarios() -> Vec<Scenario> {
    vec![Scenario::new(
        "addresses by number leave from their nodes, none is lent twice, and who is relabelled out of a pool, or names exits himself, is held",
        lent,
    )]
}

/// One after the other in one cluster.
fn lent() {
    let cluster = Cluster::builder().build();
    let pods = [("first", "n1"), ("first", "n2"), ("second", "n2"), ("third", "n1"), ("crawler", "n1")];
    let [first, strayed, second, third, crawler] = run(&cluster, pods);
    cluster.install(&[]);
    by_number(&cluster, &[first, strayed, second, third]);
    cluster.let_go();
    relabelled(&cluster, &crawler);
    cluster.let_go();
    raw_exits(&cluster, &crawler);
}

/// Runs pods, each with its label `app` and its node, that leave by eth0.
fn run<const COUNT: usize>(cluster: &Cluster, pods: [(&str, &str); COUNT]) -> [Pod; COUNT] {
    let names = pods.map(|(app, node)| format!("{app}-{node}"));
    let mut names = names.iter();
    let pods = cluster.run_all(pods.map(|(app, node)| (names.next().expect("each has one").as_str(), node, app)));
    for pod in &pods {
        let machine = cluster.node(&pod.node);
        machine.leaves_by(&pod.netns, Nic::Eth1).expect_err("without egressd it leaves by eth0");
        machine.leaves_not_at_all(&pod.netns).expect_err("without egressd it leaves");
    }
    pods
}

fn leaves_by(cluster: &Cluster, pod: &Pod, nic: Nic) {
    cluster.node(&pod.node).leaves_by(&pod.netns, nic).unwrap_or_else(|error| panic!("{}: {error}", pod.name));
}

fn leaves_not_at_all(cluster: &Cluster, pod: &Pod) {
    cluster.node(&pod.node).leaves_not_at_all(&pod.netns).unwrap_or_else(|error| panic!("{}: {error}", pod.name));
}

/// Waits until the binding has these addresses of its pool.
fn await_exits(cluster: &Cluster, binding: &str, exits: &Value) {
    cluster.api.await_object(&["egressbinding", binding], |object| object["status"]["exits"] == *exits);
}

/// Each leaves from its own node, none is lent twice, and agents come and go.
fn by_number(cluster: &Cluster, [first, strayed, second, third]: &[Pod; 4]) {
    cluster.api.apply(&cluster.pool("public", Nic::Eth1));
    let bind = |app: &str| cluster.api.apply(&binding(app, app, &json!({ "pool": { "name": "public", "count": 1 } })));
    let [on_n1, on_n2] = NODES.map(|node| json!([cluster.node(node).layout.address(Nic::Eth1)]));

    bind("first");
    await_exits(cluster, "first", &on_n1);
    let cure = await_failing(cluster, "first", 1, "NoExitOnNode");
    assert!(cure.contains("no NIC of this node holds an address of the binding; give the binding one that this node has"), "{cure}");
    leaves_by(cluster, first, Nic::Eth1);
    leaves_not_at_all(cluster, strayed);

    bind("second");
    await_exits(cluster, "second", &on_n2);
    cluster.await_programmed("second", 1);
    leaves_by(cluster, second, Nic::Eth1);

    bind("third");
    let cure = await_said(cluster, &["egressbinding", "third"], "ResolvedRefs", "False", "PoolExhausted");
    assert!(cure.contains("EgressPool public lacks 1 of the addresses") && cure.contains("delete another binding"), "{cure}");
    let owed = await_said(cluster, &["egresspool", "public"], "Available", "False", "PoolExhausted");
    assert!(owed.contains("default/third (1)"), "{owed}");
    await_failing(cluster, "third", 1, "NotAllocated");
    leaves_not_at_all(cluster, third);
    assert_eq!((events(cluster, "third"), events(cluster, "public")), (vec!["PoolExhausted".to_owned()], vec!["PoolExhausted".to_owned()]));

    cluster.api.delete(&["egressbinding", "first"]);
    await_exits(cluster, "third", &on_n1);
    cluster.await_programmed("third", 1);
    await_said(cluster, &["egresspool", "public"], "Available", "True", "Available");
    leaves_by(cluster, third, Nic::Eth1);
    leaves_by(cluster, first, Nic::Eth0);

    // By name it would come first, and by an allocation made anew, too.
    bind("another");
    await_said(cluster, &["egressbinding", "another"], "ResolvedRefs", "False", "PoolExhausted");
    outlives(cluster, third, &[("second", on_n2), ("third", on_n1)]);
    leaves_by(cluster, second, Nic::Eth1);
}

/// Other agents, and another holder of the Lease, find what was lent, and the pod does not notice.
fn outlives(cluster: &Cluster, pod: &Pod, lent: &[(&str, Value)]) {
    let node = cluster.node(&pod.node);
    let lease = ["-n", NAMESPACE, "lease", "egressd"];
    let holder = || cluster.api.get(&lease)["spec"]["holderIdentity"].clone();
    let before = holder();
    let seen = node.count(|| {
        let _trickle = node.trickle(&pod.netns, true);
        restart_agents(cluster);
        restart_controllers(cluster);
        cluster.api.await_object(&lease, |lease| lease["spec"]["holderIdentity"].is_string() && lease["spec"]["holderIdentity"] != before);
        // The new holder decides anew.
        cluster.api.apply(&binding("newcomer", "newcomer", &json!({ "pool": { "name": "public", "count": 1 } })));
        await_said(cluster, &["egressbinding", "newcomer"], "ResolvedRefs", "False", "PoolExhausted");
    });
    assert!(seen.by(Nic::Eth1) > 0 && seen.by(Nic::Eth0) == 0, "while agents are replaced: {seen}");
    for (name, exits) in lent {
        assert_eq!(cluster.api.get(&["egressbinding", name])["status"]["exits"], *exits, "{name}");
    }
    leaves_by(cluster, pod, Nic::Eth1);
}

/// A namespace relabelled out of a pool has no way out, and has it again when it is relabelled.
fn relabelled(cluster: &Cluster, pod: &Pod) {
    let n1 = cluster.node("n1");
    let address = n1.layout.address(Nic::Eth1);
    let allowed = json!({ "matchLabels": { "egress": "yes" } });
    let fields =
        json!({ "blocks": [{ "start": address, "end": address }], "gateway": n1.layout.gateway(Nic::Eth1), "allowedNamespaces": allowed });
    cluster.api.apply(&pool("public", &fields));
    let label = |label: &str| drop(cluster.api.kubectl(&["label", "namespace", "default", label]));
    label("egress=yes");
    let asked = binding("crawler", "crawler", &json!({ "pool": { "name": "public" } }));
    until("the policy sees the label", || cluster.api.try_apply(&asked));
    cluster.await_programmed("crawler", 1);
    leaves_by(cluster, pod, Nic::Eth1);

    let trickle = n1.trickle(&pod.netns, true);
    let seen = n1.count(|| {
        label("egress-");
        let cure = await_said(cluster, &["egressbinding", "crawler"], "ResolvedRefs", "False", "NamespaceNotAllowed");
        assert!(cure.contains("does not allow namespace default; add it to spec.allowedNamespaces, or give it labels"), "{cure}");
        await_failing(cluster, "crawler", 1, "NamespaceNotAllowed");
    });
    assert_eq!(seen.by(Nic::Eth0), 0, "on its way out of the pool: {seen}");
    drop(trickle);
    leaves_not_at_all(cluster, pod);

    let _trickle = n1.trickle(&pod.netns, true);
    let seen = n1.count(|| {
        label("egress=yes");
        cluster.await_programmed("crawler", 1);
        until("it leaves again", || if n1.seen().by(Nic::Eth1) > 0 { Ok(()) } else { Err("nothing leaves".to_owned()) });
    });
    assert_eq!(seen.by(Nic::Eth0), 0, "on its way back: {seen}");
    // What the counts above would have shown.
    n1.forget();
    cluster.api.delete(&["egressbinding", "crawler"]);
    until("without a binding it leaves by eth0", || if n1.seen().by(Nic::Eth0) > 0 { Ok(()) } else { Err(n1.seen().to_string()) });
}

/// Bindings name exits themselves only where the chart lets them, whoever refuses.
fn raw_exits(cluster: &Cluster, pod: &Pod) {
    let layout = cluster.node("n1").layout;
    let exits = json!({ "exits": [{ "address": layout.address(Nic::Eth1), "gateway": layout.gateway(Nic::Eth1) }] });
    let raw = binding("raw", "crawler", &exits);
    let words = "exits are not allowed in this cluster's bindings; name a pool (spec.pool), or let the chart allow rawExits";
    until("the policy is in force", || match cluster.api.try_apply(&raw) {
        Err(said) if said.contains(words) => Ok(()),
        Err(said) => Err(said),
        Ok(_) => {
            cluster.api.delete(&["egressbinding", "raw"]);
            Err("it is let in".to_owned())
        }
    });
    until("it leaves as ever", || cluster.node("n1").leaves_by(&pod.netns, Nic::Eth0));

    cluster.upgrade(&["--set=admissionPolicies.enabled=false"]).unwrap_or_else(|error| panic!("{error}"));
    until("the policy is gone", || cluster.api.try_apply(&raw));
    let said = await_said(cluster, &["egressbinding", "raw"], "Accepted", "False", "RawExitsNotAllowed");
    assert_eq!(said, words, "the agents say the same");
    await_failing(cluster, "raw", 1, "RawExitsNotAllowed");
    leaves_not_at_all(cluster, pod);
    assert_eq!(events(cluster, "raw"), ["RawExitsNotAllowed"]);

    cluster.upgrade(&["--set=rawExits=true"]).unwrap_or_else(|error| panic!("{error}"));
    cluster.await_programmed("raw", 1);
    leaves_by(cluster, pod, Nic::Eth1);
    assert_eq!(cluster.api.try_apply(&binding("second", "second", &exits)).err(), None, "the policy lets it in");
}
