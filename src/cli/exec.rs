//! `egressd exec`: becomes another program, in a control group or a network namespace whose exit the daemon has programmed.

use std::ffi::{CString, OsString};
use std::fs::{self, File, OpenOptions, Permissions, TryLockError};
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, exit};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use ipnet::Ipv4Net;
use nix::errno::Errno;
use nix::unistd::{User, initgroups, setgid, setuid};

use crate::api;
use crate::daemon::control::{Request, ask};
use crate::daemon::question::Response;
use crate::effects::enter::NamespaceId;
use crate::effects::isolation::{self, Isolation};
use crate::effects::programs::Group;
use crate::model::facts::Family;
use crate::model::isolated::{self, Ends, NoEnds};
use crate::model::started::{Started, started_in};

/// As `env` and `timeout` have them.
pub const EXIT_CODES: &str =
    "Exit codes: 125 egressd refused or is not running, and nothing was started; 126 the program cannot be run, 127 it does not exist;
else the program's own. It has the terminal, the signals and the process id of this command.";
const REFUSED: i32 = 125;
const NOT_RUN: i32 = 126;
const NOT_FOUND: i32 = 127;

/// How long another one may take for its subnet. It takes a few milliseconds.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a subnet may be that of a program that has ended.
const LEAVING: Duration = Duration::from_secs(1);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(5);
/// Bytes that the name of a control group may have (`NAME_MAX`).
const LONGEST: usize = 255;

/// Through what.
pub struct By {
    pub binding: Option<String>,
    pub ip: Option<IpAddr>,
}

/// A network namespace of its own.
pub struct Isolated {
    /// As the command line has them.
    pub publish: Vec<String>,
    pub subnet: Option<Ipv4Net>,
    pub dns: Vec<IpAddr>,
}

/// Does not return, unless it cannot end. `user` is a name, whose groups come along.
pub fn exec(state: &Path, by: By, isolated: Option<Isolated>, user: Option<&str>, program: &[OsString]) -> anyhow::Result<()> {
    let ready = user.map(user_of).transpose().and_then(|user| enter(state, by, isolated).and_then(|()| user.map_or(Ok(()), become_user)));
    let (error, code) = match ready {
        Ok(()) => become_program(program),
        Err(error) => (error.context("nothing was started"), REFUSED),
    };
    super::output::tell(format_args!("egressd exec: {error:#}"));
    exit(code)
}

/// Moves this process to where its exit is programmed: into the control group of a binding or of an address, or into a network namespace.
///
/// # Errors
/// When the daemon does not run or refuses, or the process may not.
pub fn enter(state: &Path, by: By, isolated: Option<Isolated>) -> anyhow::Result<()> {
    let started = match (by.binding, by.ip) {
        (Some(name), _) if name.contains('/') => Started::By(name),
        (Some(name), _) => Started::By(format!("default/{name}")),
        (None, Some(address)) => Started::As(address),
        (None, None) => bail!("name an exit: --binding NAME or --ip ADDRESS"),
    };
    let cgroup = started.cgroup();
    if started_in(&cgroup).as_ref() != Some(&started) {
        bail!("that is not a binding's name; write NAMESPACE/NAME, for instance shop/crawler");
    }
    same_network(state)?;
    if let Some(isolated) = isolated {
        return isolate(state, &started, &isolated);
    }
    if cgroup.rsplit('/').next().is_some_and(|name| name.len() > LONGEST) {
        bail!("the binding's name is too long for a control group ({LONGEST} bytes); name its exit with --ip, or give it a shorter name");
    }
    let group = Group::make(&cgroup).with_context(|| format!("failed to create control group {cgroup}; are you root?"))?;
    match await_ready(state, &Request::Exec(started)) {
        Ok(()) => group.join().with_context(|| format!("failed to join control group {cgroup}")),
        Err(error) => {
            group.leave();
            Err(error)
        }
    }
}

/// The rules for a control group are in the daemon's network namespace: in another one they hold nobody.
fn same_network(state: &Path) -> anyhow::Result<()> {
    let own = NamespaceId::own().context("failed to look at this process's network namespace; is /proc there?")?;
    match ask(state, &Request::Namespace)? {
        Response::Text(daemon) if daemon == own.to_string() => Ok(()),
        Response::Text(_) => bail!(
            "this is another network namespace than egressd's, where its rules do not apply; run it from the host's (nsenter --net=/proc/1/ns/net), or bind this namespace (networkNamespaces)"
        ),
        Response::Refused(why) => bail!(why),
        _ => bail!("egressd gave another answer than was asked for"),
    }
}

/// Moves this process into a network namespace of its own. When it ends, the namespace ends.
fn isolate(state: &Path, started: &Started, isolated: &Isolated) -> anyhow::Result<()> {
    let families = match started {
        Started::As(address) => vec![Family::of(*address)],
        Started::By(_) if has_ipv6() => vec![Family::V4, Family::V6],
        Started::By(_) => vec![Family::V4],
    };
    let resolver = isolation::resolver(&isolated.dns)?;
    if families.contains(&Family::V6) && !has_ipv6() {
        bail!("this host gives new interfaces no IPv6: `sysctl -w net.ipv6.conf.default.disable_ipv6=0`, or name an IPv4 address");
    }
    // Two that start at once have two subnets.
    let lock = lock(&state.join("exec.lock"))?;
    let ends = ends(&families, isolated.subnet)?;
    let addresses: Vec<IpAddr> = ends.iter().map(|ends| ends.program.addr()).collect();
    let alias = api::isolated::write(started, &addresses, &isolated.publish);
    let alias = alias.context("the binding's name and the published ports are too long together (255 bytes); publish fewer, or a range")?;
    let link = isolation::enter(&Isolation { ends, alias, resolver }, state)?;
    drop(lock);
    await_ready(state, &Request::Isolated(link))
}

/// Holds the lock of those that take a subnet. Nobody but root may open it: who can open a file can lock it, and keep root waiting.
fn lock(path: &Path) -> anyhow::Result<File> {
    let open = || {
        let lock = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
        // An older egressd made it for everybody to read.
        lock.set_permissions(Permissions::from_mode(0o600))?;
        Ok::<_, io::Error>(lock)
    };
    let lock = open().with_context(|| format!("failed to open {}; is egressd running, and are you root?", path.display()))?;
    let deadline = Instant::now() + PATIENCE;
    while let Err(error) = lock.try_lock() {
        match error {
            TryLockError::WouldBlock if Instant::now() < deadline => sleep(PAUSE),
            TryLockError::WouldBlock => bail!("another `egressd exec` holds {} and does not finish; see `fuser {0}`", path.display()),
            TryLockError::Error(error) => return Err(error).with_context(|| format!("failed to lock {}", path.display())),
        }
    }
    Ok(lock)
}

/// The addresses of the link. The kernel takes a namespace away a moment after its last program has ended: who names that one's subnet waits.
fn ends(families: &[Family], subnet: Option<Ipv4Net>) -> anyhow::Result<Vec<Ends>> {
    let deadline = Instant::now() + LEAVING;
    loop {
        match isolated::ends(families, &isolation::destinations()?, subnet) {
            Err(NoEnds::Taken(..)) if Instant::now() < deadline => sleep(PAUSE),
            found => return Ok(found.map_err(isolation::Error::from)?),
        }
    }
}

/// Whether addresses of IPv6 can be given.
fn has_ipv6() -> bool {
    fs::read_to_string("/proc/sys/net/ipv6/conf/default/disable_ipv6").is_ok_and(|value| value.trim() == "0")
}

fn await_ready(state: &Path, request: &Request) -> anyhow::Result<()> {
    match ask(state, request)? {
        Response::Ready(true) => Ok(()),
        Response::Ready(false) => bail!("its rules are not in the kernel yet; see the lines below the table of `egressd status`"),
        Response::Refused(why) => bail!(why),
        _ => bail!("egressd gave another answer than was asked for"),
    }
}

fn user_of(name: &str) -> anyhow::Result<User> {
    let user = User::from_name(name).with_context(|| format!("failed to look user {name} up"))?;
    user.with_context(|| format!("there is no user {name}; see `getent passwd`"))
}

/// Takes the user's groups and identity, as runuser(1) with `-u` does. The rights of root go with that.
fn become_user(user: User) -> anyhow::Result<()> {
    let become_it = || {
        initgroups(&CString::new(user.name.as_str()).map_err(|_| Errno::EINVAL)?, user.gid)?;
        setgid(user.gid)?;
        setuid(user.uid)
    };
    become_it().with_context(|| format!("failed to become user {}; are you root?", user.name))
}

fn become_program(program: &[OsString]) -> (anyhow::Error, i32) {
    let Some((name, arguments)) = program.split_first() else { return (anyhow!("no program is given"), REFUSED) };
    let error = Command::new(name).args(arguments).exec();
    let code = if error.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { NOT_RUN };
    (anyhow::Error::new(error).context(format!("failed to run {}", name.to_string_lossy())), code)
}
