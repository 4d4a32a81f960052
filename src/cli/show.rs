//! `egressd status` and `egressd explain`: what the daemon knows.

use std::io::{IsTerminal, Write};
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, bail};

use super::output::Output;
use crate::daemon::control::{Call, Request, Response, ask};
use crate::report::table;

/// Between two prints of `--watch`.
const PAUSE: Duration = Duration::from_secs(2);
/// Clears a terminal, and goes to its first line.
const CLEAR: &str = "\x1b[2J\x1b[H";

/// Prints the daemon's status, once or for ever.
pub fn status(state: &Path, output: Output, watch: bool) -> anyhow::Result<()> {
    let out = &mut std::io::stdout();
    loop {
        let Response::Status(status) = ask(state, &Request::Status)? else { bail!("egressd gave another answer than was asked for") };
        let text = output.print(&status, || table::render(&status))?;
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

/// Prints the way of a workload; for a name, to each of its addresses.
pub fn explain(state: &Path, workload: &str, destination: Option<&str>) -> anyhow::Result<()> {
    for destination in destination.map_or_else(|| Ok(vec![None]), addresses)? {
        match ask(state, &Request::Explain { workload: workload.to_owned(), destination })? {
            Response::Text(text) => std::io::stdout().write_all(text.as_bytes())?,
            Response::Unknown(workload) => bail!("egressd knows no workload {workload}; see `egressd status` for those it knows"),
            _ => bail!("egressd gave another answer than was asked for"),
        }
    }
    Ok(())
}

/// A port that is called, as it is written.
#[derive(Clone, Debug)]
pub struct Inbound {
    called: SocketAddr,
    udp: bool,
}

impl FromStr for Inbound {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (called, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let udp = match protocol.to_ascii_lowercase().as_str() {
            "tcp" => false,
            "udp" => true,
            _ => return Err(format!("{protocol} is not one of tcp, udp")),
        };
        let called = called.parse().map_err(|_| format!("{called} is no address and port; write for instance 172.31.0.14:27017/tcp"))?;
        Ok(Self { called, udp })
    }
}

/// Prints what becomes of a call to a port, by this client if one is given.
pub fn explain_inbound(state: &Path, Inbound { called, udp }: Inbound, client: Option<&str>) -> anyhow::Result<()> {
    let client = client.map(|text| text.parse().with_context(|| format!("{text} is no address of a client"))).transpose()?;
    match ask(state, &Request::ExplainInbound(Call { called, udp, client }))? {
        Response::Text(text) => Ok(std::io::stdout().write_all(text.as_bytes())?),
        _ => bail!("egressd gave another answer than was asked for"),
    }
}

/// An address, or all that this host finds for a name.
fn addresses(destination: &str) -> anyhow::Result<Vec<Option<IpAddr>>> {
    if let Ok(address) = destination.parse() {
        return Ok(vec![Some(address)]);
    }
    let found = (destination, 0).to_socket_addrs().with_context(|| format!("failed to find the address of {destination}"))?;
    let mut addresses: Vec<_> = found.map(|at| Some(at.ip())).collect();
    addresses.sort_unstable();
    addresses.dedup();
    Ok(addresses)
}
