//! The `main` of a test program whose scenarios need more of a kernel than this machine's may have: it runs again in a virtual machine with
//! Debian's kernel (`tests/vm`), and the scenarios there.

use std::{
    env,
    process::{Command, ExitCode},
};

use crate::harness::{self, Scenario};

/// Environment variable that says that this is the virtual machine.
const INSIDE: &str = "EGRESSD_TEST_VM";

/// Whether this is the virtual machine.
pub fn is_inside() -> bool {
    env::var_os(INSIDE).is_some()
}

/// The same as [`harness::main`], in a virtual machine. It boots once for all scenarios. These modules of the kernel are loaded before: some bring
/// links or sysctls into every network namespace, also of a scenario that compares what there was with what there is.
pub fn main(modules: &[&str], scenarios: Vec<Scenario>) -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    if is_inside() || arguments.iter().any(|argument| argument == "--list") {
        return harness::main(scenarios);
    }
    // A scenario that has to be alone waits for the machine, and the machine for it.
    let _place = harness::places(false, false).expect("cargo's target folder is ours");
    let program = env::current_exe().expect("a running program has a path");
    let ended = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../vm/run.sh"))
        .arg(program)
        .args(arguments)
        .env("MODULES", modules.join(" "))
        .status();
    match ended.expect("bash is there").code().and_then(|code| u8::try_from(code).ok()) {
        Some(code) => code.into(),
        None => ExitCode::FAILURE,
    }
}
