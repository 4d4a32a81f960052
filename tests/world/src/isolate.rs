//! A scenario's own network, mount and PID namespaces, and their end.
//!
//! The chain is: test program -> `unshare` -> the first process of the PID namespace (it only reaps) -> the scenario.
//! When any link of it dies, the kernel kills everything behind it: engines, containers, egressd. Named network namespaces,
//! sockets and files live on a tmpfs on `/run` that goes with the mount namespace; what remains is control groups, removed here.

use std::{
    env, fs,
    io::{self, Read, Write},
    path::Path,
    process::{Child, Command, ExitCode, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid},
    unistd::{Pid, Uid},
};

use crate::{command, groups};

/// Environment variable with the link of the chain that a process is: [`INIT`], [`RUN`], a node's first process, or none.
pub const STAGE: &str = "EGRESSD_TEST_STAGE";
/// Environment variable with the name of the scenario, or of the node.
pub const NAME: &str = "EGRESSD_TEST_SCENARIO";
/// Environment variable with the name of the control group that a scenario's containers are put under.
pub const CGROUP: &str = "EGRESSD_TEST_CGROUP";
/// First process of the PID namespace.
pub const INIT: &str = "init";
/// The scenario.
pub const RUN: &str = "run";

/// Runs the scenario in namespaces of its own and waits for it, at most for `limit`. An error holds what it printed. Beside it: the time
/// that all its processes had of processors.
pub fn run(name: &str, limit: Duration, shown: bool) -> (Result<(), String>, Duration) {
    let mut processors = Duration::ZERO;
    (run_and_clock(name, limit, shown, &mut processors), processors)
}

fn run_and_clock(name: &str, limit: Duration, shown: bool, processors: &mut Duration) -> Result<(), String> {
    if !Uid::effective().is_root() {
        return Err("needs root: it makes network namespaces and starts a Docker daemon in them".into());
    }
    let cgroup = groups::unique();
    let (reader, writer) = io::pipe().map_err(|error| format!("failed to make a pipe: {error}"))?;
    let program = env::current_exe().map_err(|error| format!("failed to find the test program: {error}"))?;
    let child = Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "unshare", "--net", "--mount", "--pid", "--fork", "--kill-child"])
        .args(["--mount-proc", "--propagation", "private"])
        .arg(program)
        .env(STAGE, INIT)
        .env(NAME, name)
        .env(CGROUP, &cgroup)
        .stdin(Stdio::null())
        .stdout(writer.try_clone().map_err(|error| format!("failed to share the pipe: {error}"))?)
        .stderr(writer)
        .spawn()
        .map_err(|error| format!("failed to run setpriv and unshare (package util-linux): {error}"))?;
    let output = thread::spawn(move || collect(reader, shown));
    let end = wait(child, limit, processors);
    let output = output.join().expect("collecting the output does not panic");
    let left = groups::remove(&cgroup);
    match (end, left) {
        (Ok(()), Ok(())) => Ok(()),
        (Err(error), _) | (Ok(()), Err(error)) if shown => Err(error),
        (Err(error), _) | (Ok(()), Err(error)) => Err(format!("{error}\n{output}")),
    }
}

/// Runs the scenario as its child and reaps whatever becomes an orphan; a dead shim that is not reaped looks alive to its engine.
pub fn init() -> ExitCode {
    match prepare() {
        Ok(child) => reap(Pid::from_raw(child.id().cast_signed())),
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn prepare() -> Result<Child, String> {
    run_line("mount -t tmpfs -o mode=755 world /run")?;
    run_line("mkdir -p /run/netns /run/lock /run/world /run/kept")?;
    own_sysfs()?;
    if !Path::new("/proc/sys/net/bridge").exists() {
        // Docker loads it as well; it has to be there before the cloud's bridges are told not to use it.
        run_line("modprobe br_netfilter")?;
    }
    run_line("ip link set lo up")?;
    let program = env::current_exe().map_err(|error| format!("failed to find the test program: {error}"))?;
    Command::new(program).env(STAGE, RUN).spawn().map_err(|error| format!("failed to start the scenario: {error}"))
}

/// Mounts a `/sys` that shows this namespace's interfaces, with what was mounted below the old one: dockerd looks there for its
/// bridges' ports and waits when they are missing.
pub(crate) fn own_sysfs() -> Result<(), String> {
    let mounts = fs::read_to_string("/proc/mounts").map_err(|error| format!("failed to read /proc/mounts: {error}"))?;
    let mounted = |path: &&str| mounts.lines().any(|line| line.split(' ').nth(1) == Some(path));
    let kept: Vec<&str> = ["/sys/fs/cgroup", "/sys/kernel/security"].into_iter().filter(mounted).collect();
    for path in &kept {
        run_line(&format!("mkdir -p /run/kept{path}"))?;
        run_line(&format!("mount --rbind {path} /run/kept{path}"))?;
    }
    run_line("mount -t sysfs sysfs /sys")?;
    for path in &kept {
        run_line(&format!("mount --rbind /run/kept{path} {path}"))?;
        run_line(&format!("umount --recursive --lazy /run/kept{path}"))?;
    }
    Ok(())
}

pub(crate) fn run_line(line: &str) -> Result<String, String> {
    command::try_run(&line.split(' ').collect::<Vec<_>>())
}

fn reap(scenario: Pid) -> ExitCode {
    loop {
        match waitpid(None, None) {
            Ok(WaitStatus::Exited(pid, code)) if pid == scenario => {
                return ExitCode::from(u8::try_from(code).unwrap_or(1));
            }
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == scenario => {
                eprintln!("the scenario was ended by {signal}");
                return ExitCode::FAILURE;
            }
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => {
                eprintln!("failed to wait for the scenario: {error}");
                return ExitCode::FAILURE;
            }
        }
    }
}

fn collect(mut reader: io::PipeReader, shown: bool) -> String {
    let mut output = Vec::new();
    let mut part = [0; 4096];
    while let Ok(length @ 1..) = reader.read(&mut part) {
        output.extend_from_slice(&part[..length]);
        if shown {
            // Nobody reads any more: the scenario still has to end, and its result counts.
            let _ = io::stdout().write_all(&part[..length]).and_then(|()| io::stdout().flush());
        }
    }
    String::from_utf8_lossy(&output).into_owned()
}

/// What the process and those that it waited for have had of processors: all of the scenario's, as the first process of its PID namespace reaps
/// what no other does.
fn of_processors(process: u32) -> Duration {
    // A name may have spaces; the fields after it are numbered from 3. The kernel tells hundredths of seconds.
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields).split_whitespace().skip(11).take(4);
    Duration::from_millis(10 * fields.filter_map(|field| field.parse::<u64>().ok()).sum::<u64>())
}

fn wait(mut child: Child, limit: Duration, processors: &mut Duration) -> Result<(), String> {
    let start = Instant::now();
    let pid = Pid::from_raw(child.id().cast_signed());
    loop {
        // What it had of processors can be read until it has been waited for.
        match waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT) {
            Ok(WaitStatus::StillAlive) if start.elapsed() < limit => thread::sleep(Duration::from_millis(20)),
            Ok(WaitStatus::StillAlive) => {
                child.kill().and_then(|()| child.wait()).map_err(|error| format!("failed to end it: {error}"))?;
                return Err(format!("not finished after {} s", limit.as_secs()));
            }
            Ok(_) => {
                *processors = of_processors(child.id());
                let status = child.wait().map_err(|error| format!("failed to wait for it: {error}"))?;
                return if status.success() { Ok(()) } else { Err(format!("failed ({status})")) };
            }
            Err(error) => return Err(format!("failed to wait for it: {error}")),
        }
    }
}
