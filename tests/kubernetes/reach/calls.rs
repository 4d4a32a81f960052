//! Who calls whom: every way that Kubernetes gives to a pod, a service, a node and the API server.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use world::{
    Cluster, Netns, Nic, Subnets,
    cluster::{KUBERNETES, Node, Pod},
    layout::PORT,
    talk,
};

/// Port of a service by TCP.
pub const WEB: u16 = 80;
/// Port of a service by UDP.
pub const DNS: u16 = 53;
/// So many calls are made at once: those that nobody answers take seconds.
const AT_ONCE: usize = 24;

/// A pod that serves, and how else it is reached.
pub struct Served {
    pub pod: Pod,
    /// Addresses of the service whose only pod it is, IPv4 first.
    pub service: Vec<IpAddr>,
    /// By TCP and by UDP.
    pub node_ports: (u16, u16),
    pub host_port: u16,
}

/// One call.
pub struct Call {
    what: String,
    from: Netns,
    at: SocketAddr,
    how: How,
}

#[derive(Clone, Copy, Debug)]
enum How {
    Tcp,
    Udp,
    /// To a server that speaks TLS, and says so to who does not.
    Tls,
}

/// Whom the servers saw, by call; or why there is no answer.
pub type Answers = BTreeMap<String, Result<String, String>>;

impl Call {
    fn new(who: &str, from: &Netns, whom: &str, at: SocketAddr, how: How) -> Self {
        Self { what: format!("{who} to {whom}, {at} by {how:?}"), from: from.clone(), at, how }
    }

    fn make(&self) -> Result<String, String> {
        match self.how {
            How::Tcp => talk::ask_tcp(&self.from, self.at).map(|peer| peer.ip().to_string()),
            How::Udp => talk::ask_udp(&self.from, self.at).map(|peer| peer.ip().to_string()),
            How::Tls => match talk::get(&self.from, self.at, "/") {
                Err(error) if error.to_string().contains("400 Bad Request") => Ok("it speaks TLS".to_owned()),
                other => other,
            },
        }
        .map_err(|error| error.to_string())
    }
}

/// Makes the calls, and tells what became of each.
pub fn make(calls: &[Call]) -> Answers {
    let (next, answers) = (AtomicUsize::new(0), Mutex::new(Answers::new()));
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(call) = calls.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let answer = call.make();
                    answers.lock().expect("nobody panics with it").insert(call.what.clone(), answer);
                }
            });
        }
    });
    answers.into_inner().expect("nobody panicked with it")
}

/// All that stays inside: of each pod and each node to each pod, each service, the nodes and the API server.
pub fn inside(cluster: &Cluster, all: &[Served]) -> Vec<Call> {
    let pods =
        all.iter().map(|served| (served.pod.name.as_str(), &served.pod.netns, cluster.node(&served.pod.node), [Nic::Eth0].as_slice()));
    // In one subnet the other node answers by eth0 what came in by its eth1, unless egressd is there, and the cloud drops that.
    let others = |node: &Node| if node.layout.subnets == Subnets::Two { Nic::ALL.as_slice() } else { [Nic::Eth0].as_slice() };
    let nodes = cluster.nodes().iter().map(|node| (node.name.as_str(), node.netns(), node, others(node)));
    let callers: Vec<(&str, &Netns, &Node, &[Nic])> = pods.chain(nodes).collect();
    let api = api_server(cluster);
    let mut calls = Vec::new();
    for (who, from, home, others) in callers {
        let other = cluster.nodes().iter().find(|node| node.name != home.name).expect("there are two");
        let mut add = |whom: &str, at, how| calls.push(Call::new(who, from, whom, at, how));
        for served in all {
            let name = &served.pod.name;
            let node = cluster.node(&served.pod.node);
            for (address, service) in served.pod.addresses().into_iter().zip(&served.service) {
                add(name, (address, PORT).into(), How::Tcp);
                add(name, (address, PORT).into(), How::Udp);
                add(&format!("the service of {name}"), (*service, WEB).into(), How::Tcp);
                add(&format!("the service of {name}"), (*service, DNS).into(), How::Udp);
                let ways = Nic::ALL.map(|nic| (home, nic)).into_iter().chain(others.iter().map(|nic| (other, *nic)));
                for (node, nic) in ways {
                    let at = (node.layout.private(nic, address), served.node_ports.0).into();
                    add(&format!("the node port of {name}"), at, How::Tcp);
                }
                let at = (node.layout.private(Nic::Eth0, address), served.host_port).into();
                add(&format!("the host port of {name}"), at, How::Tcp);
            }
        }
        for node in cluster.nodes() {
            add("kubelet", (node.layout.address(Nic::Eth0), 10250).into(), How::Tls);
        }
        add("the API server's service", (KUBERNETES, 443).into(), How::Tls);
        add("the API server", api, How::Tls);
    }
    calls
}

/// Where the API server itself listens.
fn api_server(cluster: &Cluster) -> SocketAddr {
    let slice = cluster.api.get(&["endpointslice", "kubernetes"]);
    let (address, port) = (&slice["endpoints"][0]["addresses"][0], &slice["ports"][0]["port"]);
    format!("{}:{port}", address.as_str().unwrap_or_default()).parse().expect("the API server writes where it is")
}

/// All that calls in by this NIC of each node, from the internet: to each node port, and to the host ports of its own pods. In the families
/// of `like`, and by UDP alone if not by TCP, too.
pub fn arrivals(cluster: &Cluster, all: &[Served], nic: Nic, like: &[IpAddr], tcp: bool) -> Vec<Call> {
    let mut calls = Vec::new();
    for node in cluster.nodes() {
        for at in like.iter().map(|like| node.layout.public(nic, *like)) {
            for served in all {
                let mut add = |whom: &str, (by_tcp, by_udp): (u16, u16)| {
                    let whom = format!("{whom} of {} by {} of {}", served.pod.name, nic.name(), node.name);
                    calls.push(Call::new("the internet", &cluster.internet, &whom, (at, by_udp).into(), How::Udp));
                    if tcp {
                        calls.push(Call::new("the internet", &cluster.internet, &whom, (at, by_tcp).into(), How::Tcp));
                    }
                };
                add("the node port", served.node_ports);
                if served.pod.node == node.name {
                    add("the host port", (served.host_port, served.host_port));
                }
            }
        }
    }
    calls
}
