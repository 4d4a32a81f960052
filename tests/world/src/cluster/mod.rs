//! A Kubernetes cluster of two nodes, all of it real: etcd, API server, controllers, scheduler, and on each node containerd, runc,
//! the CNI bridge plugin, kubelet and kube-proxy.
//!
//! ```text
//!   control                     cloud                                 internet
//!   etcd, kube-apiserver ─────┐
//!                             │ subnet0
//!   n1  kubelet, containerd   │
//!       pods ── cni0   eth0 ──┤ each NIC's port counts by source,
//!                      eth1 ──│ and drops what is not that NIC's own ── servers that say which address they saw
//!   n2  the same       eth0 ──┤
//!                      eth1 ──┘ subnet1
//! ```
//!
//! A node has network, mount and PID namespaces of its own, with files where a real node has them (`/etc/cni`, `/run/containerd`,
//! `/var/lib/kubelet`); nothing of them is the machine's. What nodes and pods say to each other and to the control plane by eth0 is
//! carried by the cloud as a cluster's network has to, and not counted; everything else that leaves a node is.

mod agents;
mod api;
pub(crate) mod first;
mod kubectl;
mod node;
mod pki;
mod pod;
mod power;
mod settings;
mod watch;

use std::{env, path::PathBuf, process::Command, sync::Arc, thread};

use serde_json::{Value, json};

pub use agents::NAMESPACE;
pub use api::{ApiServer, Etcd, KUBERNETES};
pub use kubectl::{has_condition, until};
pub use node::{CONTAINERD, Node, Proxy, STATIC_PODS};
pub use pod::Pod;

use crate::{
    built,
    cloud::Cloud,
    image,
    layout::{Layout, Nic, Subnets},
    netns::Netns,
    sender,
    service::Service,
    talk::Guests,
};

/// Name of the image that both nodes have: busybox, the sending program [`sender::PATH`], and the web server of
/// [`crate::image`] as its command.
pub const IMAGE: &str = "localhost/probe:1";
/// Name of the image that sandboxes are made of.
const PAUSE: &str = "localhost/pause:1";
/// Names of the nodes.
pub const NODES: [&str; 2] = ["n1", "n2"];

/// The folder that `tests/cluster/build.sh` built the programs into; `EGRESSD_CLUSTER` names another one.
fn programs() -> PathBuf {
    env::var_os("EGRESSD_CLUSTER").map_or_else(|| built("tmp/cluster"), PathBuf::from)
}

/// A program of the cluster. Panics with how to build it when it is not there.
pub fn program(name: &str) -> PathBuf {
    let program = programs().join(name);
    assert!(program.exists(), "there is no {}: build it: make cluster", program.display());
    program
}

/// What a cluster is to be like. The default: IPv4, a subnet for each NIC, kube-proxy with iptables, br_netfilter, current etcd.
#[derive(Clone, Copy, Debug)]
pub struct Builder {
    subnets: Subnets,
    dual_stack: bool,
    bridge_netfilter: bool,
    proxy: Proxy,
    etcd: Etcd,
    routes: bool,
}

impl Builder {
    /// Where the NICs are.
    #[must_use]
    pub fn subnets(mut self, subnets: Subnets) -> Self {
        self.subnets = subnets;
        self
    }

    /// Whether nodes, pods and services have IPv6 addresses, too.
    #[must_use]
    pub fn dual_stack(mut self, dual_stack: bool) -> Self {
        self.dual_stack = dual_stack;
        self
    }

    /// Whether the nodes' bridges ask iptables.
    #[must_use]
    pub fn bridge_netfilter(mut self, on: bool) -> Self {
        self.bridge_netfilter = on;
        self
    }

    /// How kube-proxy makes services.
    #[must_use]
    pub fn proxy(mut self, proxy: Proxy) -> Self {
        self.proxy = proxy;
        self
    }

    /// Which etcd.
    #[must_use]
    pub fn etcd(mut self, etcd: Etcd) -> Self {
        self.etcd = etcd;
        self
    }

    /// Whether nodes have routes to each other's pods.
    #[must_use]
    pub fn pod_routes(mut self, routes: bool) -> Self {
        self.routes = routes;
        self
    }

    /// Makes it, and waits until both nodes are ready. To be called once in a scenario.
    pub fn build(self) -> Cluster {
        let layout = |machine| Layout { subnets: self.subnets, ipv6: self.dual_stack, machine };
        let layouts = [layout(0), layout(1)];
        let cloud = Arc::new(Cloud::new(layouts[0]));
        let (control, control6) = (layouts[0].control(), layouts[0].control6());
        let netns = cloud.add_beside("control", Nic::Eth0, control.into(), control6.into());
        let order = api::Order { netns, address: control.into(), etcd: self.etcd, ipv6: self.dual_stack, bare: false };
        let mut api = ApiServer::order(order);

        let images = image::archive(&[(IMAGE, &image::WEB_SERVER), (PAUSE, &image::IDLE)], &[&sender::build()]);
        let to = inside(&layouts);
        let start = |layout| {
            let node = Node::start(&cloud, layout, &to, self.bridge_netfilter);
            node.import(&images);
            node
        };
        let [first, second] = layouts;
        let (n1, n2) = thread::scope(|scope| {
            let n2 = scope.spawn(|| start(second));
            (start(first), n2.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        });
        let mut nodes = [n1, n2];
        if self.routes {
            nodes[0].route_to(2);
            nodes[1].route_to(1);
        }

        api.await_ready();
        let controllers = start_controllers(&api);
        register(&api, self.dual_stack);
        let proxy_user = api.user("kube-proxy", "/CN=system:kube-proxy");
        for node in &mut nodes {
            let user = api.user(&node.name, &format!("/O=system:nodes/CN=system:node:{}", node.name));
            node.join(&user, &proxy_user, &api.pki.file("ca.crt"), self.proxy);
        }
        api.kubectl(&["wait", "--for=condition=Ready", "nodes", "--all", "--timeout=90s"]);
        // Pods are refused before it is there.
        api.kubectl(&["wait", "--for=create", "serviceaccount/default", "--timeout=90s"]);
        Cluster { internet: cloud.internet.clone(), guests: cloud.guests.clone(), nodes, api, _controllers: controllers }
    }
}

/// Addresses and networks that are the cluster's own.
fn inside(layouts: &[Layout; 2]) -> Vec<String> {
    let mut all = vec![layouts[0].control().to_string(), "10.244.0.0/16".to_owned()];
    all.extend(layouts.iter().map(|layout| layout.address(Nic::Eth0).to_string()));
    if layouts[0].ipv6 {
        all.extend([layouts[0].control6().to_string(), "fd10:244::/48".to_owned()]);
        all.extend(layouts.iter().map(|layout| layout.address6(Nic::Eth0).to_string()));
    }
    all
}

fn start_controllers(api: &ApiServer) -> [Service; 2] {
    let manager = api.user("kcm", "/CN=system:kube-controller-manager");
    let scheduler = api.user("scheduler", "/CN=system:kube-scheduler");
    let file = |name: &str| api.pki.file(name);
    let start = |name: &str, arguments: &[String]| {
        let mut command = Command::new(program(name));
        command.args(arguments).arg("--leader-elect=false");
        api.netns.enter(|| Service::start(name, command))
    };
    [
        start(
            "kube-controller-manager",
            &[
                format!("--kubeconfig={manager}"),
                "--use-service-account-credentials".to_owned(),
                format!("--service-account-private-key-file={}", file("sa.key")),
                format!("--root-ca-file={}", file("ca.crt")),
                format!("--cluster-signing-cert-file={}", file("ca.crt")),
                format!("--cluster-signing-key-file={}", file("ca.key")),
                "--node-monitor-grace-period=20s".to_owned(),
                // By default a hundred pods at once wait for it.
                "--kube-api-qps=200".to_owned(),
                "--kube-api-burst=400".to_owned(),
            ],
        ),
        start("kube-scheduler", &[format!("--kubeconfig={scheduler}")]),
    ]
}

/// Makes the nodes' objects with the networks of their pods, which a controller would hand out in any order.
fn register(api: &ApiServer, ipv6: bool) {
    let nodes = (1..).zip(NODES).map(|(number, name)| {
        let mut networks = vec![node::pod_network(number)];
        if ipv6 {
            networks.push(node::pod_network6(number));
        }
        let spec = json!({ "podCIDR": networks[0], "podCIDRs": networks });
        json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": name }, "spec": spec })
    });
    let nodes: Vec<Value> = nodes.collect();
    api.apply(&json!({ "apiVersion": "v1", "kind": "List", "items": nodes }).to_string());
}

/// A running cluster. All of it ends with the scenario.
pub struct Cluster {
    /// Where the servers are, and clients that call in.
    pub internet: Netns,
    /// Whom the servers on the internet have seen.
    pub guests: Guests,
    /// The API server, and `kubectl`.
    pub api: ApiServer,
    nodes: [Node; 2],
    _controllers: [Service; 2],
}

impl Cluster {
    /// Orders a cluster.
    pub fn builder() -> Builder {
        Builder {
            subnets: Subnets::Two,
            dual_stack: false,
            bridge_netfilter: true,
            proxy: Proxy::Iptables,
            etcd: Etcd::Current,
            routes: true,
        }
    }

    /// A node by its name.
    pub fn node(&self, name: &str) -> &Node {
        self.nodes.iter().find(|node| node.name == name).unwrap_or_else(|| panic!("there is no node {name}"))
    }

    /// A node by its name, to kill its parts.
    pub fn node_mut(&mut self, name: &str) -> &mut Node {
        self.nodes.iter_mut().find(|node| node.name == name).unwrap_or_else(|| panic!("there is no node {name}"))
    }

    /// Both nodes.
    pub fn nodes(&self) -> &[Node; 2] {
        &self.nodes
    }

    /// Imports the images of a tar as `docker save` makes it on both nodes.
    pub fn import_image(&self, tar: &str) {
        thread::scope(|scope| {
            for node in &self.nodes {
                scope.spawn(|| node.import(tar));
            }
        });
    }
}
