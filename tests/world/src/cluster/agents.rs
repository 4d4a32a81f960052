//! egressd in the cluster, as its users have it: the chart, the image, pools and bindings, and what they tell.

use serde_json::{Value, json};

use super::{Cluster, NODES, has_condition, until};
use crate::{built, layout::Nic};

/// The namespace that the agents live in.
pub const NAMESPACE: &str = "egressd";

impl Cluster {
    /// Installs the chart with the image that `make image` built, and waits until all agents are ready. `values` are more options of
    /// helm.
    pub fn install(&self, values: &[&str]) {
        self.import_image(&built("image/egressd.tar").to_string_lossy());
        self.upgrade(values).unwrap_or_else(|error| panic!("{error}\n{}", self.agents_tell()));
    }

    /// Installs it with other values, on nodes that have the image; the error is helm's.
    pub fn upgrade(&self, values: &[&str]) -> Result<String, String> {
        let chart = concat!(env!("CARGO_MANIFEST_DIR"), "/../../charts/egressd");
        let release = ["upgrade", "--install", "egressd", chart, "-n", NAMESPACE, "--create-namespace", "--wait", "--timeout=90s"];
        let image = ["--set=image.pullPolicy=Never"];
        self.api.helm(&[&release, image.as_slice(), values].concat())
    }

    /// What the agents print, and what became of their pods, for whoever has to find out why they are not ready.
    fn agents_tell(&self) -> String {
        let ask = |what: &[&str]| self.api.try_kubectl(&[&["-n", NAMESPACE], what].concat()).unwrap_or_else(|error| error);
        let agents = "app.kubernetes.io/name=egressd";
        [ask(&["logs", "-l", agents, "--tail=50", "--prefix"]), ask(&["get", "events", "--field-selector=type=Warning"])].join("\n")
    }

    /// A pool with an address of this NIC of each node, for the namespace `default`.
    pub fn pool(&self, name: &str, nic: Nic) -> String {
        let block = |node: &str| json!({ "cidr": format!("{}/32", self.node(node).layout.address(nic)) });
        let gateway = self.node(NODES[0]).layout.gateway(nic);
        let spec = json!({ "blocks": NODES.map(block), "gateway": gateway, "allowedNamespaces": { "names": ["default"] } });
        json!({ "apiVersion": "egressd.dev/v1alpha1", "kind": "EgressPool", "metadata": { "name": name }, "spec": spec }).to_string()
    }

    /// A binding of pods with the label `app` to all addresses of a pool.
    pub fn binding(&self, name: &str, app: &str, pool: &str, nic: Nic) -> String {
        let addresses = NODES.map(|node| self.node(node).layout.address(nic).to_string());
        let spec = json!({ "podSelector": { "matchLabels": { "app": app } }, "pool": { "name": pool, "addresses": addresses } });
        json!({ "apiVersion": "egressd.dev/v1alpha1", "kind": "EgressBinding", "metadata": { "name": name }, "spec": spec }).to_string()
    }

    /// Applies a pool of this NIC's addresses and a binding of pods with this label to it.
    pub fn bind(&self, app: &str, nic: Nic) {
        let pool_name = format!("pool-{app}");
        self.api.apply(&self.pool(&pool_name, nic));
        self.api.apply(&self.binding(app, app, &pool_name, nic));
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
