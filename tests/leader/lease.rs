//! Who holds the Lease.

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use kube::Api;
use serde_json::Value;

use super::proxy::Way;
use super::support::{AGENTS, Lab, agent, client, eventually, lab};

async fn record(lab: &Lab) -> LeaseSpec {
    let api: Api<Lease> = Api::namespaced(lab.client.clone(), AGENTS);
    api.get_opt("egressd").await.expect("the API server answers").and_then(|lease| lease.spec).unwrap_or_default()
}

async fn until_held_by(lab: &Lab, holder: &str) -> LeaseSpec {
    eventually(|| async {
        let record = record(lab).await;
        if record.holder_identity.as_deref() == Some(holder) { Ok(record) } else { Err(format!("{record:?}")) }
    })
    .await
}

/// Lets as much time go by as the holder needs for some renewals.
async fn renewed(lab: &Lab, times: usize) {
    for _ in 0..times {
        let before = record(lab).await.renew_time;
        eventually(|| async { if record(lab).await.renew_time == before { Err("not renewed".to_owned()) } else { Ok(()) } }).await;
    }
}

pub fn cut_off() {
    lab(|lab| async move {
        let way = Way::open(6443).await;
        let user = lab.server.user("first", "/O=system:masters/CN=first");
        let _first = agent(&client(&user, Some(way.port)).await, "first");
        let before = until_held_by(&lab, "first").await;
        let _second = agent(&lab.client, "second");
        renewed(&lab, 4).await;
        assert_eq!(record(&lab).await.acquire_time, before.acquire_time, "it is the first one's, and stays so while that renews it");
        way.silence();
        // What it decides on last may be on its way for as long as it is cut off.
        lab.pool("10.0.0.4", "10.0.0.5").await;
        let after = until_held_by(&lab, "second").await;
        assert_eq!((before.lease_transitions, after.lease_transitions), (Some(0), Some(1)));
        assert!(after.acquire_time > before.renew_time);
        // The new holder does the work.
        lab.bind("crawler").await;
        lab.until("crawler", |binding| binding.status.as_ref().is_some_and(|status| status.exits == ["10.0.0.4"])).await;
        // The first one hears of all of it, and does nothing but ask for the Lease.
        let taken = lab.requests_of("first").len();
        way.heal();
        eventually(|| async {
            let asked = lab.requests_of("first").into_iter().skip(taken).any(|event| event["objectRef"]["resource"] == "leases");
            if asked { Ok(()) } else { Err("it has not asked again".to_owned()) }
        })
        .await;
        lab.bind("next").await;
        lab.until("next", |binding| binding.status.as_ref().is_some_and(|status| status.exits == ["10.0.0.5"])).await;
        let writes = |event: &Value| ["patch", "create", "update"].iter().any(|verb| event["verb"] == **verb);
        let late: Vec<Value> = lab.requests_of("first").into_iter().skip(taken).filter(writes).collect();
        let wrote = |event: &&Value| event["responseStatus"]["code"].as_u64().is_some_and(|code| code < 300);
        assert_eq!(late.iter().filter(wrote).count(), 0, "{late:#?}");
        assert_eq!(record(&lab).await.holder_identity.as_deref(), Some("second"));
    });
}

pub fn handed_over() {
    lab(|lab| async move {
        let first = agent(&lab.client, "first");
        until_held_by(&lab, "first").await;
        first.stop().await;
        let free = record(&lab).await;
        assert_eq!((free.holder_identity, free.lease_duration_seconds), (None, Some(1)));
        let _second = agent(&lab.client, "second");
        until_held_by(&lab, "second").await;
    });
}
