//! What was answered and may not be shown yet: readings of a cloud lag behind its answers by seconds.

use std::net::Ipv4Addr;

use super::call::{Answer, Call};
use super::facts::{Association, DefaultRoute, Elastic, Facts, NicAddress, Target};

impl Facts {
    /// Takes what a call that was answered has changed. Nothing when it is shown already.
    pub fn learn(&mut self, call: &Call, answer: &Answer) {
        match (call, answer) {
            (Call::Tag { id, tags }, _) => {
                if let Some(old) = self.tags_of(id) {
                    old.extend(tags.clone());
                }
            }
            (Call::Untag { id, keys }, _) => {
                if let Some(old) = self.tags_of(id) {
                    old.retain(|key, _| !keys.contains(key));
                }
            }
            (Call::Assign { nic, addresses }, _) if *nic == self.nic.id => {
                let new: Vec<_> = addresses.iter().filter(|address| !self.nic.holds(**address)).collect();
                self.nic.addresses.extend(new.into_iter().map(|address| NicAddress { address: *address, public: None }));
            }
            (Call::Unassign { nic, addresses }, _) if *nic == self.nic.id => {
                self.nic.addresses.retain(|held| !addresses.contains(&held.address));
            }
            (Call::Allocate { tags }, Answer::Allocated { id, public }) if !self.elastics.iter().any(|elastic| elastic.id == *id) => {
                self.elastics.push(Elastic { id: id.clone(), public: *public, association: None, tags: tags.clone() });
            }
            (Call::Release { id }, _) => self.elastics.retain(|elastic| elastic.id != *id),
            (Call::Associate { id, nic, private }, Answer::Associated { association }) => {
                let association = Association { id: association.clone(), nic: Some(nic.clone()), private: Some(*private) };
                let public = self.elastic(id).map(|elastic| {
                    elastic.association = Some(association);
                    elastic.public
                });
                if *nic == self.nic.id {
                    self.set_public(*private, public);
                }
            }
            (Call::Disassociate { id, association }, _) => {
                let ended = self.elastic(id).and_then(|elastic| elastic.association.take_if(|old| old.id == *association));
                if let Some(private) = ended.filter(|old| old.nic.as_ref() == Some(&self.nic.id)).and_then(|old| old.private) {
                    self.set_public(private, None);
                }
            }
            (Call::Check { nic, on }, _) if *nic == self.nic.id => self.nic.source_dest_check = *on,
            (Call::CreateRoute { table, target } | Call::ReplaceRoute { table, target }, _) => self.set_route(table, Some(target)),
            (Call::DeleteRoute { table }, _) => self.set_route(table, None),
            _ => {}
        }
    }

    fn elastic(&mut self, id: &str) -> Option<&mut Elastic> {
        self.elastics.iter_mut().find(|elastic| elastic.id == id)
    }

    fn tags_of(&mut self, id: &str) -> Option<&mut super::facts::Tags> {
        if self.nic.id == id { Some(&mut self.nic.tags) } else { self.elastic(id).map(|elastic| &mut elastic.tags) }
    }

    fn set_public(&mut self, private: Ipv4Addr, public: Option<Ipv4Addr>) {
        for held in self.nic.addresses.iter_mut().filter(|held| held.address == private) {
            held.public = public;
        }
    }

    fn set_route(&mut self, table: &str, target: Option<&Target>) {
        if let Some(route) = self.tables.get_mut(table) {
            *route = DefaultRoute { target: target.cloned(), alive: target.is_some() };
        }
    }
}

/// What the cloud would answer: for `--dry-run`, so that calls are shown which need the answer of one before.
pub fn supposed(call: &Call, count: usize) -> Answer {
    match call {
        Call::Allocate { .. } => Answer::Allocated { id: format!("(new address {count})"), public: Ipv4Addr::UNSPECIFIED },
        Call::Associate { .. } => Answer::Associated { association: format!("(new association {count})") },
        _ => Answer::Done,
    }
}
