//! What egressd costs a packet, against plain masquerade and against a rule for each container: `make bench`.
//!
//! Hosts of the same shape stand side by side in network namespaces, each with a container and a router of its own, so that going from
//! one to the other costs nothing. Every round measures all of them, shuffled. docs/benchmarks.md is what it writes.

mod control;
mod report;
mod stats;
mod tcp;
mod way;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use bench::{
    daemon::orphan_at,
    host::{self, Host},
    without::WITHOUT,
};
use world::{Scenario, harness};

use self::{
    stats::Random,
    way::{Parties, Way},
};

/// Bound workloads: addresses of one container, bound by one manifest.
pub const WORKLOADS: u32 = 10_000;
/// Rounds, unless the environment's `ROUNDS` says otherwise.
const ROUNDS: usize = 30;
const LIMIT: Duration = Duration::from_secs(3600);

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Metric {
    /// The first packet of a flow, in nanoseconds.
    New,
    /// A packet of a flow that is known, in nanoseconds.
    Established,
    /// One TCP connection with as much as it takes, in bits a second.
    Throughput,
    /// TCP connections made and ended, a second.
    Connections,
}

impl Metric {
    pub const ALL: [Self; 4] = [Self::New, Self::Established, Self::Throughput, Self::Connections];

    pub fn name(self) -> &'static str {
        match self {
            Self::New => "new flow, ns",
            Self::Established => "established, ns",
            Self::Throughput => "throughput, bit/s",
            Self::Connections => "connections/s",
        }
    }
}

/// One measured value.
pub struct Sample {
    pub round: usize,
    pub way: &'static str,
    pub metric: Metric,
    pub value: f64,
}

fn main() -> ExitCode {
    harness::main(vec![Scenario::new("packets", run).within(LIMIT).shown()])
}

fn run() {
    let rounds = std::env::var("ROUNDS").ok().map_or(ROUNDS, |text| text.parse().expect("ROUNDS is a number"));
    let began = Instant::now();
    let (ways, control) = world();
    println!("{} ways to leave, made in {:.0?}", ways.len(), began.elapsed());
    let mut random = Random::new(0x0065_6772_6573_7364);
    let mut samples = Vec::new();
    let mut parties: BTreeMap<&str, Parties> = ways.iter().map(|way| (way.name, way.parties())).collect();
    for round in 0..=rounds {
        let began = Instant::now();
        let values = measure(&ways, &mut parties, &mut random);
        // The first one warms caches and neighbours.
        if round > 0 {
            samples.extend(values.into_iter().map(|(way, metric, value)| Sample { round, way, metric, value }));
        }
        ways.iter().for_each(|way| way.host.flush());
        println!("round {round} of {rounds}: {:.1?}", began.elapsed());
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("benches is in the repository");
    write(root.join("benches/results/packets.csv"), &report::csv(&samples));
    let page = report::page(&ways, &samples, rounds, &control);
    print!("{page}");
    write(root.join("docs/benchmarks.md"), &page);
}

/// The median of each way's passes, each pass in an order of its own.
fn measure<'a>(ways: &'a [Way], parties: &mut BTreeMap<&str, Parties>, random: &mut Random) -> Vec<(&'static str, Metric, f64)> {
    let mut values: BTreeMap<(&'static str, Metric), Vec<f64>> = BTreeMap::new();
    for pass in 0..way::PASSES {
        let mut order: Vec<(&'a Way, Metric)> = ways.iter().flat_map(|way| Metric::ALL.map(|metric| (way, metric))).collect();
        random.shuffle(&mut order);
        for (way, metric) in order {
            if way.slow && pass > 0 {
                continue;
            }
            let party = parties.get_mut(way.name).expect("every way has its parties");
            if let Some(value) = way.measure(party, metric) {
                values.entry((way.name, metric)).or_default().push(value);
            }
        }
    }
    values.into_iter().map(|((way, metric), mut all)| (way, metric, stats::median(&mut all))).collect()
}

fn world() -> (Vec<Way>, control::Control) {
    let bound = host::source(WORKLOADS / 2);
    let mut ways = vec![Way::new(way::PLAIN, Host::add("plain", WORKLOADS), bound)];
    ways.push(ways[0].beside("masquerade, each source in turn", None));
    let (host, control) = control::daemon_at(Host::add("egressd", WORKLOADS));
    let egressd = Way::new(way::EGRESSD, host, bound);
    ways.push(egressd.beside("egressd, each source in turn", None));
    ways.push(egressd.beside("egressd, an unbound container", Some(host::UNBOUND)));
    ways.push(egressd);
    for (name, host, change) in WITHOUT {
        let host = orphan_at(Host::add(host, WORKLOADS));
        change(&host);
        ways.push(Way::new(name, host, bound));
    }
    for (name, host, change) in way::WITH {
        let host = Host::add(host, WORKLOADS);
        change(&host);
        ways.push(Way::new(name, host, bound));
    }
    let by_hand = Host::add("byhand", WORKLOADS);
    by_hand.rule_for_each();
    let by_hand = Way::new("by hand, the median's rule", by_hand, bound).slow();
    ways.push(by_hand.beside("by hand, the first rule", Some(host::source(0))).slow());
    ways.push(by_hand.beside("by hand, the last rule", Some(host::source(WORKLOADS - 1))).slow());
    ways.push(by_hand.beside("by hand, an unbound container", Some(host::UNBOUND)).slow());
    ways.push(by_hand);
    (ways, control)
}

fn write(path: PathBuf, text: &str) {
    fs::create_dir_all(path.parent().expect("a file is in a folder")).expect("the repository can be written");
    fs::write(&path, text).unwrap_or_else(|error| panic!("failed to write {}: {error}", path.display()));
}
