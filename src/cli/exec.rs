//! `egressd exec`: becomes another program, in a control group whose exit the daemon has programmed.

use std::ffi::OsString;
use std::io;
use std::net::IpAddr;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, exit};

use anyhow::{Context, anyhow, bail};

use crate::daemon::control::{Request, ask};
use crate::daemon::question::Response;
use crate::effects::programs::Group;
use crate::model::programs::{Started, started_in};

/// As `env` and `timeout` have them.
pub const EXIT_CODES: &str =
    "Exit codes: 125 egressd refused or does not run, and nothing was started; 126 the program cannot be run, 127 there is none;
else the program's own. It has the terminal, the signals and the process id of this command.";
const REFUSED: i32 = 125;
const NOT_RUN: i32 = 126;
const NOT_FOUND: i32 = 127;

/// Does not return, unless it cannot end.
pub fn exec(state: &Path, binding: Option<String>, ip: Option<IpAddr>, program: &[OsString]) -> anyhow::Result<()> {
    let (error, code) = match enter(state, binding, ip) {
        Ok(()) => become_program(program),
        Err(error) => (error.context("nothing was started"), REFUSED),
    };
    eprintln!("egressd exec: {error:#}");
    exit(code)
}

/// Moves this process into the control group of a binding or of an address, once the daemon has programmed its exit.
///
/// # Errors
/// When the daemon does not run or refuses, or the process may not.
pub fn enter(state: &Path, binding: Option<String>, ip: Option<IpAddr>) -> anyhow::Result<()> {
    let started = match (binding, ip) {
        (Some(name), _) if name.contains('/') => Started::By(name),
        (Some(name), _) => Started::By(format!("default/{name}")),
        (None, Some(address)) => Started::As(address),
        (None, None) => bail!("say what by: --binding NAME or --ip ADDRESS"),
    };
    let cgroup = started.cgroup();
    if started_in(&cgroup).as_ref() != Some(&started) {
        bail!("that is not a binding's name; write NAMESPACE/NAME, for instance shop/crawler");
    }
    let group = Group::make(&cgroup).with_context(|| format!("failed to make control group {cgroup}; are you root?"))?;
    let ready = match ask(state, &Request::Exec(started)) {
        Ok(Response::Ready(true)) => Ok(()),
        Ok(Response::Ready(false)) => Err(anyhow!("its rules are not in the kernel yet; see the problems of `egressd status`")),
        Ok(Response::Refused(why)) => Err(anyhow!(why)),
        Ok(_) => Err(anyhow!("egressd gave another answer than was asked for")),
        Err(error) => Err(error.into()),
    };
    match ready {
        Ok(()) => group.join().with_context(|| format!("failed to join control group {cgroup}")),
        Err(error) => {
            group.leave();
            Err(error)
        }
    }
}

fn become_program(program: &[OsString]) -> (anyhow::Error, i32) {
    let Some((name, arguments)) = program.split_first() else { return (anyhow!("no program is given"), REFUSED) };
    let error = Command::new(name).args(arguments).exec();
    let code = if error.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { NOT_RUN };
    (anyhow::Error::new(error).context(format!("failed to run {}", name.to_string_lossy())), code)
}
