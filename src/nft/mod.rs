//! The part of the nf_tables language that egressd speaks: a typed ruleset, the difference of two of them, and their netlink form.
//! Pure: sockets are in `effects::nft`.

mod admission;
pub mod build;
mod change;
pub mod decode;
mod diff;
mod display;
mod elements;
pub mod encode;
pub mod gates;
mod ruleset;
#[cfg(test)]
mod samples;
pub mod uapi;
mod words;

pub use change::{Change, Flowtable};
pub use diff::diff;
pub use ruleset::*;
pub use words::NameOf;
