//! What bindings name as exits, usable or not.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use super::super::binding::{ExitSpec, SourcePorts};
use super::super::facts::{KernelFacts, Link};
use super::Uplinks;
use super::holder::own;

impl Uplinks {
    /// The addresses that exits are written with.
    pub fn named(&self) -> impl Iterator<Item = IpAddr> {
        self.exits.keys().map(|spec| spec.address)
    }

    /// Whether a link is an uplink, or some exit may be meant to be on it.
    pub fn is_named(&self, link: &Link, kernel: &KernelFacts) -> bool {
        let nets: Vec<IpNet> = own(kernel, link.index).map(|a| a.net).collect();
        let means = |spec: &ExitSpec| spec.interface.as_ref() == Some(&link.name) || nets.iter().any(|net| net.contains(&spec.address));
        self.nics.contains_key(&link.index) || self.exits.keys().any(means)
    }

    /// The ranges of source ports that exits on NICs are bounded to, usable or not.
    pub fn source_ports(&self) -> BTreeSet<SourcePorts> {
        self.placed.keys().filter_map(|spec| spec.source_ports).collect()
    }
}
