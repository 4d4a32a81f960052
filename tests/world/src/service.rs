//! A long-running program on the host: its log, its end.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    FOLDER,
    namespaces::{self, Namespaces},
    netns::Netns,
};

/// Lines of a log that a failed scenario shows.
const SHOWN: usize = 20;

/// A started program. It is killed when dropped; if that is because the scenario failed, the end of its log is printed.
#[derive(Debug)]
pub struct Service {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Service {
    /// Starts it; its output goes to the end of a log named after it.
    pub fn start(name: &str, command: Command) -> Self {
        Self::launch(name, command, |command| command.spawn())
    }

    /// Starts it in these namespaces.
    pub fn start_in(namespaces: &Namespaces, name: &str, command: Command) -> Self {
        Self::launch(name, command, |command| namespaces.enter(|| command.spawn()))
    }

    /// Starts it as the first process of a new PID namespace, with mounts of its own.
    pub(crate) fn start_first(netns: &Netns, name: &str, command: Command) -> Self {
        Self::launch(name, command, |command| namespaces::start_first(netns, command))
    }

    fn launch(name: &str, mut command: Command, spawn: impl FnOnce(&mut Command) -> io::Result<Child>) -> Self {
        let log = Path::new(FOLDER).join(format!("{name}.log"));
        let file = File::options().create(true).append(true).open(&log).expect("/run is ours");
        command.stdin(Stdio::null()).stdout(file.try_clone().expect("a file can be shared")).stderr(file);
        let child = spawn(&mut command).unwrap_or_else(|error| panic!("failed to start {name}: {error}"));
        Self { name: name.to_owned(), child, log }
    }

    /// Waits until `ready` says so. Panics when the program ends or `limit` passes before.
    pub fn wait_until(&mut self, what: &str, limit: Duration, mut ready: impl FnMut() -> bool) {
        let start = Instant::now();
        while !ready() {
            if let Some(status) = self.ended() {
                panic!("{} ended ({status}) before {what}", self.name);
            }
            assert!(start.elapsed() < limit, "{} is not {what} after {} s", self.name, limit.as_secs());
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("it is a child of ours")
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has printed so far, in all its lives.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Ends it with no chance to tidy up.
    pub fn kill(&mut self) {
        self.child.kill().and_then(|()| self.child.wait()).expect("it is a child of ours");
    }

    /// Asks it to end, and waits for that.
    pub fn terminate(&mut self, limit: Duration) -> ExitStatus {
        self.end_by(Signal::SIGTERM, limit)
    }

    /// Sends the signal if it runs, and waits until it has ended.
    pub(crate) fn end_by(&mut self, signal: Signal, limit: Duration) -> ExitStatus {
        let pid = Pid::from_raw(self.child.id().cast_signed());
        if self.ended().is_none() {
            kill(pid, signal).expect("it is a child of ours");
        }
        let start = Instant::now();
        loop {
            if let Some(status) = self.ended() {
                return status;
            }
            assert!(start.elapsed() < limit, "{} does not end on {signal}", self.name);
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill().and_then(|()| self.child.wait());
        if thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().filter(|line| !is_chatter(line)).collect();
            println!("--- end of {}'s log", self.name);
            for line in &lines[lines.len().saturating_sub(SHOWN)..] {
                println!("{line}");
            }
        }
    }
}

/// Whether it says how it goes, not what went wrong: containerd's shims tell their whole lives into dockerd's log, and a Kubernetes
/// program has lines like `I1121 20:24:31.079499 …`.
fn is_chatter(line: &str) -> bool {
    let is_klog_info = || line.strip_prefix('I').is_some_and(|rest| rest.len() > 4 && rest.as_bytes()[..4].iter().all(u8::is_ascii_digit));
    line.contains("runtime=io.containerd") || is_klog_info()
}
