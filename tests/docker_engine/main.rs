//! egressd and a real Docker engine: Debian's 20.10 and a current one, each test with an engine of its own.
//!
//! Needs root, Debian's docker.io, runc and busybox-static, a Docker command line client, and Go for the current engine (built once).

/// Each test for both engines.
macro_rules! on_both {
    ($($name:ident),* $(,)?) => {
        mod debian { $(#[test] fn $name() { crate::block_on(super::$name(crate::engines::Release::Debian)); })* }
        mod current { $(#[test] fn $name() { crate::block_on(super::$name(crate::engines::Release::Current)); })* }
    };
}

mod effects;
#[path = "../engines/mod.rs"]
mod engines;
mod source;

use std::net::IpAddr;

fn block_on<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(test)
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}
