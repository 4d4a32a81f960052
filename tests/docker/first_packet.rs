//! Containers that send in their first instruction, 96 of them, in `make soak` 1,002: each packet has the right source, by the right NIC.

use std::{
    collections::BTreeMap,
    fs,
    net::Ipv4Addr,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use world::{
    Docker, Engine, FOLDER, Nic, Scenario, Seen, World,
    docker::IMAGE,
    s1,
    service::Service,
    told::{Told, percentiles},
};

use crate::support::{await_some, label, sender, sends};

/// Starts in one scenario, of six. A fault that strikes one start in thirty is found by 24 of 25 runs of the fewer.
fn count() -> usize {
    world::count(16, 167)
}
/// Starts of the negative control.
const CONTROLS: usize = 8;
/// Started at the same time.
const AT_ONCE: usize = 4;
const LIMIT: Duration = Duration::from_secs(300);

pub fn scenarios() -> Vec<Scenario> {
    let mut scenarios = Vec::new();
    for engine in Engine::ALL {
        for network in ["bridge", s1::NETWORK] {
            let name = format!("{engine:?}, network {network}: no first packet of {} containers goes astray", count());
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
    let count = count();
    let starts = Starts { world: &world, docker: &docker, network, volume: sender() };

    let ((), seen) = world.watch(|| starts.run("control", CONTROLS));
    right(&world, &seen, CONTROLS).expect_err("without egressd they leave by eth0");

    let _egressd = world.egressd_for_docker();
    let claims = Told::by_policies(&world);
    // Engine 20.10 connects a container long before its interface has the address.
    let addresses = Told::by(&world, &["ip", "monitor", "all-nsid", "address"], |line| {
        line.starts_with("[nsid ") && !line.contains("current]") && line.contains("inet 172.") && !line.contains("Deleted")
    });
    let mut connects = docker.client();
    connects.args(["events", "--filter=event=connect", "--format={{.TimeNano}} {{.Actor.Attributes.container}}"]);
    let connects = Service::start("connects", connects);
    let ((), seen) = world.watch(|| starts.run("first", count));
    right(&world, &seen, count).unwrap_or_else(|error| panic!("{error}"));

    let reports = starts.reports("first");
    let waited = reports.values().filter(|(_, sent)| *sent > 1).count();
    let connects = connected(&connects.log(), &reports);
    let claimed = |connect| Some((connect, claims.after(connect)?));
    let claimed: Vec<_> = connects.into_iter().filter_map(claimed).collect();
    let since_connect: Vec<Duration> = claimed.iter().map(|((time, _), claim)| *claim - *time).collect();
    let since_address: Vec<Duration> =
        claimed.iter().filter_map(|(connect, claim)| Some(claim.saturating_sub(addresses.after(*connect)?))).collect();
    for (what, delays) in [("network connect", since_connect), ("address on its interface", since_address)] {
        println!("{engine:?}, {network}: {what} to claim: {}", percentiles(&delays));
    }
    println!("{engine:?}, {network}: {waited} of {count} first datagrams had no answer within 100 ms");
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

/// The `network connect` events of containers whose address is known by now.
fn connected(events: &str, reports: &BTreeMap<String, (Ipv4Addr, u32)>) -> Vec<(Duration, Ipv4Addr)> {
    let event = |line: &str| {
        let (time, id) = line.split_once(' ')?;
        Some((Duration::from_nanos(time.parse().ok()?), reports.get(id)?.0))
    };
    events.lines().filter_map(event).collect()
}
