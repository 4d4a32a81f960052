//! Source ports of exits that open flows have: to one destination an address can have only so many flows at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use foldhash::HashMap;

use super::ports::Protocol;
use super::source_ports::SourcePorts;

/// Where flows go: protocol number, address and port.
pub type Destination = (u8, IpAddr, u16);

/// The source ports that open flows have, by the address that they leave as, and by destination.
#[derive(Clone, Debug, Default)]
pub struct PortUse(HashMap<IpAddr, HashMap<Destination, Vec<u16>>>);

impl PortUse {
    /// Takes note of a flow that is translated. Protocols without ports have identifiers instead, or one flow a destination.
    pub fn count(&mut self, exit: IpAddr, port: u16, destination: Destination) {
        self.0.entry(exit).or_default().entry(destination).or_default().push(port);
    }

    /// How many flows an exit has to each destination that has one of these source ports.
    fn of(&self, exit: IpAddr, ports: SourcePorts) -> impl Iterator<Item = (Destination, u64)> + '_ {
        let used = move |taken: &[u16]| match ports {
            SourcePorts::ALL => taken.len(),
            bounded => taken.iter().filter(|port| bounded.contains(**port)).count(),
        };
        self.0.get(&exit).into_iter().flatten().map(move |(destination, taken)| (*destination, used(taken) as u64))
    }

    /// The destination that has most flows of an exit with these source ports, and how many. Of equals always the same.
    pub fn busiest(&self, exit: IpAddr, ports: SourcePorts) -> Option<(Destination, u64)> {
        self.of(exit, ports).filter(|(_, flows)| *flows > 0).max_by_key(|(destination, flows)| (*flows, *destination))
    }

    /// How full the exits are, to each destination for which that matters. `before` is what was said last: an exit that has become emptier
    /// counts as full for five percent more.
    pub fn full(&self, exits: &BTreeSet<Source>, before: &Full) -> Full {
        let mut full = Full::new();
        for (exit, ports) in exits {
            let levels = self.of(*exit, *ports).filter(|((protocol, ..), _)| HAVE_PORTS.contains(protocol));
            let levels = levels.filter_map(|(destination, flows)| {
                let percent = flows * 100 / ports.count();
                let last = before.get(&(*exit, *ports)).and_then(|levels| levels.get(&destination)).copied().unwrap_or(0);
                let now = level(percent).max(last.min(level(percent + SLACK)));
                (now > 0).then_some((destination, now))
            });
            let levels: BTreeMap<Destination, u8> = levels.collect();
            if !levels.is_empty() {
                full.insert((*exit, *ports), levels);
            }
        }
        full
    }
}

/// An exit with the source ports that its flows may have.
pub type Source = (IpAddr, SourcePorts);

/// How full exits are to destinations, as levels above 0: the lowest of several exits takes the new flows.
pub type Full = BTreeMap<Source, BTreeMap<Destination, u8>>;

/// Protocols whose flows have source ports.
const HAVE_PORTS: [u8; 3] = [Protocol::Tcp.number(), Protocol::Udp.number(), Protocol::Sctp.number()];
/// From these parts of its ports on, in percent, an exit takes new flows to a destination only if all others are as full. The kernel tries
/// 248 ports at most (`nf_nat_l4proto_unique_tuple`), and drops the packet if none of these is free: of 1,000 flows on 1,000 ports the
/// first packet of one or two between 90 and 97 percent, and of every fifth at 99.
const LEVELS: [u64; 3] = [95, 97, 99];
/// How much emptier an exit has to become until it takes new flows again, in percent: it would change with each flow.
const SLACK: u64 = 5;

/// Whether one of these exits may have so many flows that it matters, when there are so many flows in all.
pub fn may_be_full(exits: &BTreeSet<Source>, flows: u64) -> bool {
    exits.iter().any(|(_, ports)| flows.saturating_mul(100) >= ports.count() * (LEVELS[0] - SLACK))
}

/// Where flows are shared, those exits take a new one whose level is the lowest.
fn level(percent: u64) -> u8 {
    LEVELS.iter().filter(|from| percent >= **from).count() as u8
}

/// The exits that take no new flow to a destination, because others of the same flows are less full.
pub fn closed(exits: &[Source], full: &Full) -> BTreeMap<Destination, Vec<IpAddr>> {
    let levels = || exits.iter().filter_map(|exit| full.get(exit));
    let destinations: BTreeSet<&Destination> = levels().flat_map(BTreeMap::keys).collect();
    let of = |destination: &Destination| {
        let level = |exit: &Source| full.get(exit).and_then(|levels| levels.get(destination)).copied().unwrap_or(0);
        let lowest = exits.iter().map(level).min()?;
        let closed: Vec<IpAddr> = exits.iter().filter(|exit| level(exit) > lowest).map(|(address, _)| *address).collect();
        (!closed.is_empty()).then_some((*destination, closed))
    };
    destinations.into_iter().filter_map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HTTPS: Destination = (6, IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 10)), 443);
    const HUNDRED: SourcePorts = SourcePorts { first: 40_000, last: 40_099 };

    fn exit(host: u8) -> IpAddr {
        [10, 0, 1, host].into()
    }

    /// So many flows to one destination, of ports from 40000 on.
    fn flows(exits: &[(u8, u16)]) -> PortUse {
        let mut ports = PortUse::default();
        for (host, flows) in exits {
            (0..*flows).for_each(|flow| ports.count(exit(*host), 40_000 + flow, HTTPS));
        }
        ports
    }

    #[test]
    fn an_exit_is_as_busy_as_its_busiest_destination() {
        let mut ports = flows(&[(98, 2)]);
        ports.count(exit(98), 7, (17, HTTPS.1, 443));
        assert_eq!(ports.busiest(exit(98), SourcePorts::ALL), Some((HTTPS, 2)));
        assert_eq!(ports.busiest(exit(98), SourcePorts { first: 40_001, last: 40_100 }), Some((HTTPS, 1)));
        assert_eq!(ports.busiest(exit(99), SourcePorts::ALL), None);
    }

    #[test]
    fn from_95_percent_on_the_emptier_exits_take_the_new_flows() {
        let both = [(exit(1), HUNDRED), (exit(2), HUNDRED)];
        let closed_at = |first, second| {
            let full = flows(&[(1, first), (2, second)]).full(&both.into(), &Full::new());
            closed(&both, &full).remove(&HTTPS).unwrap_or_default()
        };
        assert_eq!(closed_at(94, 0), Vec::<IpAddr>::new());
        assert_eq!(closed_at(95, 0), [exit(1)]);
        assert_eq!(closed_at(95, 96), Vec::<IpAddr>::new(), "both are as full");
        assert_eq!(closed_at(95, 99), [exit(2)]);
        assert_eq!(closed_at(0, 100), [exit(2)]);
    }

    #[test]
    fn an_exit_is_open_again_once_it_is_clearly_emptier() {
        let exits = BTreeSet::from([(exit(1), HUNDRED)]);
        let now = |flows_now, before: &Full| flows(&[(1, flows_now)]).full(&exits, before);
        let full = now(95, &Full::new());
        assert_eq!((now(90, &full), now(89, &full)), (full, Full::new()));
    }

    #[test]
    fn pings_and_ports_out_of_the_range_fill_nothing() {
        let mut ports = PortUse::default();
        (0..1000).for_each(|id| ports.count(exit(1), id, (1, HTTPS.1, 0)));
        (0..1000).for_each(|port| ports.count(exit(1), 50_000 + port, HTTPS));
        assert_eq!(ports.full(&[(exit(1), HUNDRED)].into(), &Full::new()), Full::new());
    }
}
