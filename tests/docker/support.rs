//! What several modules use: the sending program, and waiting for what egressd says.

use std::{
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
pub use world::sender::sends;
use world::{Docker, Engine, Netns, Nic, Scenario, World, sender};

/// Port of the server that bound senders send to.
pub const BOUND_PORT: u16 = 8001;
/// Port of the server that unbound senders send to.
pub const FREE_PORT: u16 = 8000;
/// The engine of scenarios that look at what a container asks for, and not at how an engine makes its packets go.
pub const ANY: Engine = Engine::CurrentNftables;
/// The engines of scenarios that look at what an engine tells of its networks: one of each release.
pub const RELEASES: [Engine; 2] = [Engine::Debian, Engine::CurrentIptables];
/// How long egressd may take for anything that is not about a packet.
const PATIENCE: Duration = Duration::from_secs(15);

/// One scenario for each engine.
pub fn for_each_engine(name: &str, run: fn(Engine)) -> Vec<Scenario> {
    for_each(&Engine::ALL, name, run)
}

/// One scenario for each of these engines.
pub fn for_each(engines: &[Engine], name: &str, run: fn(Engine)) -> Vec<Scenario> {
    engines.iter().map(|&engine| Scenario::new(format!("{engine:?}: {name}"), move || run(engine))).collect()
}

/// The option of `docker run` that gives a container the sending program.
pub fn sender() -> String {
    format!("--volume={}:{}:ro", sender::build(), sender::PATH)
}

/// The label that binds a container to the NIC's address.
pub fn label(world: &World, nic: Nic) -> String {
    format!("--label=egress.ip={}", world.layout.address(nic))
}

/// The negative control: of a container that is started with these options and without egressd, the check fails.
pub fn fails_without_egressd(docker: &Docker, options: &[&str], check: impl Fn(&Netns) -> Result<(), String>) {
    docker.run("control", options);
    check(&docker.netns("control")).expect_err("it is so without egressd");
    docker.remove("control");
}

/// Waits until `ready` returns something. Panics with `what` when it does not.
pub fn await_some<T>(what: &str, mut ready: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = ready() {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "not within {} s: {what}", PATIENCE.as_secs());
        thread::sleep(Duration::from_millis(50));
    }
}

/// The rows of status that are about the workload.
pub fn rows(world: &World, workload: &str) -> Vec<Value> {
    let status = world.status();
    let rows = status["workloads"].as_array().expect("status lists workloads");
    rows.iter().filter(|row| row["workload"] == workload).cloned().collect()
}

/// Waits until status shows a row of the workload that is as asked for, and returns it.
pub fn await_row(world: &World, workload: &str, fits: impl Fn(&Value) -> bool) -> Value {
    let mut last = Vec::new();
    let start = Instant::now();
    loop {
        if let Some(row) = last.iter().find(|row| fits(row)) {
            return Value::clone(row);
        }
        assert!(start.elapsed() < PATIENCE, "{workload} is not so: {last:#?}\n{:#}", world.status());
        last = rows(world, workload);
        thread::sleep(Duration::from_millis(20));
    }
}

/// Waits until the workload is in this state.
pub fn await_state(world: &World, workload: &str, state: &str) -> Value {
    await_row(world, workload, |row| row["state"] == state)
}

/// Waits until status tells a problem, or a note of a binding, with all these words.
pub fn await_problem(world: &World, words: &[&str]) {
    let mut last = Vec::new();
    let start = Instant::now();
    while !last.iter().any(|problem: &String| words.iter().all(|word| problem.contains(word))) {
        assert!(start.elapsed() < PATIENCE, "status tells nothing of {words:?}: {last:#?}");
        thread::sleep(Duration::from_millis(20));
        let status = world.status();
        last = status["problems"].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
    }
}
