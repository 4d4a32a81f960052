//! Addresses that egressd puts on NICs: what is to be added, and what of ours is to go.

use super::step::RouteStep;
use crate::model::facts::{KernelFacts, Place};
use crate::model::managed::Verdict;
use crate::model::resolve::Outcome;

/// Steps that add addresses or take away those that have moved elsewhere, which cannot wait; and steps that take away what nobody asks for any more. That
/// stays while a flow may bear it: nothing new leaves as it by then.
pub fn steps(outcome: &Outcome, kernel: &KernelFacts) -> (Vec<RouteStep>, Vec<RouteStep>) {
    let uplinks = &outcome.uplinks;
    let free = uplinks.managed.iter().filter(|(_, verdict)| **verdict == Some(Verdict::Free)).map(|(at, _)| *at);
    let up = |index| kernel.links.get(&index).is_some_and(|link| link.up && link.carrier);
    let is_there = |index, address| kernel.addresses_at(Place { nsid: None, index }).any(|a| a.net.addr() == address);
    let missing = free.filter(|(index, address)| up(*index) && !is_there(*index, *address));
    let add = missing.map(|(index, address)| RouteStep::AddAddress { index, address });
    let ours = kernel.own_addresses().filter(|(_, address)| address.ours).map(|(index, address)| (index, address.net));
    let kept = |index, net: &ipnet::IpNet| {
        let borne = uplinks.borne.get(&net.addr()).and_then(|way| uplinks.ways.get(way));
        match uplinks.managed.get(&(index, net.addr())) {
            Some(Some(Verdict::Taken(_))) => false,
            Some(_) => true,
            None => borne.is_some_and(|way| way.key.nic == index) && !uplinks.elsewhere.contains(&net.addr()),
        }
    };
    let gone = ours.filter(|(index, net)| !kept(*index, net)).map(|(index, net)| RouteStep::DeleteAddress { index, net });
    let (moved, unwanted): (Vec<RouteStep>, Vec<RouteStep>) =
        gone.partition(|step| matches!(step, RouteStep::DeleteAddress { net, .. } if uplinks.elsewhere.contains(&net.addr())));
    (moved.into_iter().chain(add).collect(), unwanted)
}
