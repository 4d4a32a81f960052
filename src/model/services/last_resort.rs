//! The server of last resort of a port: who it is, and why it may be none.

use std::net::IpAddr;

use ipnet::IpNet;

use super::LastServer;
use super::claims::Claims;
use crate::model::binding::Binding;
use crate::model::inbound::{Inbound, LastResort};
use crate::model::toward::toward;
use crate::model::workload::Entry;

impl Claims<'_> {
    /// The server of last resort of the port at an address: the one of its family.
    pub(super) fn last_resort(&self, inbound: &Inbound, address: IpAddr) -> Option<LastServer> {
        let last = inbound.last_resort.iter().find(|last| last.address.is_ipv4() == address.is_ipv4())?;
        let link = toward(self.kernel(), IpNet::from(last.address)).filter(|_| !self.is_own(last.address))?;
        let is_range = inbound.ports.first != inbound.ports.last;
        let port = (!is_range).then(|| last.port.or(inbound.target).unwrap_or(inbound.ports.first));
        Some(LastServer { address: last.address, port, entry: Entry::Routed { interface: link.index } })
    }

    /// Tells of servers of last resort that can be none.
    pub(super) fn tell_last_resort(&mut self, binding: &Binding, at: usize, inbound: &Inbound) {
        for LastResort { address, .. } in &inbound.last_resort {
            let message = if self.is_own(*address) {
                format!("{address} is an address of this host itself, and no server; name another machine's or a workload's")
            } else if toward(self.kernel(), IpNet::from(*address)).is_none() {
                format!("{address} is not used: no route but the default one leads to it; add one (`ip route add {address} via ...`)")
            } else {
                continue;
            };
            self.problem(binding, at, "lastResort", message);
        }
    }
}
