//! Source ports of exits: to one destination an address can have only so many flows at a time.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};

use crate::model::resolve::Outcome;

/// Ports that the kernel gives to flows of one address to one destination: 1024 to 65535 (`nf_nat_l4proto_unique_tuple`). Near the end of them it
/// finds none in the 248 that it tries, and drops the flow.
pub const PORTS: u64 = 64_512;
/// From this part on, in percent, status says so.
const MUCH: u64 = 80;

/// Where flows go: protocol number, address and port.
pub type Destination = (u8, IpAddr, u16);

/// Open flows by the address that they leave as, and by destination.
#[derive(Clone, Debug, Default)]
pub struct PortUse(HashMap<(IpAddr, Destination), u64>);

impl PortUse {
    /// Takes note of a flow that is translated. Protocols without ports have identifiers instead, or one flow a destination.
    pub fn count(&mut self, exit: IpAddr, destination: Destination) {
        *self.0.entry((exit, destination)).or_default() += 1;
    }

    /// The destination that has most flows of each address, and how many.
    pub fn busiest(&self) -> BTreeMap<IpAddr, (Destination, u64)> {
        let mut busiest: BTreeMap<IpAddr, (Destination, u64)> = BTreeMap::new();
        for ((exit, destination), flows) in &self.0 {
            let most = busiest.entry(*exit).or_insert((*destination, *flows));
            // Of equals always the same.
            if (*flows, *destination) > (most.1, most.0) {
                *most = (*destination, *flows);
            }
        }
        busiest
    }
}

/// What status should tell of exits whose ports to a destination run short.
pub fn problems(outcome: &Outcome, busiest: &BTreeMap<IpAddr, (Destination, u64)>) -> Vec<String> {
    let mut exits: Vec<IpAddr> = outcome.uplinks.exits().map(|exit| exit.address).collect();
    exits.sort_unstable();
    exits.dedup();
    let short =
        exits.into_iter().filter_map(|exit| Some((exit, *busiest.get(&exit)?))).filter(|(_, (_, flows))| flows * 100 >= PORTS * MUCH);
    short.map(|(exit, (to, flows))| problem(exit, to, flows)).collect()
}

fn problem(exit: IpAddr, (protocol, to, port): Destination, flows: u64) -> String {
    let protocol = match protocol {
        1 | 58 => "ping".to_owned(),
        6 => "tcp".to_owned(),
        17 => "udp".to_owned(),
        132 => "sctp".to_owned(),
        other => format!("protocol {other}"),
    };
    // An echo request has an identifier in the place of its source port, and no other port.
    let to = if protocol == "ping" { to.to_string() } else { SocketAddr::new(to, port).to_string() };
    format!(
        "exit {exit} has {flows} flows to {to} ({protocol}), of {PORTS} that one address can have to one destination; further ones will be dropped: spread them over more exits (spread, egress.spread)"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_exit_is_as_busy_as_its_busiest_destination() {
        let mut ports = PortUse::default();
        let (one, other) = ((6, ip("198.51.100.10"), 443), (17, ip("198.51.100.10"), 443));
        for to in [one, other, one] {
            ports.count(ip("10.0.1.98"), to);
        }
        ports.count(ip("10.0.1.99"), other);
        assert_eq!(ports.busiest(), [(ip("10.0.1.98"), (one, 2)), (ip("10.0.1.99"), (other, 1))].into());
    }

    #[test]
    fn what_is_said_names_the_exit_the_destination_and_the_cure() {
        let said = problem(ip("10.0.1.98"), (6, ip("2001:db8::1"), 443), 52_000);
        assert!(said.starts_with("exit 10.0.1.98 has 52000 flows to [2001:db8::1]:443 (tcp), of 64512"), "{said}");
        assert!(said.contains("more exits"), "{said}");
    }
}
