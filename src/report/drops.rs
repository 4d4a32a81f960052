//! Who lost packets to our rules, and why: by reason, interface and workload.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::facts::{IfIndex, KernelFacts};
use crate::model::outcome::Outcome;
use crate::model::workload::{Entry, Row};

/// What stands for the interface of packets that came in by none.
const HOST: &str = "host";
/// The same of interfaces that are gone. Names of interfaces have no space.
const GONE: &str = "not there any more";

/// What the kernel has counted.
#[derive(Clone, Debug, Default)]
pub struct Drops {
    /// Reason, family, packets.
    pub by_reason: Vec<(String, String, u64)>,
    /// The same by interface.
    pub by_link: BTreeMap<(&'static str, String, IfIndex), u64>,
    /// Interface and source: the packets of each reason.
    pub by_source: BTreeMap<(IfIndex, IpAddr), BTreeMap<&'static str, u64>>,
}

/// Packets that our rules dropped for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Dropped {
    /// `Guard`, `NoExit`, `Seal`, `ForeignMark`, `Departed`, `Spoofed`, `Rate`, `ServerLimit` or `ClientLimit`.
    pub reason: String,
    /// `ip`, `ip6`, `bridge`, or `inet` for both of the first.
    pub family: String,
    /// Since its rule was made: a change of the rules may begin anew.
    pub packets: u64,
    /// By the interface that they came in by, those with most packets first. An interface without a drop for a day is forgotten.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub interfaces: Vec<DroppedBy>,
}

/// Those of one interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DroppedBy {
    /// A bridge, or whatever leads to a workload; `host` for the host's own programs.
    pub interface: String,
    pub packets: u64,
}

/// Those of one workload's address, for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DroppedFor {
    /// As in `dropped` of the whole status.
    pub reason: String,
    pub packets: u64,
}

impl fmt::Display for DroppedFor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.packets, self.reason)
    }
}

/// `5 Guard (ip: docker0 4, br1 1)`
impl fmt::Display for Dropped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ({}", self.packets, self.reason, self.family)?;
        for (at, DroppedBy { interface, packets }) in self.interfaces.iter().enumerate() {
            write!(f, "{} {interface} {packets}", if at == 0 { ":" } else { "," })?;
        }
        f.write_str(")")
    }
}

impl Drops {
    /// By reason and family, each with its interfaces. A port of a bridge counts for the bridge.
    pub fn told(&self, kernel: &KernelFacts) -> Vec<Dropped> {
        let mut interfaces: BTreeMap<(&str, &str), BTreeMap<&str, u64>> = BTreeMap::new();
        for ((reason, family, link), packets) in &self.by_link {
            *interfaces.entry((reason, family)).or_default().entry(name(*link, kernel)).or_default() += packets;
        }
        let all = self.by_reason.iter().map(|(reason, family, packets)| {
            let by = interfaces.remove(&(reason.as_str(), family.as_str())).unwrap_or_default().into_iter();
            let mut by: Vec<_> = by.map(|(interface, packets)| DroppedBy { interface: interface.to_owned(), packets }).collect();
            by.sort_by_key(|by| std::cmp::Reverse(by.packets));
            Dropped { reason: reason.clone(), family: family.clone(), packets: *packets, interfaces: by }
        });
        all.collect()
    }

    /// What of a row's workload was dropped, or of the calls to it; the reasons in order.
    pub fn of(&self, row: &Row, outcome: &Outcome) -> Vec<DroppedFor> {
        let (Some(entry @ (Entry::Port { .. } | Entry::Routed { .. } | Entry::Socket)), Some(net)) = (row.entry, row.address) else {
            return Vec::new();
        };
        let mut all: BTreeMap<&str, u64> = BTreeMap::new();
        let mut add = |link: IfIndex, first: IpAddr, last: IpAddr| {
            let reasons = self.by_source.range((link, first)..=(link, last)).flat_map(|(_, reasons)| reasons);
            reasons.for_each(|(reason, packets)| *all.entry(reason).or_default() += packets);
        };
        for link in outcome.entrances(row) {
            add(link, net.network(), last_of(net));
        }
        if let Entry::Port { port, .. } = entry {
            // With whatever address it sent what others own.
            match net {
                IpNet::V4(_) => add(port, Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::BROADCAST.into()),
                IpNet::V6(_) => add(port, Ipv6Addr::UNSPECIFIED.into(), Ipv6Addr::from(u128::MAX).into()),
            }
        }
        all.into_iter().map(|(reason, packets)| DroppedFor { reason: reason.to_owned(), packets }).collect()
    }
}

fn last_of(net: IpNet) -> IpAddr {
    match net {
        IpNet::V4(net) => net.broadcast().into(),
        IpNet::V6(net) => net.broadcast().into(),
    }
}

fn name(index: IfIndex, kernel: &KernelFacts) -> &str {
    if index == 0 {
        return HOST;
    }
    let link = kernel.links.get(&index);
    let bridge = link.and_then(|link| kernel.links.get(&link.master?));
    bridge.or(link).map_or(GONE, |link| link.name.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::facts::{KernelChange, Link, LinkKind};
    use crate::model::workload::{State, Subject};

    const BRIDGE: IfIndex = 9;
    const PORT: IfIndex = 21;

    fn kernel() -> KernelFacts {
        let mut kernel = KernelFacts::default();
        kernel.apply(KernelChange::Link(Link::new(BRIDGE, "br0", LinkKind::Bridge)));
        kernel.apply(KernelChange::Link(Link { master: Some(BRIDGE), ..Link::new(PORT, "veth1", LinkKind::Veth) }));
        kernel
    }

    fn row(net: &str, entry: Entry) -> Row {
        Row {
            subject: Subject::Bare("web".to_owned()),
            network: None,
            default_route: false,
            address: Some(net.parse().unwrap()),
            entry: Some(entry),
            binding: None,
            losers: Vec::new(),
            beside: Vec::new(),
            state: State::Free,
        }
    }

    fn source(link: IfIndex, address: &str, reason: &'static str, packets: u64) -> ((IfIndex, IpAddr), BTreeMap<&'static str, u64>) {
        ((link, address.parse().unwrap()), [(reason, packets)].into())
    }

    #[test]
    fn packets_are_told_by_reason_and_bridge_whatever_port_they_came_by() {
        let reason = |reason: &str, family: &str, packets| (reason.to_owned(), family.to_owned(), packets);
        let drops = Drops {
            by_reason: vec![reason("Guard", "ip", 9), reason("Spoofed", "bridge", 3)],
            by_link: [
                (("Guard", "ip".to_owned(), BRIDGE), 4),
                (("Guard", "ip".to_owned(), 0), 1),
                (("Guard", "ip".to_owned(), 77), 2),
                (("Spoofed", "bridge".to_owned(), PORT), 3),
            ]
            .into(),
            ..Drops::default()
        };
        let told: Vec<String> = drops.told(&kernel()).iter().map(ToString::to_string).collect();
        assert_eq!(told, ["9 Guard (ip: br0 4, not there any more 2, host 1)", "3 Spoofed (bridge: br0 3)"]);
    }

    #[test]
    fn a_workload_has_what_its_address_and_its_port_lost() {
        let drops = Drops {
            by_source: [
                source(BRIDGE, "172.19.0.3", "NoExit", 2),
                source(BRIDGE, "172.19.0.4", "NoExit", 7),
                source(8, "172.19.0.3", "Guard", 5),
                source(PORT, "172.19.0.4", "Spoofed", 1),
                source(PORT, "fd00::4", "Spoofed", 6),
                source(BRIDGE, "10.9.0.1", "Seal", 1),
                source(BRIDGE, "10.9.0.200", "Seal", 2),
                source(BRIDGE, "10.9.1.0", "Seal", 4),
            ]
            .into(),
            ..Drops::default()
        };
        let of = |net, entry| drops.of(&row(net, entry), &Outcome::default()).iter().map(ToString::to_string).collect::<Vec<_>>();
        let port = Entry::Port { port: PORT, bridge: BRIDGE };
        assert_eq!(of("172.19.0.3/32", port), ["2 NoExit", "1 Spoofed"]);
        assert_eq!(of("fd00::3/128", port), ["6 Spoofed"], "what it sent as others of that family");
        assert_eq!(of("172.19.0.5/32", Entry::Routed { interface: BRIDGE }), Vec::<String>::new());
        assert_eq!(of("10.9.0.0/24", Entry::Routed { interface: BRIDGE }), ["3 Seal"], "all of a subnet");
        assert_eq!(of("0.0.0.0/0", Entry::User { uid: 0 }), Vec::<String>::new(), "the host's source tells nobody from others");
    }
}
