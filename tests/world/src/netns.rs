//! Network namespaces, entered by threads of their own.

use std::{fs::File, path::Path, sync::Arc, thread};

use nix::sched::{CloneFlags, setns};

use crate::command;

/// A network namespace; the open file keeps it alive.
#[derive(Clone, Debug)]
pub struct Netns {
    file: Arc<File>,
    name: String,
}

impl Netns {
    /// The one that the scenario began in: the host.
    pub fn host() -> Self {
        Self::open("/proc/self/ns/net", "host")
    }

    /// A new one that `ip netns` knows by this name, with its loopback up.
    pub fn add(name: &str) -> Self {
        command::run(&["ip", "netns", "add", name]);
        let netns = Self::open(format!("/run/netns/{name}"), name);
        netns.ip("link set lo up");
        netns
    }

    /// The one that process `pid` is in.
    pub fn of_process(pid: u32, name: &str) -> Self {
        Self::open(format!("/proc/{pid}/ns/net"), name)
    }

    /// The one behind a path, whatever it is called.
    pub fn open(path: impl AsRef<Path>, name: &str) -> Self {
        let path = path.as_ref();
        let file = File::open(path).unwrap_or_else(|error| panic!("failed to open {}: {error}", path.display()));
        Self { file: Arc::new(file), name: name.to_owned() }
    }

    /// What `ip netns` calls it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Calls `f` on a thread inside. Sockets that it opens and processes that it starts stay there.
    pub fn enter<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                setns(&*self.file, CloneFlags::CLONE_NEWNET).expect("root may enter a namespace that it made");
                f()
            });
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Runs a command inside and returns its output. Panics when it fails.
    pub fn run(&self, arguments: &[&str]) -> String {
        self.enter(|| command::run(arguments))
    }

    /// Runs `ip` commands inside, one a line, in one process.
    pub fn ip(&self, lines: &str) {
        self.enter(|| command::feed(&["ip", "-batch", "-"], &unindent(lines)));
    }

    /// Loads an nft ruleset inside.
    pub fn nft(&self, ruleset: &str) {
        self.enter(|| command::feed(&["nft", "-f", "-"], ruleset));
    }

    /// Sets a sysctl below `/proc/sys/net`, as `ipv4/ip_forward`.
    pub fn sysctl(&self, path: &str, value: &str) {
        let path = format!("/proc/sys/net/{path}");
        self.enter(|| std::fs::write(&path, value)).unwrap_or_else(|error| panic!("failed to write {path} in {}: {error}", self.name));
    }
}

fn unindent(lines: &str) -> String {
    lines.lines().map(|line| format!("{}\n", line.trim())).collect()
}
