//! egressd in the cluster, as its users have it: the chart, the image, pools and bindings, and what they tell.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::{Cluster, NODES, has_condition, node::Node, until};
use crate::{
    built,
    layout::{Nic, SERVER},
};

/// The namespace that the agents live in.
pub const NAMESPACE: &str = "egressd";

impl Cluster {
    /// Installs the chart with the image that `make image` built, and waits until all agents are ready. `values` are more options of
    /// helm.
    pub fn install(&self, values: &[&str]) {
        self.import_agent();
        self.upgrade(values).unwrap_or_else(|error| panic!("{error}\n{}", self.agents_tell()));
    }

    /// Gives all nodes the agent's image.
    pub fn import_agent(&self) {
        self.import_image(&built("image/egressd.tar").to_string_lossy());
    }

    /// Installs it with other values, on nodes that have the image; the error is helm's.
    pub fn upgrade(&self, values: &[&str]) -> Result<String, String> {
        let chart = concat!(env!("CARGO_MANIFEST_DIR"), "/../../charts/egressd");
        let release = ["upgrade", "--install", "egressd", chart, "-n", NAMESPACE, "--create-namespace", "--wait", "--timeout=90s"];
        let image = ["--set=image.pullPolicy=Never"];
        self.api.helm(&[&release, image.as_slice(), values].concat())
    }

    /// What agents and controllers print, and what became of their pods, for whoever has to find out why they are not ready.
    fn agents_tell(&self) -> String {
        let ask = |what: &[&str]| self.api.try_kubectl(&[&["-n", NAMESPACE], what].concat()).unwrap_or_else(|error| error);
        let agents = "app.kubernetes.io/name in (egressd,egressd-controller)";
        [ask(&["logs", "-l", agents, "--tail=50", "--prefix"]), ask(&["get", "events", "--field-selector=type=Warning"])].join("\n")
    }

    /// A pool with an IPv4 address of this NIC of each node, for the namespace `default`.
    pub fn pool(&self, name: &str, nic: Nic) -> String {
        self.pool_of(name, nic, SERVER.into())
    }

    /// A pool with an address of this NIC of each node, of the family of `like`, for the namespace `default`.
    pub fn pool_of(&self, name: &str, nic: Nic, like: IpAddr) -> String {
        let length = if like.is_ipv4() { 32 } else { 128 };
        let block = |node: &str| json!({ "cidr": format!("{}/{length}", self.node(node).layout.private(nic, like)) });
        let gateway = self.node(NODES[0]).gateway(nic, like);
        let spec = json!({ "blocks": NODES.map(block), "gateway": gateway, "allowedNamespaces": { "names": ["default"] } });
        json!({ "apiVersion": "egressd.dev/v1alpha1", "kind": "EgressPool", "metadata": { "name": name }, "spec": spec }).to_string()
    }

    /// A binding of pods with the label `app` to all addresses of a pool of this NIC's IPv4 addresses.
    pub fn binding(&self, name: &str, app: &str, pool: &str, nic: Nic) -> String {
        self.binding_of(name, app, pool, nic, SERVER.into())
    }

    /// A binding of pods with the label `app` to all addresses of a pool of this NIC's addresses, of the family of `like`.
    pub fn binding_of(&self, name: &str, app: &str, pool: &str, nic: Nic, like: IpAddr) -> String {
        let addresses = NODES.map(|node| self.node(node).layout.private(nic, like));
        let spec = json!({ "podSelector": { "matchLabels": { "app": app } }, "pool": { "name": pool, "addresses": addresses } });
        json!({ "apiVersion": "egressd.dev/v1alpha1", "kind": "EgressBinding", "metadata": { "name": name }, "spec": spec }).to_string()
    }

    /// Applies a pool of this NIC's IPv4 addresses and a binding of pods with this label to it.
    pub fn bind(&self, app: &str, nic: Nic) {
        self.bind_of(app, nic, SERVER.into());
    }

    /// Applies a pool of this NIC's addresses, of the family of `like`, and a binding of pods with this label to it.
    pub fn bind_of(&self, app: &str, nic: Nic, like: IpAddr) {
        let pool_name = format!("pool-{app}");
        self.api.apply(&self.pool_of(&pool_name, nic, like));
        self.api.apply(&self.binding_of(app, app, &pool_name, nic, like));
    }

    /// Deletes all bindings of the namespace `default` and all pools, which may not go as long as a binding has something of them.
    pub fn let_go(&self) {
        self.api.kubectl(&["delete", "egressbindings", "--all"]);
        until("all pools are gone", || self.api.try_kubectl(&["delete", "egresspools", "--all"]));
    }

    /// Waits until so many of a binding's workloads are programmed, and none is failing.
    pub fn await_programmed(&self, binding: &str, workloads: u64) -> Value {
        self.api.await_object(&["egressbinding", binding], |object| {
            let summary = &object["status"]["summary"];
            summary["programmed"] == workloads && summary["workloads"] == workloads && summary["failing"] == 0
        })
    }

    /// Waits until the API server has one agent of each node ready.
    pub fn await_agents(&self) {
        self.api.await_object(&["-n", NAMESPACE, "daemonset", "egressd"], |set| {
            let status = &set["status"];
            status["numberReady"] == 2
                && status["updatedNumberScheduled"] == 2
                && status["observedGeneration"] == set["metadata"]["generation"]
        });
    }

    /// The agent's pod on a node.
    pub fn agent(&self, node: &str) -> String {
        let selector =
            ["-n", NAMESPACE, "pods", "-l", "app.kubernetes.io/name=egressd", "--field-selector", &format!("spec.nodeName={node}")];
        until("the node has an agent", || {
            let pods = self.api.try_get(&selector)?;
            let name = pods["items"].as_array().and_then(|all| all.first()).and_then(|pod| pod["metadata"]["name"].as_str());
            name.map(str::to_owned).ok_or_else(|| "none".to_owned())
        })
    }

    /// Ends a node's agent with no chance to tidy up, and waits until kubelet has started it again in the same pod.
    pub fn kill_agent(&self, node: &str) {
        let agent = self.agent(node);
        let restarts = |pod: &Value| pod["status"]["containerStatuses"][0]["restartCount"].as_u64().unwrap_or(0);
        let what = ["-n", NAMESPACE, "pod", agent.as_str()];
        let before = restarts(&self.api.get(&what));
        self.node(node).kill_container(NAMESPACE, &agent, "egressd");
        self.api.await_object(&what, |pod| restarts(pod) > before && has_condition(pod, "Ready"));
    }

    /// What `egressd` of a node's agent prints for one of its commands.
    pub fn ask_agent(&self, node: &str, command: &[&str]) -> Result<String, String> {
        let agent = self.agent(node);
        self.api.try_kubectl(&[&["exec", "-n", NAMESPACE, &agent, "--", "egressd"], command].concat())
    }
}

impl Node {
    /// Takes the agent's image from the node: an agent that runs goes on, and none starts until it is back.
    pub fn remove_agent(&self) {
        let images = self.ctr(&["images", "ls", "-q"]);
        let agent = images.lines().find(|name| name.contains("/egressd:")).expect("the chart was installed");
        self.ctr(&["images", "rm", "--sync", agent]);
    }
}
