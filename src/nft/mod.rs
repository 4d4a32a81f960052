//! The part of the nf_tables language that egressd speaks: a typed ruleset, the difference of two of them, and their netlink form.
//! Pure: sockets are in `effects::nft`.

mod ruleset;

pub use ruleset::*;
