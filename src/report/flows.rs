//! Open flows: what leaves and comes in by which exit, of whom, and how fast.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::columns::{columns, or_dash};
use super::status::Status;

/// What is open.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Flows {
    /// One for each exit that a workload has now or a flow still bears.
    pub exits: Vec<ExitFlows>,
    /// Open flows of workloads; only when they are asked for.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub flows: Vec<OpenFlow>,
    /// Flows that were asked for and are not listed, because there are too many.
    #[serde(default)]
    pub more: usize,
}

/// What leaves and comes in by one exit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExitFlows {
    pub exit: IpAddr,
    /// The NIC that holds it, if one does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nic: Option<String>,
    /// Open flows that leave as it, or that came in by it to a workload.
    pub flows: u64,
    /// Flows that began since the reading before, per second; absent in the first one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new_per_second: Option<f64>,
    /// Bytes of both directions since the reading before, per second, with their IP headers; absent where the kernel does not count them
    /// (`net.netfilter.nf_conntrack_acct=1`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<f64>,
}

/// One entry of conntrack's table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OpenFlow {
    /// Whose it is; absent of the host's own programs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workload: Option<String>,
    pub direction: Direction,
    /// `tcp`, `udp`, `icmp`, `ipv6-icmp`, `sctp`, `gre`, or the number of the protocol.
    pub protocol: String,
    /// Who began it.
    pub source: IpAddr,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_port: Option<u16>,
    /// To whom, as it was called.
    pub destination: IpAddr,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination_port: Option<u16>,
    /// The address that it leaves as or was called at; absent of a workload's flow that is not translated, as those inside are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nic: Option<String>,
    /// Of TCP its state, as `ESTABLISHED`; else `ASSURED`, `REPLIED` or `UNREPLIED`.
    pub state: String,
}

/// Who began a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Direction {
    /// The workload.
    Out,
    /// Somebody who called a port of the exit.
    In,
}

/// Which workload has an address, and which NIC.
#[derive(Debug, Default)]
pub struct Owners {
    names: BTreeSet<String>,
    hosts: BTreeMap<IpAddr, String>,
    subnets: Vec<(IpNet, String)>,
    nics: BTreeMap<IpAddr, String>,
    exits: BTreeMap<IpAddr, Option<String>>,
    /// Programs of the host are bound, so what it sends with a NIC's own address is told, too.
    of_host: bool,
}

/// Whose a flow is, and by which exit it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owned<'a> {
    pub workload: Option<&'a str>,
    pub direction: Direction,
    pub exit: Option<IpAddr>,
}

impl Owners {
    /// As status has them.
    pub fn of(status: &Status) -> Self {
        let mut owners = Self::default();
        for uplink in &status.uplinks {
            owners.nics.extend(uplink.addresses.iter().map(|address| (*address, uplink.nic.clone())));
        }
        for workload in &status.workloads {
            owners.names.insert(workload.workload.clone());
            let net = workload.address.as_deref().and_then(|text| text.parse().or_else(|_| text.parse().map(IpAddr::into)).ok());
            match net {
                Some(net) if is_host(net) => drop(owners.hosts.insert(net.addr(), workload.workload.clone())),
                // All addresses: the host's programs, which share them with everybody.
                Some(net) if net.prefix_len() == 0 => owners.of_host = true,
                Some(net) => owners.subnets.push((net, workload.workload.clone())),
                None => {}
            }
            for exit in workload.exit.iter().chain(&workload.exits) {
                owners.exits.insert(*exit, workload.nic.clone());
            }
        }
        for (exit, nic) in &mut owners.exits {
            *nic = owners.nics.get(exit).cloned().or(nic.take());
        }
        owners
    }

    /// The workloads that a name is for: as status has it, `pod/NAME` for all pods of that name, or an address.
    pub fn named(&self, name: &str) -> BTreeSet<String> {
        if let Some(found) = name.parse().ok().and_then(|address| self.workload(address)) {
            return BTreeSet::from([found.to_owned()]);
        }
        let pod = name.strip_prefix("pod/").map(|pod| format!("/{pod}"));
        let is_named = |of: &&String| *of == name || pod.as_deref().is_some_and(|pod| of.starts_with("pod/") && of.ends_with(pod));
        self.names.iter().filter(is_named).cloned().collect()
    }

    /// The exits that workloads have now.
    pub fn exits(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.exits.keys().copied()
    }

    /// The NIC that holds an address.
    pub fn nic(&self, address: IpAddr) -> Option<&str> {
        self.exits.get(&address).and_then(Option::as_deref).or_else(|| self.nics.get(&address).map(String::as_str))
    }

    fn workload(&self, address: IpAddr) -> Option<&str> {
        let most_specific = || self.subnets.iter().filter(|(net, _)| net.contains(&address)).max_by_key(|(net, _)| net.prefix_len());
        self.hosts.get(&address).or_else(|| Some(&most_specific()?.1)).map(String::as_str)
    }

    /// Whose a flow is, by its four addresses: who began it and whom it called, and who answers to whom. `None`: it is no workload's, and
    /// bears no exit of one, nor a NIC's address where programs of the host are bound.
    pub fn owner(&self, source: IpAddr, destination: IpAddr, answers: IpAddr, answered: IpAddr) -> Option<Owned<'_>> {
        let translated = (answered != source).then_some(answered);
        if let Some(workload) = self.workload(source) {
            return Some(Owned { workload: Some(workload), direction: Direction::Out, exit: translated });
        }
        if let Some(workload) = self.workload(answers) {
            let called = (destination != answers).then_some(destination);
            return Some(Owned { workload: Some(workload), direction: Direction::In, exit: called });
        }
        let is_own = self.of_host && source == answered && self.nics.contains_key(&source);
        let exit = Some(answered).filter(|exit| is_own || self.exits.contains_key(exit))?;
        Some(Owned { workload: None, direction: Direction::Out, exit: Some(exit) })
    }
}

fn is_host(net: IpNet) -> bool {
    net.prefix_len() == net.max_prefix_len()
}

/// The name of an IP protocol; its number when it has none here.
pub fn protocol(number: u8) -> String {
    match number {
        1 => "icmp".to_owned(),
        6 => "tcp".to_owned(),
        17 => "udp".to_owned(),
        47 => "gre".to_owned(),
        58 => "ipv6-icmp".to_owned(),
        132 => "sctp".to_owned(),
        other => other.to_string(),
    }
}

/// A table of flows for a terminal.
pub fn render(flows: &Flows) -> String {
    if flows.flows.is_empty() {
        return "No flow is open.\n".to_owned();
    }
    let header = ["WORKLOAD", "DIRECTION", "PROTOCOL", "FROM", "TO", "EXIT", "NIC", "STATE"];
    let table = columns(
        header,
        flows.flows.iter().map(|flow| {
            [
                or_dash(flow.workload.clone()),
                format!("{:?}", flow.direction).to_lowercase(),
                flow.protocol.clone(),
                at(flow.source, flow.source_port),
                at(flow.destination, flow.destination_port),
                or_dash(flow.exit),
                or_dash(flow.nic.clone()),
                flow.state.clone(),
            ]
        }),
    );
    if flows.more == 0 { table } else { format!("{table}\nand {} more; name a workload\n", flows.more) }
}

/// A table of exits for a terminal.
pub fn render_exits(flows: &Flows) -> String {
    if flows.exits.is_empty() {
        return "No exit is in use.\n".to_owned();
    }
    let row = |exit: &ExitFlows| {
        [
            exit.exit.to_string(),
            or_dash(exit.nic.clone()),
            exit.flows.to_string(),
            or_dash(exit.new_per_second.map(|rate| format!("{rate:.1}"))),
            or_dash(exit.bytes_per_second.map(|rate| format!("{:.2}", rate * 8.0 / 1e6))),
        ]
    };
    columns(["EXIT", "NIC", "FLOWS", "NEW/S", "MBIT/S"], flows.exits.iter().map(row))
}

fn at(address: IpAddr, port: Option<u16>) -> String {
    port.map_or_else(|| address.to_string(), |port| SocketAddr::new(address, port).to_string())
}

#[cfg(test)]
mod tests;
