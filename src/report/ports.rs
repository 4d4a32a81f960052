//! What status tells of exits whose source ports run short.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use crate::model::binding::SourcePorts;
use crate::model::port_use::{Destination, PortUse};
use crate::model::resolve::Outcome;

/// From this part of its ports on, in percent, status says so.
const MUCH: u64 = 80;

/// What status should tell of exits whose ports to a destination run short.
pub fn problems(outcome: &Outcome, ports: &PortUse) -> Vec<String> {
    let exits: BTreeSet<(IpAddr, SourcePorts)> = outcome.uplinks.exits().map(|exit| (exit.address, exit.source_ports())).collect();
    let busiest = exits.into_iter().filter_map(|(exit, of)| Some((exit, of, ports.busiest(exit, of)?)));
    let short = busiest.filter(|(_, of, (_, flows))| flows * 100 >= of.count() * MUCH);
    short.map(|(exit, of, (to, flows))| problem(exit, of, to, flows)).collect()
}

fn problem(exit: IpAddr, ports: SourcePorts, (protocol, to, port): Destination, flows: u64) -> String {
    let protocol = match protocol {
        1 | 58 => "ping".to_owned(),
        6 => "tcp".to_owned(),
        17 => "udp".to_owned(),
        132 => "sctp".to_owned(),
        other => format!("protocol {other}"),
    };
    // An echo request has an identifier in the place of its source port, and no other port.
    let to = if protocol == "ping" { to.to_string() } else { SocketAddr::new(to, port).to_string() };
    let (most, more) = match ports {
        SourcePorts::ALL => (ports.count().to_string(), ""),
        bounded => (format!("{} (sourcePorts {bounded})", bounded.count()), ", or widen sourcePorts"),
    };
    format!(
        "exit {exit} has {flows} of at most {most} flows to {to} ({protocol}); further ones will be dropped: spread them over more exits (spread, egress.spread){more}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_names_the_exit_the_destination_and_the_cure() {
        let said = |ports| problem([10, 0, 1, 98].into(), ports, (6, "2001:db8::1".parse().unwrap(), 443), 52_000);
        let all = said(SourcePorts::ALL);
        assert!(all.starts_with("exit 10.0.1.98 has 52000 of at most 64512 flows to [2001:db8::1]:443 (tcp);"), "{all}");
        assert!(all.ends_with("more exits (spread, egress.spread)"), "{all}");
        let bounded = said(SourcePorts { first: 1024, last: 60_000 });
        assert!(
            bounded.contains("of at most 58977 (sourcePorts 1024-60000) flows to") && bounded.ends_with("widen sourcePorts"),
            "{bounded}"
        );
    }
}
