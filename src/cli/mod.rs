//! One command a file.

pub mod crd;
