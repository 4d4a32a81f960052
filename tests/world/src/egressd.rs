//! The program under test: the release binary, started on a machine as an operator would.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, SystemTime},
};

use crate::{FOLDER, build::World, built, command, docker, machine::Machine, namespaces::Namespaces, service::Service};

/// Where the daemon listens for `egressd status` and the like.
pub const SOCKET: &str = "/run/egressd/egressd.sock";

/// A running daemon.
#[derive(Debug)]
pub struct Egressd {
    service: Service,
    name: String,
    namespaces: Namespaces,
    arguments: Vec<String>,
    environment: Variables,
}

type Variables = Vec<(String, String)>;

impl World {
    /// Starts it for the world's Docker daemon and the folder [`manifests`].
    pub fn egressd_for_docker(&self) -> Egressd {
        fs::create_dir_all(manifests()).expect("/run is ours");
        self.egressd(&["--docker-socket", docker::SOCKET, "--manifests", &manifests().to_string_lossy()])
    }

    /// Starts it with no engine, for the folder [`manifests`].
    pub fn egressd_for_manifests(&self) -> Egressd {
        fs::create_dir_all(manifests()).expect("/run is ours");
        self.egressd(&["--no-docker", "--manifests", &manifests().to_string_lossy()])
    }
}

impl Machine {
    /// Starts `egressd run` with these arguments, and waits until it is ready.
    pub fn egressd(&self, arguments: &[&str]) -> Egressd {
        let mut egressd = self.egressd_started(arguments);
        egressd.await_ready();
        egressd
    }

    /// Starts it and does not wait.
    pub fn egressd_started(&self, arguments: &[&str]) -> Egressd {
        self.egressd_started_in(arguments, &[])
    }

    /// The same, with variables in its environment.
    pub fn egressd_started_in(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Egressd {
        let own = |text: &&str| (*text).to_owned();
        let arguments: Vec<String> = arguments.iter().map(own).collect();
        let environment = environment.iter().map(|(name, value)| (own(name), own(value))).collect();
        let name = format!("{}egressd", self.prefix);
        let service = spawn(&self.namespaces, &name, &arguments, &environment);
        Egressd { service, name, namespaces: self.namespaces.clone(), arguments, environment }
    }

    /// Runs one of its other commands (`status`, `explain`, `cleanup`, ...) and returns what it prints, or its failure.
    pub fn egressctl(&self, arguments: &[&str]) -> Result<String, String> {
        control(&self.namespaces, arguments)
    }

    /// Runs `egressd cleanup`. Panics when it fails.
    pub fn cleanup(&self) {
        self.egressctl(&["cleanup"]).unwrap_or_else(|error| panic!("{error}"));
    }
}

/// The folder with manifests that the daemon watches.
pub fn manifests() -> PathBuf {
    Path::new(FOLDER).join("manifests")
}

impl Egressd {
    /// Ends it with no chance to tidy up.
    pub fn kill(&mut self) {
        self.service.kill();
    }

    /// Asks it to end, as `systemctl stop` does.
    pub fn stop(&mut self) {
        self.service.terminate(Duration::from_secs(10));
    }

    /// Starts it again with the same arguments, and waits until it is ready.
    pub fn start(&mut self) {
        self.service = spawn(&self.namespaces, &self.name, &self.arguments, &self.environment);
        self.await_ready();
    }

    fn await_ready(&mut self) {
        let namespaces = self.namespaces.clone();
        self.service.wait_until("ready", Duration::from_secs(10), || control(&namespaces, &["status"]).is_ok());
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.service.pid()
    }

    /// A line in kB of its `/proc/PID/status`: `VmRSS`, or its peak `VmHWM`.
    pub fn memory(&self, line: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("it runs");
        let memory = status.lines().find_map(|text| text.strip_prefix(line)?.strip_prefix(':')?.trim().strip_suffix(" kB")?.parse().ok());
        memory.unwrap_or_else(|| panic!("no {line} in {status}"))
    }

    /// What it has printed, in all its lives.
    pub fn log(&self) -> String {
        self.service.log()
    }
}

fn spawn(namespaces: &Namespaces, name: &str, arguments: &[String], environment: &Variables) -> Service {
    let mut daemon = Command::new(program());
    daemon.arg("run").args(arguments).envs(environment.iter().cloned());
    Service::start_in(namespaces, name, daemon)
}

fn control(namespaces: &Namespaces, arguments: &[&str]) -> Result<String, String> {
    let mut command = Command::new(program());
    command.args(arguments);
    namespaces.enter(|| command::finish(command, &[&["egressd"], arguments].concat(), ""))
}

/// The release binary: what a user gets, and not what the tests were built with. `EGRESSD` names another one.
pub fn program() -> PathBuf {
    std::env::var_os("EGRESSD").map_or_else(|| released("egressd"), Into::into)
}

/// Another program of the workspace, beside it.
pub fn companion(name: &str) -> PathBuf {
    std::env::var_os("EGRESSD").map_or_else(|| released(name), |program| Path::new(&program).with_file_name(name))
}

fn released(name: &str) -> PathBuf {
    let program = built(&format!("release/{name}"));
    let age = fs::metadata(&program).and_then(|metadata| metadata.modified());
    let age = age.unwrap_or_else(|_| panic!("there is no {}: cargo build --release --package {name}", program.display()));
    let source = newest_source(&built(&format!("release/{name}.d")));
    assert!(age >= source, "{} is older than its source: cargo build --release --package {name}", program.display());
    program
}

/// The age of the youngest file that the program was built from, by cargo's list of them: files of tests alone are not in it.
fn newest_source(list: &Path) -> SystemTime {
    let list = fs::read_to_string(list).unwrap_or_else(|error| panic!("failed to read {}: {error}", list.display()));
    let files = list.split_once(": ").map_or("", |(_, files)| files).split_whitespace();
    // A file that is gone is built without at the next build.
    let ages = files.filter_map(|file| fs::metadata(file).and_then(|metadata| metadata.modified()).ok());
    ages.max().unwrap_or(SystemTime::UNIX_EPOCH)
}
