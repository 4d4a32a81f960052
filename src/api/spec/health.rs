//! `spec.inbound[].health`: what servers are asked.

use std::sync::Arc;

use super::optional;
use crate::api::inbound::{Health, HttpProbe, Scheme, TcpProbe, UdpProbe};
use crate::api::values::{self, Fault, Faults};
use crate::model::health::{HealthCheck, Probe};
use crate::model::ports::Protocol;

/// The check of an entry whose fields have this path. A range has no port of its own that could be asked.
pub fn health(path: &str, health: &Health, range: bool, faults: &mut Faults) -> Option<Arc<HealthCheck>> {
    let Health { tcp, http, udp, interval_milliseconds: interval, failures } = health;
    let (probe, port, field) = match (tcp, http, udp) {
        (Some(TcpProbe { port }), None, None) => (Some(Probe::Tcp), *port, "tcp.port"),
        (None, Some(one), None) => (by_http(path, one, faults), one.port, "http.port"),
        (None, None, Some(one)) => (by_udp(path, one, faults), one.port, "udp.port"),
        given => {
            let message = if given == (&None, &None, &None) {
                "has no check; give one of `tcp`, `http` and `udp`"
            } else {
                "gives several of `tcp`, `http` and `udp`; keep one"
            };
            faults.push(path, || message.to_owned());
            return None;
        }
    };
    if range && port.is_none() {
        faults.push(&format!("{path}.{field}"), || "is missing, and a range has no port of its own; name the port to check".to_owned());
    }
    let port = port.map(|port| values::port_range(Protocol::Tcp, port, port).map(|ports| ports.first));
    let port = optional(faults, || format!("{path}.{field}"), "8081", port);
    let (interval, failures) = (u32::try_from(*interval).ok()?, u16::try_from(*failures).ok()?);
    Some(Arc::new(HealthCheck { probe: probe?, port, interval, failures }))
}

fn by_http(path: &str, HttpProbe { path: request, host, scheme, .. }: &HttpProbe, faults: &mut Faults) -> Option<Probe> {
    let request = optional(faults, || format!("{path}.http.path"), "/ready", Some(values::path(request)));
    let host = optional(faults, || format!("{path}.http.host"), "shop.example.com", host.as_deref().map(values::host));
    request.map(|path| Probe::Http { path, host, tls: *scheme == Scheme::Https })
}

fn by_udp(path: &str, UdpProbe { send, send_base64, expect, .. }: &UdpProbe, faults: &mut Faults) -> Option<Probe> {
    let (field, sent) = match (send, send_base64) {
        (Some(text), None) => ("send", values::datagram(text.as_bytes())),
        (None, Some(text)) => ("sendBase64", values::datagram_of_base64(text)),
        (None, None) => ("send", Err(Fault::new("is missing: a server answers to a datagram"))),
        (Some(_), Some(_)) => ("sendBase64", Err(Fault::new("is given beside `send`").cure("keep one"))),
    };
    let example = if field == "send" { "ping" } else { "cGluZw==" };
    let send = optional(faults, || format!("{path}.udp.{field}"), example, Some(sent));
    send.map(|send| Probe::Udp { send, expect: expect.clone() })
}
