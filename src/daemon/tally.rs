//! Reads conntrack's table for those who look: how many flows each exit has and how fast, and the single flows of a workload.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Instant;

use foldhash::{HashMap, HashMapExt};
use nix::libc;
use tracing::debug;

use crate::effects::conntrack::{Error, Flow, Flows};
use crate::model::port_use::PortUse;
use crate::report::flows::{ExitFlows, OpenFlow, Owners, protocol};
use crate::report::status::Counted;

/// `IPS_ASSURED` of `linux/netfilter/nf_conntrack_common.h`.
const ASSURED: u32 = 1 << 2;

/// `TCP_CONNTRACK_*` of `linux/netfilter/nf_conntrack_tcp.h`, in its order.
const TCP_STATES: [&str; 10] =
    ["NONE", "SYN_SENT", "SYN_RECV", "ESTABLISHED", "FIN_WAIT", "CLOSE_WAIT", "LAST_ACK", "TIME_WAIT", "CLOSE", "SYN_SENT2"];

/// Remembers the reading before: rates are what differs.
#[derive(Default)]
pub(super) struct Reader {
    before: Option<Before>,
}

struct Before {
    at: Instant,
    /// Bytes of each flow, by the kernel's number for it; 0 where it counts none.
    flows: HashMap<u32, u64>,
}

/// One look at the whole table.
#[derive(Clone, Debug, Default)]
pub(super) struct Reading {
    pub counted: Counted,
    by_exit: BTreeMap<IpAddr, Tally>,
    /// Seconds since the reading before.
    since: Option<f64>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    flows: u64,
    new: u64,
    bytes: u64,
    /// The kernel counts bytes.
    accounted: bool,
}

/// What status and metrics tell of flows, while they are gone through.
#[derive(Default)]
struct Counter(Counted);

impl Counter {
    fn count(&mut self, flow: &Flow) {
        *self.0.flows.entry(flow.source).or_default() += 1;
        *self.0.translated.entry(flow.reply_destination).or_default() += 1;
        note_ports(&mut self.0.ports, flow);
    }
}

/// Takes note of the source port of a flow that is translated.
fn note_ports(ports: &mut PortUse, flow: &Flow) {
    if flow.reply_destination != flow.source {
        ports.count(flow.reply_destination, flow.reply_port, (flow.protocol, flow.reply_source, flow.destination_port));
    }
}

/// Source ports of open flows.
///
/// # Errors
/// When the table cannot be read.
pub(super) fn port_use() -> Result<PortUse, Error> {
    let mut ports = PortUse::default();
    for_each(|flow| note_ports(&mut ports, &flow))?;
    Ok(ports)
}

/// Open flows, for status and metrics; nothing where the table cannot be read.
pub(super) fn count() -> Counted {
    let mut counter = Counter::default();
    if let Err(error) = for_each(|flow| counter.count(&flow)) {
        debug!(%error, "failed to count flows");
    }
    counter.0
}

impl Reader {
    /// Reads the table; nothing where it cannot be read.
    pub fn read(&mut self) -> Reading {
        let at = Instant::now();
        let (mut reading, mut counter, mut flows) = (Reading::default(), Counter::default(), HashMap::new());
        reading.since = self.before.as_ref().map(|before| (at - before.at).as_secs_f64());
        let before = self.before.as_ref().map(|before| &before.flows);
        let read = for_each(|flow| {
            counter.count(&flow);
            let bytes = flow.bytes.unwrap_or(0);
            let known = before.and_then(|before| before.get(&flow.id));
            for exit in exits(&flow) {
                let tally = reading.by_exit.entry(exit).or_default();
                tally.flows += 1;
                tally.new += u64::from(known.is_none());
                tally.bytes += bytes.saturating_sub(known.copied().unwrap_or(0));
                tally.accounted |= flow.bytes.is_some();
            }
            flows.insert(flow.id, bytes);
        });
        if let Err(error) = read {
            debug!(%error, "failed to count flows");
        }
        reading.counted = counter.0;
        self.before = Some(Before { at, flows });
        reading
    }
}

impl Reading {
    /// What leaves and comes in by each exit: those that workloads have, and other addresses of NICs that flows bear.
    pub fn exits(&self, owners: &Owners) -> Vec<ExitFlows> {
        let mut all: BTreeMap<IpAddr, Tally> = owners.exits().map(|exit| (exit, Tally::default())).collect();
        all.extend(self.by_exit.iter().filter(|(address, _)| owners.nic(**address).is_some()).map(|(address, tally)| (*address, *tally)));
        let rate = |count: u64| self.since.filter(|since| *since > 0.0).map(|since| count as f64 / since);
        let of = |(exit, tally): (IpAddr, Tally)| ExitFlows {
            exit,
            nic: owners.nic(exit).map(str::to_owned),
            flows: tally.flows,
            new_per_second: rate(tally.new),
            bytes_per_second: rate(tally.bytes).filter(|_| tally.accounted),
        };
        all.into_iter().map(of).collect()
    }
}

/// The open flows that `wanted` says of a workload, at most so many, and how many others there are.
///
/// # Errors
/// When the table cannot be read.
pub(super) fn list(owners: &Owners, most: usize, wanted: impl Fn(Option<&str>) -> bool) -> Result<(Vec<OpenFlow>, usize), Error> {
    let (mut listed, mut more) = (Vec::new(), 0);
    for_each(|flow| {
        let owned = owners.owner(flow.source, flow.destination, flow.reply_source, flow.reply_destination);
        let Some(owned) = owned.filter(|owned| wanted(owned.workload)) else { return };
        if listed.len() == most {
            more += 1;
            return;
        }
        let has_ports = !matches!(i32::from(flow.protocol), libc::IPPROTO_ICMP | libc::IPPROTO_ICMPV6) && flow.destination_port != 0;
        listed.push(OpenFlow {
            workload: owned.workload.map(str::to_owned),
            direction: owned.direction,
            protocol: protocol(flow.protocol),
            source: flow.source,
            source_port: has_ports.then_some(flow.source_port),
            destination: flow.destination,
            destination_port: has_ports.then_some(flow.destination_port),
            exit: owned.exit,
            nic: owned.exit.and_then(|exit| owners.nic(exit)).map(str::to_owned),
            state: state(&flow).to_owned(),
        });
    })?;
    listed.sort_by(|a, b| {
        let key = |flow: &OpenFlow| (flow.workload.clone(), flow.exit, flow.destination, flow.destination_port, flow.source_port);
        key(a).cmp(&key(b))
    });
    Ok((listed, more))
}

fn for_each(each: impl FnMut(Flow)) -> Result<(), Error> {
    Flows::open()?.for_each(each)
}

/// The addresses that a flow was translated to and that it was called at, when they are others than its own.
fn exits(flow: &Flow) -> impl Iterator<Item = IpAddr> {
    let left_as = (flow.reply_destination != flow.source).then_some(flow.reply_destination);
    let called_at = (flow.destination != flow.reply_source).then_some(flow.destination).filter(|called| Some(*called) != left_as);
    left_as.into_iter().chain(called_at)
}

fn state(flow: &Flow) -> &'static str {
    let tcp = flow.tcp_state.and_then(|state| TCP_STATES.get(usize::from(state)));
    match tcp {
        Some(state) => state,
        None if flow.status & ASSURED != 0 => "ASSURED",
        None if flow.is_answered() => "REPLIED",
        None => "UNREPLIED",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::binding::SourcePorts;

    #[test]
    fn what_is_counted_has_the_busiest_destination_of_what_is_translated() {
        let mut counter = Counter::default();
        let inside = Flow { reply_destination: Flow::sample().source, ..Flow::sample() };
        [Flow::sample(), Flow::sample(), inside].iter().for_each(|flow| counter.count(flow));
        let (counted, flow) = (counter.0, Flow::sample());
        assert_eq!(counted.flows, [(flow.source, 3)].into());
        assert_eq!(counted.translated, [(flow.source, 1), (flow.reply_destination, 2)].into());
        let busiest = counted.ports.busiest(flow.reply_destination, SourcePorts::ALL);
        assert_eq!(busiest, Some(((17, flow.reply_source, 53), 2)));
    }
}
