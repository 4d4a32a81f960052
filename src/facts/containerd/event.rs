//! The events that matter, out of containerd's envelopes.

use containerd_client::events::{ContainerCreate, ContainerDelete, ContainerUpdate, TaskCreate, TaskDelete, TaskExit, TaskStart};
use containerd_client::types::Envelope;
use prost::Message;

use super::record::Id;

const CREATED: &str = "/containers/create";
const UPDATED: &str = "/containers/update";
const DELETED: &str = "/containers/delete";
const TASK_CREATED: &str = "/tasks/create";
const TASK_STARTED: &str = "/tasks/start";
const TASK_EXITED: &str = "/tasks/exit";
const TASK_DELETED: &str = "/tasks/delete";

/// What happened to a container. Those of its record are told by containerd, those of its task by its shim: the two may overtake each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Created,
    Updated,
    Deleted,
    /// Its first process is there, in its namespaces; told before and after that process runs the container's program.
    TaskBegan {
        pid: u32,
    },
    TaskEnded {
        pid: u32,
    },
}

/// The subscription's filters: any of them.
pub fn filters() -> Vec<String> {
    [CREATED, UPDATED, DELETED, TASK_CREATED, TASK_STARTED, TASK_EXITED, TASK_DELETED].map(|topic| format!("topic==\"{topic}\"")).into()
}

/// `None` for what says nothing of a container as a whole.
pub fn read(envelope: &Envelope) -> Option<(Id, Event)> {
    let body = envelope.event.as_ref()?.value.as_slice();
    let (id, event) = match envelope.topic.as_str() {
        CREATED => (ContainerCreate::decode(body).ok()?.id, Event::Created),
        UPDATED => (ContainerUpdate::decode(body).ok()?.id, Event::Updated),
        DELETED => (ContainerDelete::decode(body).ok()?.id, Event::Deleted),
        TASK_CREATED => {
            let TaskCreate { container_id, pid, .. } = TaskCreate::decode(body).ok()?;
            (container_id, Event::TaskBegan { pid })
        }
        TASK_STARTED => {
            let TaskStart { container_id, pid } = TaskStart::decode(body).ok()?;
            (container_id, Event::TaskBegan { pid })
        }
        // Processes that were started in a container later end with events of their own.
        TASK_EXITED => {
            let exit = TaskExit::decode(body).ok().filter(|exit| exit.id.is_empty() || exit.id == exit.container_id)?;
            (exit.container_id, Event::TaskEnded { pid: exit.pid })
        }
        TASK_DELETED => {
            let end = TaskDelete::decode(body).ok().filter(|end| end.id.is_empty() || end.id == end.container_id)?;
            (end.container_id, Event::TaskEnded { pid: end.pid })
        }
        _ => return None,
    };
    Some((Id { namespace: envelope.namespace.clone(), id }, event))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn envelope<M: Message + prost::Name>(topic: &str, event: &M) -> Envelope {
        Envelope {
            namespace: "k8s.io".to_owned(),
            topic: topic.to_owned(),
            event: Some(containerd_client::to_any(event)),
            ..Envelope::default()
        }
    }

    fn told<M: Message + prost::Name>(topic: &str, event: &M) -> Option<Event> {
        let (id, event) = read(&envelope(topic, event))?;
        assert_eq!(id.to_string(), "k8s.io/12dd8bac38e9");
        Some(event)
    }

    const ID: &str = "12dd8bac38e9";

    #[test]
    fn events_of_records_and_tasks_are_read() {
        assert_eq!(told(CREATED, &ContainerCreate { id: ID.to_owned(), ..Default::default() }), Some(Event::Created));
        assert_eq!(told(DELETED, &ContainerDelete { id: ID.to_owned() }), Some(Event::Deleted));
        let create = TaskCreate { container_id: ID.to_owned(), pid: 182, ..Default::default() };
        assert_eq!(told(TASK_CREATED, &create), Some(Event::TaskBegan { pid: 182 }));
        let exit = TaskExit { container_id: ID.to_owned(), id: ID.to_owned(), pid: 182, ..Default::default() };
        assert_eq!(told(TASK_EXITED, &exit), Some(Event::TaskEnded { pid: 182 }));
    }

    #[test]
    fn the_end_of_a_process_that_was_started_in_a_container_is_not_its_end() {
        let exit = TaskExit { container_id: ID.to_owned(), id: "probe-1".to_owned(), pid: 190, ..Default::default() };
        assert_eq!(told(TASK_EXITED, &exit), None);
        let delete = TaskDelete { container_id: ID.to_owned(), id: "probe-1".to_owned(), pid: 190, ..Default::default() };
        assert_eq!(told(TASK_DELETED, &delete), None);
    }

    #[test]
    fn an_event_that_cannot_be_read_is_passed_over() {
        let mut broken = envelope(CREATED, &ContainerDelete { id: ID.to_owned() });
        broken.event.as_mut().expect("a body").value = vec![0xff; 3];
        assert_eq!(read(&broken), None);
        assert_eq!(read(&Envelope { event: None, ..broken }), None);
    }
}
