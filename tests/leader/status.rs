//! What bindings, pools and reports come to in the API server.

use egressd::effects::kubernetes::reporter::Reporter;
use egressd::model::cluster::Node;
use k8s_openapi::api::core::v1::{ConfigMap, Node as KubeNode};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::json;

use super::support::{AGENTS, agent, eventually, lab, report, says, write};

pub fn lent() {
    lab(|lab| async move {
        let _agent = agent(&lab.client, "one");
        lab.pool("10.0.0.4", "10.0.0.4").await;
        lab.bind("early").await;
        let early = lab.until("early", |binding| says(binding, "ResolvedRefs", "True", "ResolvedRefs")).await;
        assert_eq!(early.status.as_ref().expect("a status").exits, ["10.0.0.4"]);

        write(&lab.nodes(), "n1", report(&early, 2, 0)).await;
        lab.until("early", |binding| says(binding, "Programmed", "True", "Programmed")).await;
        lab.server.kubectl(&["wait", "--for=condition=Ready", "--timeout=1s", "--namespace=shop", "egressbinding/early"]);
        write(&lab.nodes(), "n2", report(&early, 3, 3)).await;
        let failing = lab.until("early", |binding| says(binding, "Programmed", "False", "InterfaceDown")).await;
        assert!(says(&failing, "Ready", "False", "InterfaceDown"), "{failing:?}");
        let status = failing.status.expect("a status");
        assert_eq!((status.summary.workloads, status.summary.programmed, status.failing_nodes[0].node.as_str()), (5, 2, "n2"));
        // More of the same is no news.
        write(&lab.nodes(), "n2", report(&early, 4, 4)).await;
        lab.until("early", |binding| binding.status.as_ref().is_some_and(|status| status.summary.failing == 4)).await;
        assert_eq!(lab.events("early"), ["AddressesAllocated", "Programmed", "InterfaceDown"]);

        lab.bind("late").await;
        lab.until("late", |binding| says(binding, "ResolvedRefs", "False", "PoolExhausted")).await;
        let exhausted = |status: &str| {
            let (lab, status) = (&lab, status.to_owned());
            async move {
                eventually(|| async {
                    let pool = lab.pools().get("public").await.expect("it is there");
                    let conditions = pool.status.iter().flat_map(|status| &status.conditions);
                    let found = conditions.clone().any(|c| c.type_ == "Available" && c.status == status);
                    if found { Ok(pool) } else { Err(format!("{pool:?}")) }
                })
                .await
            }
        };
        let pool = exhausted("False").await;
        assert_eq!(pool.status.map(|status| (status.addresses, status.allocated)), Some((1, 1)));
        lab.bindings().delete("early", &DeleteParams::default()).await.expect("it goes");
        lab.until("late", |binding| binding.status.as_ref().is_some_and(|status| status.exits == ["10.0.0.4"])).await;
        exhausted("True").await;
        assert_eq!(lab.events("late"), ["PoolExhausted", "AddressesAllocated"]);
        assert_eq!(lab.events("public"), ["AddressesAllocated", "PoolExhausted", "AddressesAllocated"]);
    });
}

pub fn owned() {
    lab(|lab| async move {
        let node: KubeNode = serde_json::from_value(json!({
            "metadata": { "name": "n1" },
            "spec": { "podCIDRs": ["10.244.0.0/24"] },
            "status": { "addresses": [{ "type": "InternalIP", "address": "192.0.2.4" }] },
        }))
        .expect("a node");
        let nodes: Api<KubeNode> = Api::all(lab.client.clone());
        nodes.create(&PostParams::default(), &node).await.expect("it is taken");
        let first = agent(&lab.client, "one");
        lab.pool("10.0.0.4", "10.0.0.5").await;
        let crawler = lab.bind("crawler").await;
        write(&lab.nodes(), "n1", report(&crawler, 2, 0)).await;
        let binding = lab.until("crawler", |binding| says(binding, "Programmed", "True", "Programmed")).await;
        let status =
            |field: &&k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry| field.subresource.as_deref() == Some("status");
        let owners: Vec<_> = binding.managed_fields().iter().filter(status).collect();
        assert_eq!(owners.len(), 1, "{owners:?}");
        assert_eq!((owners[0].manager.as_deref(), owners[0].operation.as_deref()), (Some("egressd"), Some("Apply")));
        assert!(binding.managed_fields().iter().filter(|field| !status(field)).all(|field| field.manager.as_deref() != Some("egressd")));

        let told: Api<ConfigMap> = Api::namespaced(lab.client.clone(), AGENTS);
        let inside = eventually(|| async {
            let map = told.get_opt("egressd-inside").await.expect("the API server answers");
            map.and_then(|map| map.data).and_then(|data| data.get("cidrs").cloned()).ok_or_else(|| "none".to_owned())
        })
        .await;
        assert_eq!(inside, "10.96.0.0/16\n10.244.0.0/24\n192.0.2.4/32\n");

        // Another controller takes the Lease, and finds all as it has to be. What shows that it has looked is that it lends to the next one.
        first.stop().await;
        let writes =
            (lab.requests("patch", "egressbindings/status"), lab.requests("patch", "configmaps"), lab.requests("create", "events"));
        let _second = agent(&lab.client, "two");
        lab.bind("next").await;
        lab.until("next", |binding| says(binding, "ResolvedRefs", "True", "ResolvedRefs")).await;
        let after = lab.until("crawler", |_| true).await;
        assert_eq!(after.resource_version(), binding.resource_version());
        // What the next one was lent is recorded, and told on both objects; and nothing else.
        eventually(|| async { if lab.requests("patch", "configmaps") > writes.1 { Ok(()) } else { Err("not recorded".to_owned()) } }).await;
        assert_eq!((lab.requests("patch", "configmaps"), lab.requests("create", "events")), (writes.1 + 1, writes.2 + 2));
        assert!(lab.requests("patch", "egressbindings/status") > writes.0, "the log has what is written");
    });
}

pub fn restored() {
    lab(|lab| async move {
        let first = agent(&lab.client, "one");
        lab.pool("10.0.0.4", "10.0.0.9").await;
        let mut before = Vec::new();
        for name in ["c", "a", "b"] {
            lab.bind(name).await;
            let binding = lab.until(name, |binding| says(binding, "ResolvedRefs", "True", "ResolvedRefs")).await;
            before.push((name, binding.status.expect("a status").exits));
        }
        assert_eq!(before[0].1, ["10.0.0.4"]);
        let maps: Api<ConfigMap> = Api::namespaced(lab.client.clone(), AGENTS);
        let record = async || maps.get_opt("egressd-allocations").await.expect("the API server answers").and_then(|map| map.data);
        eventually(|| async {
            let data = record().await.unwrap_or_default();
            if data.get("public").is_some_and(|text| text.lines().count() == 3) { Ok(()) } else { Err(format!("{data:?}")) }
        })
        .await;
        let saved = record().await;
        // What a backup without status brings back to a cluster with another leader, with an interval between the two.
        first.stop().await;
        for (name, _) in &before {
            lab.bindings().delete(name, &DeleteParams::default()).await.expect("it goes");
        }
        let _second = agent(&lab.client, "two");
        for (name, exits) in before.iter().rev() {
            assert_eq!(lab.bind(name).await.status, None);
            let binding = lab.until(name, |binding| says(binding, "ResolvedRefs", "True", "ResolvedRefs")).await;
            assert_eq!(binding.status.expect("a status").exits, *exits, "{name}");
        }
        assert_eq!(record().await, saved);
    });
}

pub fn reported() {
    lab(|lab| async move {
        let nodes: Api<KubeNode> = Api::all(lab.client.clone());
        let node: KubeNode = serde_json::from_value(json!({ "metadata": { "name": "n1" } })).expect("a node");
        let uid = nodes.create(&PostParams::default(), &node).await.expect("it is taken").uid().expect("it has one");
        let node = Node { name: "n1".to_owned(), uid: uid.clone(), ..Node::default() };
        let api = lab.nodes();
        let bound = |count: i64| {
            let api = &api;
            async move {
                eventually(|| async {
                    match api.get_opt("n1").await {
                        Ok(Some(node)) if node.spec.bound == count => Ok(node),
                        other => Err(format!("{other:?}")),
                    }
                })
                .await
            }
        };
        let crawler = lab.bind("crawler").await;
        let reporter = Reporter::start(lab.client.clone());
        reporter.report(&node, report(&crawler, 1, 0));
        let written = bound(1).await;
        assert_eq!(written.owner_references()[0].uid, uid);
        // However often it is said, and whatever was said in between.
        for count in [1, 1, 7, 1] {
            reporter.report(&node, report(&crawler, count, 0));
        }
        reporter.report(&node, report(&crawler, 2, 0));
        let after = bound(2).await;
        assert_eq!(after.metadata.generation, Some(2), "two writes, as the reports came faster than they may be written");

        // An agent that starts says what its predecessor said: that changes nothing.
        drop(reporter);
        let before = lab.requests("patch", "egressnodes");
        let reporter = Reporter::start(lab.client.clone());
        reporter.report(&node, report(&crawler, 2, 0));
        eventually(|| async { if lab.requests("patch", "egressnodes") > before { Ok(()) } else { Err("not said".to_owned()) } }).await;
        let generation = bound(2).await.metadata.generation;
        assert!(matches!(generation, Some(2 | 3)), "nothing but its time is another, unless it was the same second: {generation:?}");
        // Somebody else's hand is undone, though nothing is reported.
        let spoiled = json!({ "apiVersion": "egressd.dev/v1alpha1", "kind": "EgressNode", "spec": { "bound": 99 } });
        api.patch("n1", &PatchParams::apply("somebody").force(), &Patch::Apply(&spoiled)).await.expect("it is taken");
        bound(2).await;
        api.delete("n1", &DeleteParams::default()).await.expect("it goes");
        bound(2).await;
    });
}
