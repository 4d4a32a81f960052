//! Objects of the API server as the model has them. Only what matters is kept: of a pod's tens of kilobytes some hundred bytes.

use std::collections::BTreeSet;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::{self as core, ConfigMap};
use kube::ResourceExt;
use kube::core::{DynamicObject, NotUsed, Object, PartialObjectMeta};
use serde::Deserialize;

use super::store::Entry;
use crate::api::object;
use crate::model::cluster::{DaemonSet, Keyed, Node};
use crate::model::labels::{Demand, Labels, Values};
use crate::model::objects::{ApiBinding, Namespace};
use crate::model::pod::Pod;
use crate::model::pool::Pool;

/// What is read of a pod.
pub type PodObject = Object<PodSpec, PodStatus>;

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodSpec {
    host_network: Option<bool>,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub struct PodStatus {
    phase: Option<String>,
    #[serde(rename = "podIPs")]
    pod_ips: Option<Vec<PodIp>>,
    #[serde(rename = "containerStatuses")]
    containers: Option<Vec<ContainerStatus>>,
}

#[derive(Clone, Debug, Deserialize)]
struct ContainerStatus {
    state: Option<ContainerState>,
}

#[derive(Clone, Debug, Deserialize)]
struct ContainerState {
    running: Option<Running>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Running {
    started_at: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
struct PodIp {
    ip: Option<String>,
}

/// What is read of a DaemonSet.
pub type DaemonSetObject = Object<DaemonSetSpec, NotUsed>;

#[derive(Clone, Debug, Deserialize)]
pub struct DaemonSetSpec {
    template: PodTemplate,
}

#[derive(Clone, Debug, Deserialize)]
struct PodTemplate {
    spec: Option<TemplateSpec>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct TemplateSpec {
    node_selector: Option<Labels>,
    affinity: Option<core::Affinity>,
}

/// The uid that the kubelet, and so the container runtime, calls a static pod by: the hash of its manifest. The API server's mirror of
/// it has a uid of its own.
const MIRROR: &str = "kubernetes.io/config.mirror";

/// Key in the ConfigMap of what is inside: one subnet a line.
pub const CIDRS: &str = "cidrs";

/// A binding. `Err` when it does not say who is meant.
pub fn binding(object: DynamicObject) -> Entry<ApiBinding> {
    let key = format!("{}/{}", object.namespace().unwrap_or_default(), object.name_any());
    let read = object::binding(&object::egress_binding(object));
    let read = read.map_err(|errors| {
        let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
        format!("EgressBinding {key}: {}", errors.join("; "))
    });
    (key, read)
}

/// A pool, with what is wrong in its `errors`.
pub fn pool(object: DynamicObject) -> Entry<Pool> {
    let pool = object::pool(&object::egress_pool(object));
    (pool.key(), Ok(pool))
}

/// A namespace by its metadata.
pub fn namespace(object: PartialObjectMeta<core::Namespace>) -> Entry<Namespace> {
    let namespace = Namespace { name: object.name_any(), labels: object.metadata.labels.unwrap_or_default() };
    (namespace.key(), Ok(namespace))
}

/// A node by its metadata.
pub fn node(object: PartialObjectMeta<core::Node>) -> Entry<Node> {
    let name = object.name_any();
    let metadata = object.metadata;
    let node = Node { name, uid: metadata.uid.unwrap_or_default(), labels: metadata.labels.unwrap_or_default() };
    (node.name.clone(), Ok(node))
}

/// A pod, by the uid that the container runtime knows it by, too.
pub fn pod(object: PodObject) -> Entry<Pod> {
    let (name, namespace) = (object.name_any(), object.namespace().unwrap_or_default());
    let Object { metadata, spec, status, .. } = object;
    let terminating = metadata.deletion_timestamp.is_some();
    let mirrored = metadata.annotations.and_then(|mut annotations| annotations.remove(MIRROR));
    let PodStatus { phase, pod_ips: ips, containers } = status.unwrap_or_default();
    let running = containers.into_iter().flatten().filter_map(|container| container.state?.running?.started_at);
    let pod = Pod {
        uid: mirrored.or(metadata.uid).unwrap_or_default(),
        namespace,
        name,
        labels: metadata.labels.unwrap_or_default(),
        addresses: ips.into_iter().flatten().filter_map(|ip| ip.ip?.parse().ok()).collect(),
        host_network: spec.host_network.unwrap_or_default(),
        finished: matches!(phase.as_deref(), Some("Succeeded" | "Failed")),
        terminating,
        started: running.max(),
    };
    (pod.uid.clone(), Ok(pod))
}

/// The agents' DaemonSet.
pub fn daemonset(object: DaemonSetObject) -> Entry<DaemonSet> {
    let (name, deleting) = (object.name_any(), object.metadata.deletion_timestamp.is_some());
    let Some(TemplateSpec { node_selector, affinity }) = object.spec.template.spec else {
        return (name, Ok(DaemonSet { deleting, ..DaemonSet::default() }));
    };
    let required = affinity.and_then(|affinity| affinity.node_affinity?.required_during_scheduling_ignored_during_execution);
    let terms = required.into_iter().flat_map(|required| required.node_selector_terms);
    let terms = terms.map(|term| term.match_expressions.into_iter().flatten().filter_map(demand).collect()).collect();
    (name, Ok(DaemonSet { deleting, nodes: node_selector.unwrap_or_default(), terms }))
}

/// A demand on a node's labels. `None` for one by number: taken as met, so that no agent goes that may be wanted.
fn demand(requirement: core::NodeSelectorRequirement) -> Option<Demand> {
    let core::NodeSelectorRequirement { key, operator, values } = requirement;
    let values = values.unwrap_or_default();
    let values = match operator.as_str() {
        "In" => Values::In(values),
        "NotIn" => Values::NotIn(values),
        "Exists" => Values::Exists,
        "DoesNotExist" => Values::DoesNotExist,
        _ => return None,
    };
    Some(Demand { key, values })
}

/// What is inside, and the lines that say nothing of the kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inside {
    pub subnets: BTreeSet<IpNet>,
    pub unreadable: Vec<String>,
}

/// What is inside, of a ConfigMap.
pub fn inside(object: ConfigMap) -> Entry<Inside> {
    let name = object.name_any();
    let mut inside = Inside::default();
    let lines = object.data.unwrap_or_default().remove(CIDRS).unwrap_or_default();
    for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
        match line.parse::<IpNet>() {
            Ok(subnet) => drop(inside.subnets.insert(subnet.trunc())),
            Err(_) => inside.unreadable.push(line.chars().take(64).collect()),
        }
    }
    (name, Ok(inside))
}

#[cfg(test)]
mod tests;
