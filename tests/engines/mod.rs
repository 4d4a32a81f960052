//! A private Docker engine for a test: Debian's 20.10, or a current one that `build.sh` makes.
//!
//! It runs in a PID, mount and network namespace of its own, with its data in a temporary folder. Ending the first process of the PID namespace
//! ends the engine and every container, so that nothing is left when a test fails. Its socket is a file, which a test reaches from outside.

use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use world::groups;

/// Which engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Release {
    /// Debian 12's docker.io, API 1.41.
    Debian,
    /// What tests/engines/go.mod names.
    Current,
}

/// A running engine; ended when dropped.
pub struct Engine {
    folder: tempfile::TempDir,
    first: Child,
    /// The control group that its containers are below.
    group: String,
}

/// First process of the namespaces: starts the engine again whenever it ends, unless a file `hold` is there.
const FIRST: &str = r#"
set -eu
cd "$1"; dockerd=$2
mount -t tmpfs tmpfs /run
ip link set lo up
echo 1 >/proc/sys/net/ipv4/ip_forward
echo 0 >/proc/sys/net/ipv6/conf/all/disable_ipv6
while :; do
  while [ -e hold ]; do sleep 0.02; done
  "$dockerd" --config-file daemon.json >>engine.log 2>&1 || :
  sleep 0.1
done
"#;

impl Engine {
    /// Starts an engine with an image `busybox`, and waits until it answers.
    pub fn start(release: Release) -> Self {
        let folder = tempfile::Builder::new().prefix("egressd-engine-").tempdir().expect("a folder");
        let path = folder.path();
        let group = groups::unique();
        std::fs::write(path.join("daemon.json"), configuration(path, &group)).expect("daemon.json");
        let (dockerd, programs) = match release {
            Release::Debian => (PathBuf::from("/usr/sbin/dockerd"), None),
            Release::Current => (current().join("dockerd"), Some(current())),
        };
        let search = std::env::var("PATH").unwrap_or_default();
        let search = programs.map_or(search.clone(), |folder| format!("{}:{search}", folder.display()));
        let first = Command::new("unshare")
            .args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation", "private", "--"])
            .args(["bash", "-c", FIRST, "first"])
            .args([path, &dockerd])
            .env("PATH", search)
            // The command line client is Debian's.
            .env("DOCKER_MIN_API_VERSION", "1.24")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(path.join("first.log")).expect("a log"))
            .spawn()
            .expect("unshare");
        let engine = Self { folder, first, group };
        engine.wait();
        engine.import();
        engine
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("docker.sock")
    }

    /// Runs `docker`, and gives what it prints.
    #[track_caller]
    pub fn docker(&self, line: &str) -> String {
        self.try_docker(line).unwrap_or_else(|error| panic!("docker {line}: {error}\n{}", self.log()))
    }

    /// Runs `docker` with the words of a line; the error is what it prints.
    pub fn try_docker(&self, line: &str) -> Result<String, String> {
        let output = self.command(line).output().expect("docker");
        let text = |bytes| String::from_utf8_lossy(bytes).trim().to_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }

    pub fn command(&self, line: &str) -> Command {
        let mut command = Command::new("docker");
        command.arg("--host").arg(format!("unix://{}", self.socket().display())).args(line.split_whitespace());
        command
    }

    /// Ends the engine as its service manager would; it stays away until [`Engine::come_back`].
    pub fn stop(&self) {
        std::fs::write(self.hold(), "").expect("hold");
        let first = children(self.first.id()).pop().expect("the first process");
        for engine in children(first) {
            // The loop's `sleep` may be among them: it is of no use any more.
            let _ = kill(pid(engine), Signal::SIGTERM);
        }
        self.until("the engine to end", || children(first).iter().all(|child| !is_engine(*child)));
    }

    pub fn come_back(&self) {
        std::fs::remove_file(self.hold()).expect("hold");
        self.wait();
    }

    fn hold(&self) -> PathBuf {
        self.folder.path().join("hold")
    }

    fn wait(&self) {
        self.until("the engine to answer", || self.try_docker("version").is_ok());
    }

    #[track_caller]
    fn until(&self, what: &str, mut done: impl FnMut() -> bool) {
        let began = Instant::now();
        while !done() {
            assert!(began.elapsed() < Duration::from_secs(60), "waited in vain for {what}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn log(&self) -> String {
        let read = |name: &str| std::fs::read_to_string(self.folder.path().join(name)).unwrap_or_default();
        let log = format!("{}{}", read("first.log"), read("engine.log"));
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }

    fn import(&self) {
        let root = self.folder.path().join("image");
        let script = r#"mkdir -p "$1"/bin "$1"/etc "$1"/proc "$1"/sys "$1"/dev "$1"/tmp && cp /bin/busybox "$1"/bin/ &&
            for name in sh sleep adjtimex ip; do ln -s busybox "$1"/bin/$name; done && tar -C "$1" -c . >"$1".tar"#;
        let status = Command::new("sh").args(["-c", script, "sh"]).arg(&root).status().expect("sh");
        assert!(status.success(), "an image of busybox-static");
        self.docker(&format!("import {}.tar busybox", root.display()));
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // `unshare --fork` ignores SIGTERM; with it gone the kernel ends the namespace's first process, and that all others.
        let first = children(self.first.id());
        self.first.kill().expect("unshare is our child");
        let status = self.first.wait().expect("unshare is our child");
        debug_assert_eq!(status.signal(), Some(9));
        let began = Instant::now();
        while first.iter().any(|first| Path::new(&format!("/proc/{first}")).exists()) && began.elapsed() < Duration::from_secs(10) {
            std::thread::sleep(Duration::from_millis(5));
        }
        if let Err(error) = groups::remove(&self.group) {
            eprintln!("{error}");
        }
    }
}

fn configuration(folder: &Path, group: &str) -> String {
    let path = |name: &str| folder.join(name).display().to_string();
    serde_json::json!({
        "data-root": path("data"),
        "exec-root": path("exec"),
        "pidfile": path("docker.pid"),
        "hosts": [format!("unix://{}", path("docker.sock"))],
        "cgroup-parent": format!("/{group}"),
        "exec-opts": ["native.cgroupdriver=cgroupfs"],
        "storage-driver": "overlay2",
        // Debian 12's runc has no time namespaces; an engine that does not know the word takes no notice.
        "features": { "time-namespaces": false, "containerd-snapshotter": false },
        "shutdown-timeout": 2,
    })
    .to_string()
}

/// The folder with the current engine, built when it is not yet.
fn current() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let build = || {
        // Where `make engines` puts it.
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("engine");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/engines/build.sh");
        let status = Command::new(script).arg(&folder).status().expect("tests/engines/build.sh");
        assert!(status.success(), "tests/engines/build.sh: {status}");
        folder
    };
    BUILT.get_or_init(build).clone()
}

fn children(parent: u32) -> Vec<u32> {
    let text = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap_or_default();
    text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

fn is_engine(process: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{process}/comm")).is_ok_and(|name| name.trim() == "dockerd")
}

fn pid(id: u32) -> Pid {
    Pid::from_raw(id.try_into().expect("a process id"))
}
