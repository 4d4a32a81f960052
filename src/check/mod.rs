//! `egressd check`: what on this host keeps egressd from working, or will. Needs no daemon and changes nothing.
//!
//! `gather` reads the host into facts, `findings` judges them without touching anything.

mod cluster;
mod facts;
mod findings;
mod firewall;
mod gather;
mod kernel;
mod others;
mod routing;
#[cfg(test)]
mod tests;

use std::io::Write;
use std::path::Path;

use anyhow::bail;

use findings::Level;

/// Looks, and prints a line for each finding, or JSON. An error when something has to be mended first.
pub async fn run(docker: &Path, state: &Path, sysctls: &Path, json: bool) -> anyhow::Result<()> {
    let findings = findings::all(&gather::gather(Path::new("/"), sysctls, docker, state).await);
    let mut out = std::io::stdout().lock();
    if json {
        writeln!(out, "{}", serde_json::to_string_pretty(&findings)?)?;
    } else {
        for finding in &findings {
            writeln!(out, "{finding}")?;
        }
    }
    match findings.iter().filter(|finding| finding.level == Level::Fail).count() {
        0 => Ok(()),
        failed => bail!("{failed} of {} checks failed", findings.len()),
    }
}
