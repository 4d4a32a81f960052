//! The first process of a node's PID namespace: it makes the node's file system its own, and reaps. When it dies, the node is off.

use std::{env, fs, path::Path, process::ExitCode, thread, time::Duration};

use nix::{errno::Errno, sys::wait::waitpid};

use crate::{FOLDER, isolate};

/// [`isolate::STAGE`] of a node's first process.
pub(crate) const STAGE: &str = "node";

/// What kubelet would set for the whole machine: it finds them set.
const SETTINGS: [(&str, &str); 6] = [
    ("vm/overcommit_memory", "1"),
    ("vm/panic_on_oom", "0"),
    ("kernel/panic", "10"),
    ("kernel/panic_on_oops", "1"),
    ("kernel/keys/root_maxkeys", "1000000"),
    ("kernel/keys/root_maxbytes", "25000000"),
];

/// Folder for what concerns one node.
pub(crate) fn folder(node: &str) -> String {
    format!("{FOLDER}/{node}")
}

/// The file that is there as soon as the node's file system is complete.
pub(crate) fn ready(node: &str) -> String {
    format!("{}/ready", folder(node))
}

pub(crate) fn main() -> ExitCode {
    let node = env::var(isolate::NAME).expect("the scenario names the node");
    if let Err(error) = prepare(&node) {
        eprintln!("{error}");
        return ExitCode::FAILURE;
    }
    loop {
        match waitpid(None, None) {
            Ok(_) | Err(Errno::EINTR) => {}
            // What is to be reaped comes as an orphan.
            Err(_) => thread::sleep(Duration::from_millis(100)),
        }
    }
}

/// Makes `/proc`, `/sys` and `/run` the node's own, and lets it write to `/etc` and `/var` without anybody else seeing that.
fn prepare(node: &str) -> Result<(), String> {
    let folder = folder(node);
    isolate::run_line("mount -t proc proc /proc")?;
    isolate::run_line(&format!("mkdir -p {folder}/run {folder}/sysctl"))?;
    isolate::run_line(&format!("mount -t tmpfs -o mode=755 node {folder}/run"))?;
    isolate::run_line(&format!("mkdir -p {folder}/run/netns {folder}/run/lock {folder}/run/world {folder}/run/kept"))?;
    isolate::run_line(&format!("mount --rbind {FOLDER} {folder}/run/world"))?;
    isolate::run_line(&format!("mount --rbind {folder}/run /run"))?;
    isolate::own_sysfs()?;
    for tree in ["etc", "var"] {
        let (upper, work) = (format!("{folder}/{tree}/upper"), format!("{folder}/{tree}/work"));
        isolate::run_line(&format!("mkdir -p {upper} {work}"))?;
        isolate::run_line(&format!("mount -t overlay -o lowerdir=/{tree},upperdir={upper},workdir={work} overlay /{tree}"))?;
    }
    // An overlay cannot be the upper layer of another one, which is where containers write.
    for lib in ["/var/lib/containerd", "/var/lib/kubelet"] {
        isolate::run_line(&format!("mkdir -p {lib} {folder}{lib}"))?;
        isolate::run_line(&format!("mount --bind {folder}{lib} {lib}"))?;
    }
    for (number, (setting, value)) in SETTINGS.into_iter().enumerate() {
        let setting = format!("/proc/sys/{setting}");
        if Path::new(&setting).exists() {
            let file = format!("{folder}/sysctl/{number}");
            fs::write(&file, value).map_err(|error| format!("failed to write {file}: {error}"))?;
            isolate::run_line(&format!("mount --bind {file} {setting}"))?;
        }
    }
    // As an init system does: pods may then ask to see mounts that come later.
    isolate::run_line("mount --make-rshared /")?;
    fs::write(ready(node), "").map_err(|error| format!("failed to say that {node} is ready: {error}"))
}
