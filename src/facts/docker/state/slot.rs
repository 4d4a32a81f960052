//! One container, as the list and its events add up.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::{Endpoint, Listed};
use crate::model::binding::Asked;
use crate::model::facts::{Attachment, Container, Published};

/// What stays the same while a container has its name.
#[derive(Debug, PartialEq)]
pub struct Base {
    pub name: String,
    /// JSON: a tenth of what the map takes, and needed only when a change is told.
    pub labels: Box<str>,
    pub network_mode: String,
    pub created: u64,
    pub asked: Option<Arc<Asked>>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Slot {
    /// `None` until the list has shown it.
    pub base: Option<Arc<Base>>,
    pub running: bool,
    /// What the list said last.
    listed: bool,
    pub attachments: Vec<Attachment>,
    pub published: Vec<Published>,
    /// Counts the times that it left a network.
    pub era: u32,
}

impl Slot {
    pub fn container(&self, id: &str, base: &Base) -> Container {
        let labels: BTreeMap<_, _> = serde_json::from_str(&base.labels).expect("written by serde_json");
        Container {
            id: id.to_owned(),
            name: base.name.clone(),
            labels,
            network_mode: base.network_mode.clone(),
            running: self.running,
            created: base.created,
            attachments: self.attachments.clone(),
            published: self.published.clone(),
            asked: base.asked.clone(),
        }
    }

    /// Gives back those of its addresses that the list does not show.
    pub fn listed(&mut self, base: Arc<Base>, listed: Listed) -> Vec<Attachment> {
        let mut attachments = listed.attachments;
        let mut unseen = Vec::new();
        for known in self.attachments.drain(..).filter(|known| !known.addresses.is_empty()) {
            let same = attachments.iter_mut().find(|one| is_on(one, &known.network_id, &known.network));
            let Some(one) = same else {
                unseen.push(known.clone());
                attachments.push(known);
                continue;
            };
            if one.network_id.is_empty() {
                one.network_id.clone_from(&known.network_id);
            }
            if one.addresses.is_empty() {
                one.addresses.clone_from(&known.addresses);
                unseen.push(known);
            }
        }
        self.listed = listed.running;
        self.running = listed.running || attachments.iter().any(|one| !one.addresses.is_empty());
        self.attachments = attachments;
        self.published = listed.published;
        self.base = Some(base);
        unseen
    }

    pub fn joined(&mut self, endpoint: &Endpoint, addresses: Vec<IpAddr>) {
        self.running = true;
        match self.attachments.iter_mut().find(|one| is_on(one, &endpoint.network, &endpoint.network_name)) {
            Some(one) => {
                one.network_id.clone_from(&endpoint.network);
                one.addresses = addresses;
            }
            None => self.attachments.push(Attachment {
                network_id: endpoint.network.clone(),
                network: endpoint.network_name.clone(),
                addresses,
                gateway_priority: 0,
            }),
        }
    }

    pub fn left(&mut self, network: &str) {
        self.era += 1;
        for one in self.attachments.iter_mut().filter(|one| one.network_id == network) {
            one.addresses.clear();
        }
    }

    /// Neither the list nor the network has the address.
    pub fn absent(&mut self, endpoint: &Endpoint) {
        for one in self.attachments.iter_mut().filter(|one| is_on(one, &endpoint.network, &endpoint.network_name)) {
            one.addresses.clear();
        }
        self.running = self.listed || self.attachments.iter().any(|one| !one.addresses.is_empty());
    }

    pub fn stopped(&mut self) {
        self.era += 1;
        self.running = false;
        self.listed = false;
        self.published.clear();
        self.attachments.iter_mut().for_each(|one| one.addresses.clear());
    }
}

/// Before the first start only the network's name is known.
pub fn is_on(attachment: &Attachment, network_id: &str, name: &str) -> bool {
    if attachment.network_id.is_empty() || network_id.is_empty() { attachment.network == name } else { attachment.network_id == network_id }
}
