//! The test cluster itself: what later tests trust has to be seen to work, and to notice what is wrong.
//!
//! egressd is in none of it but the last: this is what the kernel and Kubernetes do by themselves.

use std::{
    collections::BTreeSet,
    env,
    net::{IpAddr, SocketAddr},
    process::{Command, ExitCode, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;
use world::{
    ApiServer, Binding, Cluster, FOLDER, Netns, Nic, Scenario, Subnets,
    cluster::{Builder, Etcd, NODES, Node, Pod, Proxy, has_condition, until},
    command, image,
    layout::PORT,
    s1::ASK,
    talk,
};

/// Set for the test program that [`a_failed_scenario_leaves_nothing`] starts.
const BROKEN: &str = "EGRESSD_TEST_BROKEN";
const LIMIT: Duration = Duration::from_secs(300);

fn main() -> ExitCode {
    if env::var_os(BROKEN).is_some() {
        return world::harness::main(vec![Scenario::new("it fails", || {
            let cluster = Cluster::builder().build();
            cluster.run("left", "n1", &[]);
            panic!("this is wrong");
        })]);
    }
    let mut scenarios = vec![
        Scenario::new("a failed scenario leaves nothing", a_failed_scenario_leaves_nothing),
        Scenario::new("a bare API server takes objects, and its audit log has them", a_bare_api_server_takes_objects),
        Scenario::new("only a current etcd streams a list as a watch", only_a_current_etcd_streams_lists),
        Scenario::new("a packet with a foreign source is counted and dropped", a_foreign_source_is_counted_and_dropped),
        Scenario::new("what is killed comes back, and pods go on meanwhile", what_is_killed_comes_back),
        Scenario::new("a node that reboots starts its pods again", a_node_that_reboots_starts_its_pods_again),
        Scenario::new("egressd on a node gives a pod its NIC, and only that pod", egressd_on_a_node),
        Scenario::new("images, users and charts are brought in", images_users_and_charts_are_brought_in),
    ];
    let default = Cluster::builder();
    for (name, builder, bridges_ask) in [
        ("iptables", default, true),
        ("nftables, one subnet, IPv4 and IPv6", default.proxy(Proxy::Nftables).subnets(Subnets::One).dual_stack(true), true),
        (
            "iptables, IPv6, too, bridges that ask nobody, etcd 3.4",
            default.dual_stack(true).bridge_netfilter(false).etcd(Etcd::Debian),
            false,
        ),
    ] {
        scenarios.push(Scenario::new(format!("{name}: a Deployment's pods reach what the kernel and Kubernetes let them"), move || {
            pods_reach_everything(builder, bridges_ask);
        }));
    }
    world::harness::main(scenarios.into_iter().map(|scenario| scenario.within(LIMIT).with_cluster()).collect())
}

/// A web server twice on each node, whose page tells the address that a server outside sees, and a service for it.
const WEB: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 4
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 0
      topologySpreadConstraints:
      - {maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: DoNotSchedule, labelSelector: {matchLabels: {app: web}}}
      containers:
      - {name: web, image: 'localhost/probe:1', readinessProbe: {tcpSocket: {port: 8080}}}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: NodePort
  ipFamilyPolicy: PreferDualStack
  selector: {app: web}
  ports: [{port: 80, targetPort: 8080, nodePort: 30080}]
---
apiVersion: v1
kind: Pod
metadata: {name: host-port}
spec:
  nodeName: n1
  terminationGracePeriodSeconds: 0
  containers:
  - {name: web, image: 'localhost/probe:1', ports: [{containerPort: 8080, hostPort: 8088}]}
";

fn pods_reach_everything(builder: Builder, bridges_ask: bool) {
    let start = Instant::now();
    let cluster = builder.build();
    println!("both nodes are ready after {:.1} s", start.elapsed().as_secs_f64());
    cluster.api.apply(WEB);
    cluster.api.await_rollout(&["deployment", "web"]);
    let pods = cluster.pods("default", "app=web");
    assert_eq!(pods.len(), 4, "{pods:#?}");
    for pod in &pods {
        let node = cluster.node(&pod.node);
        node.leaves_by(&pod.netns, Nic::Eth0).expect("the CNI plugin masquerades");
        node.leaves_by(&pod.netns, Nic::Eth1).expect_err("nothing sends it there");
        talk::serve(&pod.netns, &pod.addresses(), &[PORT]);
    }
    let service = cluster.api.get(&["service", "web"]);
    let service: Vec<IpAddr> = addresses(&service["spec"]["clusterIPs"]);
    assert_eq!(service.len(), cluster.node("n1").servers().len(), "an address for each family");
    for pod in &pods {
        pods.iter().for_each(|other| a_pod_reaches(&cluster, pod, other));
    }
    for at in &service {
        for node in cluster.nodes() {
            let all = BTreeSet::from(NODES.map(|node| cluster.node(node).layout.eip(Nic::Eth0).to_string()));
            assert_eq!(reached(node.netns(), *at, 20), all, "{at} leads from {} to the pods of both nodes", node.name);
        }
    }
    a_service_on_one_bridge_needs_netfilter(&cluster, &pods, bridges_ask);
    cluster.pod("default", "host-port");
    let ports = [(cluster.node("n1"), 30080), (cluster.node("n2"), 30080), (cluster.node("n1"), 8088)];
    for (node, port) in ports {
        a_port_answers_by_eth0(&cluster, node, port);
    }
    // Last, as answers that the cloud has dropped are repeated for a while.
    for (node, port) in ports {
        what_came_by_eth1_is_answered_by_eth0(&cluster, node, port);
    }
}

/// A pod calls a service whose only pod is on the same bridge: its answer goes past the translation when the bridge does not ask.
fn a_service_on_one_bridge_needs_netfilter(cluster: &Cluster, pods: &[Pod], bridges_ask: bool) {
    let served = &pods[0];
    let neighbour = pods.iter().find(|pod| pod.node == served.node && pod.name != served.name).expect("there are two on each node");
    let distant = pods.iter().find(|pod| pod.node != served.node).expect("there are two on each node");
    cluster.api.kubectl(&["label", "pod", &served.name, "only=this"]);
    cluster.api.apply(
        r#"{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "one"},
            "spec": {"selector": {"only": "this"}, "ports": [{"port": 80, "targetPort": 8080}]}}"#,
    );
    let service = addresses(&cluster.api.get(&["service", "one"])["spec"]["clusterIPs"])[0];
    let expected = BTreeSet::from([cluster.node(&served.node).layout.eip(Nic::Eth0).to_string()]);
    assert_eq!(reached(&distant.netns, service, 1), expected);
    assert_eq!(reached(cluster.node(&served.node).netns(), service, 1), expected);
    let page = talk::get(&neighbour.netns, (service, 80).into(), ASK);
    assert_eq!(page.is_ok(), bridges_ask, "{page:?}");
}

/// Its server sees the pod's node when it is on another one, as the CNI plugin masquerades what leaves its own bridge.
fn a_pod_reaches(cluster: &Cluster, pod: &Pod, other: &Pod) {
    let node = cluster.node(&pod.node);
    for (from, to) in pod.addresses().into_iter().zip(other.addresses()) {
        let (peer, seen) = node.watch(|| talk::ask_tcp(&pod.netns, (to, PORT).into()));
        let peer = peer.unwrap_or_else(|error| panic!("{from} on {} does not reach {to} on {}: {error}", pod.node, other.node));
        let expected = if pod.node == other.node { from } else { node.layout.private(Nic::Eth0, from) };
        assert_eq!(peer.ip(), expected, "from {from} to {to}");
        assert!(seen.is_empty(), "what stays in the cluster is not counted: {seen}");
    }
}

/// What so many calls of the service's web page tell, after the first one that is answered at all.
fn reached(from: &Netns, service: IpAddr, calls: usize) -> BTreeSet<String> {
    let at = SocketAddr::new(service, 80);
    until(&format!("{at} answers"), || talk::get(from, at, ASK).map_err(|error| error.to_string()));
    let told = (0..calls).filter_map(|_| talk::get(from, at, ASK).ok());
    told.filter_map(|page| Some(page.split(' ').next()?.to_owned())).collect()
}

fn a_port_answers_by_eth0(cluster: &Cluster, node: &Node, port: u16) {
    for like in node.servers() {
        let at = SocketAddr::new(node.layout.public(Nic::Eth0, like), port);
        let (page, seen) = node.watch(|| talk::get(&cluster.internet, at, ASK));
        page.unwrap_or_else(|error| panic!("{}: {at} does not answer: {error}; left: {seen}", node.name));
        assert!(seen.foreign(node.layout).is_empty(), "{}: {seen}", node.name);
    }
}

/// The answer has eth1's address, so the cloud drops it: this is for egressd to cure.
fn what_came_by_eth1_is_answered_by_eth0(cluster: &Cluster, node: &Node, port: u16) {
    for like in node.servers() {
        let at = SocketAddr::new(node.layout.public(Nic::Eth1, like), port);
        let (page, seen) = node.watch(|| talk::get(&cluster.internet, at, ASK));
        page.expect_err("the cloud drops the answer");
        assert!(seen.foreign(node.layout).count(Nic::Eth0, node.layout.private(Nic::Eth1, like)) > 0, "{}: {seen}", node.name);
    }
}

fn addresses(list: &Value) -> Vec<IpAddr> {
    list.as_array().into_iter().flatten().filter_map(|one| one.as_str()?.parse().ok()).collect()
}

fn a_bare_api_server_takes_objects() {
    let start = Instant::now();
    let api = ApiServer::start();
    println!("the API server is ready after {:.1} s", start.elapsed().as_secs_f64());
    api.apply(
        r#"{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "lone"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}"#,
    );
    assert_eq!(api.get(&["pod", "lone"])["status"]["phase"], "Pending");
    let user = api.user("nobody", "/CN=nobody");
    let refused = api.kubectl_as(&user, &["get", "pods"], "").expect_err("it has no right");
    assert!(refused.contains("User \"nobody\" cannot list resource \"pods\""), "{refused}");
    let audit = api.audit();
    let created = |event: &&Value| event["verb"] == "create" && event["objectRef"]["name"] == "lone";
    assert_eq!(audit.iter().filter(created).count(), 1, "{audit:#?}");
}

fn only_a_current_etcd_streams_lists() {
    let streamed = |etcd| {
        let api = ApiServer::start_with(etcd);
        api.try_kubectl(&[
            "get",
            "--raw",
            "/api/v1/namespaces?watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&timeoutSeconds=1",
        ])
    };
    let events = streamed(Etcd::Current).expect("WatchList is there");
    assert!(events.contains("k8s.io/initial-events-end"), "{events}");
    let refused = streamed(Etcd::Debian).expect("the answer is an event");
    assert!(refused.contains("RequestWatchProgress is disabled"), "{refused}");
}

fn a_foreign_source_is_counted_and_dropped() {
    let cluster = Cluster::builder().build();
    let pod = cluster.run("stranger", "n2", &[]);
    let (n1, n2) = (cluster.node("n1"), cluster.node("n2"));
    for foreign in [n2.layout.address(Nic::Eth1), n1.layout.address(Nic::Eth0)] {
        n2.netns().ip(&format!("addr replace {foreign}/32 dev lo"));
        let server = n2.servers()[0];
        let (peer, seen) = n2.watch(|| talk::ask_udp_from(n2.netns(), (foreign, 0).into(), (server, PORT).into()));
        assert!(peer.is_err(), "{foreign} passed by eth0: {peer:?}");
        assert_eq!(seen.foreign(n2.layout).count(Nic::Eth0, foreign.into()), 1, "{seen}");
    }
    // The masquerade taken away, the pod's own address is foreign outside the cluster.
    n2.netns().run(&["iptables", "-t", "nat", "-F", "POSTROUTING"]);
    let (_, seen) = n2.watch(|| talk::ask_udp(&pod.netns, (n2.servers()[0], PORT).into()));
    assert_eq!(seen.foreign(n2.layout).count(Nic::Eth0, pod.address.into()), 1, "{seen}");
    assert!(n1.foreign().is_empty(), "n1 did nothing of the kind: {}", n1.foreign());
    assert!(cluster.guests.list().is_empty(), "{:?}", cluster.guests.list());
}

fn what_is_killed_comes_back() {
    let mut cluster = Cluster::builder().build();
    let before = cluster.run("before", "n1", &[]);
    let asks = |pod: &Pod| talk::ask_tcp(&pod.netns, SocketAddr::new(world::layout::SERVER.into(), PORT)).expect("it is answered");
    for program in ["kubelet", "containerd", "kube-proxy"] {
        cluster.node_mut("n1").kill(program);
        asks(&before);
        cluster.node_mut("n1").restart(program);
        asks(&cluster.run(&format!("after-{program}"), "n1", &[]));
    }
    cluster.api.kill();
    asks(&before);
    cluster.api.try_kubectl(&["get", "pods"]).expect_err("there is no API server");
    cluster.api.restart();
    asks(&cluster.run("after-api", "n1", &[]));
    let printed = cluster.exec(&before, &["echo", "still here"]).expect("it has run all the time");
    assert_eq!(printed.trim(), "still here");
}

fn a_node_that_reboots_starts_its_pods_again() {
    let mut cluster = Cluster::builder().build();
    let [before, distant] = cluster.run_all([("stays", "n1", "stays"), ("distant", "n2", "distant")]);
    let n1 = cluster.node_mut("n1");
    n1.netns().nft("table ip what_only_the_kernel_knows { }");
    n1.reboot();
    assert_eq!(n1.netns().run(&["nft", "list", "tables", "ip"]).matches("what_only").count(), 0);
    cluster
        .api
        .await_object(&["pod", "stays"], |pod| pod["status"]["containerStatuses"][0]["restartCount"] == 1 && has_condition(pod, "Ready"));
    let after = cluster.pod("default", "stays");
    assert_ne!(after.netns.name(), before.netns.name(), "its namespace was the kernel's");
    assert_eq!(after.uid, before.uid, "it is the same pod");
    let n1 = cluster.node("n1");
    n1.leaves_by(&after.netns, Nic::Eth0).expect("the CNI plugin masquerades");
    talk::serve(&after.netns, &after.addresses(), &[PORT]);
    a_pod_reaches(&cluster, &distant, &after);
}

fn egressd_on_a_node() {
    let cluster = Cluster::builder().build();
    let [blue, free, distant] = cluster.run_all([("blue", "n1", "blue"), ("free", "n1", "free"), ("distant", "n2", "distant")]);
    let [n1, n2] = cluster.nodes();
    n1.leaves_by(&blue.netns, Nic::Eth1).expect_err("without egressd it leaves by eth0");
    n1.write("/etc/egressd/blue.yaml", &Binding::of(&blue.netns).to(n1, Nic::Eth1).text());
    let egressd = n1.egressd(&["--no-docker", "--manifests", "/etc/egressd"]);
    n1.await_nic(&format!("netns/{}", blue.netns.name()), Nic::Eth1);
    n1.leaves_by(&blue.netns, Nic::Eth1).expect("it is bound");
    n1.leaves_by(&free.netns, Nic::Eth0).expect("it is not bound");
    n2.leaves_by(&distant.netns, Nic::Eth0).expect("its node has no egressd");
    assert!(n1.foreign().is_empty() && n2.foreign().is_empty(), "{} {}", n1.foreign(), n2.foreign());
    drop(egressd);
}

fn images_users_and_charts_are_brought_in() {
    let cluster = Cluster::builder().build();
    cluster.import_image(&image::archive(&[("localhost/other:1", &["sleep", "4711"])], &[]));
    cluster.api.apply(
        r#"{"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "other"}, "spec": {"selector": {"matchLabels": {"a": "b"}},
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "localhost/other:1"}]}}}}"#,
    );
    cluster.api.await_rollout(&["daemonset", "other"]);
    for pod in cluster.pods("default", "a=b") {
        let listed = cluster.exec(&pod, &["ps"]).expect("it has a shell's programs");
        assert!(listed.contains("sleep 4711"), "{listed}");
    }

    // As an agent in a pod would: its service account's token, and the address of the service.
    cluster.api.kubectl(&["create", "serviceaccount", "agent"]);
    let agent = cluster.api.service_account("default", "agent", &[]);
    let may = |what: &[&str]| cluster.api.kubectl_as(&agent, &[&["auth", "can-i"], what].concat(), "");
    may(&["list", "pods"]).expect_err("it has no role");
    cluster.api.kubectl(&["create", "clusterrolebinding", "agent", "--clusterrole=view", "--serviceaccount=default:agent"]);
    until("it has one", || may(&["list", "pods"]));

    let chart = format!("{FOLDER}/chart");
    cluster.api.helm(&["create", &chart]).expect("a chart of helm's own");
    let image = ["--set=image.repository=localhost/probe", "--set=image.tag=1", "--set=livenessProbe=null", "--set=readinessProbe=null"];
    cluster
        .api
        .helm(&[&["install", "web", chart.as_str(), "--wait", "--timeout=90s"], image.as_slice()].concat())
        .expect("it is installed");
    cluster.api.get(&["deployment", "web-chart"]);
    cluster.api.helm(&["uninstall", "web", "--wait"]).expect("it is gone");
    cluster.api.try_get(&["deployment", "web-chart"]).expect_err("it is gone");
}

fn a_failed_scenario_leaves_nothing() {
    let before = left();
    let mut program = Command::new(env::current_exe().expect("a running program has a path"));
    let program = program.env_remove("EGRESSD_TEST_STAGE").env(BROKEN, "1").stdout(Stdio::piped());
    let program = program.spawn().expect("the program that runs can be run");
    let group = format!("egressd-test-{}-0", program.id());
    let output = program.wait_with_output().expect("it is a child of ours");
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(!output.status.success() && printed.contains("this is wrong"), "{printed}");
    let log = printed.find("--- end of n2-kubelet's log").expect("logs are shown");
    let failed = printed.rfind("--- failed: ").expect("so is what was wrong");
    assert!(failed > log && printed[failed..].contains("this is wrong") && !printed[failed..].contains("'s log"), "{printed}");
    assert_eq!(left(), before);
    assert_eq!(command::run(&["find", "/sys/fs/cgroup", "-name", &group]), "");
}

/// Programs, mounts, files where a node has its own, and settings that kubelet sets.
fn left() -> [String; 4] {
    let programs = command::run(&["ps", "-eo", "comm"]);
    let of_cluster = ["kube", "containerd", "etcd", "tail", "httpd"];
    let programs: Vec<&str> = programs.lines().filter(|name| of_cluster.iter().any(|part| name.starts_with(part))).collect();
    let files = "ls -R /etc/cni /etc/containerd /etc/kubernetes /var/lib/cni /var/lib/containerd /var/lib/kubelet /var/log/containers /var/log/pods";
    let settings = ["vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops"];
    [
        programs.join(" "),
        command::run(&["cat", "/proc/mounts"]),
        command::run(&["sh", "-c", &format!("{files} 2>/dev/null || true")]),
        settings.map(|setting| command::run(&["cat", &format!("/proc/sys/{setting}")])).concat(),
    ]
}
