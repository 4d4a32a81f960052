//! The grammar of labels, as one table: dispatch, error texts, the nearest name and the reference page all come from it.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::inbound;
use super::label::{Effect, Label, choice, list};
use crate::api::values::{self, Fault, MAX_ADDRESSES, shown};
use crate::model::binding::{Assignment, ExistingFlows, Spread, WhenUnavailable};

/// Every label of ours.
pub static LABELS: [Label; 26] = [
    Label {
        name: "egress.ip",
        effect: Effect::Exit,
        grammar: "exit {`,` exit}, exit = (address | address `-` address | subnet) [`*` weight]",
        meaning: "Source addresses that the container leaves with. The first usable one of the packet's family is used, unless `egress.spread` says otherwise; a weight, 1 to 100, is its share then.",
        example: "172.31.0.14",
        read: |draft, value| list(value, values::weighted).and_then(counted_out).map(|all| draft.exits = all),
    },
    Label {
        name: "egress.spread",
        effect: Effect::Exit,
        grammar: "`first`, `round-robin`, `random`, `by-source` or `by-destination`",
        meaning: "How new flows are shared among the usable exits: all use the first, in turn, at random, or by a hash of the container's or the destination's address. `first` when not given.",
        example: "round-robin",
        read: |draft, value| {
            let choices = [
                ("first", Spread::FirstUsable),
                ("round-robin", Spread::RoundRobin),
                ("random", Spread::Random),
                ("by-source", Spread::BySource),
                ("by-destination", Spread::ByDestination),
            ];
            choice(value, choices).map(|spread| draft.spread = spread)
        },
    },
    Label {
        name: "egress.rate",
        effect: Effect::Exit,
        grammar: "number (`bit` | `kbit` | `Mbit` | `Gbit`)",
        meaning: "How fast the container sends outside, in bits a second, or thousands, millions or billions (10^9) of them, from `64kbit` to `100Gbit`: packets above it are dropped. No limit when not given.",
        example: "20Mbit",
        read: |draft, value| values::rate(value).map(|bytes| draft.rate = Some(bytes)),
    },
    Label {
        name: "egress.burst",
        effect: Effect::Exit,
        grammar: "number (`kB` | `MB` | `KiB` | `MiB`)",
        meaning: "How much may leave at once after a pause, beyond a second's worth of `egress.rate`. Nothing when not given.",
        example: "256kB",
        read: |draft, value| values::burst(value).map(|bytes| draft.burst = Some(bytes)),
    },
    Label {
        name: "egress.interface",
        effect: Effect::Exit,
        grammar: "name",
        meaning: "NIC that has the addresses. When not given, the one that has each of them. Without `egress.ip`: its own address, whatever it is at the moment.",
        example: "eth1",
        read: |draft, value| values::interface(value).map(|name| draft.interface = Some(name)),
    },
    Label {
        name: "egress.gateway",
        effect: Effect::Exit,
        grammar: "address {`,` address}",
        meaning: "Next hop of the exits of its family, at most one of each. When not given, that of the NIC's default route, else the router of another NIC in the same subnet.",
        example: "172.31.0.1",
        read: |draft, value| list(value, values::gateway).and_then(one_each).map(|all| draft.gateways = all),
    },
    Label {
        name: "egress.manage",
        effect: Effect::Exit,
        grammar: "`true` or `false`",
        meaning: "Whether egressd adds the addresses of `egress.ip` to their NIC (`egress.interface`, else the one with their subnet) unless a neighbour has them, keeps them there, and removes them when no binding asks for them any more. `false` when not given: they are there already.",
        example: "true",
        read: |draft, value| {
            choice(value, [("true", Assignment::Managed), ("false", Assignment::Existing)]).map(|chosen| draft.assignment = chosen)
        },
    },
    Label {
        name: "egress.to",
        effect: Effect::Exit,
        grammar: "subnet {`,` subnet}",
        meaning: "Destinations of the binding's traffic. Everything outside when not given; what does not match uses the host's default route.",
        example: "0.0.0.0/0",
        read: |draft, value| list(value, values::cidr).map(|all| draft.to = all),
    },
    Label {
        name: "egress.except",
        effect: Effect::Exit,
        grammar: "subnet {`,` subnet}",
        meaning: "Destinations within those that use the host's default route.",
        example: "10.0.0.0/8",
        read: |draft, value| list(value, values::cidr).map(|all| draft.except = all),
    },
    Label {
        name: "egress.ports",
        effect: Effect::Exit,
        grammar: "protocol `/` port [`-` port] {`,` ...}, protocol `tcp`, `udp` or `sctp`",
        meaning: "Destination ports of the binding's traffic. All protocols and ports when not given; what does not match uses the host's default route.",
        example: "tcp/443-445,udp/53",
        read: |draft, value| list(value, values::ports).map(|all| draft.ports = values::merge_ports(all)),
    },
    inbound::PUBLISH,
    inbound::ENGINE,
    inbound::BALANCE,
    inbound::SCHEDULER,
    inbound::CLIENT_SOURCE,
    inbound::WEIGHT,
    inbound::HEALTH,
    inbound::ALL_DOWN,
    inbound::LAST_RESORT,
    inbound::AFFINITY,
    Label {
        name: "egress.unavailable",
        effect: Effect::Exit,
        grammar: "`drop` or `fallback`",
        meaning: "What happens while no exit is usable: nothing leaves, or everything uses the host's default route. `drop` when not given.",
        example: "drop",
        read: |draft, value| {
            let choices = [("drop", WhenUnavailable::Drop), ("fallback", WhenUnavailable::Fallback)];
            choice(value, choices).map(|when| draft.when_unavailable = when)
        },
    },
    Label {
        name: "egress.existing",
        effect: Effect::Exit,
        grammar: "`keep` or `reset`",
        meaning: "What happens to open connections when their exit changes. UDP, and calls without an answer yet, always start again. `keep` when not given.",
        example: "keep",
        read: |draft, value| {
            let choices = [("keep", ExistingFlows::Keep), ("reset", ExistingFlows::Reset)];
            choice(value, choices).map(|flows| draft.existing_flows = flows)
        },
    },
    Label {
        name: "egress.priority",
        effect: Effect::Exit,
        grammar: "whole number",
        meaning: "Of two bindings for one container the higher wins; with equal priority the manifest. 0 when not given. See [Which binding wins](bindings.md#which-binding-wins).",
        example: "10",
        read: |draft, value| {
            let number = value.parse().map_err(|_| Fault::new(format!("{} is not a whole number that fits", shown(value))))?;
            draft.priority = number;
            Ok(())
        },
    },
    Label {
        name: "egress.network",
        effect: Effect::Placement,
        grammar: "name",
        meaning: "Docker network that the container is connected to when it is created, instead of its own. A container that was created before egressd learned of it, and runs, is not moved.",
        example: "eip_bridge",
        read: |draft, value| {
            let name = values::docker_name(value)?;
            match refuse_as_network(&name) {
                Some(fault) => Err(fault),
                None => {
                    draft.network = Some(name);
                    Ok(())
                }
            }
        },
    },
    Label {
        name: "egress.container-ip",
        effect: Effect::Placement,
        grammar: "address",
        meaning: "The container's own address on that network when it is created.",
        example: "172.19.0.100",
        read: |draft, value| values::host_address(value).map(|address| draft.address = Some(address)),
    },
    Label {
        name: "egress.guard",
        effect: Effect::Network,
        grammar: "`on` or `off`",
        meaning: "On a Docker network: whether traffic of sources that are neither bound nor known to be unbound is dropped. When not given, while a bound container is on the network.",
        example: "on",
        read: |draft, value| choice(value, [("on", true), ("off", false)]).map(|guard| draft.guard = Some(guard)),
    },
];

/// The label of this name.
pub fn find(name: &str) -> Option<&'static Label> {
    LABELS.iter().find(|label| label.name == name)
}

/// Each address with its weight; none is given twice.
fn counted_out(entries: Vec<(Vec<IpAddr>, u16)>) -> Result<Vec<(IpAddr, u16)>, Fault> {
    let mut seen = BTreeSet::new();
    let mut ordered = Vec::new();
    for (address, weight) in entries.into_iter().flat_map(|(addresses, weight)| addresses.into_iter().map(move |address| (address, weight)))
    {
        if !seen.insert(address) {
            return Err(Fault::new(format!("`{address}` is given twice")).cure("keep one"));
        }
        ordered.push((address, weight));
    }
    match ordered.len() {
        ..=MAX_ADDRESSES => Ok(ordered),
        many => Err(Fault::new(format!("has {many} addresses, and {MAX_ADDRESSES} are read")).cure("write fewer")),
    }
}

fn one_each(gateways: Vec<IpAddr>) -> Result<Vec<IpAddr>, Fault> {
    match gateways.iter().filter(|g| g.is_ipv4()).count().max(gateways.iter().filter(|g| g.is_ipv6()).count()) {
        0 | 1 => Ok(gateways),
        _ => Err(Fault::new("has two gateways of one family")
            .cure("keep one of each; exits with gateways of their own need a manifest, or leave it out to have them found")),
    }
}

fn refuse_as_network(name: &str) -> Option<Fault> {
    let reserved = ["host", "none", "default"].contains(&name);
    reserved.then(|| Fault::new(format!("`{name}` is not a bridge network")).cure("name a bridge network of your own"))
}
