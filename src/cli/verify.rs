//! `egressd verify`: asks a service of the outside, from each exit, which address it sees.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use anyhow::{anyhow, bail};
use serde::Serialize;

use super::echo::Echo;
use super::output::Output;
use super::{exec, runtime, show};
use crate::report::columns::{columns, or_dash};
use crate::report::status::Status;

/// What came of one exit.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Verified {
    exit: IpAddr,
    #[serde(skip_serializing_if = "Option::is_none")]
    nic: Option<String>,
    /// What the outside should see, as a binding says.
    #[serde(skip_serializing_if = "Option::is_none")]
    public_address: Option<IpAddr>,
    /// What it sees.
    #[serde(skip_serializing_if = "Option::is_none")]
    seen: Option<IpAddr>,
    result: Verdict,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
enum Verdict {
    /// As it should be.
    Ok,
    /// Nobody said what it should be.
    Answered,
    /// It leaves through another address than it should.
    Differs,
    Failed,
    /// The service has no address of its family, and nobody asked for this exit by name.
    Skipped,
}

/// Asks from these exits, or from all that somebody leaves through, and prints what came of each. An exit is left by as a program that `egressd exec`
/// starts leaves: by the rules that are in the kernel, with none made for the question.
///
/// # Errors
/// When one differs or fails, or none can be asked.
pub fn verify(state: &Path, echo: &Echo, exits: &[IpAddr], output: Output) -> anyhow::Result<()> {
    let known = DaemonExits::of(&show::ask_status(state)?);
    let is_named = !exits.is_empty();
    let exits: Vec<IpAddr> = if exits.is_empty() { known.in_use.iter().copied().collect() } else { exits.to_vec() };
    if exits.is_empty() {
        bail!("no workload uses an exit; name addresses of this host: egressd verify --echo URL ADDRESS");
    }
    // Looked up ahead of all: this process goes on as a program of each exit, one after the other.
    let at = [false, true].map(|v6| echo.at(v6));
    let verified = |exit: IpAddr| known.verified(state, echo, &at[usize::from(exit.is_ipv6())], (exit, is_named));
    let all: Vec<Verified> = exits.into_iter().map(verified).collect();
    std::io::stdout().write_all(output.print(&all, || table(&all))?.as_bytes())?;
    let wrong = all.iter().filter(|one| matches!(one.result, Verdict::Differs | Verdict::Failed)).count();
    if wrong > 0 {
        bail!("{wrong} of {} exits do not leave as they should", all.len());
    }
    Ok(())
}

/// Which address the service sees this process come from, once it is a program of the exit.
fn seen(state: &Path, echo: &Echo, exit: IpAddr, at: SocketAddr) -> anyhow::Result<IpAddr> {
    exec::enter(state, exec::By { binding: None, ip: Some(exit) }, None)?;
    runtime()?.block_on(echo.ask(at))
}

/// What the daemon knows of exits.
#[derive(Debug, Default)]
struct DaemonExits {
    /// Those that workloads leave through.
    in_use: BTreeSet<IpAddr>,
    nics: BTreeMap<IpAddr, String>,
    public: BTreeMap<IpAddr, IpAddr>,
}

impl DaemonExits {
    fn of(status: &Status) -> Self {
        let mut known = Self::default();
        for uplink in &status.uplinks {
            known.nics.extend(uplink.addresses.iter().map(|address| (*address, uplink.nic.clone())));
        }
        for workload in &status.workloads {
            // What `egressd exec --ip` started is no binding's, and stays when it has ended.
            if !workload.is_of_exec() {
                known.in_use.extend(workload.exit.iter().chain(&workload.exits));
            }
            known.public.extend(workload.exit.zip(workload.public_address));
            known.public.extend(&workload.public_addresses);
        }
        known
    }

    /// What comes of an exit that was named, or that somebody leaves through.
    fn verified(&self, state: &Path, echo: &Echo, at: &anyhow::Result<Option<SocketAddr>>, (exit, is_named): (IpAddr, bool)) -> Verified {
        match at {
            Ok(Some(at)) => self.compared(exit, seen(state, echo, exit, *at)),
            Ok(None) => {
                let failed = self.compared(exit, Err(anyhow!("the service has no address of the exit's family")));
                if is_named { failed } else { Verified { result: Verdict::Skipped, ..failed } }
            }
            Err(error) => self.compared(exit, Err(anyhow!("{error:#}"))),
        }
    }

    fn compared(&self, exit: IpAddr, seen: anyhow::Result<IpAddr>) -> Verified {
        let public_address = self.public.get(&exit).copied();
        let (seen, error) = match seen {
            Ok(seen) => (Some(seen), None),
            Err(error) => (None, Some(format!("{error:#}"))),
        };
        let result = match (seen, public_address) {
            (None, _) => Verdict::Failed,
            (Some(_), None) => Verdict::Answered,
            (seen, public) if seen == public => Verdict::Ok,
            _ => Verdict::Differs,
        };
        Verified { exit, nic: self.nics.get(&exit).cloned(), public_address, seen, result, error }
    }
}

fn table(all: &[Verified]) -> String {
    let row = |one: &Verified| {
        let said = match &one.error {
            Some(error) => format!("{:?}: {error}", one.result),
            None => format!("{:?}", one.result),
        };
        [one.exit.to_string(), or_dash(one.nic.as_deref()), or_dash(one.public_address), or_dash(one.seen), said]
    };
    columns(["EXIT", "NIC", "PUBLIC", "SEEN", "RESULT"], all.iter().map(row))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_seen_is_held_against_what_is_known() {
        let address = |last| IpAddr::from([203, 0, 113, last]);
        let exit = IpAddr::from([172, 31, 0, 14]);
        let mut known = DaemonExits { nics: BTreeMap::from([(exit, "eth1".to_owned())]), ..DaemonExits::default() };
        assert_eq!(known.compared(exit, Ok(address(7))).result, Verdict::Answered);
        known.public.insert(exit, address(7));
        assert_eq!(known.compared(exit, Ok(address(7))).result, Verdict::Ok);
        let all = [known.compared(exit, Ok(address(8))), known.compared(exit, Err(anyhow::anyhow!("no answer")))];
        assert_eq!(
            table(&all),
            "EXIT         NIC   PUBLIC       SEEN         RESULT\n\
             172.31.0.14  eth1  203.0.113.7  203.0.113.8  Differs\n\
             172.31.0.14  eth1  203.0.113.7  -            Failed: no answer\n"
        );
    }
}
