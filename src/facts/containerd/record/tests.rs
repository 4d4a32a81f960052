//! Records as containerd 2.4 and 1.6 have them, cut to what matters and a little of what does not.

use super::*;

/// The value of the record's `spec`, which other programs know as `config.json`.
fn spec(namespaces: &str) -> Vec<u8> {
    let spec = r#"{"ociVersion":"1.2.1","process":{"args":["sleep"],"cwd":"/"},"hostname":"web","annotations":{"io.kubernetes.cri.container-type":"sandbox"},
        "linux":{"namespaces":[{"type":"pid"},{"type":"ipc"},{"type":"uts"},{"type":"mount"}NETWORK],"seccomp":{"defaultAction":"SCMP_ACT_ERRNO"}}}"#;
    spec.replace("NETWORK", namespaces).into_bytes()
}

fn wire(id: &str, labels: &[(&str, &str)], network: &str) -> Wire {
    let mut wire = Wire {
        id: id.to_owned(),
        labels: labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        image: "registry.k8s.io/pause:3.10".to_owned(),
        snapshotter: "overlayfs".to_owned(),
        ..Wire::default()
    };
    let spec_of = wire.spec.get_or_insert_default();
    spec_of.type_url = "types.containerd.io/opencontainers/runtime-spec/1/Spec".to_owned();
    spec_of.value = spec(network);
    wire.created_at.get_or_insert_default().seconds = 1_795_270_243;
    wire
}

const SANDBOX: &str = "12dd8bac38e9092394d3e0487d1fd1c119f66967468418dcaa0cd7bae4cd82c8";
const LABELS: [(&str, &str); 6] = [
    ("app", "crawler"),
    ("io.cri-containerd.kind", "sandbox"),
    ("io.kubernetes.pod.name", "web-n1"),
    ("io.kubernetes.pod.namespace", "shop"),
    ("io.kubernetes.pod.uid", "68dca68cf21f680085b36eede48dd3b3"),
    ("team.example.org/name", "green"),
];

fn read_one(wire: Wire) -> Record {
    read("k8s.io", wire).expect("a good record").expect("a useful record")
}

#[test]
fn a_sandbox_is_its_pod_with_the_pods_own_labels_and_the_name_of_its_namespace() {
    let network = r#",{"type":"network","path":"/var/run/netns/cni-d5a00018-cbf8-b22b-cf19-680c4d3fbc31"}"#;
    let record = read_one(wire(SANDBOX, &LABELS, network));
    assert_eq!(record.network, Network::Named("cni-d5a00018-cbf8-b22b-cf19-680c4d3fbc31".to_owned()));
    assert_eq!(record.created, 1_795_270_243);
    let Subject::Pod(pod) = record.subject else { panic!("{:?}", record.subject) };
    let labels = [("app", "crawler"), ("team.example.org/name", "green")].map(|(key, value)| (key.to_owned(), value.to_owned()));
    let expected = Pod {
        uid: "68dca68cf21f680085b36eede48dd3b3".to_owned(),
        namespace: "shop".to_owned(),
        name: "web-n1".to_owned(),
        labels: labels.into(),
        ..Pod::default()
    };
    assert_eq!(*pod, expected);
}

#[test]
fn a_sandbox_without_a_network_namespace_uses_the_nodes() {
    let record = read_one(wire(SANDBOX, &LABELS, ""));
    assert_eq!(record.network, Network::Host);
    assert!(matches!(record.subject, Subject::Pod(pod) if pod.host_network));
}

#[test]
fn a_container_in_a_pod_is_of_no_use() {
    let labels = [("io.cri-containerd.kind", "container"), ("io.kubernetes.container.name", "a"), ("io.kubernetes.pod.name", "web-n1")];
    let joined = r#",{"type":"network","path":"/proc/182/ns/net"}"#;
    assert_eq!(read("k8s.io", wire(SANDBOX, &labels, joined)).expect("a good record"), None);
}

#[test]
fn a_container_that_no_kubelet_made_is_known_by_its_name_or_its_id() {
    let own = r#",{"type":"network"}"#;
    let named = read("default", wire("4f1c", &[("nerdctl/name", "web"), ("egress.ip", "192.0.2.7")], own)).expect("good").expect("useful");
    let Subject::Alone { name, labels } = named.subject else { panic!("a container alone") };
    assert_eq!((name.as_str(), labels["egress.ip"].as_str()), ("default/web", "192.0.2.7"));
    let by_id = read("default", wire("job-7", &[], own)).expect("good").expect("useful");
    assert_eq!(by_id.subject, Subject::Alone { name: "default/job-7".to_owned(), labels: BTreeMap::new() });
}

#[test]
fn the_network_namespace_is_read_from_the_spec() {
    let network = |text: &str| read_one(wire("web", &[], text)).network;
    assert_eq!(network(""), Network::Host);
    assert_eq!(network(r#",{"type":"network"}"#), Network::OfTask);
    assert_eq!(network(r#",{"type":"network","path":"/run/netns/blue"}"#), Network::Named("blue".to_owned()));
    assert_eq!(network(r#",{"type":"network","path":"/proc/1/ns/net"}"#), Network::Host);
    assert_eq!(network(r#",{"type":"network","path":"/proc/182/ns/net"}"#), Network::Joined { pid: 182 });
    // `netns_mounts_under_state_dir` of the CRI plugin.
    assert_eq!(network(r#",{"type":"network","path":"/run/containerd/io.containerd.grpc.v1.cri/netns/cni-1"}"#), Network::OfTask);
    assert_eq!(network(r#",{"type":"network","path":"/run/netns/a/b"}"#), Network::OfTask);
}

#[test]
fn a_record_that_is_not_as_it_should_be_says_what_is_wrong() {
    let fault = |wire| read("k8s.io", wire).expect_err("a fault").to_string();
    assert_eq!(fault(Wire { id: "x".to_owned(), ..Wire::default() }), "it has no OCI spec");
    let mut broken = wire("x", &[], "");
    broken.spec.get_or_insert_default().value.truncate(20);
    assert!(fault(broken).starts_with("failed to read its OCI spec: EOF"));
    let mut nameless = wire(SANDBOX, &LABELS, "");
    nameless.labels.remove("io.kubernetes.pod.uid");
    assert_eq!(fault(nameless), "it is a pod's sandbox without the label io.kubernetes.pod.uid");
}
