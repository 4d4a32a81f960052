//! A node: a machine of the cloud with containerd, kubelet and kube-proxy.

use std::{
    env, fs,
    net::{Ipv4Addr, Ipv6Addr},
    ops::Deref,
    path::Path,
    process::Command,
    sync::Arc,
    time::Duration,
};

use super::{power::Boot, program, programs, settings};
use crate::{
    cloud::Cloud,
    command, groups, isolate,
    layout::{Layout, Nic},
    machine::Machine,
    namespaces::Namespaces,
    service::Service,
};

/// Where containerd listens, on each node.
pub const CONTAINERD: &str = "/run/containerd/containerd.sock";
/// The folder of a node whose manifests its kubelet runs, whether or not it reaches the API server.
pub const STATIC_PODS: &str = "/etc/kubernetes/manifests";
const PATIENCE: Duration = Duration::from_secs(60);

/// How kube-proxy makes services.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proxy {
    /// With iptables, its default.
    Iptables,
    /// With nftables.
    Nftables,
}

impl Proxy {
    pub(super) fn mode(self) -> &'static str {
        match self {
            Self::Iptables => "iptables",
            Self::Nftables => "nftables",
        }
    }
}

/// A running node. All that runs on it ends when it is dropped.
pub struct Node {
    /// Its name in the cluster.
    pub name: String,
    /// Number of its pods' network.
    number: u8,
    pub(super) boot: Boot,
    pub(super) machine: Machine,
    pub(super) parts: Vec<Part>,
    pub(super) first: Service,
}

/// A program of the node that can be killed and started again.
pub(super) struct Part {
    pub(super) program: &'static str,
    arguments: Vec<String>,
    pub(super) service: Service,
}

/// What can be asked of any machine of the cloud can be asked of a node.
impl Deref for Node {
    type Target = Machine;

    fn deref(&self) -> &Machine {
        &self.machine
    }
}

/// The network of the pods of the node with this number, from 1.
pub(super) fn pod_network(number: u8) -> String {
    format!("10.244.{number}.0/24")
}

/// The IPv6 network of the pods of the node with this number, from 1.
pub(super) fn pod_network6(number: u8) -> String {
    format!("fd10:244:0:{number}::/64")
}

impl Node {
    /// Starts a machine with containerd and an empty image store.
    pub(super) fn start(cloud: &Arc<Cloud>, layout: Layout, to: &[String], bridge_netfilter: bool) -> Self {
        let number = layout.machine + 1;
        let name = format!("n{number}");
        let boot = Boot { to: to.to_vec(), bridge_netfilter, routes: Vec::new() };
        let (machine, first) = boot.start(cloud, layout, &name);
        let mut node = Self { name, number, boot, machine, parts: Vec::new(), first };
        node.write("/etc/cni/net.d/10-pods.conflist", &settings::cni(number, layout.ipv6));
        node.write("/etc/containerd/config.toml", settings::CONTAINERD);
        node.add("containerd", vec!["--config=/etc/containerd/config.toml".to_owned(), "--log-level=warn".to_owned()]);
        node.await_containerd();
        node
    }

    /// Starts what makes it a member of the cluster.
    pub(super) fn join(&mut self, kubeconfig: &str, proxy_kubeconfig: &str, authority: &str, proxy: Proxy) {
        let cgroup = self.cgroup();
        groups::make(&cgroup).expect("root may");
        self.write("/etc/kubernetes/kubelet.json", &settings::kubelet(authority, &format!("/{cgroup}")));
        self.write("/etc/kubernetes/kube-proxy.json", &settings::kube_proxy(proxy_kubeconfig, proxy, self.layout.ipv6));
        // kubelet watches a folder only if it is there.
        self.write(&format!("{STATIC_PODS}/.empty"), "");
        let mut address = self.layout.address(Nic::Eth0).to_string();
        if self.layout.ipv6 {
            address = format!("{address},{}", self.layout.address6(Nic::Eth0));
        }
        self.add(
            "kubelet",
            vec![
                "--config=/etc/kubernetes/kubelet.json".to_owned(),
                format!("--kubeconfig={kubeconfig}"),
                format!("--hostname-override={}", self.name),
                format!("--node-ip={address}"),
            ],
        );
        let name = format!("--hostname-override={}", self.name);
        self.add("kube-proxy", vec!["--config=/etc/kubernetes/kube-proxy.json".to_owned(), name]);
    }

    /// Path of the control group that its pods are below.
    pub(super) fn cgroup(&self) -> String {
        format!("{}/{}", env::var(isolate::CGROUP).expect("a scenario has a control group"), self.name)
    }

    /// Routes that lead to the pods of the node with this number by its address, as a host gateway or a cloud's own routes do it.
    pub(super) fn route_to(&mut self, number: u8) {
        let other = Layout { machine: number - 1, ..self.layout };
        let mut routes = vec![format!("route add {} via {}", pod_network(number), other.address(Nic::Eth0))];
        if other.ipv6 {
            routes.push(format!("route add {} via {}", pod_network6(number), other.address6(Nic::Eth0)));
        }
        routes.iter().for_each(|route| self.netns().ip(route));
        self.boot.routes.extend(routes);
    }

    /// Imports a tar as `docker save` makes it, with all its images.
    pub fn import(&self, tar: &str) {
        self.ctr(&["images", "import", tar]);
    }

    /// Runs `ctr` for Kubernetes' containers on the node, and returns what it prints.
    pub fn ctr(&self, arguments: &[&str]) -> String {
        let ctr = program("ctr").to_string_lossy().into_owned();
        self.enter(|| command::run(&[&[ctr.as_str(), "--namespace", "k8s.io"], arguments].concat()))
    }

    /// Ends `kubelet`, `kube-proxy` or `containerd` with no chance to tidy up. Containers go on.
    pub fn kill(&mut self, program: &str) {
        self.part(program).service.kill();
    }

    /// Starts a program again that was killed.
    pub fn restart(&mut self, program: &str) {
        let namespaces = self.machine.namespaces.clone();
        let name = self.name.clone();
        let part = self.part(program);
        part.service = part_service(&namespaces, &name, part.program, &part.arguments);
        if program == "containerd" {
            self.await_containerd();
        }
    }

    /// What a program has printed, in all its lives.
    pub fn log(&self, program: &str) -> String {
        let part = self.parts.iter().find(|part| part.program == program);
        part.unwrap_or_else(|| panic!("{} has no {program}", self.name)).service.log()
    }

    /// Writes a file of the node, below its `/etc`, `/run` or `/var`, and the folder that it is in.
    pub fn write(&self, path: &str, text: &str) {
        self.enter(|| {
            let folder = Path::new(path).parent().expect("it has a folder");
            fs::create_dir_all(folder).and_then(|()| fs::write(path, text)).expect("these are its own");
        });
    }

    /// Removes a file that was written so.
    pub fn remove(&self, path: &str) {
        self.enter(|| fs::remove_file(path).unwrap_or_else(|error| panic!("failed to remove {path}: {error}")));
    }

    /// Lets the next pod have this address, if nobody has it: they are handed out in turn.
    pub fn next_address(&self, address: Ipv4Addr) {
        let last = Ipv4Addr::from(u32::from(address) - 1);
        self.write("/var/lib/cni/networks/pods/last_reserved_ip.0", &last.to_string());
    }

    /// A path of the node as others see it.
    pub fn path(&self, path: &str) -> String {
        format!("/proc/{}/root{path}", self.first.pid())
    }

    /// The first IPv4 address and the first IPv6 address of its pods' bridge.
    pub fn pod_gateway(&self) -> (Ipv4Addr, Ipv6Addr) {
        (Ipv4Addr::new(10, 244, self.number, 1), Ipv6Addr::new(0xfd10, 0x244, 0, self.number.into(), 0, 0, 0, 1))
    }

    fn part(&mut self, program: &str) -> &mut Part {
        let name = self.name.clone();
        let part = self.parts.iter_mut().find(|part| part.program == program);
        part.unwrap_or_else(|| panic!("{name} has no {program}"))
    }

    fn add(&mut self, program: &'static str, arguments: Vec<String>) {
        let service = part_service(&self.machine.namespaces, &self.name, program, &arguments);
        self.parts.push(Part { program, arguments, service });
    }

    fn await_containerd(&mut self) {
        let socket = self.path(CONTAINERD);
        self.part("containerd").service.wait_until("listening", PATIENCE, || Path::new(&socket).exists());
    }
}

fn part_service(namespaces: &Namespaces, node: &str, name: &str, arguments: &[String]) -> Service {
    let mut command = Command::new(program(name));
    let path = env::var("PATH").unwrap_or_default();
    // containerd looks there for its shim.
    command.args(arguments).env("PATH", format!("{}:{path}", programs().display()));
    Service::start_in(namespaces, &format!("{node}-{name}"), command)
}
