//! An API server with egressd's definitions, clients of it, and waiting for what it says.

use std::future::Future;
use std::path::Path;
use std::time::{Duration, Instant};

use egressd::api::binding::EgressBinding;
use egressd::api::node::{EgressNode, EgressNodeSpec, NodeBinding};
use egressd::api::pool::EgressPool;
use egressd::effects::kubernetes::Identity;
use egressd::effects::kubernetes::leader::{self, Leader};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use world::ApiServer;

/// How long the API server, and a Lease that is to end, may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// The agents' namespace.
pub const AGENTS: &str = "egressd";

/// The API server and a client that may do everything.
pub struct Lab {
    pub server: ApiServer,
    pub client: Client,
}

/// Runs a scenario in a lab with the definitions, and the namespaces `egressd` and `shop`.
pub fn lab<F: Future<Output = ()>>(scenario: impl FnOnce(Lab) -> F) {
    let server = ApiServer::start();
    for definition in ["egressbinding", "egressnode", "egresspool"] {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("crds/{definition}.yaml"));
        server.apply(&std::fs::read_to_string(file).expect("it is committed"));
        server.await_condition(&["crd", &format!("{definition}s.egressd.dev")], "Established");
    }
    server.kubectl(&["create", "namespace", AGENTS]);
    server.kubectl(&["create", "namespace", "shop"]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async move {
        let client = client(&server.kubeconfig(), None).await;
        scenario(Lab { server, client }).await;
    });
}

/// A client as the daemon makes it, by another port than the API server's own if one is given.
pub async fn client(kubeconfig: &str, port: Option<u16>) -> Client {
    let text = std::fs::read_to_string(kubeconfig).expect("a kubeconfig");
    let text = port.map_or_else(|| text.clone(), |port| text.replace(":6443", &format!(":{port}")));
    let path = format!("{kubeconfig}.{}", port.unwrap_or_default());
    std::fs::write(&path, text).expect("/run is ours");
    egressd::facts::kubernetes::client(Some(Path::new(&path))).await.expect("a client")
}

/// A controller that may hold the Lease.
pub fn agent(client: &Client, pod: &str) -> Leader {
    let identity = Identity { namespace: AGENTS.to_owned(), pod: pod.to_owned() };
    leader::start(client.clone(), identity, false).expect("a thread")
}

impl Lab {
    pub fn bindings(&self) -> Api<EgressBinding> {
        Api::namespaced(self.client.clone(), "shop")
    }

    pub fn pools(&self) -> Api<EgressPool> {
        Api::all(self.client.clone())
    }

    pub fn nodes(&self) -> Api<EgressNode> {
        Api::all(self.client.clone())
    }

    /// A pool `public` of the addresses from `first` to `last`, for `shop`.
    pub async fn pool(&self, first: &str, last: &str) {
        let spec = json!({ "blocks": [{ "start": first, "end": last }], "allowedNamespaces": { "names": ["shop"] } });
        let pool = EgressPool::new("public", serde_json::from_value(spec).expect("a spec"));
        self.pools().create(&PostParams::default(), &pool).await.expect("it is taken");
    }

    /// A binding of all pods of `shop` to one address of the pool.
    pub async fn bind(&self, name: &str) -> EgressBinding {
        let spec = json!({ "podSelector": {}, "pool": { "name": "public" } });
        let binding = EgressBinding::new(name, serde_json::from_value(spec).expect("a spec"));
        self.bindings().create(&PostParams::default(), &binding).await.expect("it is taken")
    }

    /// Waits until the binding is so, and returns it.
    pub async fn until(&self, name: &str, so: impl Fn(&EgressBinding) -> bool) -> EgressBinding {
        let api = self.bindings();
        eventually(|| async {
            match api.get(name).await {
                Ok(binding) if so(&binding) => Ok(binding),
                other => Err(format!("{other:?}")),
            }
        })
        .await
    }

    /// Reasons of the Events about an object, oldest first.
    pub fn events(&self, about: &str) -> Vec<String> {
        let all = self.server.get(&["events.events.k8s.io", "-A", "--sort-by=.eventTime"]);
        let of = |event: &&Value| event["regarding"]["name"] == about;
        let items = all["items"].as_array().expect("a list").iter().filter(of);
        items.map(|event| event["reason"].as_str().unwrap_or_default().to_owned()).collect()
    }

    /// Requests of a user that were answered, in order.
    pub fn requests_of(&self, user: &str) -> Vec<Value> {
        self.server.audit().into_iter().filter(|event| event["user"]["username"] == user && event["stage"] == "ResponseComplete").collect()
    }

    /// How many requests with this verb there were for a resource (`egressbindings/status`).
    pub fn requests(&self, verb: &str, resource: &str) -> usize {
        let (resource, sub) = resource.split_once('/').unwrap_or((resource, ""));
        let fits = |event: &&Value| {
            let object = &event["objectRef"];
            event["verb"] == verb && object["resource"] == resource && object["subresource"].as_str().unwrap_or_default() == sub
        };
        self.server.audit().iter().filter(fits).count()
    }
}

/// A condition of a binding.
pub fn condition<'a>(binding: &'a EgressBinding, kind: &str) -> Option<&'a Condition> {
    binding.status.as_ref()?.conditions.iter().find(|condition| condition.type_ == kind)
}

/// Whether a condition of a binding has this status and reason.
pub fn says(binding: &EgressBinding, kind: &str, status: &str, reason: &str) -> bool {
    condition(binding, kind).is_some_and(|condition| condition.status == status && condition.reason == reason)
}

/// What a node reports of a binding: so many workloads, of which so many fail.
pub fn report(of: &EgressBinding, workloads: i64, failing: i64) -> EgressNodeSpec {
    let binding = NodeBinding {
        namespace: "shop".to_owned(),
        name: of.name_any(),
        uid: of.uid().expect("it was taken"),
        generation: 1,
        workloads,
        programmed: workloads - failing,
        failing,
        reason: (failing > 0).then(|| "InterfaceDown".to_owned()),
        message: (failing > 0).then(|| "eth1 is down".to_owned()),
        ..NodeBinding::default()
    };
    EgressNodeSpec { bindings: vec![binding], bound: workloads - failing, failing, ..EgressNodeSpec::default() }
}

/// Writes a report as a node's agent would.
pub async fn write(api: &Api<EgressNode>, node: &str, spec: EgressNodeSpec) {
    let node = EgressNode::new(node, spec);
    let name = node.metadata.name.clone().expect("it has one");
    api.patch(&name, &PatchParams::apply("egressd").force(), &Patch::Apply(&node)).await.expect("it is taken");
}

/// Waits until there is something, and returns it. Panics with what is instead.
pub async fn eventually<T, F: Future<Output = Result<T, String>>>(mut look: impl FnMut() -> F) -> T {
    let start = Instant::now();
    loop {
        match look().await {
            Ok(found) => return found,
            Err(found) => assert!(start.elapsed() < PATIENCE, "not after {} s: {found}", PATIENCE.as_secs()),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
