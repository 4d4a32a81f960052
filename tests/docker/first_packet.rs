//! A thousand containers that send in their first instruction: each packet has the right source, by the right NIC.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader},
    net::Ipv4Addr,
    process::{Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use world::{Docker, Engine, FOLDER, Nic, Scenario, Seen, World, docker::IMAGE, s1, service::Service};

use crate::support::{await_some, label, sender, sends};

/// Starts in one scenario: six of them make a thousand.
const STARTS: usize = 167;
/// Starts of the negative control.
const CONTROLS: usize = 8;
/// Started at the same time.
const AT_ONCE: usize = 4;
const LIMIT: Duration = Duration::from_secs(300);

pub fn scenarios() -> Vec<Scenario> {
    let mut scenarios = Vec::new();
    for engine in Engine::ALL {
        for network in ["bridge", s1::NETWORK] {
            let name = format!("{engine:?}, network {network}: no first packet of {STARTS} containers goes astray");
            scenarios.push(Scenario::new(name, move || no_first_packet_goes_astray(engine, network)).within(LIMIT).shown());
        }
    }
    scenarios
}

fn no_first_packet_goes_astray(engine: Engine, network: &'static str) {
    let world = World::builder().build();
    let docker = world.docker(engine);
    if network != "bridge" {
        s1::create_network(&world, &docker);
    }
    let starts = Starts { world: &world, docker: &docker, network, volume: sender() };

    let ((), seen) = world.watch(|| starts.run("control", CONTROLS));
    right(&world, &seen, CONTROLS).expect_err("without egressd they leave by eth0");

    let _egressd = world.egressd_for_docker();
    let programmed = Programmed::watch(&world);
    let mut connects = docker.client();
    connects.args(["events", "--filter=event=connect", "--format={{.TimeNano}} {{.Actor.Attributes.container}}"]);
    let connects = Service::start("connects", connects);
    let ((), seen) = world.watch(|| starts.run("first", STARTS));
    right(&world, &seen, STARTS).unwrap_or_else(|error| panic!("{error}"));

    let lost = starts.reports("first").values().map(|(_, sent)| sent - 1).collect::<Vec<_>>();
    let (waited, most) = (lost.iter().filter(|lost| **lost > 0).count(), lost.iter().max().copied().unwrap_or(0));
    let delays = programmed.delays(&connects.log(), &starts.reports("first"));
    println!(
        "{engine:?}, {network}: network connect to kernel, of {}: p50 {:.1} ms, p99 {:.1} ms, max {:.1} ms; first datagram dropped: {waited}, at \
         most {most} of one container",
        delays.len(),
        at(&delays, 50),
        at(&delays, 99),
        at(&delays, 100)
    );
}

/// All that left did so by eth1 with its address, and that is a datagram and a connection of each.
fn right(world: &World, seen: &Seen, starts: usize) -> Result<(), String> {
    let right = seen.count(Nic::Eth1, world.layout.address(Nic::Eth1).into());
    let least = 2 * u64::try_from(starts).expect("it is small");
    if seen.0.len() == 1 && right >= least { Ok(()) } else { Err(format!("not all by eth1 with its address: {seen}")) }
}

/// Containers that send once.
struct Starts<'a> {
    world: &'a World,
    docker: &'a Docker,
    network: &'a str,
    volume: String,
}

impl Starts<'_> {
    /// Starts this many, several at once, and waits until each has been answered.
    fn run(&self, prefix: &str, count: usize) {
        let next = AtomicUsize::new(0);
        let label = label(self.world, Nic::Eth1);
        thread::scope(|scope| {
            for _ in 0..AT_ONCE {
                scope.spawn(|| {
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= count {
                            return;
                        }
                        let name = format!("--name={prefix}-{number}");
                        let network = format!("--network={}", self.network);
                        let options = ["run", "-d", &name, &network, &self.volume, &label, IMAGE];
                        let program = sends("once", 8000);
                        self.docker.cli(&options.into_iter().chain(program.iter().map(String::as_str)).collect::<Vec<_>>());
                    }
                });
            }
        });
        await_some("each container has been answered and ended", || (self.running(prefix) == 0).then_some(()));
        assert_eq!(self.reports(prefix).len(), count, "each container was answered by UDP and TCP");
    }

    fn running(&self, prefix: &str) -> usize {
        self.docker.cli(&["ps", "-q", "--filter", &format!("name={prefix}")]).lines().count()
    }

    /// What the containers printed, by id: their address, and how many datagrams it took.
    fn reports(&self, prefix: &str) -> BTreeMap<String, (Ipv4Addr, u32)> {
        let ids = self.docker.cli(&["ps", "-aq", "--no-trunc", "--filter", &format!("name={prefix}")]);
        let report = |id: &str| {
            let log = fs::read_to_string(format!("{FOLDER}/docker/containers/{id}/{id}-json.log")).ok()?;
            let log: serde_json::Value = serde_json::from_str(log.lines().next()?).ok()?;
            let (address, sent) = log["log"].as_str()?.trim().split_once(' ')?;
            Some((id.to_owned(), (address.parse().ok()?, sent.parse().ok()?)))
        };
        ids.lines().filter_map(report).collect()
    }
}

/// When the kernel told of claims that were added, by address.
struct Programmed(Arc<Mutex<Vec<(Duration, Ipv4Addr)>>>);

impl Programmed {
    fn watch(world: &World) -> Self {
        let claims = Arc::new(Mutex::new(Vec::new()));
        let monitor = world.host.enter(|| Command::new("nft").args(["monitor", "new", "elements"]).stdout(Stdio::piped()).spawn());
        let lines = BufReader::new(monitor.expect("there is nft").stdout.expect("it is piped")).lines();
        let seen = Arc::clone(&claims);
        thread::spawn(move || {
            for line in lines.map_while(Result::ok).filter(|line| line.contains(" claims4 ")) {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970");
                let addresses = line.split(|c: char| !c.is_ascii_digit() && c != '.').filter_map(|word| word.parse().ok());
                seen.lock().expect("nobody panics with it").extend(addresses.map(|address| (now, address)));
            }
        });
        Self(claims)
    }

    /// From each container's `network connect` to the claim of its address, in ms, in order.
    fn delays(&self, connects: &str, reports: &BTreeMap<String, (Ipv4Addr, u32)>) -> Vec<f64> {
        let claims = self.0.lock().expect("nobody panics with it");
        let delay = |line: &str| {
            let (time, id) = line.split_once(' ')?;
            let time = Duration::from_nanos(time.parse().ok()?);
            let address = reports.get(id)?.0;
            let (claimed, _) = claims.iter().find(|(at, of)| *of == address && *at >= time)?;
            Some((*claimed - time).as_secs_f64() * 1000.0)
        };
        let mut delays: Vec<f64> = connects.lines().filter_map(delay).collect();
        delays.sort_by(f64::total_cmp);
        delays
    }
}

/// The percentile of an ordered list.
fn at(ordered: &[f64], percent: usize) -> f64 {
    let last = ordered.len().saturating_sub(1);
    ordered.get((last * percent).div_ceil(100)).copied().unwrap_or(f64::NAN)
}
