//! A way to leave a host, and what is taken out of egressd's rules to see what it costs.

use std::net::{Ipv4Addr, UdpSocket};

use bench::{
    host::{self, Host, UNBOUND},
    send,
    without::Change,
};
use world::Netns;

use crate::{Metric, WORKLOADS, tcp};

pub const PLAIN: &str = "masquerade";
pub const EGRESSD: &str = "egressd";
/// Times that a round measures a way that is not slow.
pub const PASSES: usize = 3;

/// Plain masquerade with something that kernels charge for as soon as it is there, and that does nothing: name, host, and what adds it.
pub const WITH: [(&str, &str, Change); 4] = [
    ("masquerade's copy", "again", |_| {}),
    ("masquerade and a policy rule that never fits", "rule", |host| {
        host.inside.ip("rule add pref 1561 fwmark 0x1001/0xffff1fff lookup 15601");
    }),
    ("masquerade and an empty chain in the bridge family", "bridge", |host| {
        host.inside.nft("table bridge t {\nchain c {\ntype filter hook prerouting priority -300\n}\n}\n");
    }),
    ("masquerade and empty chains where egressd has its own", "chains", |host| {
        let chain = |name, kind, hook, priority| format!("chain {name} {{\ntype {kind} hook {hook} priority {priority}\n}}\n");
        let chains = [("a", "filter", "prerouting", -99), ("b", "nat", "postrouting", 95), ("c", "filter", "postrouting", 110)];
        let chains: String = chains.map(|(name, kind, hook, priority)| chain(name, kind, hook, priority)).concat();
        host.inside.nft(&format!("table ip t {{\n{chains}}}\n"));
    }),
];

/// A host, and who sends in it.
#[derive(Clone)]
pub struct Way {
    pub name: &'static str,
    pub host: Host,
    /// None: each workload in turn.
    source: Option<Ipv4Addr>,
    /// So much so that a tenth of the packets has to do.
    pub slow: bool,
}

/// The sockets of a way's senders.
pub struct Parties {
    established: Vec<UdpSocket>,
}

impl Way {
    /// The host's first way: its server is started.
    pub fn new(name: &'static str, host: Host, source: Ipv4Addr) -> Self {
        tcp::serve(&host.router);
        Self { name, host, source: Some(source), slow: false }
    }

    /// Another sender on the same host.
    pub fn beside(&self, name: &'static str, source: Option<Ipv4Addr>) -> Self {
        Self { name, source, ..self.clone() }
    }

    pub fn slow(self) -> Self {
        Self { slow: true, ..self }
    }

    fn netns(&self) -> &Netns {
        if self.source == Some(UNBOUND) { &self.host.unbound } else { &self.host.container }
    }

    /// Whether its packets leave by the bound ones' NIC.
    fn by_exit(&self) -> bool {
        self.source != Some(UNBOUND) && !self.name.starts_with(PLAIN)
    }

    fn open(&self) -> Vec<UdpSocket> {
        match self.source {
            Some(source) => send::open(self.netns(), &[source]),
            None => send::open(self.netns(), &(0..WORKLOADS).step_by(5).map(host::source).collect::<Vec<_>>()),
        }
    }

    pub fn parties(&self) -> Parties {
        Parties { established: self.open() }
    }

    /// One pass. Panics when a packet did not arrive where it should have: a drop is not fast. None: this way has no such figure.
    pub fn measure(&self, parties: &mut Parties, metric: Metric) -> Option<f64> {
        let scale = if self.slow { 10 } else { 1 };
        let sent = match metric {
            Metric::New => 2_000 / scale,
            Metric::Established => 5_000 / scale,
            Metric::Throughput => return self.source.map(|source| tcp::throughput(self.netns(), source, (64 << 20) / scale as usize)),
            Metric::Connections => return self.source.map(|source| tcp::connections(self.netns(), source, 300 / scale)),
        };
        let before = self.host.arrived();
        let value = if metric == Metric::New {
            // New sockets, new source ports: no flow is there yet.
            let sockets = self.open();
            on_core(self.name, || send::new_flows(&sockets, sent))
        } else {
            on_core(self.name, || send::established(&parties.established, sent))
        };
        let after = self.host.arrived();
        let extra = if metric == Metric::New { 0 } else { parties.established.len() as u64 };
        let wanted = u64::from(sent) + extra;
        let nic = usize::from(self.by_exit());
        assert_eq!(after[nic] - before[nic], wanted, "packets of {} that arrived by eth{nic}", self.name);
        Some(value)
    }
}

/// The thread bears the way's name, by which a profiler tells them apart.
fn on_core(name: &str, send: impl FnOnce() -> f64 + Send) -> f64 {
    std::thread::scope(|scope| {
        let sender = std::thread::Builder::new().name(name.to_owned()).spawn_scoped(scope, || {
            send::pin();
            send()
        });
        sender.expect("a thread can be started").join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
