//! `egressd guard`: at boot, before any container runs.

use std::path::Path;

use anyhow::Context;

use crate::effects::boot;
use crate::effects::nft::Nft;
use crate::nft::diff;
use crate::plan::boot::ruleset;

/// Closes what was guarded when the daemon last ran. Does nothing when the daemon's tables are there.
pub fn guard(file: &Path) -> anyhow::Result<()> {
    let remembered = boot::read(file)?;
    let mut nft = Nft::open()?;
    let observed = nft.read().context("failed to read the tables")?;
    if !observed.tables.is_empty() {
        println!("the tables exist already: nothing to do");
        return Ok(());
    }
    let changes = diff(&ruleset(&remembered), &observed);
    nft.commit(&changes).context("failed to create the tables")?;
    let list = |names: &std::collections::BTreeSet<String>| names.iter().cloned().collect::<Vec<_>>().join(", ");
    match remembered.bridges.is_empty() {
        true => println!("no bridge was guarded: nothing to do"),
        false => println!("until egressd runs, containers on {} cannot open connections to the outside", list(&remembered.bridges)),
    }
    Ok(())
}
