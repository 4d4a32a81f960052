//! By which exits connections leave that another process of this host dials, by what was resolved.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use super::binding::{Binding, ExistingFlows, Source};
use super::facts::Family;
use super::isolated;
use super::known::Facts;
use super::leave::{Asked, Leaving};
use super::outcome::Outcome;
use super::ports::Protocol;
use super::spread;
use super::workload::{Row, State, Subject, choose};

/// What holds just now.
pub fn leaving(asked: &Asked, facts: &Facts, outcome: &Outcome) -> Leaving {
    match asked {
        Asked::Binding { binding: name, ipv6 } => match facts.manifests.bindings.iter().find(|binding| binding.name.name == *name) {
            Some(binding) => by_binding(binding, family(*ipv6), outcome),
            None => none(isolated::missing(name)),
        },
        Asked::Source(address) if is_held(*address, outcome) => Leaving { exits: vec![*address], ..Leaving::default() },
        Asked::Source(address) => none(format!(
            "{address} is no exit of a binding of this host, so packets with it use the host's routes; name it in the exits of a binding"
        )),
        Asked::Pod { pod, binding, to, protocol } => of_pod(pod, binding, (*to, *protocol), outcome),
    }
}

/// Whether what the host dials from an address leaves by that address's NIC.
fn is_held(address: IpAddr, outcome: &Outcome) -> bool {
    outcome.uplinks.held().any(|(held, _)| held == address)
}

fn family(ipv6: bool) -> Family {
    if ipv6 { Family::V6 } else { Family::V4 }
}

fn none(reason: String) -> Leaving {
    Leaving { reason: Some(reason), ..Leaving::default() }
}

fn by_binding(binding: &Binding, family: Family, outcome: &Outcome) -> Leaving {
    let name = &binding.name.name;
    if let Some(rate) = binding.rate {
        return none(format!("binding {name} has a rate limit ({rate}), which works for forwarded packets only; name a binding without"));
    }
    let resets = binding.existing_flows == ExistingFlows::Reset;
    match choose(&outcome.uplinks, binding, family.unspecified()) {
        State::Bound(first) => {
            let mut exits: Vec<IpAddr> = spread::turn(&outcome.uplinks, binding, family).iter().map(|exit| exit.address).collect();
            let held: BTreeSet<IpAddr> = outcome.uplinks.held().map(|(held, _)| held).collect();
            exits.retain(|exit| held.contains(exit));
            let on_no_nic = || format!("{} is on no NIC, so nothing can connect from it; name an exit that a NIC has", first.address);
            Leaving { reason: exits.is_empty().then(on_no_nic), exits, resets }
        }
        // What it would fall back to has another address: the proxy's word is that it is the exit's.
        state => {
            let free = || format!("binding {name} has no traffic in this family; dial an address of the other one");
            let reason = state.reason().map_or_else(free, ToString::to_string);
            Leaving { resets, ..none(reason) }
        }
    }
}

fn of_pod(pod: &str, binding: &str, (to, protocol): (SocketAddr, Protocol), outcome: &Outcome) -> Leaving {
    let family = Family::of(to.ip());
    let is_meant = |row: &&Row| {
        let of_pod = matches!(&row.subject, Subject::Pod(known) if pod.split_once('/') == Some((&known.namespace, &known.name)));
        of_pod && row.address.is_none_or(|net| Family::of(net.addr()) == family)
    };
    let mut reason = None;
    for row in outcome.rows.iter().filter(is_meant) {
        let has = row.binding.as_ref().map(|held| &held.name).filter(|name| name.source == Source::Api);
        let traffic = row.binding.as_ref().map(|held| &held.traffic);
        match (has, &row.state) {
            (Some(name), State::Bound(_)) if name.name == binding && !traffic.is_some_and(|traffic| traffic.is_for(to, protocol)) => {
                let to = format!("{}/{to}", protocol.name());
                reason = Some(format!(
                    "binding {binding} is not for {to}, so the pod's connections there use the node's default route; include it in `to` and `ports`"
                ));
            }
            (Some(name), State::Bound(_)) if name.name == binding => {
                return Leaving { exits: outcome.exits_of(row).iter().map(|exit| exit.address).collect(), ..Leaving::default() };
            }
            (Some(name), state) if name.name == binding => reason = state.reason().map(ToString::to_string).or(reason),
            (Some(name), _) => {
                reason = Some(format!("the pod has binding {}; name that one, or stop selecting the pod with it", name.name))
            }
            (None, _) => {}
        }
    }
    none(reason.unwrap_or_else(|| {
        format!("the pod is not bound by {binding}; change its podSelector to select the pod, or wait for the pod's address")
    }))
}
