//! The namespaces that a machine's programs run in: the scenario's own, or a node's, with a first process that ends all of them.

use std::{
    fs::File,
    io,
    process::{Child, Command},
    sync::Arc,
};

use nix::sched::{CloneFlags, setns, unshare};

use crate::netns::Netns;

/// A network namespace, and if they are not the scenario's own, a mount and a PID namespace.
#[derive(Clone, Debug)]
pub struct Namespaces {
    netns: Netns,
    own: Option<Arc<Own>>,
}

#[derive(Debug)]
struct Own {
    mounts: File,
    processes: File,
}

impl Namespaces {
    /// A network namespace with the mounts and processes of the scenario.
    pub fn of_scenario(netns: Netns) -> Self {
        Self { netns, own: None }
    }

    /// A network namespace with the mounts and processes of this process.
    pub fn of_process(netns: Netns, pid: u32) -> Self {
        let open = |kind| {
            let path = format!("/proc/{pid}/ns/{kind}");
            File::open(&path).unwrap_or_else(|error| panic!("failed to open {path}: {error}"))
        };
        let own = Own { mounts: open("mnt"), processes: open("pid") };
        Self { netns, own: Some(Arc::new(own)) }
    }

    /// The network namespace.
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// Calls `f` on a thread inside. The thread itself stays in its PID namespace; processes that it starts are in this one.
    pub fn enter<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        self.netns.enter(|| {
            if let Some(own) = &self.own {
                // A thread that shares its working directory with others may not change its mounts.
                unshare(CloneFlags::CLONE_FS).expect("root may");
                setns(&own.mounts, CloneFlags::CLONE_NEWNS).expect("root may enter a namespace that it made");
                setns(&own.processes, CloneFlags::CLONE_NEWPID).expect("root may enter a namespace below its own");
            }
            f()
        })
    }
}

/// Starts a process that is the first one of a new PID namespace, with mounts of its own.
pub(crate) fn start_first(netns: &Netns, command: &mut Command) -> io::Result<Child> {
    netns.enter(|| {
        unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID).expect("root may");
        command.spawn()
    })
}
