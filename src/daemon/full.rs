//! Servers of published ports that are full, until one of their flows ends: the kernel tells nothing of that, so they are looked at beside the
//! loop, as long as there is one.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use foldhash::{HashMap, HashMapExt};
use tracing::debug;

use super::{Event, EventSender, threads};
use crate::effects::conntrack::{Flow, Flows};
use crate::effects::nft;
use crate::facts::cause::with_causes;
use crate::model::ports::Protocol;
use crate::model::services::{LimitedServer, Services};

/// How often it is looked whether a server is full, and whether those that are still have as many flows.
const EVERY: Duration = Duration::from_millis(250);
/// After a look through conntrack's table, at least this many times as long as it took.
const REST: u32 = 4;
/// `TCP_CONNTRACK_TIME_WAIT` and `TCP_CONNTRACK_CLOSE`: the kernel does not count these either.
const CLOSED: [u8; 2] = [7, 8];

/// The servers that have a limit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Limited {
    /// With the flows that each may have.
    servers: BTreeMap<LimitedServer, u32>,
    /// The addresses that are called.
    called: BTreeSet<IpAddr>,
}

/// The full servers: reports those that are not full any more.
pub(super) struct FullServers {
    limited: Limited,
    thread: mpsc::Sender<Limited>,
}

impl FullServers {
    pub fn new(tell: EventSender) -> Self {
        Self { limited: Limited::default(), thread: threads::start("full", move |limited| watch(limited, &tell)) }
    }

    /// From now on those of these services are looked at, and no others.
    pub fn want(&mut self, services: &Services) {
        let limited = Limited { servers: services.limited(), called: services.all.iter().map(|service| service.address).collect() };
        if self.limited.servers.is_empty() && limited.servers.is_empty() {
            return;
        }
        if self.limited != limited {
            self.limited = limited.clone();
            let _ = self.thread.send(limited);
        }
    }
}

/// The thread; it ends when the sender is dropped.
fn watch(limited: &mpsc::Receiver<Limited>, tell: &EventSender) {
    let mut now = Limited::default();
    let mut rest = EVERY;
    loop {
        let Ok(mut given) = threads::all_given(limited, (!now.servers.is_empty()).then_some(rest)) else { return };
        if let Some(newest) = given.pop() {
            now = newest;
            continue;
        }
        let began = Instant::now();
        let free = free(&now);
        rest = EVERY.max(began.elapsed() * REST);
        if !free.is_empty() && tell.send(Event::ServersFree(free)).is_err() {
            return;
        }
    }
}

/// The servers that the kernel takes for full, and that may have more flows than they have.
fn free(limited: &Limited) -> Vec<LimitedServer> {
    let mut full = match nft::full() {
        Ok(full) => full,
        Err(error) => {
            debug!(error = with_causes(&error), "failed to read which servers are full");
            return Vec::new();
        }
    };
    full.retain(|server| limited.servers.contains_key(server));
    if full.is_empty() {
        return Vec::new();
    }
    let mut open: HashMap<LimitedServer, u32> = HashMap::new();
    let read = Flows::open().and_then(|mut flows| {
        flows.for_each(|flow| {
            if let Some(server) = server(&flow).filter(|_| limited.called.contains(&flow.destination)) {
                *open.entry(server).or_default() += 1;
            }
        })
    });
    if let Err(error) = read {
        debug!(error = with_causes(&error), "failed to count the flows of full servers");
        return Vec::new();
    }
    let is_free = |server: &LimitedServer| open.get(server).copied().unwrap_or(0) < limited.servers[server];
    full.into_iter().filter(is_free).collect()
}

/// The server of an open flow to a published port.
fn server(flow: &Flow) -> Option<LimitedServer> {
    let protocol = Protocol::numbered(flow.protocol)?;
    let open = flow.destination != flow.reply_source && !flow.tcp_state.is_some_and(|state| CLOSED.contains(&state));
    open.then_some(LimitedServer { address: flow.reply_source, protocol, port: flow.reply_source_port })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_flows_to_published_ports_count() {
        let flow = Flow { protocol: 6, tcp_state: Some(3), reply_source: [10, 0, 0, 2].into(), reply_source_port: 1234, ..Flow::sample() };
        let counted = |change: fn(&mut Flow)| {
            let mut flow = flow;
            change(&mut flow);
            server(&flow).map(|server| server.port)
        };
        assert_eq!(counted(|_| {}), Some(1234));
        assert_eq!(counted(|flow| flow.tcp_state = Some(7)), None, "TIME_WAIT");
        assert_eq!(counted(|flow| flow.destination = flow.reply_source), None, "it was not translated");
        assert_eq!(counted(|flow| flow.protocol = 1), None, "ICMP");
    }
}
