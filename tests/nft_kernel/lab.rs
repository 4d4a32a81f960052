//! A network namespace for each test, and `nft` in it.

use std::io::Write;
use std::process::{Command, Output, Stdio};
use std::thread;

use egressd::effects::nft::Nft;
use egressd::nft::{Bytes, Data, Datatype, Family, Key, Ruleset, Set, Table, diff};
use nix::sched::{CloneFlags, unshare};

/// Runs in a new network namespace, which ends with the thread and the processes it started.
pub fn in_namespace(test: impl FnOnce() + Send + 'static) {
    let body = move || {
        unshare(CloneFlags::CLONE_NEWNET).expect("root can make a network namespace");
        test();
    };
    if let Err(panic) = thread::spawn(body).join() {
        std::panic::resume_unwind(panic);
    }
}

pub fn nft(arguments: &[&str]) -> Output {
    Command::new("nft").args(arguments).output().expect("nft is installed")
}

pub fn listing() -> String {
    let output = nft(&["list", "ruleset"]);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "nft list ruleset: {}: {error}", output.status);
    assert_eq!(error, "");
    String::from_utf8(output.stdout).unwrap()
}

pub fn load(text: &str) -> Output {
    let mut child = Command::new("nft").args(["-f", "-"]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

pub fn number(value: u32) -> Bytes {
    Bytes::of_number(value)
}

pub fn put(nft: &mut Nft, ruleset: &Ruleset) {
    let present = nft.read().unwrap();
    nft.commit(&diff(ruleset, &present)).unwrap();
}

/// What `nft list ruleset` says, without the owner's name, which is another for each build.
pub fn golden_listing() -> String {
    let mut lines: Vec<String> = Vec::new();
    for line in listing().lines() {
        lines.push(line.split(" # progname").next().unwrap_or(line).to_owned());
    }
    lines.join("\n") + "\n"
}

pub fn claims(count: u32, exit: u32) -> Ruleset {
    let mut set = Set::map([Datatype::IfIndex, Datatype::Ipv4], Datatype::Mark);
    for n in 0..count {
        let key = number(3).push(&(0x0a00_0000 + n).to_be_bytes());
        set.elements.insert(Key::one(key), Data::mark(exit));
    }
    let mut table = Table::default();
    table.sets.insert("claims".into(), set);
    let mut ruleset = Ruleset::default();
    ruleset.tables.insert(Family::Bridge, table);
    ruleset
}
