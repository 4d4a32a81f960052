//! What is known of an engine's containers and networks, and how an event or an answer changes it. No I/O, and no clock: what is newer is
//! told by the order in which things were asked and heard, never by the engine's dates.
//!
//! A container is described by two sources. The engine's *list* knows everything, but learns addresses only when the start is over. Its *events*
//! with a network inspect know an address before the container's first instruction. So an address that an event brought stays until an
//! event takes it (`disconnect`, `die`), or until its network, asked because the list does not show it, does not have it either.

mod problems;
mod slot;

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use problems::Problems;
use slot::{Base, Slot, is_on};

use super::read::{Event, Listed};
use super::wire::List;
use crate::model::binding;
use crate::model::facts::{Attachment, Container, EngineChange, Network};

/// Reads what a container's labels ask for; `None` when none of them is ours.
pub type Parse = Arc<dyn Fn(&Container) -> Option<Arc<binding::Asked>> + Send + Sync>;

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
    /// No event told of it: its network alone says whether it is true.
    doubted: bool,
}

/// A container that the list is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    pub id: String,
    /// [`EngineState::era`] at the question.
    pub era: u32,
    /// The list should have caught up with the events by now: what it does not show is doubted.
    pub settled: bool,
}

/// What follows from an event or an answer.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Followup {
    pub changes: Vec<EngineChange>,
    pub asks: Vec<Ask>,
}

/// All that the engine has.
pub struct Everything {
    pub containers: List<Listed>,
    pub networks: List<Network>,
}

/// The containers and networks of one engine.
pub struct EngineState {
    slots: HashMap<String, Slot>,
    networks: HashMap<String, Network>,
    parse: Parse,
    /// While everything is being listed: of what was spoken meanwhile. That is newer than the list.
    touched: Option<HashSet<String>>,
    /// Networks that containers are on and the engine was asked for, since everything was listed.
    sought: HashSet<String>,
    problems: Problems,
}

impl EngineState {
    pub fn new(parse: Parse) -> Self {
        let (slots, networks, touched, sought, problems) = Default::default();
        Self { slots, networks, parse, touched, sought, problems }
    }

    /// Everything is about to be listed.
    pub fn begin(&mut self) {
        self.touched = Some(HashSet::new());
    }

    /// Takes in everything for the first time: what is known from now on.
    pub fn restart(&mut self, everything: Everything) -> Followup {
        let followup = self.everything(everything);
        let containers = followup.changes.into_iter().filter_map(|change| match change {
            EngineChange::Container(container) => Some(*container),
            _ => None,
        });
        let snapshot = EngineChange::Snapshot { containers: containers.collect(), networks: self.networks.values().cloned().collect() };
        let problems = self.problems.unless(&Problems::default());
        // A container that is being started has said so before anybody listened, and the list has no address yet.
        let asks = followup.asks.into_iter().chain(self.starting());
        Followup { asks: asks.collect(), changes: [snapshot].into_iter().chain(problems).collect() }
    }

    /// Takes in everything once more: what is different, but for that of which was spoken since [`EngineState::begin`].
    pub fn everything(&mut self, everything: Everything) -> Followup {
        let touched = self.touched.take().unwrap_or_default();
        let Everything { containers, networks } = everything;
        let mut followup = Followup::default();
        self.sought.clear();
        let before = std::mem::take(&mut self.problems);
        let mut there: HashSet<String> = touched;
        for network in networks.entries.into_iter().filter(|network| !there.contains(&network.id)).collect::<Vec<_>>() {
            there.insert(network.id.clone());
            followup.changes.extend(self.network(network));
        }
        let mut listed: HashSet<String> = HashSet::with_capacity(containers.entries.len());
        for one in containers.entries.into_iter().filter(|one| !there.contains(&one.id)) {
            listed.insert(one.id.clone());
            followup.add(self.listed(one, true));
        }
        there.extend(listed);
        self.problems.note("container", &containers.broken);
        self.problems.note("network", &networks.broken);
        there.extend(containers.broken.into_iter().chain(networks.broken).map(|one| one.id));
        let gone: Vec<String> = self.slots.keys().filter(|id| !there.contains(*id)).cloned().collect();
        followup.changes.extend(gone.iter().filter_map(|id| self.gone(id)));
        let gone: Vec<String> = self.networks.keys().filter(|id| !there.contains(*id)).cloned().collect();
        followup.changes.extend(gone.iter().filter_map(|id| self.network_gone(id)));
        followup.changes.extend(self.problems.unless(&before));
        followup
    }

    /// What has to be asked because of an event that the first list may be newer than.
    pub fn doubt(&mut self, event: Event) -> Option<Ask> {
        match event {
            Event::Created { id, .. } | Event::Started(id) | Event::Renamed(id) | Event::Destroyed(id) => Some(Ask::Container(id)),
            Event::Died(id) | Event::Disconnected { container: id, .. } => Some(Ask::ContainerLater(id)),
            Event::Connected { container, network, name, driver } => self.connected(container, network, name, &driver),
            Event::NetworkCreated(id) | Event::NetworkDestroyed(id) => Some(Ask::Network(id)),
        }
    }

    /// What came of asking a network for its containers: a failure concerns that network alone.
    pub fn network_answers(&mut self, network: &str, failure: Option<String>) -> Option<EngineChange> {
        let before = self.problems.clone();
        self.problems.network(self.networks.get(network).map_or(network, |network| network.name.as_str()), failure);
        self.problems.unless(&before)
    }

    /// Takes in an event: what changes at once, and what has to be asked.
    pub fn event(&mut self, event: Event) -> Followup {
        self.touch(event.object());
        match event {
            // Whether a container or a network is gone, only the engine's list says: some engines tell the end of what stays.
            Event::Created { id, .. } | Event::Started(id) | Event::Renamed(id) | Event::Destroyed(id) => Followup::ask(Ask::Container(id)),
            Event::Died(id) => {
                let change = self.change(&id, Slot::stopped);
                let ask = self.is_unknown(&id).then_some(Ask::ContainerLater(id));
                Followup::of(change, ask)
            }
            Event::Connected { container, network, name, driver } => {
                let seek = self.seek(&network);
                let ask = self.connected(container, network, name, &driver);
                Followup { changes: Vec::new(), asks: ask.into_iter().chain(seek).collect() }
            }
            Event::Disconnected { container, network } => {
                let change = self.change(&container, |slot| slot.left(&network));
                Followup::of(change, Some(Ask::ContainerLater(container)))
            }
            Event::NetworkCreated(id) | Event::NetworkDestroyed(id) => Followup::ask(Ask::Network(id)),
        }
    }

    /// Takes in an answer to [`Ask::Network`].
    pub fn network_found(&mut self, id: &str, network: Option<Network>) -> Option<EngineChange> {
        self.touch(id);
        match network {
            Some(network) => self.network(network),
            None => self.network_gone(id),
        }
    }

    fn network(&mut self, network: Network) -> Option<EngineChange> {
        if self.networks.get(&network.id) == Some(&network) {
            return None;
        }
        self.networks.insert(network.id.clone(), network.clone());
        Some(EngineChange::Network(Box::new(network)))
    }

    fn network_gone(&mut self, id: &str) -> Option<EngineChange> {
        self.networks.remove(id).map(|network| EngineChange::NetworkGone(network.id))
    }

    /// Once for each network that a container is on and that is not known.
    fn seek(&mut self, network: &str) -> Option<Ask> {
        let unknown = !network.is_empty() && !self.networks.contains_key(network) && self.sought.insert(network.to_owned());
        unknown.then(|| Ask::Network(network.to_owned()))
    }

    /// Whether a container is on the network.
    pub fn has_somebody_on(&self, network: &str) -> bool {
        self.slots.values().flat_map(|slot| &slot.attachments).any(|one| one.network_id == network && !one.addresses.is_empty())
    }

    fn touch(&mut self, id: &str) {
        if let Some(touched) = &mut self.touched {
            touched.insert(id.to_owned());
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
            published: Vec::new(),
            asked: None,
        };
        let placement = (self.parse)(&container)?.placement.clone();
        placement.asks().then_some(EngineChange::Made { container: container.id, name: container.name, placement })
    }

    /// A container that the engine does not have any more.
    fn gone(&mut self, id: &str) -> Option<EngineChange> {
        let known = self.slots.remove(id)?.base.is_some();
        known.then(|| EngineChange::ContainerGone(id.to_owned()))
    }

    /// The era to hand to [`EngineState::relisted`] with the answer.
    pub fn era(&self, id: &str) -> u32 {
        self.slots.get(id).map_or(0, |slot| slot.era)
    }

    /// Whether the container is still there and has left no network since.
    pub fn is_open(&self, endpoint: &Endpoint) -> bool {
        self.slots.get(&endpoint.container).is_some_and(|slot| slot.era == endpoint.era)
    }

    /// Takes in an answer about containers. One from an older era does not tell where its container is now.
    pub fn relisted(&mut self, mut asked: Vec<Asked>, list: List<Listed>) -> Followup {
        let mut followup = Followup::default();
        let before = self.problems.clone();
        asked.iter().for_each(|one| self.touch(&one.id));
        for mut one in list.entries {
            let Some(place) = asked.iter().position(|asked| asked.id == one.id) else { continue };
            let Asked { era, settled, .. } = asked.swap_remove(place);
            if era != self.era(&one.id) {
                one.running = false;
                one.attachments.iter_mut().for_each(|attachment| attachment.addresses.clear());
            }
            followup.add(self.listed(one, settled));
        }
        asked.retain(|asked| list.broken.iter().all(|one| one.id != asked.id));
        for one in asked {
            self.problems.forgive(&one.id);
            followup.changes.extend(self.gone(&one.id));
        }
        self.problems.note("container", &list.broken);
        followup.changes.extend(self.problems.unless(&before));
        followup
    }

    /// Takes in a container's addresses; `None` when the network does not have it.
    pub fn addresses(&mut self, endpoint: &Endpoint, addresses: Option<Vec<IpAddr>>) -> Followup {
        let container = &endpoint.container;
        self.touch(container);
        let now = self.era(container) == endpoint.era;
        match addresses.filter(|_| now) {
            Some(addresses) => {
                let change = self.change(container, |slot| slot.joined(endpoint, addresses));
                let ask = self.is_unknown(container).then(|| Ask::Container(container.clone()));
                Followup::of(change, ask)
            }
            None if endpoint.doubted && now => Followup::of(self.change(container, |slot| slot.absent(endpoint)), None),
            None if endpoint.doubted => Followup::default(),
            None => Followup::ask(Ask::ContainerLater(container.clone())),
        }
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
        Some(Ask::Addresses(Endpoint { container, network, network_name, era, doubted: false }))
    }

    /// Questions for the places of containers that the list says do not run.
    fn starting(&self) -> Vec<Ask> {
        let mut asks = Vec::new();
        for (id, slot) in self.slots.iter().filter(|(_, slot)| !slot.running) {
            asks.extend(slot.attachments.iter().filter_map(|attachment| self.doubted(id, slot.era, attachment)));
        }
        asks
    }

    fn doubted(&self, id: &str, era: u32, attachment: &Attachment) -> Option<Ask> {
        let named = |network: &&Network| is_on(attachment, &network.id, &network.name);
        let known = self.networks.get(&attachment.network_id).or_else(|| self.networks.values().find(named))?;
        (known.driver == "bridge").then(|| {
            Ask::Addresses(Endpoint {
                container: id.to_owned(),
                network: known.id.clone(),
                network_name: attachment.network.clone(),
                era,
                doubted: true,
            })
        })
    }

    fn listed(&mut self, listed: Listed, settled: bool) -> Followup {
        self.problems.forgive(&listed.id);
        let old = self.slots.get(&listed.id).and_then(|slot| slot.base.clone());
        let base = old.filter(|base| base.name == listed.name && base.network_mode == listed.network_mode);
        let base = base.unwrap_or_else(|| Arc::new(self.base(&listed)));
        let id = listed.id.clone();
        let mut unseen = Vec::new();
        let change = self.change(&id, |slot| unseen = slot.listed(base, listed));
        let mut asks: Vec<Ask> = Vec::new();
        if settled {
            let era = self.era(&id);
            asks.extend(unseen.iter().filter_map(|attachment| self.doubted(&id, era, attachment)));
        }
        let networks = self.slots.get(&id).into_iter().flat_map(|slot| &slot.attachments).map(|one| one.network_id.clone());
        for network in networks.collect::<Vec<_>>() {
            asks.extend(self.seek(&network));
        }
        Followup { changes: change.into_iter().collect(), asks }
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
            published: Vec::new(),
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
            && (before.running, &before.attachments, &before.published) == (slot.running, &slot.attachments, &slot.published);
        (!same).then(|| EngineChange::Container(Box::new(slot.container(id, base))))
    }
}

impl Followup {
    fn of(change: Option<EngineChange>, ask: Option<Ask>) -> Self {
        Self { changes: change.into_iter().collect(), asks: ask.into_iter().collect() }
    }

    fn ask(ask: Ask) -> Self {
        Self::of(None, Some(ask))
    }

    fn add(&mut self, other: Self) {
        self.changes.extend(other.changes);
        self.asks.extend(other.asks);
    }
}

#[cfg(test)]
mod tests;
