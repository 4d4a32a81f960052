//! `egressd status`, `explain`, `flows` and `top`: what the daemon knows.

use std::io::{IsTerminal, Write};
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use clap::ValueEnum;
use k8s_openapi::jiff::Timestamp;

use super::output::Output;
use crate::daemon::control::{Request, ask};
use crate::daemon::question::{Call, Response};
use crate::model::ports::Protocol;
use crate::report::status::{self, Status};
use crate::report::{flows, table};

/// Between two prints of `--watch`.
const PAUSE: Duration = Duration::from_secs(2);
/// Clears a terminal, and goes to its first line.
const CLEAR: &str = "\x1b[2J\x1b[H";

/// How `egressd status` is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Form {
    #[default]
    Table,
    /// The table, with each exit of several
    Wide,
    Json,
    Yaml,
}

/// Prints the daemon's status, once or for ever.
pub fn status(state: &Path, form: Form, watch: bool) -> anyhow::Result<()> {
    let output = match form {
        Form::Table | Form::Wide => Output::Table,
        Form::Json => Output::Json,
        Form::Yaml => Output::Yaml,
    };
    again_and_again(watch, || {
        let status = ask_status(state)?;
        output.print(&status, || {
            let table = table::render(&status, Timestamp::now(), form == Form::Wide);
            if has_colours() { table::coloured(&table) } else { table }
        })
    })
}

/// The daemon's status.
///
/// # Errors
/// When it does not answer.
pub fn ask_status(state: &Path) -> anyhow::Result<Status> {
    match ask(state, &Request::Status)? {
        Response::Status(status) => Ok(status),
        _ => Err(another()),
    }
}

/// Prints the open flows of a workload, or of all.
pub fn flows(state: &Path, workload: Option<String>, output: Output) -> anyhow::Result<()> {
    again_and_again(false, || match ask(state, &Request::Flows { workload: workload.clone() })? {
        Response::Flows(flows) => output.print(&flows, || flows::render(&flows)),
        Response::Unknown(workload) => Err(unknown(&workload)),
        Response::Refused(why) => bail!(why),
        _ => Err(another()),
    })
}

/// Prints how many flows each exit has, and how fast, for ever.
pub fn top(state: &Path) -> anyhow::Result<()> {
    // The first answer has no rates yet.
    ask(state, &Request::Exits)?;
    std::thread::sleep(PAUSE);
    again_and_again(true, || match ask(state, &Request::Exits)? {
        Response::Flows(flows) => Ok(flows::render_exits(&flows)),
        _ => Err(another()),
    })
}

/// Prints a text once, or for ever: on a terminal in the place of the one before. Who watches goes on over a restart of the daemon.
fn again_and_again(watch: bool, text: impl Fn() -> anyhow::Result<String>) -> anyhow::Result<()> {
    let out = &mut std::io::stdout();
    let mut answered = false;
    loop {
        let text = match text() {
            Err(error) if watch && answered => format!("{error:#}; retrying\n"),
            text => text?,
        };
        answered = true;
        if watch && out.is_terminal() {
            out.write_all(CLEAR.as_bytes())?;
        }
        out.write_all(text.as_bytes()).and_then(|()| out.flush())?;
        if !watch {
            return Ok(());
        }
        std::thread::sleep(PAUSE);
    }
}

/// On a terminal, unless its user wants none: by the variable `NO_COLOR`, if it is not empty.
fn has_colours() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

fn another() -> anyhow::Error {
    anyhow!("egressd gave another answer than was asked for")
}

fn unknown(workload: &str) -> anyhow::Error {
    anyhow!(status::unknown(workload))
}

/// Prints the way of a workload; for a name, to each of its addresses.
pub fn explain(state: &Path, workload: &str, destination: Option<&str>) -> anyhow::Result<()> {
    for destination in destination.map_or_else(|| Ok(vec![None]), addresses)? {
        match ask(state, &Request::Explain { workload: workload.to_owned(), destination })? {
            Response::Text(text) => std::io::stdout().write_all(text.as_bytes())?,
            Response::Unknown(workload) => return Err(unknown(&workload)),
            _ => return Err(another()),
        }
    }
    Ok(())
}

/// A port that is called, as it is written.
#[derive(Clone, Debug)]
pub struct Inbound {
    called: SocketAddr,
    protocol: Protocol,
}

impl FromStr for Inbound {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (called, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let protocol = Protocol::named(protocol).ok_or_else(|| format!("{protocol} is not one of tcp, udp, sctp"))?;
        let called = called
            .parse()
            .map_err(|_| format!("{called} is no address and port; write for instance 172.31.0.14:27017, or 172.31.0.14:53/udp"))?;
        Ok(Self { called, protocol })
    }
}

/// Prints what becomes of a call to a port, by this client if one is given.
pub fn explain_inbound(state: &Path, Inbound { called, protocol }: Inbound, client: Option<&str>) -> anyhow::Result<()> {
    let client = client.map(|text| text.parse().with_context(|| format!("{text} is no address of a client"))).transpose()?;
    match ask(state, &Request::ExplainInbound(Call { called, protocol, client }))? {
        Response::Text(text) => Ok(std::io::stdout().write_all(text.as_bytes())?),
        _ => Err(another()),
    }
}

/// An address, or all that this host finds for a name.
fn addresses(destination: &str) -> anyhow::Result<Vec<Option<IpAddr>>> {
    if let Ok(address) = destination.parse() {
        return Ok(vec![Some(address)]);
    }
    if let Ok(at) = destination.parse::<SocketAddr>() {
        bail!("{destination} has a port; write the address alone, {}: a binding's ports are in the line `traffic`", at.ip());
    }
    let found = (destination, 0).to_socket_addrs().with_context(|| format!("failed to find the address of {destination}"))?;
    let mut addresses: Vec<_> = found.map(|at| Some(at.ip())).collect();
    addresses.sort_unstable();
    addresses.dedup();
    Ok(addresses)
}
