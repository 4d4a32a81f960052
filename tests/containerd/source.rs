//! What a real containerd does, as facts.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use containerd_client::Client;
use containerd_client::services::v1::Container;
use egressd::api;
use egressd::facts::containerd::Source;
use egressd::facts::kernel::Asker;
use egressd::model::pod::{NetworkNamespace, Owner, RuntimeChange, Sandbox};
use world::cluster::CONTAINERD;
use world::containerd::{Containerd, PODS, Release, SOCKET, create, created, delete, sandbox};
use world::status::until_within;
use world::{Cluster, Netns, command};

/// Everything that was told, with the time.
struct Heard {
    source: Source,
    changes: Vec<(SystemTime, RuntimeChange)>,
    read: usize,
}

impl Heard {
    fn new(socket: impl AsRef<Path>) -> Self {
        let source = Source::new(socket.as_ref(), |container| api::labels::parse(container).map(Arc::new));
        Self { source, changes: Vec::new(), read: 0 }
    }

    /// The next change that `pick` takes; what comes before it is passed over.
    async fn next<T>(&mut self, what: &str, pick: impl Fn(&RuntimeChange) -> Option<T>) -> T {
        let patience = tokio::time::Instant::now() + Duration::from_secs(60);
        loop {
            while let Some((_, change)) = self.changes.get(self.read) {
                self.read += 1;
                if let Some(found) = pick(change) {
                    return found;
                }
            }
            match tokio::time::timeout_at(patience, self.source.next()).await {
                Ok(batch) => {
                    let now = SystemTime::now();
                    self.changes.extend(batch.into_iter().map(|change| (now, change)));
                }
                Err(_) => panic!("waited in vain for {what}; told were {:#?}", self.changes),
            }
        }
    }

    async fn snapshot(&mut self) -> Vec<Sandbox> {
        let pick = |change: &RuntimeChange| match change {
            RuntimeChange::Snapshot(sandboxes) => Some(sandboxes.clone()),
            _ => None,
        };
        self.next("a snapshot", pick).await
    }

    async fn sandbox(&mut self, id: &str) -> Sandbox {
        let pick = |change: &RuntimeChange| match change {
            RuntimeChange::Sandbox(sandbox) if sandbox.id == id => Some((**sandbox).clone()),
            _ => None,
        };
        self.next(id, pick).await
    }

    async fn gone(&mut self, id: &str) {
        self.next(&format!("the end of {id}"), |change| (*change == RuntimeChange::Gone(id.to_owned())).then_some(())).await;
    }
}

fn named(name: &str) -> NetworkNamespace {
    NetworkNamespace::Named(name.to_owned())
}

pub async fn a_sandbox_comes_and_goes(release: Release) {
    let containerd = Containerd::start(release);
    Netns::add("cni-1");
    let mut heard = Heard::new(SOCKET);
    assert_eq!(heard.snapshot().await, []);

    let client = Client::from_path(SOCKET).await.expect("a client");
    create(&client, sandbox("web-uid", "cni-1")).await;
    let told = heard.sandbox("k8s.io/web-uid").await;
    assert_eq!(told.network, named("cni-1"));
    assert!(told.created > 1_700_000_000);
    let Owner::Pod(pod) = told.owner else { panic!("a pod, not {:?}", told.owner) };
    assert_eq!((pod.namespace.as_str(), pod.name.as_str(), pod.uid.as_str()), ("shop", "web-uid", "web-uid"));
    assert_eq!(pod.labels, BTreeMap::from([("app".to_owned(), "crawler".to_owned())]));
    delete(&client, "web-uid").await;
    heard.gone("k8s.io/web-uid").await;

    let labels = [
        ("io.cri-containerd.kind", "sandbox"),
        ("io.kubernetes.pod.namespace", "shop"),
        ("io.kubernetes.pod.name", "job"),
        ("io.kubernetes.pod.uid", "1"),
    ];
    let labels: Vec<String> = labels.iter().map(|(key, value)| format!("--label={key}={value}")).collect();
    let mut options: Vec<&str> = labels.iter().map(String::as_str).collect();
    options.extend(["--with-ns", "network:/run/netns/cni-1"]);
    containerd.run(PODS, "job", &options);
    assert_eq!(heard.sandbox("k8s.io/job").await.network, named("cni-1"));
    containerd.ctr(PODS, &["task", "kill", "--signal", "KILL", "job"]);
    heard.gone("k8s.io/job").await;
    assert_eq!(Heard::new(SOCKET).snapshot().await, [], "its record is still there, and its task is over");
}

pub async fn a_containers_namespace_is_its_tasks(release: Release) {
    let containerd = Containerd::start(release);
    let mut heard = Heard::new(SOCKET);
    heard.snapshot().await;
    containerd.run("default", "web", &["--label", "egress.ip=192.0.2.7"]);
    let pid = containerd.pid("default", "web");
    let told = heard.sandbox("default/web").await;
    let NetworkNamespace::Numbered(nsid) = told.network else { panic!("a number, not {:?}", told.network) };
    let file = std::fs::File::open(format!("/proc/{pid}/ns/net")).expect("its namespace");
    assert_eq!(Asker::open().and_then(|mut ask| ask.nsid(&file)).expect("the kernel answers"), Some(nsid));
    let Owner::Container { name, asked: Some(asked), .. } = told.owner else { panic!("it asks for an exit: {:?}", told.owner) };
    assert_eq!((name.as_str(), asked.binding.as_ref().map_or(99, |binding| binding.errors.len())), ("default/web", 0));

    containerd.run("default", "hostly", &["--net-host", "--label", "egress.ip=192.0.2.7"]);
    let hostly = heard.sandbox("default/hostly").await;
    assert_eq!(hostly.network, NetworkNamespace::Host);
    let Owner::Container { asked: Some(asked), .. } = hostly.owner else { panic!("it asks for an exit: {:?}", hostly.owner) };
    assert!(asked.binding.as_ref().is_some_and(|binding| binding.errors[0].field == "network mode"), "{asked:?}");

    containerd.run("other", "web", &[]);
    let other = heard.sandbox("other/web").await;
    assert!(matches!(other.owner, Owner::Container { name, asked: None, .. } if name == "other/web"));
    assert_ne!(other.network, NetworkNamespace::Numbered(nsid));
    containerd.run("moby", "of-docker", &[]);
    containerd.remove("other", "web");
    heard.gone("other/web").await;

    let mut anew: Vec<_> = Heard::new(SOCKET).snapshot().await.into_iter().map(|one| (one.id, one.network)).collect();
    anew.sort_by(|a, b| a.0.cmp(&b.0));
    let expected = [("default/hostly".to_owned(), NetworkNamespace::Host), ("default/web".to_owned(), NetworkNamespace::Numbered(nsid))];
    assert_eq!(anew, expected, "Docker's containers are the engine's to tell");
    assert!(heard.changes.iter().all(|(_, change)| !format!("{change:?}").contains("of-docker")));
}

pub async fn a_killed_containerd_is_told_anew(release: Release) {
    let mut containerd = Containerd::start(release);
    for name in ["stays", "ends"] {
        containerd.run("default", name, &[]);
    }
    let mut heard = Heard::new(SOCKET);
    let before = heard.snapshot().await;
    assert_eq!(before.len(), 2);
    let ends = containerd.pid("default", "ends").to_string();
    containerd.kill();
    heard.next("the loss", |change| matches!(change, RuntimeChange::Lost(_)).then_some(())).await;
    command::run(&["kill", "-KILL", &ends]);
    let process = Path::new("/proc").join(&ends);
    let patience = Duration::from_secs(20);
    until_within(patience, patience / 200, "its shim has seen it end", || if process.exists() { Err(ends.clone()) } else { Ok(()) });
    containerd.come_back();
    let after: BTreeSet<String> = heard.snapshot().await.into_iter().map(|sandbox| sandbox.id).collect();
    assert_eq!(after, BTreeSet::from(["default/stays".to_owned()]));
    let lost = |(_, change): &&(SystemTime, RuntimeChange)| matches!(change, RuntimeChange::Lost(_));
    let losses: Vec<_> = heard.changes.iter().filter(lost).map(|(_, change)| change).collect();
    assert!(losses.windows(2).all(|two| two[0] != two[1]), "each reason is told once: {losses:?}");
    containerd.run("default", "new", &[]);
    heard.sandbox("default/new").await;
}

/// containerd asks all shims of a namespace one after another, and waits two seconds for each that hangs.
pub async fn shims_that_hang_harm_only_themselves(release: Release) {
    const HUNG: usize = 8;
    let containerd = Containerd::start(release);
    let names: Vec<String> = (0..HUNG).map(|number| format!("hung-{number}")).collect();
    let mut shims = Vec::new();
    for name in names.iter().map(String::as_str).chain(["well"]) {
        containerd.run("default", name, &[]);
        let status = std::fs::read_to_string(format!("/proc/{}/status", containerd.pid("default", name))).expect("it runs");
        shims.extend(status.lines().find_map(|line| line.strip_prefix("PPid:")).map(|shim| shim.trim().to_owned()));
    }
    assert_eq!(shims.len(), HUNG + 1);
    for shim in &shims[..HUNG] {
        command::run(&["kill", "-STOP", shim]);
    }
    let mut heard = Heard::new(SOCKET);
    let told: Vec<String> = heard.snapshot().await.into_iter().map(|sandbox| sandbox.id).collect();
    assert_eq!(told, ["default/well"]);
    let problems = |change: &RuntimeChange| match change {
        RuntimeChange::Problems(problems) => Some(problems.clone()),
        _ => None,
    };
    let problems = heard.next("the hung ones", problems).await;
    assert_eq!(problems.len(), HUNG, "{problems:?}");
    assert!(problems["container default/hung-0"].contains("shim"), "{problems:?}");
    for shim in &shims[..HUNG] {
        command::run(&["kill", "-CONT", shim]);
    }
    heard.sandbox("default/hung-0").await;
}

/// With a pause between them, or all at once.
pub async fn many_are_told(release: Release, pause: Option<Duration>) {
    const MANY: usize = 200;
    let _containerd = Containerd::start(release);
    let mut heard = Heard::new(SOCKET);
    heard.snapshot().await;
    let client = Client::from_path(SOCKET).await.expect("a client");
    let listener = Client::from_path(SOCKET).await.expect("a client");
    let listening = tokio::spawn(created(listener, MANY));
    tokio::time::sleep(Duration::from_millis(300)).await;
    let creating = tokio::spawn(async move {
        let mut pods = tokio::task::JoinSet::new();
        for number in 0..MANY {
            let client = Client::from(client.channel());
            pods.spawn(async move { create(&client, sandbox(&format!("pod-{number:03}"), &format!("cni-{number}"))).await });
            if let Some(pause) = pause {
                tokio::time::sleep(pause).await;
            }
        }
        pods.join_all().await;
        client
    });
    let mut told = BTreeSet::new();
    while told.len() < MANY {
        let pick = |change: &RuntimeChange| match change {
            RuntimeChange::Sandbox(sandbox) => Some(sandbox.id.clone()),
            _ => None,
        };
        assert!(told.insert(heard.next("the others", pick).await), "each is told once");
    }
    let client = creating.await.expect("all are created");
    // In the order of their records, so that the n-th of one list is at most the n-th of the other.
    let mut events = listening.await.expect("all events");
    let mut times: Vec<_> =
        heard.changes.iter().filter(|(_, change)| matches!(change, RuntimeChange::Sandbox(_))).map(|(time, _)| *time).collect();
    events.sort();
    times.sort();
    let mut delays: Vec<_> =
        times.iter().zip(&events).map(|(told, event)| told.duration_since(UNIX_EPOCH + *event).unwrap_or_default()).collect();
    delays.sort();
    println!(
        "{release:?}: told after the event: p50 {:?}, p99 {:?}, max {:?}",
        delays[MANY / 2],
        delays[MANY * 99 / 100],
        delays[MANY - 1]
    );
    for number in 0..MANY {
        delete(&client, &format!("pod-{number:03}")).await;
        heard.gone(&format!("k8s.io/pod-{number:03}")).await;
    }
}

pub async fn ten_thousand_are_read(release: Release) {
    const MANY: usize = 10_000;
    let containerd = Containerd::start(release);
    containerd.run("default", "web", &[]);
    let client = Client::from_path(SOCKET).await.expect("a client");
    // Making 10 kB of JSON for each takes longer than writing it.
    let record = sandbox("pod", "cni-1");
    for number in 0..MANY {
        create(&client, Container { id: format!("pod-{number}"), ..record.clone() }).await;
    }
    let mut broken = sandbox("broken", "cni-1");
    broken.spec.get_or_insert_default().value = b"{".to_vec();
    create(&client, broken).await;
    let began = Instant::now();
    let ids: Vec<_> = Heard::new(SOCKET).snapshot().await.into_iter().map(|sandbox| sandbox.id).collect();
    println!("{release:?}: {MANY} records of 10 kB are read in {:?}", began.elapsed());
    assert_eq!(ids, ["default/web"], "a pod without a task is over; a record that cannot be read stops nothing");
}

pub async fn a_kubelets_pod_is_told() {
    let cluster = Cluster::builder().build();
    let mut heard = Heard::new(cluster.node("n1").path(CONTAINERD));
    heard.snapshot().await;
    let run = cluster.run("web", "n1", &[("app", "crawler")]);
    let pick = |change: &RuntimeChange| match change {
        RuntimeChange::Sandbox(sandbox) => match &sandbox.owner {
            Owner::Pod(pod) if pod.name == "web" => Some((sandbox.clone(), pod.clone())),
            _ => None,
        },
        _ => None,
    };
    let (sandbox, pod) = heard.next("the pod", pick).await;
    assert_eq!(pod.labels, BTreeMap::from([("app".to_owned(), "crawler".to_owned())]));
    assert!(matches!(&sandbox.network, NetworkNamespace::Named(name) if name.starts_with("cni-")), "{:?}", sandbox.network);
    assert!(!pod.host_network && !pod.uid.is_empty());
    assert!(!run.addresses().is_empty());
    cluster.api.delete(&["pod", "web"]);
    heard.gone(&sandbox.id).await;
    let told = heard.changes.iter().filter(|(_, change)| matches!(change, RuntimeChange::Sandbox(one) if one.id == sandbox.id)).count();
    assert_eq!(told, 1, "once: its task says nothing new");
}
