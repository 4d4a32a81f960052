//! What a machine's egressd says of itself, and waiting for it.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{layout::Nic, machine::Machine, vm};

/// How long the daemon may take to do as it is told: many times what it takes.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long it may take until a source is not taken for well, or for away, any more: it is asked again after up to a minute.
const LOSS: Duration = Duration::from_secs(75);
/// How much slower an emulated processor is, on a machine that is busy.
const SLOW: u32 = 8;
/// Where the daemon serves metrics unless told otherwise.
const METRICS: ([u8; 4], u16) = ([127, 0, 0, 1], 9464);

impl Machine {
    /// What `egressd status -o json` prints.
    pub fn status(&self) -> Value {
        let printed = self.egressctl(&["status", "-o", "json"]).unwrap_or_else(|error| panic!("{error}"));
        serde_json::from_str(&printed).unwrap_or_else(|error| panic!("status is not JSON ({error}): {printed}"))
    }

    /// Waits until each address of the workload is bound to this NIC.
    pub fn await_nic(&self, workload: &str, nic: Nic) {
        self.await_rows(workload, |row| row["state"] == "Bound" && row["nic"] == nic.name());
    }

    /// Waits until each address of the workload is in this state.
    pub fn await_state(&self, workload: &str, state: &str) {
        self.await_rows(workload, |row| row["state"] == state);
    }

    /// Waits until each row of the workload in `egressd status` is as it should be, as many as the world has families.
    pub fn await_rows(&self, workload: &str, good: impl Fn(&Value) -> bool) {
        until(&format!("{workload} is as it should be"), || {
            let status = self.status();
            let rows = status["workloads"].as_array().expect("a list of workloads");
            let rows: Vec<&Value> = rows.iter().filter(|row| row["workload"] == workload).collect();
            let all = !rows.is_empty() && rows.iter().all(|row| good(row));
            if all { Ok(()) } else { Err(format!("{status:#}")) }
        });
    }

    /// Whether `egressd status` tells a problem that has all these words.
    pub fn problem(&self, words: &[&str]) -> Result<(), String> {
        let status = self.status();
        let problems = status["problems"].as_array().expect("a list of problems");
        let said = problems.iter().filter_map(Value::as_str).any(|line| words.iter().all(|word| line.contains(word)));
        if said { Ok(()) } else { Err(format!("no problem with {words:?}: {problems:?}")) }
    }

    /// Whether `egressd status` tells no problem.
    pub fn no_problems(&self) -> Result<(), String> {
        let problems = self.status()["problems"].clone();
        if problems == json!([]) { Ok(()) } else { Err(problems.to_string()) }
    }

    /// A source is lost and comes back. Status says so with the words and the time, and what is programmed `holds`; the agent is alive all the
    /// time, and not ready once the source is away for longer than a restart takes.
    pub fn source_is_lost(&self, source: &str, words: &str, lose: impl FnOnce(), holds: impl Fn(), return_: impl FnOnce()) {
        let up = || self.metric(&format!("egressd_source_up{{source=\"{source}\"}}"));
        let ready = || self.fetch("/readyz").map(drop).map_err(|error| error.to_string());
        until("it is ready", ready);
        assert_eq!(up(), 1);
        let lost = Instant::now();
        lose();
        until_within(LOSS, Duration::from_millis(20), "status says so", || {
            self.problem(&[&format!("{words} has been unreachable since 20")])
        });
        assert_eq!(up(), 0);
        holds();
        until_within(LOSS, Duration::from_millis(200), "it is not ready any more", || match ready() {
            Ok(()) => Err("it is ready".to_owned()),
            Err(_) => Ok(()),
        });
        assert!(lost.elapsed() > Duration::from_secs(25), "a restart is no reason: {:?}", lost.elapsed());
        self.fetch("/healthz").expect("nobody is to start it anew for that");
        holds();
        return_();
        until_within(LOSS, Duration::from_millis(200), "it is back", || self.no_problems());
        assert_eq!(up(), 1);
        until("it is ready again", ready);
        holds();
    }

    /// What the daemon's HTTP server answers, or the failure that it reports.
    pub fn fetch(&self, path: &str) -> io::Result<String> {
        let mut stream = self.netns().enter(|| TcpStream::connect(SocketAddr::from(METRICS)))?;
        stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        if answer.lines().next().is_some_and(|line| line.contains(" 200 ")) { Ok(answer) } else { Err(io::Error::other(answer)) }
    }

    /// Waits until egressd says that it is ready: all its sources have spoken.
    pub fn await_ready(&self) {
        until("egressd is ready", || self.fetch("/readyz").map(drop).map_err(|error| error.to_string()));
    }

    /// One metric without labels: `egressd_kernel_changes_total`.
    pub fn metric(&self, name: &str) -> u64 {
        let text = self.fetch("/metrics").expect("metrics are served");
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {name} in {text}"))
    }
}

/// Waits until it is so, as long as egressd may take. Panics with what is instead.
pub fn until(what: &str, so: impl FnMut() -> Result<(), String>) {
    let slow = if vm::is_inside() { SLOW } else { 1 };
    until_within(PATIENCE * slow, Duration::from_millis(20), what, so);
}

/// Waits until it is so, looking with this pause between, and returns what there is then. Panics with what is instead.
pub fn until_within<T>(limit: Duration, pause: Duration, what: &str, mut so: impl FnMut() -> Result<T, String>) -> T {
    let start = Instant::now();
    loop {
        match so() {
            Ok(so) => return so,
            Err(error) => assert!(start.elapsed() < limit, "not after {} s: {what}: {error}", limit.as_secs()),
        }
        thread::sleep(pause);
    }
}
