//! Whose the published ports are, for the next start of the daemon: a port whose exit is gone for a moment, or drains, has no rule in the kernel that
//! could tell. It is kept where the daemon's state is.

use std::path::Path;
use std::sync::mpsc;

use super::{memo, threads};
use crate::model::binding::BindingName;
use crate::model::ports::Called;
use crate::model::services::Holders;

const FILE: &str = "ports.json";

/// What was kept last, and the thread that writes it.
pub(super) struct Keeper {
    kept: Holders,
    thread: mpsc::Sender<Holders>,
}

impl Keeper {
    /// With what the run before has known. A file that cannot be read says nothing.
    pub fn open(state: &Path) -> Self {
        let file = state.join(FILE);
        let kept: Vec<(Called, BindingName)> = memo::read(&file);
        let thread = threads::start("holders", move |given: &mpsc::Receiver<Holders>| {
            while let Ok(holders) = given.recv() {
                let newest: Vec<(Called, BindingName)> = given.try_iter().last().unwrap_or(holders).into_iter().collect();
                memo::write(&file, "the holders of published ports", &newest);
            }
        });
        Self { kept: kept.into_iter().collect(), thread }
    }

    /// Whose the ports are.
    pub fn kept(&self) -> &Holders {
        &self.kept
    }

    /// Keeps whose they are from now on.
    pub fn keep(&mut self, holders: &Holders) {
        if self.kept != *holders {
            self.kept.clone_from(holders);
            let _ = self.thread.send(holders.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::net::IpAddr;
    use std::time::{Duration, Instant};

    use super::*;
    use crate::model::binding::Source;
    use crate::model::ports::{Ports, Protocol};

    #[test]
    fn the_next_start_knows_whose_a_port_was() {
        let folder = tempfile::tempdir().unwrap();
        let called = (IpAddr::from([172, 31, 0, 14]), Ports { protocol: Protocol::Tcp, first: 8000, last: 8010 });
        let name = BindingName { source: Source::File, name: "default/web".to_owned() };
        let holders = Holders::from([(called, name)]);
        let mut keeper = Keeper::open(folder.path());
        assert!(keeper.kept().is_empty());
        keeper.keep(&holders);
        let began = Instant::now();
        while Keeper::open(folder.path()).kept() != &holders {
            assert!(began.elapsed() < Duration::from_secs(10), "it is written at once");
            std::thread::sleep(Duration::from_millis(5));
        }
        fs::write(folder.path().join(FILE), "[[1, 2").unwrap();
        assert!(Keeper::open(folder.path()).kept().is_empty());
    }
}
