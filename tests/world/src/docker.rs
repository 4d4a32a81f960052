//! Real Docker daemons on the host, private to the scenario: Debian's 20.10, and a current engine with each firewall backend.

use std::{
    env, fs,
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use serde_json::{Value, json};

pub use crate::image::WEB_PORT;
use crate::{FOLDER, build::World, built, command, image, isolate, netns::Netns, service::Service};

/// Where each daemon listens: Docker's usual place, on the scenario's own `/run`.
pub const SOCKET: &str = "/run/docker.sock";
/// Name of the image that every daemon has: busybox, and a web server on [`WEB_PORT`] as its program.
pub const IMAGE: &str = "probe";
/// API version that all engines and all clients have in common.
const API: &str = "1.41";

/// A container engine and the way it programs its firewall.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Engine {
    /// Debian 12's docker.io, 20.10, with iptables.
    Debian,
    /// The engine that `tests/engines` names, with iptables.
    CurrentIptables,
    /// The engine that `tests/engines` names, with nftables.
    CurrentNftables,
}

impl Engine {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Debian, Self::CurrentIptables, Self::CurrentNftables];

    fn program(self) -> PathBuf {
        let program = match self {
            Self::Debian => PathBuf::from("/usr/sbin/dockerd"),
            Self::CurrentIptables | Self::CurrentNftables => current().join("dockerd"),
        };
        let cure = match self {
            Self::Debian => "install the package docker.io",
            Self::CurrentIptables | Self::CurrentNftables => "build it: make engines",
        };
        assert!(program.exists(), "there is no {}: {cure}", program.display());
        program
    }

    fn config(self) -> Value {
        let mut config = json!({
            "data-root": format!("{FOLDER}/docker"),
            "exec-root": "/run/docker",
            "pidfile": "/run/docker.pid",
            "hosts": [format!("unix://{SOCKET}")],
            "cgroup-parent": format!("/{}", env::var(isolate::CGROUP).expect("a scenario has a control group")),
            "exec-opts": ["native.cgroupdriver=cgroupfs"],
            "ip6tables": true,
            "log-level": "warn",
        });
        match self {
            // There, ip6tables is an experiment.
            Self::Debian => config["experimental"] = true.into(),
            Self::CurrentIptables | Self::CurrentNftables => {
                // Debian's runc does not know time namespaces.
                config["features"] = json!({ "time-namespaces": false });
                config["userland-proxy-path"] = current().join("docker-proxy").to_string_lossy().into();
            }
        }
        if self == Self::CurrentNftables {
            config["firewall-backend"] = "nftables".into();
        }
        config
    }
}

/// The folder that `tests/engines/build.sh` built the current engine into; `EGRESSD_ENGINES` names another one.
fn current() -> PathBuf {
    env::var_os("EGRESSD_ENGINES").map_or_else(|| built("tmp/engine"), PathBuf::from)
}

/// A running daemon. It ends with the scenario, as do its containers.
#[derive(Debug)]
pub struct Docker {
    /// Which engine it is.
    pub engine: Engine,
    service: Service,
}

impl World {
    /// Starts a daemon that has the image [`IMAGE`].
    pub fn docker(&self, engine: Engine) -> Docker {
        self.docker_with(engine, &json!({}))
    }

    /// The same, with more settings of `daemon.json`.
    pub fn docker_with(&self, engine: Engine, settings: &Value) -> Docker {
        if engine == Engine::CurrentNftables {
            // With this backend the engine does not turn forwarding on, and does not start without.
            self.host.sysctl("ipv4/ip_forward", "1");
            self.host.sysctl("ipv6/conf/all/forwarding", "1");
        }
        let mut config = engine.config();
        for (name, value) in settings.as_object().expect("settings are an object") {
            config[name] = value.clone();
        }
        fs::write(config_file(), config.to_string()).expect("/run is ours");
        let docker = Docker { engine, service: start(engine) };
        docker.import();
        docker
    }
}

fn config_file() -> String {
    format!("{FOLDER}/daemon.json")
}

fn start(engine: Engine) -> Service {
    let mut daemon = Command::new(engine.program());
    daemon.args(["--config-file", &config_file()]).env("DOCKER_MIN_API_VERSION", "1.24");
    let mut service = Service::start("dockerd", daemon);
    service.wait_until("answering", Duration::from_secs(60), answers);
    service
}

fn answers() -> bool {
    let ask = || -> std::io::Result<String> {
        let mut stream = UnixStream::connect(SOCKET)?;
        stream.write_all(b"GET /_ping HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    ask().is_ok_and(|answer| answer.contains(" 200 "))
}

impl Docker {
    /// Runs the Docker client and returns what it prints. Panics when it fails.
    pub fn cli(&self, arguments: &[&str]) -> String {
        self.try_cli(arguments).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Runs the Docker client and returns what it prints, or its failure.
    pub fn try_cli(&self, arguments: &[&str]) -> Result<String, String> {
        self.feed(arguments, "")
    }

    /// Starts a container of [`IMAGE`] in the background with these options; its program is the web server, which as a first
    /// process does not hear SIGTERM, so nobody is to wait for that.
    pub fn run(&self, name: &str, options: &[&str]) {
        self.cli(&[&["run", "-d", "--stop-timeout=0", "--name", name], options, &[IMAGE]].concat());
    }

    /// Removes a container, running or not.
    pub fn remove(&self, name: &str) {
        self.cli(&["rm", "-f", name]);
    }

    /// The network namespace of a running container.
    pub fn netns(&self, name: &str) -> Netns {
        let pid = self.cli(&["inspect", "-f", "{{.State.Pid}}", name]);
        let pid = pid.trim().parse().expect("a process id");
        assert_ne!(pid, 0, "container {name} does not run");
        Netns::of_process(pid, name)
    }

    /// Ends the daemon as `systemctl stop` does, and starts it again.
    pub fn restart(&mut self) {
        self.stop();
        self.start();
    }

    /// Ends the daemon as `systemctl stop` does.
    pub fn stop(&mut self) {
        self.service.terminate(Duration::from_secs(30));
    }

    /// Ends the daemon with no chance to tidy up.
    pub fn kill(&mut self) {
        self.service.kill();
    }

    /// Starts the daemon again, with the same settings and data.
    pub fn start(&mut self) {
        self.service = start(self.engine);
    }

    /// What the daemon has printed.
    pub fn log(&self) -> String {
        self.service.log()
    }

    /// The Docker client, to be given arguments.
    pub fn client(&self) -> Command {
        let debian = Path::new("/usr/bin/docker");
        let mut client = Command::new(if debian.exists() { debian } else { Path::new("docker") });
        client
            .env("DOCKER_HOST", format!("unix://{SOCKET}"))
            .env("DOCKER_API_VERSION", API)
            .env("DOCKER_CONFIG", format!("{FOLDER}/docker-client"));
        client
    }

    fn feed(&self, arguments: &[&str], input: &str) -> Result<String, String> {
        let mut client = self.client();
        client.args(arguments);
        command::finish(client, &[&["docker"], arguments].concat(), input)
    }

    fn import(&self) {
        let tar = image::archive(&[(&format!("{IMAGE}:latest"), &image::WEB_SERVER)], &[]);
        self.cli(&["load", "--input", &tar]);
        fs::remove_file(&tar).expect("/run is ours");
    }
}
