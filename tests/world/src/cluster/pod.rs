//! Pods, and how they are looked into: by their network namespace, in which a test's own programs can talk.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
};

use serde_json::{Value, json};

use super::{Cluster, IMAGE, kubectl, node::Node};
use crate::netns::Netns;

/// A running pod with a network of its own.
#[derive(Clone, Debug)]
pub struct Pod {
    /// Its namespace in the API.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its unique id.
    pub uid: String,
    /// Name of its node.
    pub node: String,
    /// Its address.
    pub address: Ipv4Addr,
    /// Its IPv6 address, in a cluster that has some.
    pub address6: Option<Ipv6Addr>,
    /// Its network namespace, named as CNI named it.
    pub netns: Netns,
}

impl Pod {
    /// Its addresses, IPv4 first.
    pub fn addresses(&self) -> Vec<IpAddr> {
        [Some(self.address.into()), self.address6.map(IpAddr::from)].into_iter().flatten().collect()
    }
}

impl Cluster {
    /// Runs a pod of [`IMAGE`] with these labels in the namespace `default` on a node, and waits until it is ready.
    pub fn run(&self, name: &str, node: &str, labels: &[(&str, &str)]) -> Pod {
        self.api.apply(&manifest(name, node, labels).to_string());
        self.pod("default", name)
    }

    /// Runs such pods, each with a name, a node and its label `app`, and waits until all are ready. They start together.
    pub fn run_all<const COUNT: usize>(&self, pods: [(&str, &str, &str); COUNT]) -> [Pod; COUNT] {
        let manifests = pods.map(|(name, node, app)| manifest(name, node, &[("app", app)]));
        self.api.apply(&json!({ "apiVersion": "v1", "kind": "List", "items": manifests.as_slice() }).to_string());
        pods.map(|(name, _, _)| self.pod("default", name))
    }

    /// Waits until a pod is ready, and returns it.
    pub fn pod(&self, namespace: &str, name: &str) -> Pod {
        self.found(&self.api.await_object(&["-n", namespace, "pod", name], is_ready))
    }

    /// All pods of a namespace with a label that are running and not about to end.
    pub fn pods(&self, namespace: &str, selector: &str) -> Vec<Pod> {
        let pods = self.api.get(&["-n", namespace, "pods", "-l", selector]);
        let pods = pods["items"].as_array().into_iter().flatten();
        pods.filter(|pod| is_ready(pod)).map(|pod| self.found(pod)).collect()
    }

    /// Runs a command in a pod's first container, and returns what it prints, or its failure.
    pub fn exec(&self, pod: &Pod, command: &[&str]) -> Result<String, String> {
        self.api.try_kubectl(&[&["exec", "-n", &pod.namespace, &pod.name, "--"], command].concat())
    }

    fn found(&self, pod: &Value) -> Pod {
        let text = |value: &Value| value.as_str().unwrap_or_else(|| panic!("a ready pod says so: {pod:#}")).to_owned();
        let addresses: Vec<IpAddr> = pod["status"]["podIPs"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|one| one["ip"].as_str().and_then(|address| address.parse().ok()))
            .collect();
        let of4 = |address: &IpAddr| if let IpAddr::V4(address) = address { Some(*address) } else { None };
        let of6 = |address: &IpAddr| if let IpAddr::V6(address) = address { Some(*address) } else { None };
        let (uid, node) = (text(&pod["metadata"]["uid"]), text(&pod["spec"]["nodeName"]));
        Pod {
            namespace: text(&pod["metadata"]["namespace"]),
            name: text(&pod["metadata"]["name"]),
            netns: self.node(&node).netns_of(&uid).unwrap_or_else(|error| panic!("{error}")),
            uid,
            node,
            address: addresses.iter().find_map(of4).expect("a pod has an IPv4 address"),
            address6: addresses.iter().find_map(of6),
        }
    }
}

fn manifest(name: &str, node: &str, labels: &[(&str, &str)]) -> Value {
    let labels: Value = labels.iter().map(|(name, value)| ((*name).to_owned(), Value::from(*value))).collect();
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": name, "labels": labels },
        "spec": {
            "nodeSelector": { "kubernetes.io/hostname": node },
            "terminationGracePeriodSeconds": 0,
            "containers": [{ "name": "probe", "image": IMAGE }],
        },
    })
}

/// Whether it serves, and is not about to end.
fn is_ready(pod: &Value) -> bool {
    kubectl::has_condition(pod, "Ready") && pod["metadata"]["deletionTimestamp"].is_null()
}

impl Node {
    /// Ends the first process of a pod's container with no chance to tidy up.
    pub fn kill_container(&self, namespace: &str, pod: &str, container: &str) {
        self.signal_container("SIGKILL", namespace, pod, container);
    }

    /// Has a container stand still while `f` runs.
    pub fn stopped<T>(&self, namespace: &str, pod: &str, container: &str, f: impl FnOnce() -> T) -> T {
        self.signal_container("SIGSTOP", namespace, pod, container);
        let done = f();
        self.signal_container("SIGCONT", namespace, pod, container);
        done
    }

    fn signal_container(&self, signal: &str, namespace: &str, pod: &str, container: &str) {
        let filter = [label("pod.namespace", namespace), label("pod.name", pod), label("container.name", container)].join(",");
        self.signal(signal, &filter, &format!("{container} of {pod}"));
    }

    /// Ends a pod's sandbox with no chance to tidy up: kubelet makes another, with another network.
    pub fn kill_sandbox(&self, pod: &Pod) {
        self.signal("SIGKILL", &sandbox(&pod.uid), &format!("sandbox of {}", pod.name));
    }

    fn signal(&self, signal: &str, filter: &str, what: &str) {
        let containers = self.ctr(&["containers", "ls", "-q", filter]);
        let running = self.ctr(&["tasks", "ls", "-q"]);
        let of_pod = containers.lines().find(|id| running.lines().any(|task| task == *id));
        let id = of_pod.unwrap_or_else(|| panic!("{} runs no {what}", self.name));
        self.ctr(&["tasks", "kill", "--signal", signal, id]);
    }

    /// The network namespace of the pod with this unique id, by its sandbox. After a reboot containerd still knows the old one, too.
    pub fn netns_of(&self, uid: &str) -> Result<Netns, String> {
        let sandboxes = self.ctr(&["containers", "ls", "-q", &sandbox(uid)]);
        let mut names = sandboxes.lines().map(|sandbox| self.name_of_netns(sandbox));
        let name = names.find(|name| Path::new(&self.path(&format!("/run/netns/{name}"))).exists());
        let name = name.ok_or_else(|| format!("{} has no sandbox of pod {uid}", self.name))?;
        Ok(Netns::open(self.path(&format!("/run/netns/{name}")), &name))
    }

    fn name_of_netns(&self, sandbox: &str) -> String {
        let info: Value = serde_json::from_str(&self.ctr(&["containers", "info", sandbox])).expect("ctr prints JSON");
        let namespaces = info["Spec"]["linux"]["namespaces"].as_array().expect("a sandbox has namespaces");
        let network = namespaces.iter().find(|namespace| namespace["type"] == "network").expect("a network is one of them");
        let path = network["path"].as_str().expect("CNI named it");
        path.rsplit('/').next().unwrap_or_default().to_owned()
    }
}

/// `ctr`'s filter for containers that kubelet labelled so.
fn label(name: &str, value: &str) -> String {
    format!("labels.\"io.kubernetes.{name}\"=={value}")
}

/// The one for a pod's sandboxes.
fn sandbox(uid: &str) -> String {
    format!("{},labels.\"io.cri-containerd.kind\"==sandbox", label("pod.uid", uid))
}
