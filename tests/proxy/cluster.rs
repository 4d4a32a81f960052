//! `egressd proxy` beside the agent of a real node: kubelet, containerd, and two namespaces of tenants.

use std::{
    io::ErrorKind,
    net::{IpAddr, SocketAddr},
    path::Path,
    process::Command,
    time::Duration,
};

use serde_json::{Value, json};
use world::{
    Cluster, Egressd, Netns, Nic,
    cluster::{CONTAINERD, IMAGE, Node, Pod, until},
    egressd::program,
    layout::{PORT, SERVER},
    service::Service,
    talk::{self, ask_tcp},
};

use crate::support::{at, is_refused};

const NODE: &str = "n1";

pub fn two_tenants() {
    let cluster = Cluster::builder().build();
    let node = cluster.node(NODE);
    for tenant in ["shop", "mail"] {
        cluster.api.kubectl(&["create", "namespace", tenant]);
        cluster.api.kubectl(&["wait", "-n", tenant, "--for=create", "serviceaccount/default", "--timeout=90s"]);
    }
    let [shop, mail, other] = [("shop", "web", "web"), ("mail", "web", "web"), ("shop", "other", "other")]
        .map(|(tenant, name, app)| run(&cluster, tenant, name, app));
    on_the_nodes_network(&cluster);
    let _agents = agents(&cluster);
    let _proxy = proxy(&cluster, node);

    // One that is bound, with a port for whoever it is and one by its binding.
    cluster.api.apply(&listens("shop", "plain", 8000, &json!({})));
    cluster.api.apply(&listens("shop", "bound", 8001, &json!({ "binding": "crawler" })));
    // Another tenant's: by nobody's binding, and by none.
    cluster.api.apply(&listens("mail", "bound", 8001, &json!({ "binding": "crawler" })));
    cluster.api.apply(&listens("mail", "plain", 8002, &json!({})));
    let seen = |pod: &Pod, port: u16| ask_tcp(&pod.netns, local(port)).map(|seen| seen.ip());
    let public = |nic| node.layout.public(nic, IpAddr::from(SERVER));
    until("each is served in its own pod", || {
        for (pod, port) in [(&shop, 8000), (&mail, 8002)] {
            seen(pod, port).map_err(|error| format!("{port}: {error}: {:#}", status(node)))?;
        }
        Ok(())
    });
    until("the pod leaves by its binding", || match seen(&shop, 8001) {
        Ok(found) if found == public(Nic::Eth1) => Ok(()),
        found => Err(format!("{found:?}: {:#}", status(node))),
    });
    assert_eq!(seen(&shop, 8000).ok(), Some(public(Nic::Eth1)), "all that the pod sends leaves by its binding");
    assert_eq!(seen(&mail, 8002).ok(), Some(public(Nic::Eth0)), "this one has none");
    assert!(is_refused(&mail.netns, local(8001)), "another tenant's binding is none of its own");
    let told = port_of(node, "mail/bound");
    assert!(told["noExit"].as_str().is_some_and(|why| why.contains("the pod is not bound by mail/crawler")), "{told}");
    assert_eq!(told["withoutExit"], 1);

    // Nobody listens where he may not.
    for (what, netns, ports) in [
        ("another tenant's pod", &mail.netns, &[8000][..]),
        ("another tenant's pod", &shop.netns, &[8002]),
        ("a pod that is not selected", &other.netns, &[8000, 8001, 8002]),
        ("the node", node.netns(), &[8000, 8001, 8002]),
    ] {
        ports.iter().for_each(|port| assert_closed(what, netns, *port));
    }
    for (listen, dial, why) in [
        (json!({ "networkNamespaces": [""] }), json!({}), "a namespace does not own them"),
        (json!({ "containerSelector": { "names": ["web"] } }), json!({}), "a namespace does not own them"),
        (json!({}), json!({ "networkNamespace": "/proc/1/ns/net" }), "dialled from the pod itself"),
        (json!({}), json!({ "source": node.layout.address(Nic::Eth1) }), "dialled from the pod itself"),
        (json!({ "podSelector": null }), json!({}), "no place is given"),
    ] {
        let mut asked: Value = serde_json::from_str(&listens("mail", "sly", 8003, &dial)).expect("JSON");
        asked["spec"]["listen"].as_object_mut().expect("an object").extend(listen.as_object().expect("an object").clone());
        let refused = cluster.api.try_apply(&asked.to_string()).expect_err("it is not the tenant's to ask for");
        assert!(refused.contains(why), "{refused}");
    }

    comes_and_goes(&cluster, node, &seen);
}

/// A pod that is made anew under its name is served, and nobody is once the object is gone.
fn comes_and_goes(cluster: &Cluster, node: &Node, seen: &impl Fn(&Pod, u16) -> std::io::Result<IpAddr>) {
    cluster.api.kubectl(&["delete", "pod", "-n", "shop", "web", "--grace-period=1"]);
    let anew = run(cluster, "shop", "web", "web");
    until("the new one is served", || seen(&anew, 8000).map(drop).map_err(|error| format!("{error}: {:#}", status(node))));
    cluster.api.kubectl(&["delete", "egressproxy", "-n", "shop", "plain"]);
    until("nobody listens", || match seen(&anew, 8000) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(()),
        found => Err(format!("{found:?}")),
    });
    seen(&anew, 8001).expect("the other one goes on");
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::new(at("127.0.0.1:0").ip(), port)
}

fn assert_closed(what: &str, netns: &Netns, port: u16) {
    let error = ask_tcp(netns, local(port)).expect_err(what);
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{what}, {port}: {error}");
}

/// An object that opens a port in the pods `app=web` of a namespace.
fn listens(tenant: &str, name: &str, port: u16, dial: &Value) -> String {
    let mut to = json!({ "address": SERVER, "port": PORT });
    to.as_object_mut().expect("an object").extend(dial.as_object().expect("an object").clone());
    let listen = json!({ "podSelector": { "matchLabels": { "app": "web" } }, "address": "127.0.0.1", "port": port });
    let metadata = json!({ "name": name, "namespace": tenant });
    json!({ "apiVersion": "egressd.dev/v1alpha1", "kind": "EgressProxy", "metadata": metadata, "spec": { "listen": listen, "dial": to } })
        .to_string()
}

fn pod(tenant: &str, name: &str, app: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": name, "namespace": tenant, "labels": { "app": app } },
        "spec": {
            "nodeSelector": { "kubernetes.io/hostname": NODE },
            "terminationGracePeriodSeconds": 1,
            "containers": [{ "name": "c", "image": IMAGE, "command": ["sh", "-c", "while :; do sleep 1; done"] }],
        },
    })
}

fn run(cluster: &Cluster, tenant: &str, name: &str, app: &str) -> Pod {
    cluster.api.apply(&pod(tenant, name, app).to_string());
    cluster.pod(tenant, name)
}

/// A tenant's pod that has the node's network, and fits the selector.
fn on_the_nodes_network(cluster: &Cluster) {
    let mut pod = pod("shop", "on-node", "web");
    pod["spec"]["hostNetwork"] = true.into();
    cluster.api.apply(&pod.to_string());
    cluster.api.kubectl(&["wait", "-n", "shop", "--for=condition=Ready", "--timeout=90s", "pod/on-node"]);
}

/// The definitions, the agent of the node, a controller, and a pool that is lent to one of the tenants, who has a binding.
fn agents(cluster: &Cluster) -> (Egressd, Service) {
    for definition in ["egressbinding", "egressnode", "egresspool", "egressproxy"] {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("crds/{definition}.yaml"));
        cluster.api.apply(&std::fs::read_to_string(file).expect("it is committed"));
    }
    cluster.api.kubectl(&["wait", "--for=condition=Established", "--timeout=90s", "crd", "--all"]);
    cluster.api.kubectl(&["create", "namespace", "egressd"]);
    let kubeconfig = cluster.api.kubeconfig();
    let node = cluster.node(NODE);
    let agent =
        node.egressd(&["--no-docker", "--kubernetes", "--node-name", NODE, "--kubeconfig", &kubeconfig, "--containerd-socket", CONTAINERD]);
    let mut controller = Command::new(program());
    controller.args(["controller", "--pod-name", "controller-1", "--kubeconfig", &kubeconfig]);
    let controller = node.netns().enter(|| Service::start("controller", controller));
    let mut pool: Value = serde_json::from_str(&cluster.pool("public", Nic::Eth1)).expect("JSON");
    pool["spec"]["allowedNamespaces"] = json!({ "names": ["shop"] });
    let mut binding: Value = serde_json::from_str(&cluster.binding("crawler", "web", "public", Nic::Eth1)).expect("JSON");
    binding["metadata"]["namespace"] = "shop".into();
    [pool, binding].iter().for_each(|object| cluster.api.apply(&object.to_string()));
    (agent, controller)
}

/// `egressd proxy` on the node, once it has read the objects.
fn proxy(cluster: &Cluster, node: &Node) -> Service {
    let mut command = Command::new(program());
    command.args(["proxy", "--kubernetes", "--kubeconfig", &cluster.api.kubeconfig(), "--containerd-socket", CONTAINERD]);
    let mut service = node.enter(|| Service::start("proxy", command));
    service.wait_until("ready", Duration::from_secs(30), || fetch(node, "/readyz").is_ok());
    service
}

fn fetch(node: &Node, path: &str) -> std::io::Result<String> {
    talk::get(node.netns(), at("127.0.0.1:9466"), path)
}

fn status(node: &Node) -> Value {
    serde_json::from_str(&fetch(node, "/status").expect("it serves")).expect("JSON")
}

/// The only port of an object.
fn port_of(node: &Node, object: &str) -> Value {
    let status = status(node);
    let found = status["ports"].as_array().into_iter().flatten().find(|port| port["proxy"] == object);
    found.cloned().unwrap_or_else(|| panic!("{status:#}"))
}
