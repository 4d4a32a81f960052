//! `spec.inbound[].health`: what servers are asked.

use std::sync::Arc;

use super::optional;
use crate::api::inbound::{Health, HttpProbe, InboundProtocol, TcpProbe};
use crate::api::values::{self, Faults};
use crate::model::binding::Protocol;
use crate::model::health::{HealthCheck, Probe};

/// The check of an entry whose fields have this path. A range has no port of its own that could be asked.
pub fn health(path: &str, health: &Health, range: bool, faults: &mut Faults) -> Option<Arc<HealthCheck>> {
    let Health { tcp, http, interval_milliseconds: interval, failures } = health;
    let (probe, port, field) = match (tcp, http) {
        (Some(TcpProbe { port }), None) => (Some(Probe::Tcp), *port, "tcp.port"),
        (None, Some(HttpProbe { path: request, host, port })) => {
            let request = optional(faults, || format!("{path}.http.path"), "/ready", Some(values::path(request)));
            let host = optional(faults, || format!("{path}.http.host"), "shop.example.com", host.as_deref().map(values::host));
            (request.map(|path| Probe::Http { path, host }), *port, "http.port")
        }
        (given, _) => {
            let message =
                if given.is_none() { "says not what is asked; give one of `tcp` and `http`" } else { "gives `tcp` and `http`; keep one" };
            faults.push(path, || message.to_owned());
            return None;
        }
    };
    if range && port.is_none() {
        faults.push(&format!("{path}.{field}"), || "is missing, and a range has no port of its own; name the one that is asked".to_owned());
    }
    let port = port.map(|port| values::port_range(Protocol::from(InboundProtocol::Tcp), port, port).map(|ports| ports.first));
    let port = optional(faults, || format!("{path}.{field}"), "8081", port);
    let (interval, failures) = (u32::try_from(*interval).ok()?, u16::try_from(*failures).ok()?);
    Some(Arc::new(HealthCheck { probe: probe?, port, interval, failures }))
}
