//! A small cloud in network namespaces, in which the release binary of egressd is put to the test.
//!
//! ```text
//!   host                        cloud                              internet
//!   ┌────────────────────┐      ┌─────────────────────────┐        ┌──────────────────┐
//!   │ egressd, dockerd   │ eth0 │ nic0 ┐ counts by source, │        │ servers that say │
//!   │ containers ─bridge │──────│      ├ drops what is not │ 1:1    │ which address    │
//!   │                    │ eth1 │ nic1 ┘ that NIC's own    │ NAT wan│ they saw         │
//!   └────────────────────┘──────│      near0, near1        │────────└──────────────────┘
//!                               └─────────────────────────┘
//! ```
//!
//! Each scenario runs in namespaces (network, mount, PID) of its own, which end with it: see [`harness`].
//! The scenario's own network namespace is the host. Everything that observes lives in other ones.
//! A Kubernetes cluster has two such hosts in the same cloud, and a control plane: see [`cluster`].
//! Nothing here sets what egressd has to set: no mark, policy rule or NAT rule, and sysctls only as a starting state.

mod advertise;
pub mod alone;
pub mod build;
pub mod callers;
pub mod check;
pub mod clock;
pub mod cloud;
pub mod cluster;
pub mod command;
pub mod container;
pub mod containerd;
pub mod docker;
pub mod egressd;
pub mod groups;
pub mod harness;
pub mod image;
mod isolate;
pub mod layout;
pub mod machine;
pub mod namespaces;
pub mod nerdctl;
pub mod netns;
pub mod programs;
pub mod published;
pub mod s1;
pub mod scripted;
pub mod scripted_api;
pub mod segment;
pub mod sender;
pub mod service;
pub mod state;
pub mod status;
pub mod talk;
pub mod told;
pub mod traffic;
pub mod vm;

pub use alone::Binding;
pub use build::{Builder, World};
pub use cloud::Seen;
pub use cluster::{ApiServer, Cluster};
pub use container::Container;
pub use docker::{Docker, Engine};
pub use egressd::Egressd;
pub use harness::Scenario;
pub use isolate::CGROUP;
pub use layout::{Layout, Nic, Subnets};
pub use machine::Machine;
pub use netns::Netns;
pub use programs::Programs;
pub use scripted::Scripted;
pub use scripted_api::ScriptedApi;
pub use state::State;

/// Folder for what a scenario writes: on its private `/run`, so that nothing of it is left.
pub const FOLDER: &str = "/run/world";

/// The first of two counts, or the second in `make soak`, which has the time for more of the same.
pub fn count<T>(usual: T, soak: T) -> T {
    if std::env::var_os("EGRESSD_SOAK").is_some() { soak } else { usual }
}

/// A file that `make` builds, by its path in cargo's target folder, which this program is in, too.
pub fn built(path: &str) -> std::path::PathBuf {
    let program = std::env::current_exe().expect("a running program has a path");
    // target/debug/deps/PROGRAM
    program.ancestors().nth(3).expect("cargo puts tests three levels deep").join(path)
}
