//! When programs that follow a machine's kernel told of addresses, and how long what followed took.

use std::{
    io::{BufRead, BufReader},
    net::Ipv4Addr,
    process::{Command, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use crate::machine::Machine;

/// When a program that follows the kernel told of addresses.
pub struct Told(Arc<Mutex<Vec<(Duration, Ipv4Addr)>>>);

impl Told {
    /// Follows a program's lines, as far as they are `of` interest.
    pub fn by(machine: &Machine, program: &[&str], of: fn(&str) -> bool) -> Self {
        let told = Arc::new(Mutex::new(Vec::new()));
        let monitor = machine.enter(|| Command::new(program[0]).args(&program[1..]).stdout(Stdio::piped()).spawn());
        let lines = BufReader::new(monitor.expect("it is installed").stdout.expect("it is piped")).lines();
        let seen = Arc::clone(&told);
        thread::spawn(move || {
            for line in lines.map_while(Result::ok).filter(|line| of(line)) {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970");
                let addresses = line.split(|c: char| !c.is_ascii_digit() && c != '.').filter_map(|word| word.parse().ok());
                seen.lock().expect("nobody panics with it").extend(addresses.map(|address| (now, address)));
            }
        });
        Self(told)
    }

    /// When an address was first told of from a time on.
    pub fn after(&self, (time, of): (Duration, Ipv4Addr)) -> Option<Duration> {
        let told = self.0.lock().expect("nobody panics with it");
        told.iter().find(|(at, address)| *address == of && *at >= time).map(|(at, _)| *at)
    }
}

/// The 50th and 99th percentile and the longest of some delays, as text.
pub fn percentiles(mut delays: Vec<Duration>) -> String {
    delays.sort_unstable();
    let last = delays.len().saturating_sub(1);
    let at = |percent: usize| delays.get((last * percent).div_ceil(100)).copied().unwrap_or_default().as_secs_f64() * 1000.0;
    format!("p50 {:.1} ms, p99 {:.1} ms, max {:.1} ms of {}", at(50), at(99), at(100), delays.len())
}
