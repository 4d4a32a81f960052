//! Each exit on its NIC.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::IpAddr;

use super::super::binding::{Assignment, Binding, ExitSpec, Source};
use super::super::facts::IfIndex;
use super::super::select::precedence;
use super::Survey;
use super::holder::{address_of, holder};
use super::managed::Taken;

/// An exit on its NIC.
pub(super) struct Placed {
    pub spec: ExitSpec,
    pub nic: IfIndex,
    pub address: IpAddr,
    /// Of the binding that names it: who comes first, whatever was there before.
    pub rank: (Reverse<i32>, Source),
}

impl Survey<'_> {
    /// Which NIC holds each exit, and with which address. Those that take precedence come first.
    pub(super) fn place(&mut self, wanted: &BTreeMap<&ExitSpec, &Binding>) -> Vec<Placed> {
        let mut ordered: Vec<(&ExitSpec, &Binding)> = wanted.iter().map(|(spec, binding)| (*spec, *binding)).collect();
        ordered.sort_by_key(|(_, binding)| precedence(binding));
        if wanted.keys().any(|spec| spec.assignment == Assignment::Managed) {
            self.taken = Taken::of(self.kernel, self.inner, wanted.keys().copied());
        }
        let mut placed = Vec::new();
        for (spec, binding) in ordered {
            let nic = match spec.assignment {
                Assignment::Existing => holder(self.kernel, spec, self.defaults, self.inner),
                Assignment::Managed => self.managed(spec),
                Assignment::Routed => self.routed(spec),
            };
            match nic.and_then(|nic| Ok((nic, address_of(self.kernel, spec, nic, self.defaults)?))) {
                Ok((nic, address)) => {
                    self.uplinks.placed.insert(spec.clone(), (nic, address));
                    let rank = (Reverse(binding.priority), binding.name.source);
                    placed.push(Placed { spec: spec.clone(), nic, address, rank });
                    let named = self.named.entry(address).or_default();
                    named.extend(spec.gateway.filter(|gateway| !named.contains(gateway)));
                    self.tell_of_two_holders(spec, nic);
                }
                Err(reason) => drop(self.uplinks.exits.insert(spec.clone(), Err(reason))),
            }
        }
        placed
    }

    fn tell_of_two_holders(&mut self, spec: &ExitSpec, nic: IfIndex) {
        let others = self.kernel.own_links_with(spec.address).filter(|link| link.index != nic);
        let others: Vec<&str> = others.map(|link| link.name.as_str()).collect();
        if let (false, Some(link), None) = (others.is_empty(), self.kernel.links.get(&nic), &spec.interface) {
            let (name, address) = (&link.name, spec.address);
            let problem = format!("{address} is on {name} and on {}: {name} is used; name the interface of the exit", others.join(", "));
            if !self.uplinks.problems.contains(&problem) {
                self.uplinks.problems.push(problem);
            }
        }
    }
}
