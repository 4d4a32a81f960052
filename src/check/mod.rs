//! `egressd check`: what on this host keeps egressd from working, or will. Needs no daemon and changes nothing.
//!
//! `gather` reads the host into facts, `findings` judges them without touching anything.

mod cluster;
mod facts;
mod finding;
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

pub use finding::Finding;
use finding::Level;

/// Looks, and prints the findings as `print` has them. An error when something has to be mended first.
pub async fn run(
    docker: &Path,
    state: &Path,
    sysctls: &Path,
    print: impl FnOnce(&[Finding]) -> anyhow::Result<String>,
) -> anyhow::Result<()> {
    let findings = findings::all(&gather::gather(Path::new("/"), sysctls, docker, state).await);
    std::io::stdout().write_all(print(&findings)?.as_bytes())?;
    match findings.iter().filter(|finding| finding.level == Level::Fail).count() {
        0 => Ok(()),
        failed => bail!("{failed} of {} checks failed", findings.len()),
    }
}
