//! What a machine's egressd says of itself, and waiting for it.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{layout::Nic, machine::Machine, vm};

/// How long the daemon may take to do as it is told: many times what it takes.
const PATIENCE: Duration = Duration::from_secs(5);
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

    /// What the daemon's HTTP server answers, or the failure that it reports.
    pub fn fetch(&self, path: &str) -> io::Result<String> {
        let mut stream = self.netns().enter(|| TcpStream::connect(SocketAddr::from(METRICS)))?;
        stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        if answer.lines().next().is_some_and(|line| line.contains(" 200 ")) { Ok(answer) } else { Err(io::Error::other(answer)) }
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
