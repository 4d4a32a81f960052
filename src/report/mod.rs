//! What people and machines are told.

pub mod explain;
pub mod status;
pub mod table;
