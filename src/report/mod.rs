//! What people and machines are told.

pub mod explain;
pub mod node;
pub mod status;
pub mod table;
