//! Who gets which exit. Pure: no clock, no socket, no file.

pub mod binding;
pub mod facts;
