//! libFuzzer on one reader of [`egressd::fuzzing`], named by the variable `READER`: see `tests/fuzz/run.sh`.
#![no_main]

use std::alloc::System;
use std::env;
use std::sync::LazyLock;

use cap::Cap;
use egressd::fuzzing::{LIMIT, READERS, Reader};
use libfuzzer_sys::fuzz_target;

/// More than the limit for one input is an error of the allocator, which libFuzzer takes for a crash.
#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, LIMIT);

static READER: LazyLock<Reader> = LazyLock::new(|| {
    let name = env::var("READER").expect("READER names a reader");
    READERS.into_iter().find(|(one, _)| *one == name).expect("READER is one of those in src/fuzzing.rs").1
});

fuzz_target!(|bytes: &[u8]| READER(bytes));
