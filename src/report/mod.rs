//! What people and machines are told.

pub mod cluster;
pub mod columns;
pub mod explain;
pub mod fold;
pub mod inside;
pub mod node;
pub mod services;
pub mod status;
pub mod table;
