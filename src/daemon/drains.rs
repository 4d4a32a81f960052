//! Servers that drain against a deadline: what is still open of them then is ended.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::model::ports::{Called, Ports, Protocol};
use crate::model::services::Services;
use crate::plan::inbound::ServerCut;

/// A server of a service.
type Of = (Called, IpAddr);

/// Who drains, of the servers that have a deadline for it.
#[derive(Debug, Default)]
pub(super) struct Drains {
    /// Those that get new connections, and how long they may drain.
    serving: HashMap<Of, Duration>,
    /// Those that get none any more, and when they have to be done; `None` once what was open has been ended.
    draining: BTreeMap<Of, Option<Instant>>,
}

impl Drains {
    /// Takes note of who serves, who has weight 0, and who left its service.
    pub fn note(&mut self, services: &Services, now: Instant) {
        let mut serving = HashMap::new();
        let (mut drained, mut unlimited) = (BTreeSet::new(), BTreeSet::new());
        for service in &services.all {
            for server in &service.servers {
                let of = ((service.address, service.ports), server.address);
                let Some(limit) = server.drain.map(|seconds| Duration::from_secs(seconds.into())) else {
                    self.draining.remove(&of);
                    unlimited.insert(of);
                    continue;
                };
                if server.weight > 0 {
                    self.draining.remove(&of);
                    serving.insert(of, limit);
                } else {
                    self.draining.entry(of).or_insert(Some(now + limit));
                    drained.insert(of);
                }
            }
        }
        for (of, limit) in self.serving.iter().filter(|(of, _)| !serving.contains_key(of) && !unlimited.contains(of)) {
            self.draining.entry(*of).or_insert(Some(now + *limit));
        }
        self.draining.retain(|of, at| at.is_some() || drained.contains(of));
        self.serving = serving;
    }

    /// When the next deadline is.
    pub fn due(&self) -> Option<Instant> {
        self.draining.values().flatten().min().copied()
    }

    /// The connections that are to be ended by now. (Flows of datagrams ended when their server got no new ones any more.)
    pub fn take_due(&mut self, now: Instant) -> Vec<ServerCut> {
        let mut cuts = Vec::new();
        for (((called, Ports { protocol, first, last }), server), at) in &mut self.draining {
            if at.is_some_and(|at| at <= now) {
                *at = None;
                if *protocol == Protocol::Tcp {
                    cuts.push(ServerCut { server: *server, called: *called, protocol: protocol.number(), ports: (*first, *last) });
                }
            }
        }
        cuts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::binding::{BindingName, Source};
    use crate::model::health::AllDown;
    use crate::model::inbound::{Balance, ClientSource, Limits};
    use crate::model::ipvs::{Engine, Thresholds};
    use crate::model::services::{Health, Server, Service};
    use crate::model::workload::Entry;

    fn services(weights: &[u16]) -> Services {
        services_with(Some(30), weights)
    }

    fn services_with(drain: Option<u32>, weights: &[u16]) -> Services {
        let server = |(last, weight): (u8, &u16)| Server {
            address: IpAddr::from([10, 0, 0, last]),
            port: Some(1234),
            weight: *weight,
            thresholds: Thresholds::default(),
            route_back: None,
            health: Health::Unchecked,
            drain,
            entry: Entry::Routed { interface: 2 },
            row: 0,
        };
        let service = Service {
            address: IpAddr::from([172, 31, 0, 14]),
            ports: Ports { protocol: Protocol::Tcp, first: 80, last: 80 },
            engine: Engine::Nftables,
            balance: Balance::RoundRobin,
            client_source: ClientSource::Preserve,
            all_down: AllDown::Refuse,
            last_resort: None,
            affinity: None,
            limits: Limits::default(),
            binding: BindingName { source: Source::File, name: "default/web".to_owned() },
            servers: (1..).zip(weights).map(server).collect(),
        };
        Services { all: vec![service], ..Services::default() }
    }

    #[test]
    fn what_is_open_is_ended_once_at_the_deadline_of_who_drains_or_left() {
        let mut drains = Drains::default();
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let ended = |drains: &mut Drains, seconds: u64| -> Vec<String> {
            drains.take_due(at(seconds)).iter().map(|cut| cut.server.to_string()).collect()
        };
        drains.note(&services(&[1, 1, 1]), at(0));
        assert_eq!(drains.due(), None);
        drains.note(&services(&[1, 0]), at(10));
        drains.note(&services(&[1, 0]), at(20));
        assert_eq!(drains.due(), Some(at(40)), "counted from when it began");
        assert_eq!(ended(&mut drains, 39), Vec::<String>::new());
        assert_eq!(ended(&mut drains, 40), ["10.0.0.2", "10.0.0.3"]);
        drains.note(&services(&[1, 0]), at(50));
        assert_eq!((drains.due(), ended(&mut drains, 100).len()), (None, 0), "once");
        // Who serves again in time keeps all.
        drains.note(&services(&[0, 1]), at(100));
        drains.note(&services(&[1, 1]), at(110));
        assert_eq!(drains.due(), None);
        // Without a limit any more nobody's time runs out, be it one that serves or one that drains.
        drains.note(&services(&[0, 1]), at(120));
        drains.note(&services_with(None, &[0, 1]), at(130));
        assert_eq!(drains.due(), None);
    }
}
