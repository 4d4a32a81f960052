//! Who reaches whom is as it was: bound pods and others, on both nodes, by everything that Kubernetes has for it.
//!
//! What by design is not the same is a call that comes in by a NIC without the default route: egressd has it answered by that NIC. Without,
//! the answer takes the default route, and the cloud drops it.

mod calls;

use std::net::IpAddr;

use serde_json::{Value, json};
use world::{
    Cluster, Nic, Scenario, Subnets,
    cluster::{Builder, IMAGE, NODES, Pod, Proxy, has_condition, until},
    image::WEB_PORT,
    layout::{PORT, SERVER, SERVER6},
    talk::{self, Flow},
};

use calls::{Answers, DNS, Served, WEB};

/// A cluster, and of which family the exits are.
#[derive(Clone, Copy)]
struct Case {
    builder: Builder,
    bridges_ask: bool,
    exits: IpAddr,
}

pub fn scenarios() -> Vec<Scenario> {
    let default = Cluster::builder();
    let cases = [
        ("iptables", default, true, SERVER.into()),
        ("nftables, bridges that ask nobody", default.proxy(Proxy::Nftables), false, SERVER.into()),
        ("nftables, one subnet, IPv4 and IPv6", default.proxy(Proxy::Nftables).subnets(Subnets::One).dual_stack(true), true, SERVER.into()),
        ("iptables, IPv4 and IPv6, bridges that ask nobody, IPv6 exits", default.dual_stack(true), false, SERVER6.into()),
    ];
    let cases = cases.map(|(name, builder, bridges_ask, exits)| {
        let case = Case { builder: builder.bridge_netfilter(bridges_ask), bridges_ask, exits };
        Scenario::new(format!("{name}: bound pods leave by their exit, and all reach whom they reached"), move || as_before(case))
    });
    cases.into()
}

fn as_before(case: Case) {
    let cluster = case.builder.build();
    let all = serve(&cluster);
    let (bound, free): (Vec<&Pod>, Vec<&Pod>) = all.iter().map(|served| &served.pod).partition(|pod| pod.name.starts_with("bound"));
    let inside = calls::inside(&cluster, &all);
    let by_eth0 = calls::arrivals(&cluster, &all, Nic::Eth0, &cluster.nodes()[0].servers(), true);
    // It has no default route, so only an exit tells which gateway answers are to take.
    let by_eth1 = |tcp| calls::arrivals(&cluster, &all, Nic::Eth1, &[case.exits], tcp);

    let before = until("every service answers", || {
        let answers = calls::make(&inside);
        let wrong = unexpected(&answers, |what| case.keeps_silent(what, &all));
        if wrong.is_empty() { Ok(answers) } else { Err(wrong.join("\n")) }
    });
    let before_by_eth0 = calls::make(&by_eth0);
    cluster.nodes().iter().for_each(|node| node.forget());
    // No TCP: a handshake that the cloud broke off would be repeated for a minute, and counted below.
    let lost = calls::make(&by_eth1(false));
    assert!(lost.values().all(Result::is_err), "without egressd no answer has the right address: {lost:#?}");
    assert!(cluster.nodes().iter().all(|node| !node.foreign().is_empty()), "they left by eth0");
    for pod in &bound {
        cluster.node(&pod.node).leaves_by_to(&pod.netns, Nic::Eth1, (case.exits, PORT).into()).expect_err("nothing sends it there");
    }
    let mut kept = Flow::open(&bound[0].netns, (all[3].service[0], WEB).into()).expect("the service answers");
    let ready: Vec<Value> = all.iter().map(|served| since(&cluster, &served.pod)).collect();

    cluster.install(&[]);
    cluster.bind_of("crawler", Nic::Eth1, case.exits);
    cluster.await_programmed("crawler", 2);
    cluster.nodes().iter().for_each(|node| node.forget());
    let (after, after_by_eth0, after_by_eth1) = (calls::make(&inside), calls::make(&by_eth0), calls::make(&by_eth1(true)));
    let wrong = [
        differing(&before, &after),
        differing(&before_by_eth0, &after_by_eth0),
        unexpected(&after_by_eth0, |_| false),
        unexpected(&after_by_eth1, |_| false),
    ];
    let left: Vec<String> = cluster.nodes().iter().map(|node| format!("foreign by {}: {}", node.name, node.foreign())).collect();
    let wrong = wrong.concat();
    assert!(wrong.is_empty(), "{} calls are wrong:\n{}\n{}", wrong.len(), wrong.join("\n"), left.join("\n"));
    for node in cluster.nodes() {
        assert!(node.foreign().is_empty(), "{}: {}", node.name, node.foreign());
    }
    kept.ask().expect("what began before egressd goes on");
    println!("{} calls inside, {} by eth0, {} by eth1", after.len(), after_by_eth0.len(), after_by_eth1.len());

    leave_by_their_exits(&cluster, case, &bound, &free);
    assert_eq!(all.iter().map(|served| since(&cluster, &served.pod)).collect::<Vec<_>>(), ready, "pods were ready all the time");
    probes_reach(&cluster, bound[0]);
    cluster.api.delete(&["egressbinding", "crawler"]);
    for pod in bound {
        until("it leaves as ever", || cluster.node(&pod.node).leaves_by(&pod.netns, Nic::Eth0));
    }
}

impl Case {
    /// Whether nobody answers such a call, with and without egressd: a service on one bridge, whose answer goes past the translation.
    fn keeps_silent(self, what: &str, all: &[Served]) -> bool {
        let on_one_bridge = |(from, to): (&Served, &Served)| {
            from.pod.node == to.pod.node
                && from.pod.name != to.pod.name
                && what.starts_with(&format!("{} to the service of {},", from.pod.name, to.pod.name))
        };
        !self.bridges_ask && all.iter().flat_map(|from| all.iter().map(move |to| (from, to))).any(on_one_bridge)
    }
}

/// On each node a pod that is to be bound and one that is not, each with a service, a node port and a host port.
fn serve(cluster: &Cluster) -> Vec<Served> {
    let names = NODES.into_iter().flat_map(|node| [("bound", "crawler", node), ("free", "web", node)]);
    let items: Vec<Value> = names.clone().zip(0..).flat_map(|((kind, app, node), number)| manifests(kind, app, node, number)).collect();
    cluster.api.apply(&json!({ "apiVersion": "v1", "kind": "List", "items": items }).to_string());
    let served = names.zip(0..).map(|((kind, _, node), number)| {
        let name = format!("{kind}-{node}");
        let pod = cluster.pod("default", &name);
        talk::serve(&pod.netns, &pod.addresses(), &[PORT]);
        let service = cluster.api.get(&["service", &name]);
        let addresses = service["spec"]["clusterIPs"].as_array().into_iter().flatten();
        let service = addresses.filter_map(|address| address.as_str()?.parse().ok()).collect();
        Served { pod, service, node_ports: node_ports(number), host_port: host_port(number) }
    });
    served.collect()
}

/// By TCP and by UDP: a service may not have one number for both.
fn node_ports(number: u16) -> (u16, u16) {
    (30100 + number, 30200 + number)
}

fn host_port(number: u16) -> u16 {
    8100 + number
}

fn manifests(kind: &str, app: &str, node: &str, number: u16) -> [Value; 2] {
    let name = format!("{kind}-{node}");
    let (web, dns) = node_ports(number);
    let of_host = |protocol| json!({ "containerPort": PORT, "hostPort": host_port(number), "protocol": protocol });
    let of_service = |name, protocol, port, node_port| json!({ "name": name, "protocol": protocol, "port": port, "targetPort": PORT, "nodePort": node_port });
    [
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": name, "labels": { "app": app, "name": name } },
            "spec": {
                "nodeSelector": { "kubernetes.io/hostname": node },
                "terminationGracePeriodSeconds": 0,
                "containers": [{
                    "name": "web", "image": IMAGE,
                    "ports": [of_host("TCP"), of_host("UDP")],
                    "readinessProbe": { "tcpSocket": { "port": WEB_PORT }, "periodSeconds": 1, "timeoutSeconds": 10 },
                }],
            },
        }),
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": { "name": name },
            "spec": {
                "type": "NodePort", "ipFamilyPolicy": "PreferDualStack", "selector": { "name": name },
                "ports": [of_service("web", "TCP", WEB, web), of_service("dns", "UDP", DNS, dns)],
            },
        }),
    ]
}

/// The calls without an answer, and those with one of which nobody expects it.
fn unexpected(answers: &Answers, silent: impl Fn(&str) -> bool) -> Vec<String> {
    let wrong = answers.iter().filter(|(what, answer)| answer.is_ok() == silent(what));
    wrong.map(|(what, answer)| format!("{what}: {answer:?}")).collect()
}

/// The calls that were not answered as before, by who sees the same address.
fn differing(before: &Answers, after: &Answers) -> Vec<String> {
    let differ = before.iter().filter(|(what, answer)| answer.as_ref().ok() != after[*what].as_ref().ok());
    differ.map(|(what, answer)| format!("{what}: {answer:?} without, {:?} with", after[what])).collect()
}

fn leave_by_their_exits(cluster: &Cluster, case: Case, bound: &[&Pod], free: &[&Pod]) {
    for pod in bound {
        let node = cluster.node(&pod.node);
        for server in node.servers() {
            let left = if server.is_ipv4() == case.exits.is_ipv4() {
                node.leaves_by_to(&pod.netns, Nic::Eth1, (server, PORT).into())
            } else {
                node.leaves_not_at_all_to(&pod.netns, (server, PORT).into())
            };
            left.unwrap_or_else(|error| panic!("{}: {error}", pod.name));
        }
    }
    for pod in free {
        cluster.node(&pod.node).leaves_by(&pod.netns, Nic::Eth0).unwrap_or_else(|error| panic!("{}: {error}", pod.name));
    }
}

/// Since when a pod is ready.
fn since(cluster: &Cluster, pod: &Pod) -> Value {
    let pod = cluster.api.get(&["pod", &pod.name]);
    assert!(has_condition(&pod, "Ready"), "{pod:#}");
    let conditions = pod["status"]["conditions"].as_array();
    let ready = conditions.into_iter().flatten().find(|condition| condition["type"] == "Ready").expect("it is ready");
    ready["lastTransitionTime"].clone()
}

/// kubelet notices when the pod refuses its probe, and when it takes it again.
fn probes_reach(cluster: &Cluster, pod: &Pod) {
    pod.netns.nft(&format!(
        "table inet closed {{ chain input {{ type filter hook input priority 0; tcp dport {WEB_PORT} reject with tcp reset; }}; }}"
    ));
    cluster.api.await_object(&["pod", &pod.name], |pod| !has_condition(pod, "Ready"));
    pod.netns.nft("delete table inet closed");
    cluster.api.await_condition(&["pod", &pod.name], "Ready");
}
