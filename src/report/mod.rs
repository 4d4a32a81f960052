//! What people and machines are told.

pub mod changes;
pub mod cloud;
pub mod cluster;
pub mod columns;
pub mod drops;
pub mod explain;
pub mod flows;
pub mod fold;
pub mod inside;
mod ipvs;
pub mod lost;
pub mod node;
pub mod ports;
pub mod services;
pub mod states;
pub mod status;
pub mod table;
