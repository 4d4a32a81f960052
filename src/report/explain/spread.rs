//! Which of several exits a new flow gets.

use std::fmt::{self, Write};
use std::net::IpAddr;

use super::super::columns::list;
use crate::contract::HASH_SEED;
use crate::model::binding::Spread;
use crate::model::facts::Family;
use crate::model::jhash::slot;
use crate::model::outcome::Outcome;
use crate::model::spread::Shares;
use crate::model::uplinks::Exit;
use crate::model::workload::Row;

/// What a flow is known to have: the workload's address, and whom it is for.
#[derive(Clone, Copy)]
pub(super) struct Ends {
    pub source: Option<IpAddr>,
    pub destination: Option<IpAddr>,
}

/// Writes how new flows of a row are shared, if they are. Returns the exit that a flow with these ends gets; `first` where that is not known.
pub(super) fn write(out: &mut String, outcome: &Outcome, row: &Row, first: Exit, ends: Ends) -> Result<Exit, fmt::Error> {
    let Some(shares) = outcome.shares_of(row).filter(|shares| shares.shares.len() > 1) else { return Ok(first) };
    let all: Vec<String> = shares.shares.iter().map(|share| weighted(share.exit.address, share.weight)).collect();
    writeln!(out, "  spread    {:?}: each new flow leaves as one of {}", shares.spread, list(&all))?;
    let (address, what) = match shares.spread {
        Spread::BySource => (ends.source, "the workload's address"),
        Spread::ByDestination => (ends.destination, "the destination's address"),
        Spread::FirstUsable | Spread::RoundRobin | Spread::Random => {
            writeln!(out, "            the lines below are for the first one")?;
            return Ok(first);
        }
    };
    match address
        .filter(|address| Family::of(*address) == Family::of(first.address))
        .and_then(|address| Some((address, hashed(shares, address)?)))
    {
        Some((address, (at, of, exit))) => {
            writeln!(out, "            {address} has slot {at} of {of}: {}, which the lines below are for", exit.address)?;
            Ok(exit)
        }
        None => {
            writeln!(out, "            {what} decides, but is not given; the lines below are for the first one")?;
            Ok(first)
        }
    }
}

/// The slot of an address, how many there are, and the exit that it leads to.
fn hashed(shares: &Shares, address: IpAddr) -> Option<(u32, u32, Exit)> {
    let slots = shares.slots();
    let of = u32::try_from(slots.len()).ok()?;
    let at = slot(address, of, HASH_SEED);
    Some((at, of, *slots.get(usize::try_from(at).ok()?)?))
}

/// An exit with its weight, as a label has it.
fn weighted(address: IpAddr, weight: u16) -> String {
    if weight == 1 { address.to_string() } else { format!("{address}*{weight}") }
}
