//! A node whose pods are namespaces on a bridge, its agent and a controller, at an API server without a kubelet: pods are objects that the test
//! makes, and one that is deleted stays until it is deleted by force.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    process::Command,
};

use serde_json::{Value, json};
use world::{
    ApiServer, Egressd, Nic, Subnets, World,
    cluster::until,
    container::Bridge,
    egressd::program,
    layout::{PORT, SERVER},
    published::{CALLED, Server, TARGET},
    service::Service,
    talk::ask_tcp,
};

/// The name of the node.
pub const NODE: &str = "n1";

/// The node, and what is around it.
pub struct Lab {
    pub world: World,
    pub api: ApiServer,
    bridge: Bridge,
    agents: Option<(Egressd, Service)>,
}

impl Lab {
    /// One with the namespaces `shop` and `mail`, no pods, and nobody who reads the definitions.
    pub fn new() -> Self {
        let world = World::builder().subnets(Subnets::Two).build();
        let bridge = world.bridge("cni0", 28);
        world.host.ip("link set cni0 address 02:42:ac:1c:00:01");
        world.masquerade(&bridge);
        let api = ApiServer::start();
        for definition in ["egressbinding", "egressnode", "egresspool"] {
            let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("crds/{definition}.yaml"));
            api.apply(&std::fs::read_to_string(file).expect("it is committed"));
        }
        api.kubectl(&["wait", "--for=condition=Established", "--timeout=90s", "crd", "--all"]);
        api.apply(&json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": NODE } }).to_string());
        ["egressd", "shop", "mail"].iter().for_each(|name| drop(api.kubectl(&["create", "namespace", name])));
        Self { world, api, bridge, agents: None }
    }

    /// Starts the agent of the node and a controller.
    pub fn start(&mut self) {
        let kubeconfig = self.api.kubeconfig();
        let agent = self.world.egressd(&["--no-docker", "--kubernetes", "--node-name", NODE, "--kubeconfig", &kubeconfig]);
        let mut controller = Command::new(program());
        controller.args(["controller", "--pod-name", "controller-1", "--kubeconfig", &kubeconfig]);
        self.agents = Some((agent, Service::start("controller", controller)));
        self.world.await_ready();
        self.world.forget_neighbours();
    }

    /// The node's own address beside its pods.
    pub fn gateway(&self) -> Ipv4Addr {
        self.bridge.address(1)
    }

    /// Kills the agent, and starts it again.
    pub fn restart_agent(&mut self) {
        let (agent, _) = self.agents.as_mut().expect("it was started");
        agent.kill();
        agent.start();
        self.world.await_ready();
    }

    /// Runs a pod that serves.
    pub fn run(&self, namespace: &str, number: u8) -> Server {
        let server = Server::new(&self.world, &self.bridge, number);
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": server.at.netns.name(), "namespace": namespace, "labels": { "app": "web" } },
            "spec": { "nodeName": NODE, "containers": [{ "name": "c", "image": "i" }] },
        });
        self.api.apply(&pod.to_string());
        let addresses = json!([{ "ip": server.at.address }, { "ip": server.at.address6 }]);
        let status = json!({ "status": { "phase": "Running", "podIP": server.at.address, "podIPs": addresses } });
        let name = server.at.netns.name();
        self.api.kubectl(&["patch", "pod", "-n", namespace, name, "--subresource=status", "--patch", &status.to_string()]);
        server
    }

    /// Lends eth1's address to both namespaces, with these ports.
    pub fn lend(&self, ports: &Value) {
        let layout = self.world.layout;
        let spec = json!({
            "blocks": [{ "cidr": format!("{}/32", layout.address(Nic::Eth1)) }], "gateway": layout.gateway(Nic::Eth1),
            "allowedNamespaces": { "names": ["shop", "mail"] }, "inboundPorts": ports,
        });
        self.api.apply(&object("EgressPool", &json!({ "name": "public" }), &spec));
    }

    /// Binds the pods of a namespace to that address, and publishes this on it.
    pub fn publish(&self, namespace: &str, inbound: &Value, priority: i32) {
        self.try_publish(namespace, inbound, priority).unwrap_or_else(|error| panic!("{error}"));
    }

    /// The same, or what the API server says.
    pub fn try_publish(&self, namespace: &str, inbound: &Value, priority: i32) -> Result<String, String> {
        let pool = json!({ "name": "public", "addresses": [self.world.layout.address(Nic::Eth1)] });
        let spec = json!({ "podSelector": { "matchLabels": { "app": "web" } }, "pool": pool, "inbound": inbound, "priority": priority });
        self.api.try_apply(&object("EgressBinding", &json!({ "name": "web", "namespace": namespace }), &spec))
    }

    /// Waits until a condition of the binding of a namespace has this status and reason, and returns its message.
    pub fn await_said(&self, namespace: &str, kind: &str, status: &str, reason: &str) -> String {
        let what = ["-n", namespace, "egressbinding", "web"];
        until(&format!("{namespace}/web is {kind} {status} {reason}"), || {
            let binding = self.api.try_get(&what)?;
            let conditions = binding["status"]["conditions"].as_array().into_iter().flatten();
            let found = conditions.into_iter().find(|one| one["type"] == kind).cloned().unwrap_or_default();
            let current = found["observedGeneration"] == binding["metadata"]["generation"];
            if current && found["status"] == status && found["reason"] == reason {
                Ok(found["message"].as_str().unwrap_or_default().to_owned())
            } else {
                Err(format!("{binding:#}"))
            }
        })
    }

    /// The ports that the binding's status has, as service, node, servers and those of them that get new connections.
    pub fn services(&self, namespace: &str) -> Value {
        self.api.get(&["-n", namespace, "egressbinding", "web"])["status"]["services"].clone()
    }

    /// Where a client on the internet calls.
    pub fn called(&self, port: u16) -> SocketAddr {
        (self.world.layout.eip(Nic::Eth1), port).into()
    }

    /// Calls so many times; how often each of these was called.
    pub fn call<const N: usize>(&self, times: usize, servers: [&Server; N]) -> [usize; N] {
        let before = servers.map(Server::calls);
        let at = self.called(CALLED);
        for _ in 0..times {
            ask_tcp(&self.world.internet, at).unwrap_or_else(|error| panic!("{at}: {error}; {:#}", self.world.status()));
        }
        let after = servers.map(Server::calls);
        std::array::from_fn(|at| after[at] - before[at])
    }

    /// Panics unless a call to a port is refused by the node itself.
    pub fn assert_refused(&self, port: u16) {
        let error = ask_tcp(&self.world.internet, self.called(port)).expect_err("nobody serves it");
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused, "the node answers: {error}");
    }

    /// Whether what a pod sends leaves by this NIC.
    pub fn leaves_by(&self, server: &Server, nic: Nic) -> Result<(), String> {
        self.world.leaves_by_to(&server.at.netns, nic, (SERVER, PORT).into())
    }
}

/// An entry of `inbound`: a port that is called, and the pods' own.
pub fn entry(port: u16) -> Value {
    json!({ "protocol": "TCP", "port": port, "targetPort": TARGET })
}

fn object(kind: &str, metadata: &Value, spec: &Value) -> String {
    json!({ "apiVersion": "egressd.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec }).to_string()
}
