//! The daemon: started, told of changes, killed, started again.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use world::{FOLDER, command, service::Service};

use crate::{
    WORKLOADS,
    host::{EXIT, Host, UNBOUND},
    nth,
};

/// Addresses that come, one by one.
const CHANGES: u32 = 200;
/// Long enough for a round to be over.
const PAUSE: Duration = Duration::from_millis(30);

/// What it took.
pub struct Control {
    /// From start to ready, nothing programmed yet, in milliseconds.
    pub start: f64,
    /// The round that programs all, in milliseconds.
    pub load: f64,
    /// Rounds that program one new address, in milliseconds.
    pub changes: Vec<f64>,
    /// From start to ready with all programmed by a killed one, in milliseconds.
    pub restart: f64,
    /// Changes that it made after that.
    pub restart_changes: u64,
    /// Resident memory after the changes, and its peak, in MiB.
    pub resident: f64,
    pub peak: f64,
    // The daemon's end is the end of this.
    _service: Service,
}

/// Starts egressd on this host, measures it, and leaves it running.
pub fn daemon_at(host: Host) -> (Host, Control) {
    let name = manifest(&host);
    let (service, start_took) = start(&host, &name);
    let load = rounds(&service).iter().map(|(_, took)| *took).fold(0.0, f64::max);
    let before = rounds(&service).len();
    for n in 0..CHANGES {
        host.container.run(&["ip", "addr", "add", &format!("{}/16", nth(UNBOUND, 256 + n)), "dev", "eth0", "noprefixroute"]);
        thread::sleep(PAUSE);
    }
    let changes: Vec<f64> = rounds(&service)[before..].iter().map(|(_, took)| *took).collect();
    let memory = |field: &str| {
        let text = fs::read_to_string(format!("/proc/{}/status", service.pid())).expect("it runs");
        let line = text.lines().find_map(|line| line.strip_prefix(field)).expect("the kernel tells memory");
        line.split_whitespace().nth(1).and_then(|kib| kib.parse::<f64>().ok()).expect("a number of KiB") / 1024.0
    };
    let (resident, peak) = (memory("VmRSS"), memory("VmHWM"));
    let mut service = service;
    service.kill();
    let before = rounds(&service).len();
    let (service, restart) = start(&host, &name);
    let restart_changes = rounds(&service)[before..].iter().map(|(changes, _)| changes).sum();
    (host, Control { start: start_took, load, changes, restart, restart_changes, resident, peak, _service: service })
}

/// Has egressd program this host, and kills it: its rules stay, and are nobody's.
pub fn orphan_at(host: Host) -> Host {
    let name = manifest(&host);
    start(&host, &name).0.kill();
    host
}

fn manifest(host: &Host) -> String {
    let name = host.inside.name().to_owned();
    let folder = Path::new(FOLDER).join(&name);
    fs::create_dir_all(&folder).expect("/run is ours");
    let text = format!(
        "apiVersion: egressd.dev/v1alpha1
kind: EgressBinding
metadata: {{name: all}}
spec:
  networkNamespaces: [{}]
  exits: [{{address: {EXIT}, interface: eth1, gateway: 172.31.16.1}}]
",
        host.container.name()
    );
    fs::write(folder.join("all.yaml"), text).expect("/run is ours");
    name
}

/// Starts it and waits until it is ready and has had time to settle. The second is the time until it was ready, in milliseconds.
fn start(host: &Host, name: &str) -> (Service, f64) {
    let program = program();
    let state = format!("/run/{name}");
    let mut daemon = Command::new(&program);
    daemon.args(["--state-dir", &state, "run", "--manifests"]).arg(Path::new(FOLDER).join(name));
    daemon.args(["--no-docker", "--no-metrics", "--log-json"]).stderr(Stdio::piped());
    let began = Instant::now();
    let service = host.inside.enter(|| Service::start(name, daemon));
    let status = || {
        let mut status = Command::new(&program);
        status.args(["--state-dir", &state, "status"]);
        command::finish(status, &["egressd", "status"], "").is_ok()
    };
    while !status() {
        assert!(began.elapsed() < Duration::from_secs(20), "egressd is not ready on {name}: {}", service.log());
        thread::sleep(Duration::from_millis(1));
    }
    let took = began.elapsed().as_secs_f64() * 1e3;
    thread::sleep(Duration::from_secs(1));
    let map = host.inside.run(&["nft", "list", "map", "ip", "egressd", "policies"]);
    let elements = map.matches(" : ").count();
    assert!(elements >= WORKLOADS as usize, "{elements} elements on {name}: {}", service.log());
    (service, took)
}

/// The release binary: beside this program.
fn program() -> PathBuf {
    let own = std::env::current_exe().expect("a running program has a path");
    own.with_file_name("egressd")
}

/// Rounds that its log tells of: changes, and milliseconds.
fn rounds(service: &Service) -> Vec<(u64, f64)> {
    let log = service.log();
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let fields = lines.map(|line| line["fields"].clone()).filter(|fields| fields["message"] == "kernel programmed");
    // 128 bits wide, which JSON's numbers are not: logged as text.
    let number = |value: &Value| value.as_f64().or_else(|| value.as_str()?.parse().ok()).expect("the log has the number");
    fields.map(|fields| (number(&fields["changes"]) as u64, number(&fields["microseconds"]) / 1e3)).collect()
}
