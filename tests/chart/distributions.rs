//! The values that the chart's page tells for each distribution of Kubernetes, as its table has them.

use serde_json::{Value, json};

use crate::{EVERY_VALUES, container, find, pod, render, strings, text};

/// What each is to have: the runtime's socket, and whether pods of its priority need a quota.
const EXPECTED: [(&str, Option<&str>, bool); 7] = [
    ("kubeadm with containerd", Some("/run/containerd/containerd.sock"), false),
    ("kubeadm with CRI-O", None, false),
    ("k3s", Some("/run/k3s/containerd/containerd.sock"), false),
    ("RKE2", Some("/run/k3s/containerd/containerd.sock"), false),
    ("MicroK8s", Some("/var/snap/microk8s/common/run/containerd.sock"), false),
    ("GKE Standard", Some("/run/containerd/containerd.sock"), true),
    ("Talos", Some("/run/containerd/containerd.sock"), false),
];

/// The rows of the table: the distribution, and its values as `--set` takes them.
fn table() -> Vec<(String, Vec<String>)> {
    let page = text("charts/egressd/README.md");
    let section = page.split("\n## ").find(|section| section.starts_with("Distributions\n")).expect("there is a section");
    let rows = section.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| distribution "));
    rows.map(|row| {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        (cells[1].to_owned(), cells[2].split('`').skip(1).step_by(2).map(str::to_owned).collect())
    })
    .collect()
}

fn objects(values: &[String]) -> Vec<Value> {
    let set: Vec<&str> = values.iter().flat_map(|value| ["--set", value.as_str()]).collect();
    render(EVERY_VALUES[0], &set).unwrap_or_else(|error| panic!("{values:?}: {error}"))
}

#[test]
fn each_distribution_has_its_runtimes_socket_and_what_else_it_asks_for() {
    let table = table();
    assert_eq!(table.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), EXPECTED.map(|(name, ..)| name));
    for ((name, values), (_, socket, quota)) in table.iter().zip(EXPECTED) {
        let objects = objects(values);
        let told = strings(&container(&objects)["args"])
            .iter()
            .find_map(|argument| argument.strip_prefix("--containerd-socket="))
            .map(str::to_owned);
        assert_eq!(told.as_deref(), socket, "{name}");
        // The folder is in the container where it is on the node.
        let folder = socket.and_then(|socket| socket.rsplit_once('/')).map(|(folder, _)| folder);
        let volumes = pod(&objects)["volumes"].as_array().expect("volumes");
        let volume = volumes.iter().find(|volume| volume["name"] == "runtime").map(|volume| &volume["hostPath"]["path"]);
        let mounts = container(&objects)["volumeMounts"].as_array().expect("mounts");
        let mount = mounts.iter().find(|mount| mount["name"] == "runtime").map(|mount| &mount["mountPath"]);
        let folder = folder.map(|folder| json!(folder));
        assert_eq!((volume, mount), (folder.as_ref(), folder.as_ref()), "{name}");
        // Both classes of the chart's pods are let in.
        let classes =
            find(&objects, "ResourceQuota", "egressd").map(|quota| &quota["spec"]["scopeSelector"]["matchExpressions"][0]["values"]);
        let expected = json!(["system-node-critical", "system-cluster-critical"]);
        assert_eq!(classes, quota.then_some(&expected), "{name}");
    }
}
