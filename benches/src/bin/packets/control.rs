//! The daemon: started, told of changes, killed, started again.

use std::{fs, thread, time::Duration};

use bench::{
    daemon::{manifest, one_exit, rounds, start},
    host::{Host, UNBOUND},
    nth,
};
use world::service::Service;

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
    let name = manifest(&host, &one_exit());
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
