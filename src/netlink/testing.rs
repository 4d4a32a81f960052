//! A network and a mount namespace for one test, with an empty `/run`; all of it is gone when the test ends.

use std::panic::resume_unwind;
use std::process::Command;
use std::thread;

use nix::sched::{CloneFlags, unshare};

/// Runs a test in namespaces of its own. The thread, not the process, is in them: programs that it starts are too.
pub fn alone(test: impl FnOnce() + Send + 'static) {
    let inside = move || {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).unwrap();
        run("mount --make-rprivate /");
        run("mount -t tmpfs tmpfs /run");
        run("ip link set lo up");
        test();
    };
    if let Err(panic) = thread::spawn(inside).join() {
        resume_unwind(panic);
    }
}

/// The same for a test that waits.
pub fn alone_async<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    alone(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(test());
    });
}

/// Runs each line as a command, and gives what it says; one that fails fails the test.
pub fn run(lines: &str) -> String {
    let mut said = String::new();
    for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let output = Command::new("sh").args(["-c", line]).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{line}: {errors}");
        said += &String::from_utf8_lossy(&output.stdout);
    }
    said
}
