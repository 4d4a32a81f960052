//! The far ends of veths: which places in other namespaces matter, and what addresses are there.
//!
//! A namespace's number is given again once the namespace is gone, so an address belongs to a *link's* far end and is
//! taken back with the link or with the number, whichever goes first. What is heard of any other place is passed over.

use std::collections::HashMap;

use crate::model::facts::{Address, IfIndex, KernelChange, Place};

/// All far ends that are known.
#[derive(Default)]
pub struct FarEnds {
    places: HashMap<Place, FarEnd>,
    links: HashMap<IfIndex, Place>,
}

struct FarEnd {
    /// The near end that came last: it is the living one when two claim the same place.
    near: IfIndex,
    addresses: Vec<Address>,
}

impl FarEnds {
    /// Takes in a link. `Some` when its far end is new: its addresses have to be asked for, and given to
    /// [`FarEnds::asked`].
    pub fn link(&mut self, index: IfIndex, place: Option<Place>, changes: &mut Vec<KernelChange>) -> Option<Place> {
        if self.links.get(&index).copied() == place {
            return None;
        }
        self.forget(index, changes);
        let place = place?;
        self.links.insert(index, place);
        let far_end = self.places.entry(place).or_insert(FarEnd { near: index, addresses: Vec::new() });
        far_end.near = index;
        Some(place)
    }

    /// Takes in the addresses of a far end as they are now.
    pub fn asked(&mut self, place: Place, now: Vec<Address>, changes: &mut Vec<KernelChange>) {
        let Some(far_end) = self.places.get_mut(&place) else {
            return;
        };
        for old in &far_end.addresses {
            if !now.iter().any(|address| address.net == old.net) {
                changes.push(KernelChange::AddressGone(place, old.net));
            }
        }
        changes.extend(now.iter().map(|address| KernelChange::Address(place, *address)));
        far_end.addresses = now;
    }

    /// Takes in an address that came or went somewhere.
    pub fn heard(&mut self, place: Place, address: Address, gone: bool, changes: &mut Vec<KernelChange>) {
        let Some(far_end) = self.places.get_mut(&place) else {
            return;
        };
        let known = far_end.addresses.contains(&address);
        if known && !gone {
            return;
        }
        far_end.addresses.retain(|known| known.net != address.net);
        if gone {
            changes.push(KernelChange::AddressGone(place, address.net));
        } else {
            far_end.addresses.push(address);
            changes.push(KernelChange::Address(place, address));
        }
    }

    /// A link is gone, and has been said to be so, which takes back all at its far end: what lives at the same place meanwhile is told again.
    pub fn link_gone(&mut self, index: IfIndex, changes: &mut Vec<KernelChange>) {
        let Some(place) = self.links.remove(&index) else {
            return;
        };
        match self.places.get(&place) {
            Some(far_end) if far_end.near != index => {
                let again = far_end.addresses.iter();
                changes.extend(again.map(|address| KernelChange::Address(place, *address)));
            }
            _ => {
                self.places.remove(&place);
            }
        }
    }

    /// The near ends of all far ends in the namespace with this number.
    pub fn near_ends(&self, nsid: i32) -> Vec<IfIndex> {
        self.links.iter().filter(|(_, place)| place.nsid == Some(nsid)).map(|(i, _)| *i).collect()
    }

    /// Takes back the addresses at a link's far end, though the link stays.
    fn forget(&mut self, index: IfIndex, changes: &mut Vec<KernelChange>) {
        let Some(place) = self.links.remove(&index) else {
            return;
        };
        if self.places.get(&place).is_some_and(|far_end| far_end.near == index) {
            let addresses = self.places.remove(&place).map(|far_end| far_end.addresses);
            let gone = addresses.into_iter().flatten();
            changes.extend(gone.map(|address| KernelChange::AddressGone(place, address.net)));
        }
    }
}
