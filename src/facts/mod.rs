//! Where facts come from: each source gives a whole snapshot first and changes after it, and begins anew by itself when it lost its way.

pub mod backoff;
pub mod cause;
pub mod cloud;
pub mod containerd;
pub mod docker;
pub mod files;
mod follow;
pub mod health;
pub mod http;
pub mod kernel;
pub mod kubernetes;
pub mod listeners;
mod pending;
pub mod programs;
pub mod whole;
