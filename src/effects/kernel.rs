//! The one interpreter of plans: the only place where the kernel is changed.

use std::collections::BTreeMap;
use std::path::Path;

use tracing::{debug, trace};

use super::connections;
use super::fast_path::{self, FastPath};
use super::nft::{self, Nft};
use super::route::Routing;
use super::sysctl::{self, Sysctls};
use crate::facts::cause::with_causes;
use crate::model::facts::KernelFacts;
use crate::model::release::version;
use crate::model::services::LimitedServer;
use crate::netlink;
use crate::nft::decode::AnyChain;
use crate::nft::gates::{Gate, GateStep};
use crate::nft::{Change, Family, Ruleset, diff};
use crate::plan::Plan;
use crate::plan::datapath::{admission, programs};
use crate::plan::gates::{self, Wanted};
use crate::plan::step::{InterfaceNames, RouteStep};

/// Flowtables of older kernels look seldom at whether a flow's route still holds (5.13 to 5.17), and have not been tried.
const OLDEST_FAST_PATH: (u32, u32) = (6, 1);

/// The kernel, open to be changed.
pub struct Kernel {
    nft: Nft,
    routing: Routing,
    sysctls: Sysctls,
    fast_path: FastPath,
    /// Our tables as the kernel has them; `None` when that has to be read again.
    mirror: Option<Ruleset>,
    /// What they should be, when they have to be read again only because events were lost.
    expected: Option<Ruleset>,
    /// They were not what they should be.
    drifted: bool,
}

/// Why the kernel could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("failed to open nftables; is CAP_NET_ADMIN there?")]
    Nft(#[source] nft::OpenError),
    #[error("failed to open a socket for routes and rules")]
    Routing(#[source] netlink::Error),
    #[error("failed to open the record of sysctls")]
    Sysctls(#[source] sysctl::Error),
}

/// What a plan came to.
#[derive(Debug, Default)]
pub struct Done {
    /// Steps carried out.
    pub steps: usize,
    /// Steps that failed.
    pub failures: Vec<Failure>,
    /// Why the nftables batch was refused, if it was: one of them.
    pub refused: Option<Failure>,
}

/// Something that failed, in a reader's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What was tried. The next try of the same is told by it.
    pub step: String,
    pub error: String,
    /// The route table that lacks it.
    pub table: Option<u32>,
}

impl Failure {
    /// With the causes of the error.
    pub fn of(step: impl Into<String>, error: &dyn std::error::Error) -> Self {
        Self { step: step.into(), error: with_causes(error), table: None }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.step, self.error)
    }
}

impl Kernel {
    /// Opens all sockets. `state` is the folder that remembers what sysctls were, `sysctls` where they are.
    pub fn open(state: &Path, sysctls: &Path) -> Result<Self, OpenError> {
        Ok(Self {
            nft: Nft::open().map_err(OpenError::Nft)?,
            routing: Routing::open().map_err(OpenError::Routing)?,
            sysctls: Sysctls::open(sysctls, state).map_err(OpenError::Sysctls)?,
            fast_path: FastPath::default(),
            mirror: None,
            expected: None,
            drifted: false,
        })
    }

    /// The netlink port of our nftables socket.
    pub fn port(&self) -> u32 {
        self.nft.port()
    }

    /// Why the kernel would not look at the control groups of sockets, if so. Nothing is made.
    ///
    /// # Errors
    /// When it could not be asked.
    pub fn refuses_programs(&mut self) -> Result<Option<String>, Failure> {
        let refused = self.nft.refuses(Family::Ip, programs::trial()).map_err(|error| Failure::of("trying nft_socket", &error))?;
        Ok(refused.map(|error| format!("the kernel has no nft_socket: {error}")))
    }

    /// Whether the kernel has no conntrack zones. Nothing is made.
    ///
    /// # Errors
    /// When it could not be asked.
    pub fn refuses_zones(&mut self) -> Result<bool, Failure> {
        let refused = self.nft.refuses(Family::Ip, programs::trial_of_zones());
        refused.map(|error| error.is_some()).map_err(|error| Failure::of("trying conntrack zones", &error))
    }

    /// Our tables as they are.
    pub fn ruleset(&mut self) -> Result<&Ruleset, nft::ReadError> {
        if self.mirror.is_none() {
            let read = self.nft.read()?;
            let expected = self.expected.take();
            self.drifted |= expected.is_some_and(|expected| !diff(&expected, &read).is_empty());
            self.mirror = Some(read);
        }
        Ok(self.mirror.as_ref().expect("read above"))
    }

    /// Our tables, as far as they need not be read: whoever changes this is about to have the kernel change in the same way.
    pub fn known_ruleset(&mut self) -> Option<&mut Ruleset> {
        self.mirror.as_mut()
    }

    /// Makes this process the owner of tables that an earlier run left.
    pub fn take_over(&mut self) -> Result<(), Failure> {
        self.nft.commit(&[]).map(drop).map_err(|error| Failure::of("taking over the tables of an earlier run", &error))
    }

    /// Somebody changed our tables: they have to be read again.
    pub fn forget(&mut self) {
        (self.mirror, self.expected) = (None, None);
    }

    /// Somebody may have changed our tables: they have to be read again, and compared with what they should be.
    pub fn doubt(&mut self) {
        self.expected = self.mirror.take().or(self.expected.take());
    }

    /// Whether our tables were found changed after a doubt. Says so once.
    pub fn take_drift(&mut self) -> bool {
        std::mem::take(&mut self.drifted)
    }

    /// Other programs' NAT chains that see a flow before ours do.
    pub fn nat_chains_ahead(&mut self) -> Result<Vec<AnyChain>, nft::ReadError> {
        let mut chains = self.nft.chains()?;
        chains.retain(AnyChain::is_nat_ahead_of_ours);
        Ok(chains)
    }

    /// Lets what is wanted through iptables' filter table, and nothing else. Returns the firewalls that forwarded packets pass, as they were, and
    /// what was changed.
    pub fn open_gates(&mut self, wanted: &Wanted) -> Result<(Vec<Gate>, Vec<GateStep>), Failure> {
        let failed = "accepting flows with egressd's mark in the firewall";
        let gates = self.nft.gates(wanted).map_err(|error| Failure::of(failed, &error))?;
        let steps = gates::steps(&gates, wanted);
        self.nft.change_gates(&steps).map_err(|error| Failure::of(failed, &error))?;
        Ok((gates, steps))
    }

    /// Lets servers that were full get new flows again. One that the kernel has let itself meanwhile is no failure.
    pub fn free(&mut self, servers: &[LimitedServer]) {
        for change in servers.iter().flat_map(|server| admission::free(*server)) {
            if let Err(error) = self.nft.commit(&[change]) {
                debug!(error = with_causes(&error), "it is free already, or counts as full until its time is over");
            }
        }
    }

    /// The sysctls of these keys that exist.
    pub fn sysctls(&self, keys: &[String]) -> BTreeMap<String, String> {
        keys.iter().filter_map(|key| Some((key.clone(), self.sysctls.read(key).ok()?))).collect()
    }

    /// Sets a setting that no plan knows of, after noting what it was; whether it was another.
    ///
    /// # Errors
    /// When there is no such setting, or it cannot be written.
    pub fn set_sysctl(&mut self, key: &str, value: &str) -> Result<bool, Failure> {
        self.sysctls.set(key, value).map_err(|error| Failure::of(format!("sysctl {key} = {value}"), &error))
    }

    /// Why the kernel has no fast path, if so. Nothing is made.
    pub fn refuses_fast_path(&mut self) -> Option<String> {
        let release = self.sysctls.read("kernel/osrelease").unwrap_or_default();
        if version(&release).is_some_and(|version| version < OLDEST_FAST_PATH) {
            return Some(format!("Linux {} is older than 6.1", release.trim()));
        }
        FastPath::refused(&mut self.nft)
    }

    /// The fast path is open.
    pub fn is_fast_path_open(&self) -> bool {
        self.fast_path.is_open()
    }

    /// The fast path is open, and as these changes make it.
    pub fn is_fast_path(&self, table: &[Change]) -> bool {
        self.fast_path.is(table)
    }

    /// Closes the fast path: the next packet of each flow passes all chains.
    pub fn close_fast_path(&mut self) -> Result<(), Failure> {
        self.fast_path.close(&mut self.nft).map_err(|error| Failure::of("closing the fast path", &error))
    }

    /// Opens the fast path, which is closed.
    pub fn open_fast_path(&mut self, table: Vec<Change>) -> Result<(), Failure> {
        self.fast_path.open(&mut self.nft, table).map_err(|error| Failure::of("opening the fast path", &error))
    }

    /// Takes the fast path away, and what was pinned for it.
    pub fn remove_fast_path(&mut self, kernel: &KernelFacts) -> Result<(), Failure> {
        self.close_fast_path()?;
        fast_path::unpin(kernel).map_err(|error| Failure::of("unpinning hardware addresses", &error))
    }

    /// Takes the claims out of tables that are to go. The flows that had an exit are to be ended before the plan is carried out.
    pub fn disarm(&mut self, changes: &[Change]) -> Result<(), nft::CommitError> {
        self.fast_path.close(&mut self.nft)?;
        self.forget();
        self.nft.commit(changes).map(drop)
    }

    /// Carries a plan out, but for its cuts. A step that fails does not stop the others; a batch that fails changes nothing. Flows in the fast
    /// path see nothing of a change: it is closed ahead of the first step, or nothing is done.
    pub fn carry_out(&mut self, plan: Plan) -> Done {
        let mut done = Done::default();
        if !plan.is_empty()
            && let Err(failure) = self.close_fast_path()
        {
            self.forget();
            done.refuse(failure);
            return done;
        }
        for (key, value) in &plan.sysctls {
            debug!(key, value, "set sysctl");
            done.note(self.sysctls.set(key, value).map(drop), || format!("sysctl {key} = {value}"));
        }
        self.route(&plan.before, &plan.names, &mut done);
        if plan.ruleset.is_empty() {
            // The same, and what it shares with the next plan's target need not be compared again.
            self.mirror = plan.target.or(self.mirror.take());
        } else {
            if plan.follows {
                connections::follow();
            }
            match self.nft.commit(&plan.ruleset) {
                Ok(committed) => {
                    trace!(messages = committed.messages, bytes = committed.bytes, "nftables batch");
                    done.steps += plan.ruleset.len();
                    self.mirror = plan.target.or(self.mirror.take());
                }
                Err(error) => {
                    self.forget();
                    done.refuse(Failure::of("nftables", &error));
                }
            }
        }
        // What the tables still lead to has to stay.
        if done.refused.is_none() {
            self.route(&plan.after, &plan.names, &mut done);
        }
        done
    }

    /// Carries out a plan that takes everything away, and puts every sysctl back that still has our value. Returns also what was left
    /// alone, and why.
    pub fn withdraw(&mut self, plan: Plan, keep_forwarding: bool) -> (Done, Vec<String>) {
        let mut done = self.carry_out(plan);
        match self.open_gates(&Wanted::default()) {
            Ok((_, closed)) => done.steps += closed.len(),
            Err(failure) => done.fail(failure),
        }
        let restored = self.sysctls.restore_all(keep_forwarding);
        restored.failed.iter().for_each(|error| done.fail(Failure::of("restoring sysctls", error)));
        (done, restored.left.iter().map(ToString::to_string).collect())
    }

    fn route(&mut self, steps: &[RouteStep], names: &InterfaceNames, done: &mut Done) {
        for step in steps {
            debug!(step = %step.words(names), "route");
            match self.routing.apply(step) {
                Ok(()) => done.steps += 1,
                Err(error) => done.fail(Failure { table: step.needed_by(), ..Failure::of(step.words(names).to_string(), &error) }),
            }
        }
    }
}

impl Done {
    fn note<E: std::error::Error>(&mut self, result: Result<(), E>, what: impl Fn() -> String) {
        match result {
            Ok(()) => self.steps += 1,
            Err(error) => self.fail(Failure::of(what(), &error)),
        }
    }

    fn refuse(&mut self, failure: Failure) {
        self.refused = Some(failure.clone());
        self.fail(failure);
    }

    fn fail(&mut self, failure: Failure) {
        debug!(step = failure.step, error = failure.error, "step failed");
        self.failures.push(failure);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::testing::alone;
    use crate::nft::{Change, Family};

    #[test]
    fn lost_events_are_drift_only_where_the_tables_are_not_what_they_should_be() {
        alone(|| {
            let state = tempfile::tempdir().unwrap();
            let mut kernel = Kernel::open(state.path(), Path::new("/proc/sys")).unwrap();
            kernel.ruleset().unwrap();
            kernel.doubt();
            kernel.doubt();
            kernel.ruleset().unwrap();
            assert!(!kernel.take_drift(), "nobody has changed anything");
            kernel.nft.commit(&[Change::AddTable(Family::Ip)]).unwrap();
            kernel.doubt();
            kernel.ruleset().unwrap();
            assert!(kernel.take_drift() && !kernel.take_drift(), "it is told once");
        });
    }
}
