//! What people and machines are told.

pub mod status;
pub mod table;
