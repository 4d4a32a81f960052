//! `egressd status` and `egressd explain`: what the daemon knows.

use std::io::Write;
use std::net::IpAddr;
use std::path::Path;

use anyhow::bail;

use crate::daemon::control::{Request, Response, ask};
use crate::report::table;

/// Prints the daemon's status.
pub fn status(state: &Path, json: bool) -> anyhow::Result<()> {
    let Response::Status(status) = ask(state, &Request::Status)? else { bail!("egressd gave another answer than was asked for") };
    let text = if json { serde_json::to_string_pretty(&status)? + "\n" } else { table::render(&status) };
    Ok(std::io::stdout().write_all(text.as_bytes())?)
}

/// Prints the way of a workload.
pub fn explain(state: &Path, workload: String, destination: Option<IpAddr>) -> anyhow::Result<()> {
    match ask(state, &Request::Explain { workload, destination })? {
        Response::Text(text) => Ok(std::io::stdout().write_all(text.as_bytes())?),
        Response::Unknown(workload) => bail!("egressd knows no workload {workload}; see `egressd status` for those it knows"),
        _ => bail!("egressd gave another answer than was asked for"),
    }
}
