//! The network namespace of a task, by the kernel's number for it.

use std::path::Path;

use tokio::net::UnixStream;

use crate::facts::kernel::{Asker, own_namespace};
use crate::model::pod::NetworkNamespace;

/// Knows the network namespaces of containerd's processes.
pub struct Namespaces {
    /// `None` where containerd counts processes otherwise than we do: a number of its would be somebody else's here.
    ask: Option<Asker>,
    said: bool,
}

impl Namespaces {
    /// For the containerd that listens at `socket`.
    pub async fn of(socket: &Path) -> std::io::Result<Self> {
        let server = UnixStream::connect(socket).await?.peer_cred()?.pid();
        let ask = server.filter(|pid| counts_as_we_do(*pid)).and_then(|_| match Asker::open() {
            Ok(ask) => Some(ask),
            Err(error) => {
                tracing::warn!(%error, "failed to ask the kernel for network namespaces");
                None
            }
        });
        Ok(Self { ask, said: false })
    }

    /// The network namespace that this process is in.
    pub fn of_process(&mut self, pid: u32) -> NetworkNamespace {
        let Some(ask) = &mut self.ask else {
            if !self.said {
                tracing::warn!(
                    "containers without a kubelet cannot be matched to their network here: run egressd in containerd's PID namespace"
                );
                self.said = true;
            }
            return NetworkNamespace::Unknown;
        };
        match ask.nsid_of_process(pid) {
            Ok(None) => NetworkNamespace::Unknown,
            Ok(Some(nsid)) if own_namespace().is_ok_and(|own| ask.nsid(&own).is_ok_and(|own| own == Some(nsid))) => NetworkNamespace::Host,
            Ok(Some(nsid)) => NetworkNamespace::Numbered(nsid),
            Err(error) => {
                tracing::warn!(pid, %error, "failed to ask for a task's network namespace");
                NetworkNamespace::Unknown
            }
        }
    }
}

/// Whether a process is in the PID namespace of our `/proc`: it has one number then, and one more for each namespace below.
fn counts_as_we_do(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/status")).is_ok_and(|status| in_one_namespace(&status))
}

fn in_one_namespace(status: &str) -> bool {
    status.lines().find_map(|line| line.strip_prefix("NSpid:")).is_some_and(|numbers| numbers.split_whitespace().count() == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_in_a_pid_namespace_below_has_several_numbers() {
        assert!(in_one_namespace("Name:\tcontainerd\nNSpid:\t812\nNSsid:\t812\n"));
        assert!(!in_one_namespace("Name:\tcontainerd\nNSpid:\t812\t7\n"));
        assert!(!in_one_namespace("Name:\tcontainerd\n"));
    }
}
