//! What is known of a containerd's containers, and how an event or an answer changes it. No I/O.
//!
//! A container is told of while it has a task, and from the moment that its record is made if the record names its network namespace: a
//! pod's does. One without a task that is only found in the list is not told of: it is over, or the event of its task is yet to come. But one
//! that says which bridges it is going to ask for an exit on is told of from first to last: its next task may send before its event is here.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::event::Event;
use super::nerdctl;
use super::record::{Id, Network, Record, Subject};
use crate::model::binding::Asked;
use crate::model::facts::Container;
use crate::model::field_error::FieldError;
use crate::model::pod::{NetworkNamespace, Owner, RuntimeChange, Sandbox};

/// Reads what a container's labels ask for; `None` when none of them is ours.
pub type Parse = Arc<dyn Fn(&Container) -> Option<Arc<Asked>> + Send + Sync>;

/// What has to be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// containerd, for the record.
    Record(Id),
    /// The kernel, for the network namespace of a task.
    Namespace { id: Id, pid: u32 },
}

/// What follows from an event or an answer. When the kernel is to be asked first, the change comes with its answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Followup {
    pub change: Option<RuntimeChange>,
    pub ask: Option<Ask>,
}

/// An answer to [`Ask::Record`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// There is no such record any more.
    Nothing,
    /// It is a container's in a pod, or cannot be read.
    Useless,
    Record(Record),
}

/// What the list shows: records by id, and the process of each task that is not over.
pub struct Listed {
    pub records: Vec<(Id, Record)>,
    pub tasks: HashMap<Id, u32>,
    /// Those whose task cannot be asked for: its shim does not answer.
    pub mute: HashSet<Id>,
}

/// The containers of one containerd.
pub struct RuntimeState {
    slots: HashMap<Id, Slot>,
    parse: Parse,
    /// While the list is being read: of what events spoke meanwhile. They know better.
    touched: Option<HashSet<Id>>,
}

struct Slot {
    about: About,
    task: Task,
    told: Option<Arc<Sandbox>>,
}

enum About {
    /// The record was asked for.
    Asked,
    /// It is of no use.
    Passed,
    Known {
        owner: Owner,
        network: Network,
        created: u64,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Task {
    /// It is yet to come.
    Awaited,
    Runs {
        pid: u32,
        /// For a network namespace without a name.
        namespace: NetworkNamespace,
    },
    Over,
}

impl About {
    fn announces(&self) -> bool {
        matches!(self, Self::Known { owner, .. } if owner.announces())
    }
}

impl Slot {
    fn new(task: Task) -> Self {
        Self { about: About::Asked, task, told: None }
    }
}

impl RuntimeState {
    pub fn new(parse: Parse) -> Self {
        Self { slots: HashMap::new(), parse, touched: None }
    }

    /// All that is to be told.
    pub fn sandboxes(&self) -> Vec<Sandbox> {
        self.slots.values().filter_map(|slot| slot.told.as_deref().cloned()).collect()
    }

    pub fn event(&mut self, id: Id, event: Event) -> Followup {
        self.touch(&id);
        match event {
            Event::Created => {
                self.slots.entry(id.clone()).or_insert_with(|| Slot::new(Task::Awaited));
                Followup { change: None, ask: Some(Ask::Record(id)) }
            }
            Event::Updated => Followup { change: None, ask: self.slots.contains_key(&id).then_some(Ask::Record(id)) },
            Event::Deleted => Followup { change: self.gone(&id), ask: None },
            Event::TaskBegan { pid } => self.began(id, pid),
            Event::TaskEnded { pid } => {
                if let Some(slot) = self.slots.get_mut(&id)
                    // That of an earlier task may come late.
                    && !matches!(slot.task, Task::Runs { pid: now, .. } if now != pid)
                {
                    slot.task = Task::Over;
                }
                self.settle(id)
            }
        }
    }

    /// Takes in an answer to [`Ask::Record`].
    pub fn found(&mut self, id: Id, found: Found) -> Followup {
        self.touch(&id);
        if !self.slots.contains_key(&id) {
            return Followup::default();
        }
        match found {
            Found::Nothing => return Followup { change: self.gone(&id), ask: None },
            Found::Useless => self.learn(&id, About::Passed),
            Found::Record(record) => self.learn(&id, self.about(&id, record)),
        }
        self.settle(id)
    }

    /// Takes in an answer to [`Ask::Namespace`].
    pub fn namespace(&mut self, id: &Id, pid: u32, found: NetworkNamespace) -> Option<RuntimeChange> {
        if let Some(Slot { task: Task::Runs { pid: now, namespace }, .. }) = self.slots.get_mut(id)
            && *now == pid
        {
            *namespace = found;
        }
        self.tell(id)
    }

    /// The list is about to be read.
    pub fn begin(&mut self) {
        self.touched = Some(HashSet::new());
    }

    /// Takes in the list as a whole.
    pub fn listed(&mut self, listed: Listed) -> Vec<Followup> {
        let Listed { records, tasks, mute } = listed;
        let touched = self.touched.take().unwrap_or_default();
        let mut unseen: HashSet<Id> = self.slots.keys().filter(|id| !touched.contains(id)).cloned().collect();
        let mut followups = Vec::new();
        for (id, record) in records.into_iter().filter(|(id, _)| !touched.contains(id)) {
            unseen.remove(&id);
            let about = self.about(&id, record);
            match (tasks.get(&id), self.slots.get_mut(&id)) {
                (Some(pid), Some(slot)) => slot.run(*pid),
                (Some(pid), None) => {
                    let mut slot = Slot::new(Task::Awaited);
                    slot.run(*pid);
                    self.slots.insert(id.clone(), slot);
                }
                (None, Some(slot)) if slot.task == Task::Awaited || mute.contains(&id) => {}
                // Whether it has a task nobody knows; it is told of as far as its record goes.
                (None, None) if mute.contains(&id) => drop(self.slots.insert(id.clone(), Slot::new(Task::Awaited))),
                (None, Some(slot)) if about.announces() => slot.task = Task::Over,
                (None, None) if about.announces() => drop(self.slots.insert(id.clone(), Slot::new(Task::Over))),
                (None, Some(_)) => {
                    followups.push(Followup { change: self.gone(&id), ask: None });
                    continue;
                }
                (None, None) => continue,
            }
            self.learn(&id, about);
            followups.push(self.settle(id));
        }
        // The list leaves out what is in pods; that is of no use here either.
        followups.extend(unseen.into_iter().map(|id| Followup { change: self.gone(&id), ask: None }));
        followups
    }

    fn touch(&mut self, id: &Id) {
        if let Some(touched) = &mut self.touched {
            touched.insert(id.clone());
        }
    }

    fn began(&mut self, id: Id, pid: u32) -> Followup {
        let Some(slot) = self.slots.get_mut(&id) else {
            let mut slot = Slot::new(Task::Awaited);
            slot.run(pid);
            self.slots.insert(id.clone(), slot);
            return Followup { change: None, ask: Some(Ask::Record(id)) };
        };
        slot.run(pid);
        self.settle(id)
    }

    fn gone(&mut self, id: &Id) -> Option<RuntimeChange> {
        self.slots.remove(id)?.told.map(|_| RuntimeChange::Gone(id.to_string()))
    }

    fn learn(&mut self, id: &Id, about: About) {
        if let Some(slot) = self.slots.get_mut(id) {
            slot.about = about;
        }
    }

    fn about(&self, id: &Id, record: Record) -> About {
        let Record { subject, network, created } = record;
        let owner = match subject {
            Subject::Pod(pod) => Owner::Pod(pod),
            Subject::Alone { name, labels } => {
                let networks = nerdctl::networks(&labels);
                let mode = mode(&network, &networks);
                let container = Container {
                    id: id.to_string(),
                    name: name.clone(),
                    labels,
                    network_mode: mode.clone(),
                    running: true,
                    created,
                    attachments: Vec::new(),
                    published: Vec::new(),
                    asked: None,
                };
                let asked = (self.parse)(&container).map(|asked| refuse_placement(&name, asked));
                // Who is in another's namespace and asks for nothing would only be taken for its owner.
                if asked.is_none() && matches!(network, Network::Joined { .. }) {
                    return About::Passed;
                }
                let bound = asked.as_ref().is_some_and(|asked| asked.binding.is_some());
                let bridges = if bound { networks.iter().map(|name| nerdctl::bridge(name)).collect() } else { Vec::new() };
                Owner::Container { name, asked, mode, bridges }
            }
        };
        About::Known { owner, network, created }
    }

    /// What follows from what is known of a container by now.
    fn settle(&mut self, id: Id) -> Followup {
        if let Some(Slot { about: About::Known { network: Network::OfTask, .. }, task: Task::Runs { pid, .. }, .. }) = self.slots.get(&id) {
            return Followup { change: None, ask: Some(Ask::Namespace { pid: *pid, id }) };
        }
        Followup { change: self.tell(&id), ask: None }
    }

    fn tell(&mut self, id: &Id) -> Option<RuntimeChange> {
        let slot = self.slots.get_mut(id)?;
        let now = slot.sandbox(id);
        if now.as_ref() == slot.told.as_deref() {
            return None;
        }
        slot.told = now.clone().map(Arc::new);
        Some(now.map_or_else(|| RuntimeChange::Gone(id.to_string()), |sandbox| RuntimeChange::Sandbox(Box::new(sandbox))))
    }
}

impl Slot {
    fn run(&mut self, pid: u32) {
        if !matches!(self.task, Task::Runs { pid: now, .. } if now == pid) {
            self.task = Task::Runs { pid, namespace: NetworkNamespace::Unknown };
        }
    }

    fn sandbox(&self, id: &Id) -> Option<Sandbox> {
        let About::Known { owner, network, created } = &self.about else { return None };
        let network = match (network, &self.task) {
            (_, Task::Over) | (Network::OfTask, Task::Awaited) if owner.announces() => NetworkNamespace::Absent,
            (_, Task::Over) | (Network::OfTask | Network::Joined { .. }, Task::Awaited) => return None,
            (Network::Host, _) => NetworkNamespace::Host,
            (Network::Named(name), _) => NetworkNamespace::Named(name.clone()),
            (Network::OfTask, Task::Runs { namespace, .. }) => namespace.clone(),
            // It is another container's.
            (Network::Joined { .. }, Task::Runs { .. }) => NetworkNamespace::Unknown,
        };
        Some(Sandbox { id: id.to_string(), owner: owner.clone(), network, created: *created })
    }
}

/// The network as Docker would call it, as far as that is a reason to refuse the labels.
fn mode(network: &Network, networks: &[String]) -> String {
    match network {
        Network::OfTask if networks == ["none"] => "none".to_owned(),
        Network::Host => "host".to_owned(),
        Network::Joined { pid } => format!("container:{pid}"),
        Network::Named(_) | Network::OfTask => String::new(),
    }
}

/// Labels that put a container on a network are obeyed for Docker alone; what is asked for besides them is served.
fn refuse_placement(name: &str, asked: Arc<Asked>) -> Arc<Asked> {
    let placement = &asked.placement;
    let labels = [("egress.network", placement.network.is_some()), ("egress.container-ip", placement.address.is_some())];
    let refused: Vec<FieldError> = labels
        .into_iter()
        .filter(|(_, given)| *given)
        .map(|(label, _)| FieldError {
            field: label.to_owned(),
            message: "works for Docker's containers only; choose the network when the container is created (`nerdctl run --network`) and remove the label"
                .to_owned(),
        })
        .collect();
    if refused.is_empty() {
        return asked;
    }
    let mut asked = Arc::unwrap_or_clone(asked);
    asked.placement.network = None;
    asked.placement.address = None;
    match &mut asked.binding {
        Some(binding) => binding.warnings.extend(refused.iter().map(ToString::to_string)),
        None => refused.iter().for_each(|error| tracing::warn!(container = name, "{error}")),
    }
    asked.placement.errors.extend(refused);
    Arc::new(asked)
}

#[cfg(test)]
mod tests;
