//! How a node is switched on, with the state that Kubernetes asks of every machine, and how it reboots.

use std::{env, fs, path::Path, process::Command, sync::Arc, time::Duration};

use nix::sys::signal::Signal;

use super::{
    first,
    node::{Node, pod_network, pod_network6},
};
use crate::{
    cloud::{Cloud, Routed},
    command, groups, isolate,
    layout::{Layout, Nic},
    machine::{self, Machine},
    namespaces::Namespaces,
    netns::Netns,
    service::Service,
};

const PATIENCE: Duration = Duration::from_secs(60);

/// What a node's network is like, at each boot anew.
pub(super) struct Boot {
    /// What the cloud carries between the cluster's machines.
    pub(super) to: Vec<String>,
    /// Whether bridges ask iptables.
    pub(super) bridge_netfilter: bool,
    /// Lines of `ip` for the ways to the other nodes' pods.
    pub(super) routes: Vec<String>,
}

impl Boot {
    /// Switches the machine on: its NICs are up, and nothing runs.
    pub(super) fn start(&self, cloud: &Arc<Cloud>, layout: Layout, name: &str) -> (Machine, Service) {
        let netns = Netns::add(name);
        start_state(&netns, layout, self.bridge_netfilter);
        let (first, namespaces) = power_on(name, &netns);
        let number = layout.machine + 1;
        let mut from = vec![layout.address(Nic::Eth0).to_string(), pod_network(number)];
        if layout.ipv6 {
            from.extend([layout.address6(Nic::Eth0).to_string(), pod_network6(number)]);
        }
        let machine = Machine::plug(cloud, layout, namespaces, &format!("{name}-"), &Routed { from, to: self.to.clone() });
        for nic in Nic::ALL {
            machine.attach(nic);
        }
        machine.default_route(Nic::Eth0, 0, layout.ipv6);
        for route in &self.routes {
            machine.netns().ip(route);
        }
        (machine, first)
    }
}

impl Node {
    /// Takes its power away and gives it back. What ran there and what only its kernel knew is gone, counters of what has left begin
    /// anew, and files are as they were: containerd and kubelet start what they know. What a test started there itself it has to end before,
    /// and to start again if it wants to.
    pub fn reboot(&mut self) {
        self.reboot_with(|_| {});
    }

    /// The same with what its init system runs before containerd and kubelet.
    pub fn reboot_with(&mut self, unit: impl FnOnce(&Machine)) {
        // A first process ends only after all others of its namespace were reaped, each by who started it.
        self.parts.iter_mut().for_each(|part| part.service.kill());
        self.first.end_by(Signal::SIGKILL, PATIENCE);
        groups::remove(&self.cgroup()).unwrap_or_else(|error| panic!("{error}"));
        for nic in Nic::ALL {
            self.netns().ip(&format!("link del {}", nic.name()));
        }
        self.machine.cloud.unplug(self.layout);
        command::run(&["ip", "netns", "del", &self.name]);
        let (machine, first) = self.boot.start(&self.machine.cloud, self.machine.layout, &self.name);
        (self.machine, self.first) = (machine, first);
        groups::make(&self.cgroup()).expect("root may");
        unit(&self.machine);
        let programs: Vec<&str> = self.parts.iter().map(|part| part.program).collect();
        programs.into_iter().for_each(|program| self.restart(program));
    }
}

fn start_state(netns: &Netns, layout: Layout, bridge_netfilter: bool) {
    machine::start_sysctls(netns, 0);
    netns.sysctl("ipv4/ip_forward", "1");
    if layout.ipv6 {
        netns.sysctl("ipv6/conf/all/forwarding", "1");
    }
    let bridged = if bridge_netfilter { "1" } else { "0" };
    netns.sysctl("bridge/bridge-nf-call-iptables", bridged);
    netns.sysctl("bridge/bridge-nf-call-ip6tables", bridged);
}

fn power_on(name: &str, netns: &Netns) -> (Service, Namespaces) {
    let ready = first::ready(name);
    // Left by an earlier boot.
    let _ = fs::remove_file(&ready);
    let mut command = Command::new(env::current_exe().expect("a running program has a path"));
    command.env(isolate::STAGE, first::STAGE).env(isolate::NAME, name);
    let mut first = Service::start_first(netns, name, command);
    first.wait_until("ready", PATIENCE, || Path::new(&ready).exists());
    let namespaces = Namespaces::of_process(netns.clone(), first.pid());
    (first, namespaces)
}
