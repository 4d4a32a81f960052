//! What a binding has to a port, by what it served until now, and by whom it was asked for.

use std::collections::BTreeMap;
use std::net::IpAddr;

use foldhash::HashMap;

use super::{Endpoint, Holders, Served};
use crate::model::binding::{Binding, BindingName, ExitSpec, Source};
use crate::model::facts::KernelFacts;
use crate::model::health::{Check, Verdict};
use crate::model::inbound::Inbound;
use crate::model::ipvs::KernelIpvs;
use crate::model::listeners::Taken;
use crate::model::ports::{Called, Ports};
use crate::model::uplinks::Uplinks;

/// What is known of exits and servers.
pub struct Known<'a> {
    pub uplinks: &'a Uplinks,
    pub taken: &'a Taken<'a>,
    pub verdicts: &'a HashMap<Check, Verdict>,
    pub ipvs: Option<&'a KernelIpvs>,
    pub kernel: &'a KernelFacts,
    pub served: &'a Served,
    pub holders: &'a Holders,
}

/// What a binding has to a port, the strongest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Right {
    /// Some of its servers got the calls until now, whatever the binding was called.
    Serves,
    /// It was its port, though others have to serve it now.
    Had,
    /// It asks for it.
    Asks,
}

impl Known<'_> {
    /// This host has the address.
    pub fn is_own(&self, address: IpAddr) -> bool {
        self.kernel.own_links_with(address).next().is_some()
    }

    /// A pod's address may have been another namespace's a moment ago, so in a cluster nobody has a port by who served it.
    pub fn right(&self, binding: &Binding, called: Called, servers: impl Iterator<Item = Endpoint>, last: Option<Endpoint>) -> Right {
        if binding.name.source == Source::Api {
            return Right::Asks;
        }
        let mut servers = servers;
        let got_calls = |server: Endpoint| meeting(self.served, called).any(|before| before.contains(&server));
        if servers.any(got_calls) {
            return Right::Serves;
        }
        // Several bindings may name one server of last resort.
        let had = meeting(self.holders, called).any(|holder| *holder == binding.name) || last.is_some_and(got_calls);
        if had { Right::Had } else { Right::Asks }
    }
}

/// What is there of an address's ports, as far as these meet the ones that are called. None of them meets another.
pub fn meeting<T>(of: &BTreeMap<Called, T>, (address, ports): Called) -> impl Iterator<Item = &T> {
    let upto = Ports { first: ports.last, last: u16::MAX, ..ports };
    let of_protocol = (address, Ports { first: 0, last: 0, ..ports })..=(address, upto);
    of.range(of_protocol).rev().take_while(move |((_, there), _)| there.meets(&ports)).map(|(_, what)| what)
}

/// The bindings that publish ports, by name.
pub type Publishing<'a> = BTreeMap<&'a BindingName, &'a Binding>;

/// Whether a binding asks for a port of an address, be its exit away or draining.
pub fn asks_for(publishing: &Publishing<'_>, uplinks: &Uplinks, name: &BindingName, (address, ports): &Called) -> bool {
    publishing.get(name).is_some_and(|binding| {
        // An interface's own address may be any while it has none.
        let has = |spec: &ExitSpec| match spec.address.is_unspecified() {
            true => uplinks.holder(spec).is_none_or(|(_, held)| held == *address),
            false => spec.address == *address,
        };
        let at = |entry: &Inbound| entry.address.is_none_or(|named| named == *address) && entry.ports.meets(ports);
        binding.exits.iter().any(has) && binding.inbound.iter().any(|entry| entry.refusal.is_none() && at(entry))
    })
}
