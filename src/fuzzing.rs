//! Whatever reads bytes that others wrote, as functions of bytes: for `tests/readers.rs`, which searches for some seconds, and for `make fuzz`,
//! which searches as long as it is let. None may panic, hang, or take more than [`LIMIT`], whatever it is given.

use std::collections::BTreeMap;

use kube::core::DynamicObject;
use serde::de::DeserializeOwned;

use crate::api::{labels, manifest};
use crate::daemon::control::Request;
use crate::facts::{containerd, docker, kernel, kubernetes::read};
use crate::model::facts::{Address, Container, KernelChange, Link, LinkKind, Place};
use crate::model::known::Facts;
use crate::model::resolve::{Past, resolve};
use crate::model::select::Index;
use crate::nft::{Ruleset, decode};
use crate::plan::{Observed, Planner};
use crate::{effects, netlink, proxy, wire};

/// Bytes of memory that a reader may take for one input.
pub const LIMIT: usize = 64 << 20;

/// One way in for bytes.
pub type Reader = fn(&[u8]);

/// All of them, by name.
pub const READERS: [(&str, Reader); 10] = [
    ("conntrack", effects::conntrack::read_any),
    ("containerd", containerd::read_any),
    ("control", control),
    ("docker", docker::read_any),
    ("frames", frames),
    ("kubernetes", kubernetes),
    ("labels", labels),
    ("manifests", manifests),
    ("netlink", netlink),
    ("proxy", proxy::read_any),
];

/// A line is a label of a container, or of a network.
fn labels(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let label = |line: &str| line.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned()));
    let all: BTreeMap<String, String> = text.lines().filter_map(label).collect();
    let _ = labels::parse_network(&all);
    let container = Container { labels: all, ..Container::default() };
    let _ = labels::parse(&container);
}

/// A file of manifests, followed to the plan that it makes on a host with two NICs.
fn manifests(bytes: &[u8]) {
    let mut facts = host();
    facts.manifests = Index::new(manifest::parse([("any.yaml", bytes)]));
    let mut past = Past::default();
    let outcome = resolve(&facts, &mut past);
    let (ruleset, sysctls) = (Ruleset::default(), BTreeMap::new());
    let observed = Observed { kernel: &facts.kernel, ruleset: &ruleset, sysctls: &sysctls, ahead: &[] };
    let plan = Planner::default().plan(&outcome, &observed, &past.departed, true);
    let _ = plan.words(&facts.kernel);
}

fn host() -> Facts {
    let mut facts = Facts::default();
    for (index, name, net) in [(2, "eth0", "172.31.0.8/20"), (3, "eth1", "172.31.16.14/20")] {
        facts.kernel.apply(KernelChange::Link(Link { up: true, carrier: true, ..Link::new(index, name, LinkKind::Other(String::new())) }));
        facts.kernel.apply(KernelChange::Address(Place { nsid: None, index }, Address::new(net.parse().expect("an address"))));
    }
    facts
}

/// What an API server might send as an object of each kind that is followed.
fn kubernetes(bytes: &[u8]) {
    fn each<T: DeserializeOwned, R>(bytes: &[u8], read: impl Fn(T) -> R) {
        drop(serde_json::from_slice::<T>(bytes).ok().map(read));
    }
    each::<DynamicObject, _>(bytes, read::binding);
    each::<DynamicObject, _>(bytes, read::pool);
    each(bytes, read::namespace);
    each(bytes, read::node);
    each(bytes, read::pod);
    each(bytes, read::daemonset);
    each(bytes, read::inside);
}

/// A request on the control socket.
fn control(bytes: &[u8]) {
    let _ = serde_json::from_slice::<Request>(bytes);
}

/// A frame of a neighbour.
fn frames(bytes: &[u8]) {
    let _ = wire::neighbour::read(bytes);
}

/// What a netlink socket might say: links, addresses, routes, rules, next hops, sockets, and the tables of nftables.
fn netlink(bytes: &[u8]) {
    let mut ruleset = Ruleset::default();
    for message in wire::messages(bytes) {
        kernel::read_any(&message);
        netlink::read_any(&message);
        let _ = message.refusal();
        let _ = (decode::any_chain(&message), decode::counted(&message), decode::table(&message));
        let name = decode::table(&message).map_or("egressd", |head| head.name);
        let _ = decode::absorb(&mut ruleset, name, &message);
    }
}
