//! What is known of an engine's containers, and how an event or an answer changes it. No I/O.
//!
//! Two voices speak of a container. The engine's *list* knows everything, but learns addresses only when the start is over. Its *events*
//! with a network inspect know an address before the container's first instruction. So an address that an event brought stays until an
//! event takes it (`disconnect`, `die`), whatever the list says meanwhile; all else is the list's.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use super::read::{Event, Listed};
use crate::model::binding::Asked;
use crate::model::facts::{Attachment, Container, EngineChange};

/// Reads what a container's labels ask for; `None` when none of them is ours.
pub type Parse = Arc<dyn Fn(&Container) -> Option<Arc<Asked>> + Send + Sync>;

/// What has to be asked of the engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    Container(String),
    /// The same, a while later: the list lags behind this event.
    ContainerLater(String),
    /// The container's addresses on the network.
    Addresses(Endpoint),
    Network(String),
}

/// A container's place on a network, as an event told of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub container: String,
    pub network: String,
    pub network_name: String,
    /// Of the container's [`Slot`] at that event: an answer to a question that is older than its last leaving says nothing.
    era: u32,
}

/// What stays the same while a container has its name.
#[derive(Debug, PartialEq)]
struct Base {
    name: String,
    /// JSON: a tenth of what the map takes, and needed only when a change is told.
    labels: Box<str>,
    network_mode: String,
    created: u64,
    asked: Option<Arc<Asked>>,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Slot {
    /// `None` until the list has shown it.
    base: Option<Arc<Base>>,
    running: bool,
    attachments: Vec<Attachment>,
    /// Counts the times that it left a network.
    era: u32,
}

/// The containers of one engine.
pub struct Book {
    slots: HashMap<String, Slot>,
    parse: Parse,
}

impl Book {
    pub fn new(parse: Parse) -> Self {
        Self { slots: HashMap::new(), parse }
    }

    /// Takes in the list as a whole, and gives it back as facts.
    pub fn restart(&mut self, listed: Vec<Listed>) -> Vec<Container> {
        self.slots = HashMap::with_capacity(listed.len());
        let mut containers = Vec::with_capacity(listed.len());
        for one in listed {
            if let Some(EngineChange::Container(container)) = self.listed(one) {
                containers.push(*container);
            }
        }
        containers
    }

    /// Takes in an event: what changes at once, and what has to be asked.
    pub fn event(&mut self, event: Event) -> (Option<EngineChange>, Option<Ask>) {
        match event {
            Event::Created { id, .. } | Event::Started(id) | Event::Renamed(id) => (None, Some(Ask::Container(id))),
            Event::Died(id) => {
                let change = self.change(&id, Slot::stopped);
                (change, self.is_unknown(&id).then_some(Ask::ContainerLater(id)))
            }
            Event::Destroyed(id) => (self.gone(&id), None),
            Event::Connected { container, network, name, driver } => (None, self.connected(container, network, name, &driver)),
            Event::Disconnected { container, network } => {
                let change = self.change(&container, |slot| slot.left(&network));
                (change, Some(Ask::ContainerLater(container)))
            }
            Event::NetworkCreated(id) => (None, Some(Ask::Network(id))),
            Event::NetworkDestroyed(id) => (Some(EngineChange::NetworkGone(id)), None),
        }
    }

    /// A container that is being made, when its labels say where it is to be put. All else of it is told once the list has shown it.
    pub fn made(&self, event: &Event) -> Option<EngineChange> {
        let Event::Created { id, name, labels } = event else { return None };
        let container = Container {
            id: id.clone(),
            name: name.clone(),
            labels: labels.clone(),
            network_mode: String::new(),
            running: false,
            created: 0,
            attachments: Vec::new(),
            asked: None,
        };
        let placement = (self.parse)(&container)?.placement.clone();
        placement.asks().then_some(EngineChange::Made { container: container.id, name: container.name, placement })
    }

    /// A container that the list does not have any more.
    pub fn gone(&mut self, id: &str) -> Option<EngineChange> {
        let known = self.slots.remove(id)?.base.is_some();
        known.then(|| EngineChange::ContainerGone(id.to_owned()))
    }

    /// The era to hand to [`Book::relisted`] with the answer.
    pub fn era(&self, id: &str) -> u32 {
        self.slots.get(id).map_or(0, |slot| slot.era)
    }

    /// Takes in an answer of the list; one that was asked for in an older `era` does not tell where the container is now.
    pub fn relisted(&mut self, mut listed: Listed, era: u32) -> Option<EngineChange> {
        if self.era(&listed.id) != era {
            listed.running = false;
            listed.attachments.iter_mut().for_each(|attachment| attachment.addresses.clear());
        }
        self.listed(listed)
    }

    /// Takes in a container's addresses; `None` when the network does not have it.
    pub fn addresses(&mut self, endpoint: &Endpoint, addresses: Option<Vec<IpAddr>>) -> (Option<EngineChange>, Option<Ask>) {
        let Some(addresses) = addresses.filter(|_| self.era(&endpoint.container) == endpoint.era) else {
            return (None, Some(Ask::ContainerLater(endpoint.container.clone())));
        };
        let change = self.change(&endpoint.container, |slot| slot.joined(endpoint, addresses));
        (change, self.is_unknown(&endpoint.container).then(|| Ask::Container(endpoint.container.clone())))
    }

    /// The list has not shown it yet, so its labels are not known.
    fn is_unknown(&self, id: &str) -> bool {
        self.slots.get(id).is_none_or(|slot| slot.base.is_none())
    }

    fn connected(&self, container: String, network: String, network_name: String, driver: &str) -> Option<Ask> {
        // These two give no address.
        if matches!(driver, "host" | "null") {
            return None;
        }
        let era = self.era(&container);
        Some(Ask::Addresses(Endpoint { container, network, network_name, era }))
    }

    fn listed(&mut self, listed: Listed) -> Option<EngineChange> {
        let old = self.slots.get(&listed.id).and_then(|slot| slot.base.clone());
        let base = old.filter(|base| base.name == listed.name && base.network_mode == listed.network_mode);
        let base = base.unwrap_or_else(|| Arc::new(self.base(&listed)));
        let id = listed.id.clone();
        self.change(&id, |slot| slot.listed(base, listed))
    }

    fn base(&self, listed: &Listed) -> Base {
        let mut container = Container {
            id: listed.id.clone(),
            name: listed.name.clone(),
            labels: listed.labels.clone(),
            network_mode: listed.network_mode.clone(),
            running: listed.running,
            created: listed.created,
            attachments: Vec::new(),
            asked: None,
        };
        let asked = (self.parse)(&container);
        let labels = serde_json::to_string(&container.labels).expect("a map of strings is JSON").into();
        let name = std::mem::take(&mut container.name);
        Base { name, labels, network_mode: container.network_mode, created: listed.created, asked }
    }

    /// Changes a slot and tells of it when it is another one then.
    fn change(&mut self, id: &str, change: impl FnOnce(&mut Slot)) -> Option<EngineChange> {
        let slot = self.slots.entry(id.to_owned()).or_default();
        let before = slot.clone();
        change(slot);
        let base = slot.base.as_ref()?;
        let same = before.base.as_ref().is_some_and(|old| Arc::ptr_eq(old, base))
            && (before.running, &before.attachments) == (slot.running, &slot.attachments);
        (!same).then(|| EngineChange::Container(Box::new(slot.container(id, base))))
    }
}

impl Slot {
    fn container(&self, id: &str, base: &Base) -> Container {
        let labels: BTreeMap<_, _> = serde_json::from_str(&base.labels).expect("written by serde_json");
        Container {
            id: id.to_owned(),
            name: base.name.clone(),
            labels,
            network_mode: base.network_mode.clone(),
            running: self.running,
            created: base.created,
            attachments: self.attachments.clone(),
            asked: base.asked.clone(),
        }
    }

    fn listed(&mut self, base: Arc<Base>, listed: Listed) {
        let mut attachments = listed.attachments;
        for known in self.attachments.drain(..).filter(|known| !known.addresses.is_empty()) {
            let same = attachments.iter_mut().find(|one| is_on(one, &known.network_id, &known.network));
            let Some(one) = same else {
                attachments.push(known);
                continue;
            };
            if one.network_id.is_empty() {
                one.network_id = known.network_id;
            }
            if one.addresses.is_empty() {
                one.addresses = known.addresses;
            }
        }
        self.running = listed.running || attachments.iter().any(|one| !one.addresses.is_empty());
        self.attachments = attachments;
        self.base = Some(base);
    }

    fn joined(&mut self, endpoint: &Endpoint, addresses: Vec<IpAddr>) {
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

    fn left(&mut self, network: &str) {
        self.era += 1;
        for one in self.attachments.iter_mut().filter(|one| one.network_id == network) {
            one.addresses.clear();
        }
    }

    fn stopped(&mut self) {
        self.era += 1;
        self.running = false;
        self.attachments.iter_mut().for_each(|one| one.addresses.clear());
    }
}

/// Before the first start only the network's name is known.
fn is_on(attachment: &Attachment, network_id: &str, name: &str) -> bool {
    if attachment.network_id.is_empty() || network_id.is_empty() { attachment.network == name } else { attachment.network_id == network_id }
}

#[cfg(test)]
mod tests;
