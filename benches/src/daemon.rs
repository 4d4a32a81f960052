//! The daemon on a host.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use world::{FOLDER, command, service::Service, vm};

use crate::host::{EXIT, Host};

/// The exit of all workloads.
pub fn one_exit() -> String {
    format!("exits: [{{address: {EXIT}, interface: eth1, gateway: 172.31.16.1}}]")
}

/// Has egressd program this host, and kills it: its rules stay, and are nobody's.
pub fn orphan_at(host: Host) -> Host {
    let name = manifest(&host, &one_exit());
    start(&host, &name).0.kill();
    host
}

/// Writes the manifest that binds a host's container, and returns the name that its daemon goes by.
pub fn manifest(host: &Host, exits: &str) -> String {
    let name = host.inside.name().to_owned();
    let folder = Path::new(FOLDER).join(&name);
    fs::create_dir_all(&folder).expect("/run is ours");
    let text = format!(
        "apiVersion: egressd.dev/v1alpha1
kind: EgressBinding
metadata: {{name: all}}
spec:
  networkNamespaces: [{}]
  {exits}
",
        host.container.name()
    );
    fs::write(folder.join("all.yaml"), text).expect("/run is ours");
    name
}

/// Starts it and waits until it is ready and has had time to settle. The second is the time until it was ready, in milliseconds.
pub fn start(host: &Host, name: &str) -> (Service, f64) {
    start_with(host, name, &[])
}

/// The same with more arguments.
pub fn start_with(host: &Host, name: &str, arguments: &[&str]) -> (Service, f64) {
    let program = program();
    let state = format!("/run/{name}");
    let mut daemon = Command::new(&program);
    daemon.args(["--state-dir", &state, "run", "--manifests"]).arg(Path::new(FOLDER).join(name));
    daemon.args(["--no-docker", "--no-metrics", "--log-json"]).args(arguments).stderr(Stdio::piped());
    let began = Instant::now();
    let service = host.inside.enter(|| Service::start(name, daemon));
    let status = || {
        let mut status = Command::new(&program);
        status.args(["--state-dir", &state, "status"]);
        command::finish(status, &["egressd", "status"], "").is_ok()
    };
    while !status() {
        assert!(began.elapsed() < Duration::from_secs(60), "egressd is not ready on {name}: {}", service.log());
        thread::sleep(Duration::from_millis(if vm::is_inside() { 200 } else { 1 }));
    }
    let took = began.elapsed().as_secs_f64() * 1e3;
    let list = ["nft", "list", "map", "ip", "egressd", "policies"];
    let programmed = || host.inside.enter(|| command::try_run(&list)).map_or(0, |map| map.matches(" : ").count());
    while programmed() < host.workloads as usize {
        assert!(began.elapsed() < Duration::from_secs(60), "{} elements on {name}: {}", programmed(), service.log());
        thread::sleep(Duration::from_millis(50));
    }
    // What follows from it has been done as well then.
    thread::sleep(Duration::from_secs(1));
    (service, took)
}

/// The release binary: beside this program.
fn program() -> PathBuf {
    let own = std::env::current_exe().expect("a running program has a path");
    own.with_file_name("egressd")
}

/// Rounds that its log tells of: changes, and milliseconds.
pub fn rounds(service: &Service) -> Vec<(u64, f64)> {
    let log = service.log();
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let fields = lines.map(|line| line["fields"].clone()).filter(|fields| fields["message"] == "kernel programmed");
    // 128 bits wide, which JSON's numbers are not: logged as text.
    let number = |value: &Value| value.as_f64().or_else(|| value.as_str()?.parse().ok()).expect("the log has the number");
    fields.map(|fields| (number(&fields["changes"]) as u64, number(&fields["microseconds"]) / 1e3)).collect()
}
