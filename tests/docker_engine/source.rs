//! What a real Docker engine does, as facts: on Debian's 20.10 and on a current one.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::engines::{Engine, Release};
use crate::ip;
use egressd::facts::docker::Source;
use egressd::model::facts::{Container, EngineChange, Network};

const NONE: [IpAddr; 0] = [];

/// Everything that was told, with the time.
struct Heard {
    source: Source,
    changes: Vec<(Duration, EngineChange)>,
    read: usize,
}

impl Heard {
    fn new(socket: &Path) -> Self {
        Self { source: Source::new(socket, |_| None), changes: Vec::new(), read: 0 }
    }

    /// The next change that `pick` takes; what comes before it is passed over.
    async fn next<T>(&mut self, what: &str, pick: impl Fn(&EngineChange) -> Option<T>) -> (Duration, T) {
        let patience = tokio::time::Instant::now() + Duration::from_secs(60);
        loop {
            while let Some((time, change)) = self.changes.get(self.read) {
                self.read += 1;
                if let Some(found) = pick(change) {
                    return (*time, found);
                }
            }
            match tokio::time::timeout_at(patience, self.source.next()).await {
                Ok(batch) => self.changes.extend(batch.into_iter().map(|change| (now(), change))),
                Err(_) => panic!("waited in vain for {what}; told were {:#?}", self.changes),
            }
        }
    }

    async fn snapshot(&mut self) -> (Vec<Container>, Vec<Network>) {
        let pick = |change: &EngineChange| match change {
            EngineChange::Snapshot { containers, networks } => Some((containers.clone(), networks.clone())),
            _ => None,
        };
        self.next("a snapshot", pick).await.1
    }

    async fn container(&mut self, what: &str, fits: impl Fn(&Container) -> bool) -> (Duration, Container) {
        let pick = |change: &EngineChange| match change {
            EngineChange::Container(container) if fits(container) => Some((**container).clone()),
            _ => None,
        };
        self.next(what, pick).await
    }

    /// What the changes up to here add up to.
    fn containers(&self) -> Vec<Container> {
        let mut known = BTreeMap::new();
        for (_, change) in &self.changes[..self.read] {
            match change {
                EngineChange::Snapshot { containers, .. } => known = containers.iter().map(|one| (one.id.clone(), one.clone())).collect(),
                EngineChange::Container(one) => _ = known.insert(one.id.clone(), (**one).clone()),
                EngineChange::ContainerGone(id) => _ = known.remove(id),
                EngineChange::Made { .. } | EngineChange::Network(_) | EngineChange::NetworkGone(_) => {}
                EngineChange::Problems(_) | EngineChange::Lost(_) => {}
            }
        }
        known.into_values().collect()
    }
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970")
}

fn addresses(container: &Container) -> Vec<IpAddr> {
    container.attachments.iter().flat_map(|one| one.addresses.clone()).collect()
}

on_both!(
    a_run_is_told_with_labels_then_address_then_its_end,
    restart_rename_and_removal_are_told,
    networks_come_and_go,
    a_second_network_is_told_while_the_container_runs,
    a_restarted_engine_is_lost_and_then_told_anew,
    many_containers_at_once_are_all_told,
    a_start_that_fails_leaves_nothing_running,
);

async fn a_run_is_told_with_labels_then_address_then_its_end(release: Release) {
    let engine = Engine::start(release);
    engine.docker("network create --subnet 10.77.0.0/24 --ipv6 --subnet fd77::/64 shop");
    let mut heard = Heard::new(&engine.socket());
    assert_eq!(heard.snapshot().await.0, []);

    let mut run = engine.command("run --name web --network shop --label egress.ip=192.0.2.7 busybox adjtimex");
    let run = run.stdout(Stdio::piped()).spawn().expect("docker run");
    let (_, created) = heard.container("the labels", |one| one.name == "web").await;
    assert_eq!(created.labels["egress.ip"], "192.0.2.7");
    assert_eq!((created.network_mode.as_str(), created.running), ("shop", false));
    assert!(created.created > 1_700_000_000);
    let (told, connected) = heard.container("the address", |one| one.running).await;
    assert_eq!(addresses(&connected), [ip("10.77.0.2"), ip("fd77::2")]);
    assert_eq!(connected.attachments[0].network, "shop");
    assert_eq!(connected.labels["egress.ip"], "192.0.2.7");
    let (_, ended) = heard.container("the end", |one| !one.running).await;
    assert_eq!(addresses(&ended), NONE);

    let output = run.wait_with_output().expect("docker run");
    let first = kernel_time(&String::from_utf8_lossy(&output.stdout));
    let until = now().as_secs() + 1;
    let connect = engine.docker(&format!("events --since 0 --until {until} --filter event=connect --format {{{{.TimeNano}}}}"));
    let since_connect = told.saturating_sub(nanoseconds(&connect));
    println!(
        "{release:?}: address told {since_connect:?} after `network connect`, {:?} before the first instruction",
        first.checked_sub(told)
    );
}

async fn restart_rename_and_removal_are_told(release: Release) {
    let engine = Engine::start(release);
    let id = engine.docker("run --detach --name web --stop-signal KILL busybox sleep 1000");
    let mut heard = Heard::new(&engine.socket());
    let (containers, networks) = heard.snapshot().await;
    let [web] = &containers[..] else { panic!("one container, not {containers:#?}") };
    assert_eq!((web.id.as_str(), web.name.as_str(), web.running), (id.as_str(), "web", true));
    assert_eq!(addresses(web), [ip("172.17.0.2")]);
    let bridge = networks.iter().find(|one| one.name == "bridge").expect("the default network");
    assert_eq!(bridge.bridge.as_deref(), Some("docker0"));
    assert_eq!(bridge.subnets, ["172.17.0.0/16".parse().expect("a subnet")]);
    assert!(networks.iter().all(|one| (one.driver == "bridge") == one.bridge.is_some()));

    engine.docker("restart web");
    heard.container("the end of the first run", |one| !one.running && addresses(one).is_empty()).await;
    heard.container("the second run", |one| one.running && addresses(one) == [ip("172.17.0.2")]).await;
    engine.docker("rename web shop");
    let (_, renamed) = heard.container("the new name", |one| one.name == "shop").await;
    assert_eq!(addresses(&renamed), [ip("172.17.0.2")]);
    engine.docker("rm --force shop");
    heard.next("the removal", |change| (*change == EngineChange::ContainerGone(id.clone())).then_some(())).await;
}

async fn networks_come_and_go(release: Release) {
    let engine = Engine::start(release);
    let mut heard = Heard::new(&engine.socket());
    heard.snapshot().await;
    let id = engine.docker("network create --subnet 10.77.0.0/24 --internal --label egress.guard=on shop");
    let (_, shop) = heard.next("the network", network).await;
    assert_eq!(shop.bridge, Some(format!("br-{}", &id[..12])));
    assert_eq!(shop.subnets, ["10.77.0.0/24".parse().expect("a subnet")]);
    assert_eq!((shop.driver.as_str(), shop.internal, shop.guard), ("bridge", true, Some(true)));
    engine.docker("network create --opt com.docker.network.bridge.name=shop0 named");
    assert_eq!(heard.next("the network", network).await.1.bridge.as_deref(), Some("shop0"));
    engine.docker("network rm shop");
    heard.next("its end", |change| (*change == EngineChange::NetworkGone(id.clone())).then_some(())).await;
}

async fn a_second_network_is_told_while_the_container_runs(release: Release) {
    let engine = Engine::start(release);
    engine.docker("network create --subnet 10.77.0.0/24 one");
    engine.docker("network create --subnet 10.78.0.0/24 two");
    engine.docker("run --detach --name web --network one busybox sleep 1000");
    let mut heard = Heard::new(&engine.socket());
    heard.snapshot().await;
    engine.docker("network connect --ip 10.78.0.9 two web");
    heard.container("both addresses", |one| addresses(one) == [ip("10.77.0.2"), ip("10.78.0.9")]).await;
    engine.docker("network disconnect one web");
    heard.container("the second alone", |one| one.running && addresses(one) == [ip("10.78.0.9")]).await;
    let (_, settled) = heard.container("the first network to go", |one| one.attachments.len() == 1).await;
    assert_eq!((settled.running, addresses(&settled)), (true, vec![ip("10.78.0.9")]));
}

async fn a_restarted_engine_is_lost_and_then_told_anew(release: Release) {
    let engine = Engine::start(release);
    for name in ["one", "two", "three"] {
        engine.docker(&format!("run --detach --name {name} --restart always --stop-signal KILL busybox sleep 1000"));
    }
    let mut heard = Heard::new(&engine.socket());
    heard.snapshot().await;
    engine.stop();
    heard.next("the loss", |change| matches!(change, EngineChange::Lost(_)).then_some(())).await;
    let told = heard.changes.len();
    engine.come_back();
    heard.snapshot().await;
    let first = heard.changes[told..].iter().find(|(_, change)| !matches!(change, EngineChange::Lost(_)));
    assert!(matches!(first, Some((_, EngineChange::Snapshot { .. }))), "only reasons between the loss and the snapshot: {first:?}");

    // Some may still be on their way up when the list is read.
    let wanted: BTreeMap<_, _> = ["one", "two", "three"].into_iter().map(|name| (name.to_owned(), ip(&inspected(&engine, name)))).collect();
    let mut facts = heard.containers();
    while facts.iter().map(|one| (one.name.clone(), addresses(one).first().copied())).collect::<BTreeMap<_, _>>()
        != wanted.iter().map(|(name, address)| (name.clone(), Some(*address))).collect()
    {
        heard.next("the right addresses", |_| Some(())).await;
        facts = heard.containers();
    }
    assert!(facts.iter().all(|one| one.running));
}

async fn many_containers_at_once_are_all_told(release: Release) {
    let engine = Engine::start(release);
    engine.docker("network create --subnet 10.77.0.0/24 shop");
    let mut heard = Heard::new(&engine.socket());
    heard.snapshot().await;
    let address = |n: usize| format!("10.77.0.{}", 100 + n);
    let run = |n: usize| engine.command(&format!("run --detach --name c{n} --network shop --ip {} busybox sleep 1000", address(n)));
    let runs: Vec<_> = (0..12).map(|n| run(n).stdout(Stdio::null()).spawn().expect("docker run")).collect();
    let mut missing: BTreeMap<_, _> = (0..12).map(|n| (format!("c{n}"), ip(&address(n)))).collect();
    while !missing.is_empty() {
        let (_, one) = heard.container("all of them", |one| one.running && !addresses(one).is_empty()).await;
        if let Some(wanted) = missing.remove(&one.name) {
            assert_eq!(addresses(&one), [wanted]);
        }
    }
    for mut run in runs {
        assert!(run.wait().expect("docker run").success());
    }
}

async fn a_start_that_fails_leaves_nothing_running(release: Release) {
    let engine = Engine::start(release);
    engine.docker("network create --subnet 10.77.0.0/24 shop");
    let mut heard = Heard::new(&engine.socket());
    heard.snapshot().await;
    engine.try_docker("run --name web --network shop busybox /no/such/program").expect_err("no such program");
    heard.container("its labels", |one| one.name == "web").await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    engine.docker("rename web failed");
    heard.container("its new name", |one| one.name == "failed").await;
    let facts = heard.containers();
    assert_eq!((facts.len(), facts[0].running, addresses(&facts[0])), (1, false, NONE.to_vec()));
}

fn network(change: &EngineChange) -> Option<Network> {
    if let EngineChange::Network(network) = change { Some((**network).clone()) } else { None }
}

fn nanoseconds(text: &str) -> Duration {
    Duration::from_nanos(text.trim().parse().expect("nanoseconds"))
}

/// What busybox's `adjtimex` prints: it has no other clock that is finer than seconds.
fn kernel_time(text: &str) -> Duration {
    let field = |name: &str| text.lines().find_map(|line| line.trim().strip_prefix(name)?.trim().parse().ok()).expect("a time");
    Duration::from_secs(field("time.tv_sec:")) + Duration::from_micros(field("time.tv_usec:"))
}

fn inspected(engine: &Engine, name: &str) -> String {
    engine.docker(&format!("inspect --format {{{{range.NetworkSettings.Networks}}}}{{{{.IPAddress}}}}{{{{end}}}} {name}"))
}
