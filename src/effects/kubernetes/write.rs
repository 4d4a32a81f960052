//! Each kind of write that a fold decides on.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::api::events::v1::Event as KubeEvent;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, DynamicObject};
use kube::{Api, Client};
use serde::Serialize;
use serde_json::json;
use tracing::debug;

use super::error::ask;
use super::follow::without_managers;
use super::write_queue::WriteResult;
use super::{CLOUD_MANAGER, Identity, MANAGER};
use crate::api::binding::EgressBinding;
use crate::api::cloud::PoolCloudStatus;
use crate::api::object;
use crate::api::pool::EgressPool;
use crate::facts::kubernetes::{CIDRS, INSIDE};
use crate::model::cluster::Update;
use crate::report::fold::{BindingWrite, Change, Event, PoolWrite, Precondition, RECORD};

/// As long as an object's name may be.
const MAX_NAME: usize = 253;

pub async fn binding(client: Client, write: BindingWrite) -> WriteResult {
    let kind = ApiResource::erase::<EgressBinding>(&());
    let api = Api::namespaced_with(client, &write.namespace, &kind);
    let written = status(api, &kind, &write.name, &write.of, &write.status, MANAGER).await?;
    Ok(written.map(|object| Change::Bindings(Update::One(object::egress_binding(object).into()))))
}

pub async fn pool(client: Client, write: PoolWrite) -> WriteResult {
    let kind = ApiResource::erase::<EgressPool>(&());
    let written = status(Api::all_with(client, &kind), &kind, &write.name, &write.of, &write.status, MANAGER).await?;
    Ok(written.map(|object| Change::Pools(Update::One(object::egress_pool(object).into()))))
}

/// Applies a status to the object that it was decided on: not to one that was made anew under that name, nor to one that somebody has written
/// meanwhile, who may be the leader now. `Ok(None)` for those: their change is on its way here.
async fn status(
    api: Api<DynamicObject>,
    kind: &ApiResource,
    name: &str,
    of: &Precondition,
    status: &impl Serialize,
    manager: &str,
) -> Result<Option<DynamicObject>, super::error::Error> {
    let mut metadata = json!({ "name": name, "uid": of.uid });
    if let Some(version) = &of.version {
        metadata["resourceVersion"] = json!(version);
    }
    let patch = json!({ "apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata, "status": status });
    let (parameters, patch) = (PatchParams::apply(manager).force(), Patch::Apply(&patch));
    match ask("patch", format!("{}.{}/status", kind.plural, kind.group), api.patch_status(name, &parameters, &patch)).await {
        Ok(object) => Ok(Some(without_managers(object))),
        Err(error) if error.is_gone() || error.is_conflict() => {
            debug!(name, %error, "the object is gone, or changed");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// What the cloud shows of a pool: a part of its status of its own, with an owner of its own. `None` takes it away.
///
/// # Errors
/// When the API server refuses it, or does not answer. A pool that is gone, or another one by now, is none.
pub async fn cloud(client: Client, pool: &str, uid: &str, shown: Option<&PoolCloudStatus>) -> Result<(), super::error::Error> {
    let kind = ApiResource::erase::<EgressPool>(&());
    let of = Precondition { uid: uid.to_owned(), version: None };
    let part = shown.map_or_else(|| json!({}), |shown| json!({ "cloud": shown }));
    status(Api::all_with(client, &kind), &kind, pool, &of, &part, CLOUD_MANAGER).await.map(drop)
}

pub async fn tell_inside(client: Client, identity: Identity, text: String) -> WriteResult {
    config_map(client, identity, INSIDE, [(CIDRS.to_owned(), text.clone())].into()).await?;
    Ok(Some(Change::ToldInside(Some(text))))
}

pub async fn record(client: Client, identity: Identity, data: BTreeMap<String, String>) -> WriteResult {
    config_map(client, identity, RECORD, data.clone()).await?;
    Ok(Some(Change::Recorded(data)))
}

async fn config_map(client: Client, identity: Identity, name: &str, data: BTreeMap<String, String>) -> Result<(), super::error::Error> {
    let api: Api<ConfigMap> = Api::namespaced(client, &identity.namespace);
    let metadata = ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
    let map = ConfigMap { metadata, data: Some(data), ..ConfigMap::default() };
    ask("patch", "configmaps", api.patch(name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(&map))).await.map(drop)
}

/// `kube::runtime::events::Recorder` is not used: it takes two notes of one reason for one Event, and keeps the first note.
pub async fn publish(client: Client, identity: Identity, event: Event) -> WriteResult {
    let Event { about, content } = event;
    let namespace = about.namespace.clone().unwrap_or_else(|| "default".to_owned());
    let now = Timestamp::now();
    let name = event_name(about.name.as_deref().unwrap_or_default(), now);
    let event = KubeEvent {
        metadata: ObjectMeta { name: Some(name), namespace: Some(namespace.clone()), ..ObjectMeta::default() },
        event_time: Some(MicroTime(now)),
        action: Some(content.action.to_owned()),
        reason: Some(content.reason),
        note: Some(content.note),
        type_: Some(if content.warning { "Warning" } else { "Normal" }.to_owned()),
        regarding: Some(about),
        reporting_controller: Some("egressd.dev/egressd".to_owned()),
        reporting_instance: Some(identity.pod.clone()),
        ..KubeEvent::default()
    };
    let api: Api<KubeEvent> = Api::namespaced(client, &namespace);
    match ask("create", "events.events.k8s.io", api.create(&PostParams::default(), &event)).await {
        // Nobody is left to be told.
        Err(error) if error.is_of_an_ending_namespace() => Ok(None),
        told => told.map(|_| None),
    }
}

/// The object's name and the time, as every client names Events. Of a long name as much as there is room for.
fn event_name(about: &str, now: Timestamp) -> String {
    let time = format!("{:x}", now.as_nanosecond());
    let room = MAX_NAME.saturating_sub(time.len() + 1);
    let about = about[..about.floor_char_boundary(room)].trim_end_matches(['.', '-']);
    format!("{about}.{time}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_events_name_is_one_that_the_api_server_takes_however_long_the_objects_is() {
        let now = Timestamp::from_second(1_800_000_000).expect("a time");
        assert_eq!(event_name("web", now), "web.18fae27693b40000");
        for name in ["a".repeat(MAX_NAME), format!("{}.{}", "a".repeat(235), "b".repeat(17))] {
            let event = event_name(&name, now);
            assert!(event.len() <= MAX_NAME && event.ends_with("a.18fae27693b40000"), "{event}");
        }
    }
}
