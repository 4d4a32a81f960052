//! Carries out what a fold decided.

use futures::stream::{self, StreamExt};
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

use super::error::Error;
use super::follow::without_versions;
use super::{MANAGER, Names};
use crate::api::binding::EgressBinding;
use crate::api::object;
use crate::api::pool::EgressPool;
use crate::facts::kubernetes::{CIDRS, INSIDE};
use crate::model::cluster::Word;
use crate::report::fold::{BindingWrite, Change, Event, PoolWrite, Writes};

/// So many requests are on their way at a time.
const AT_ONCE: usize = 8;

/// Writes all of it. What it came to: the objects as they are now, and what was refused.
pub async fn carry_out(client: &Client, names: &Names, writes: Writes) -> (Vec<Change>, Vec<Error>) {
    let Writes { bindings, pools, events, inside, again: _ } = writes;
    let bindings = stream::iter(bindings).map(|write| binding(client, write));
    let mut results: Vec<Result<Option<Change>, Error>> = bindings.buffer_unordered(AT_ONCE).collect().await;
    for write in pools {
        results.push(pool(client, write).await);
    }
    if let Some(text) = inside {
        results.push(tell_inside(client, &names.namespace, text).await.map(Some));
    }
    for event in events {
        // An Event that is refused is not told again: it is news only once.
        results.push(publish(client, names, event).await.map(|()| None));
    }
    let (done, refused): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
    (done.into_iter().filter_map(Result::ok).flatten().collect(), refused.into_iter().filter_map(Result::err).collect())
}

async fn binding(client: &Client, write: BindingWrite) -> Result<Option<Change>, Error> {
    let kind = ApiResource::erase::<EgressBinding>(&());
    let api = Api::namespaced_with(client.clone(), &write.namespace, &kind);
    let written = status(api, &kind, &write.name, &write.uid, &write.status).await?;
    Ok(written.map(|object| Change::Bindings(Word::One(object::egress_binding(object).into()))))
}

async fn pool(client: &Client, write: PoolWrite) -> Result<Option<Change>, Error> {
    let kind = ApiResource::erase::<EgressPool>(&());
    let written = status(Api::all_with(client.clone(), &kind), &kind, &write.name, &write.uid, &write.status).await?;
    Ok(written.map(|object| Change::Pools(Word::One(object::egress_pool(object).into()))))
}

/// Applies a status. The uid is a precondition: it is not for an object that was made anew under that name. `None`: there is no such object.
async fn status(
    api: Api<DynamicObject>,
    kind: &ApiResource,
    name: &str,
    uid: &str,
    status: &impl Serialize,
) -> Result<Option<DynamicObject>, Error> {
    let patch = json!({
        "apiVersion": kind.api_version,
        "kind": kind.kind,
        "metadata": { "name": name, "uid": uid },
        "status": status,
    });
    match api.patch_status(name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(&patch)).await {
        Ok(object) => Ok(Some(without_versions(object))),
        Err(error) => match Error::of("patch", format!("{}.{}/status", kind.plural, kind.group), error) {
            error if error.is_gone() || error.is_conflict() => {
                debug!(name, %error, "the object is gone, or another one");
                Ok(None)
            }
            error => Err(error),
        },
    }
}

async fn tell_inside(client: &Client, namespace: &str, text: String) -> Result<Change, Error> {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let map = ConfigMap {
        metadata: ObjectMeta { name: Some(INSIDE.to_owned()), ..ObjectMeta::default() },
        data: Some([(CIDRS.to_owned(), text.clone())].into()),
        ..ConfigMap::default()
    };
    let applied = api.patch(INSIDE, &PatchParams::apply(MANAGER).force(), &Patch::Apply(&map)).await;
    applied.map_err(|error| Error::of("patch", "configmaps", error))?;
    Ok(Change::ToldInside(Some(text)))
}

/// `kube::runtime::events::Recorder` is not used: it takes two notes of one reason for one Event, and keeps the first note.
async fn publish(client: &Client, names: &Names, event: Event) -> Result<(), Error> {
    let Event { about, tale } = event;
    let namespace = about.namespace.clone().unwrap_or_else(|| "default".to_owned());
    let now = Timestamp::now();
    let name = format!("{}.{:x}", about.name.as_deref().unwrap_or_default(), now.as_nanosecond());
    let event = KubeEvent {
        metadata: ObjectMeta { name: Some(name), namespace: Some(namespace.clone()), ..ObjectMeta::default() },
        event_time: Some(MicroTime(now)),
        action: Some(tale.action.to_owned()),
        reason: Some(tale.reason),
        note: Some(tale.note),
        type_: Some(if tale.warning { "Warning" } else { "Normal" }.to_owned()),
        regarding: Some(about),
        reporting_controller: Some("egressd.dev/egressd".to_owned()),
        reporting_instance: Some(names.pod.clone()),
        ..KubeEvent::default()
    };
    let api: Api<KubeEvent> = Api::namespaced(client.clone(), &namespace);
    api.create(&PostParams::default(), &event).await.map(drop).map_err(|error| Error::of("create", "events.events.k8s.io", error))
}
