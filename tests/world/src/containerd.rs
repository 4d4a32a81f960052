//! A private containerd for a scenario, and how containers are made in it.

use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use containerd_client::Client;
use containerd_client::services::v1::container::Runtime as Handler;
use containerd_client::services::v1::{Container, CreateContainerRequest, DeleteContainerRequest, SubscribeRequest};
use containerd_client::tonic::Request;

use crate::{CGROUP, FOLDER, built, command, service::Service};

/// Which containerd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Release {
    /// Debian 12's, 1.6.
    Debian,
    /// What tests/cluster builds.
    Current,
}

/// A running containerd. It ends with the scenario's namespaces, and so do its containers.
pub struct Containerd {
    release: Release,
    service: Service,
}

/// Where it listens.
pub const SOCKET: &str = "/run/world/containerd.sock";
/// Where kubelets keep their containers.
pub const PODS: &str = "k8s.io";
const ROOT: &str = "/run/world/root";

impl Containerd {
    /// Starts it, and waits until it serves.
    pub fn start(release: Release) -> Self {
        fs::create_dir_all(format!("{ROOT}/bin")).expect("/run is ours");
        for name in ["busybox", "sleep"] {
            fs::copy("/bin/busybox", format!("{ROOT}/bin/{name}")).expect("busybox-static");
        }
        let configuration = format!(
            "version = 2\nroot = \"{FOLDER}/containerd/root\"\nstate = \"{FOLDER}/containerd/state\"\n\
             disabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\naddress = \"{SOCKET}\"\n"
        );
        fs::write(format!("{FOLDER}/containerd.toml"), configuration).expect("/run is ours");
        let mut containerd = Self { release, service: start(release) };
        containerd.wait();
        containerd
    }

    /// Ends it with no chance to tidy up; containers go on.
    pub fn kill(&mut self) {
        self.service.kill();
    }

    /// Starts it again, and waits until it serves.
    pub fn come_back(&mut self) {
        self.service = start(self.release);
        self.wait();
    }

    fn wait(&mut self) {
        let ctr = program(self.release, "ctr").display().to_string();
        let ready = || command::try_run(&[&ctr, "--address", SOCKET, "version"]).is_ok();
        self.service.wait_until("ready", Duration::from_secs(60), ready);
    }

    /// Runs `ctr` in this namespace of containerd, and returns what it prints.
    pub fn ctr(&self, namespace: &str, arguments: &[&str]) -> String {
        let ctr = program(self.release, "ctr").display().to_string();
        command::run(&[&[ctr.as_str(), "--address", SOCKET, "--namespace", namespace], arguments].concat())
    }

    /// Starts a container that sleeps.
    pub fn run(&self, namespace: &str, name: &str, options: &[&str]) {
        let cgroup = format!("/{}/{namespace}-{name}", env::var(CGROUP).expect("the harness names one"));
        let first = ["run", "--detach", "--rootfs", "--cgroup", &cgroup];
        self.ctr(namespace, &[&first, options, &[ROOT, name, "/bin/sleep", "1000"]].concat());
    }

    /// The first process of a container, as the scenario counts processes.
    pub fn pid(&self, namespace: &str, name: &str) -> u32 {
        let tasks = self.ctr(namespace, &["task", "ls"]);
        let mut rows = tasks.lines().map(str::split_whitespace);
        let pid = rows.find_map(|mut row| (row.next()? == name).then(|| row.next())?);
        pid.and_then(|pid| pid.parse().ok()).unwrap_or_else(|| panic!("{namespace}/{name} has a task: {tasks}"))
    }

    /// Ends a container's task, and removes both.
    pub fn remove(&self, namespace: &str, name: &str) {
        self.ctr(namespace, &["task", "delete", "--force", name]);
        self.ctr(namespace, &["container", "delete", name]);
    }
}

fn start(release: Release) -> Service {
    let mut command = Command::new(program(release, "containerd"));
    command.args(["--config", &format!("{FOLDER}/containerd.toml")]);
    if release == Release::Current {
        // Its shim stands beside it.
        let search = env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{}:{search}", built("tmp/cluster").display()));
    }
    Service::start("containerd", command)
}

/// A program of that release's; `ctr` is one.
pub(crate) fn program(release: Release, name: &str) -> PathBuf {
    match release {
        Release::Debian => PathBuf::from("/usr/bin").join(name),
        Release::Current => env::var_os("EGRESSD_CLUSTER").map_or_else(|| built("tmp/cluster"), PathBuf::from).join(name),
    }
}

/// The record that containerd's CRI plugin makes of a pod's sandbox.
pub fn sandbox(name: &str, netns: &str) -> Container {
    let labels = [
        ("io.cri-containerd.kind", "sandbox"),
        ("io.kubernetes.pod.namespace", "shop"),
        ("io.kubernetes.pod.name", name),
        ("io.kubernetes.pod.uid", name),
        ("app", "crawler"),
    ];
    // A real one has 10 kB of this: capabilities, mounts, seccomp.
    let rules: Vec<_> =
        (0..100).map(|number| serde_json::json!({"names": [format!("syscall{number}")], "action": "SCMP_ACT_ALLOW", "args": []})).collect();
    let spec = serde_json::json!({
        "ociVersion": "1.2.1",
        "process": {"args": ["/pause"], "cwd": "/"},
        "linux": {
            "namespaces": [{"type": "pid"}, {"type": "network", "path": format!("/var/run/netns/{netns}")}],
            "seccomp": {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": rules},
        },
    });
    let mut record = Container {
        id: name.to_owned(),
        labels: labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
        runtime: Some(Handler { name: "io.containerd.runc.v2".to_owned(), options: None }),
        ..Container::default()
    };
    let body = record.spec.get_or_insert_default();
    body.type_url = "types.containerd.io/opencontainers/runtime-spec/1/Spec".to_owned();
    body.value = spec.to_string().into_bytes();
    record
}

/// Makes a record in the namespace of kubelets.
pub async fn create(client: &Client, container: Container) {
    let request = in_pods(CreateContainerRequest { container: Some(container) });
    client.containers().create(request).await.expect("containerd takes it");
}

/// Deletes such a record.
pub async fn delete(client: &Client, id: &str) {
    client.containers().delete(in_pods(DeleteContainerRequest { id: id.to_owned() })).await.expect("it is there");
}

/// When containerd made its next `count` records, as its events say, since the epoch.
pub async fn created(client: Client, count: usize) -> Vec<Duration> {
    let filters = vec!["topic==\"/containers/create\"".to_owned()];
    let mut events = client.events().subscribe(SubscribeRequest { filters }).await.expect("events").into_inner();
    let mut times = Vec::new();
    while times.len() < count {
        let time = events.message().await.expect("events").expect("an event").timestamp.expect("a time");
        times.push(Duration::new(time.seconds.cast_unsigned(), time.nanos.cast_unsigned()));
    }
    times
}

fn in_pods<T>(question: T) -> Request<T> {
    let mut request = Request::new(question);
    request.metadata_mut().insert("containerd-namespace", PODS.parse().expect("a name"));
    request
}
