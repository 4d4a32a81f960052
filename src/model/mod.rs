//! Who gets which exit. Pure: no clock, no socket, no file.
//!
//! [`resolve::resolve`] is the whole of it: facts and what is remembered in, one row for each address of each workload out.

pub mod binding;
pub mod facts;
pub mod ground;
pub mod numbers;
pub mod reason;
pub mod resolve;
pub mod select;
pub mod served;
pub mod workload;
