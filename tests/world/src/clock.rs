//! A wall clock that steps, of one program: the machine's own is everybody's.

use std::{fs, os::unix::fs::FileExt};

use crate::{Binding, Egressd, FOLDER, Netns, Nic, World, command, egressd::manifests, status::until};

const SOURCE: &str = include_str!("clock.c");

/// The wall clock of the programs that are started with its variables. It is right until it is stepped.
#[derive(Debug)]
struct WallClock {
    library: String,
    shift: String,
}

impl WallClock {
    /// One for this scenario.
    fn new() -> Self {
        let [source, library, shift] = ["clock.c", "clock.so", "clock-shift"].map(|file| format!("{FOLDER}/{file}"));
        fs::write(&source, SOURCE).expect("/run is ours");
        fs::write(&shift, 0_i64.to_ne_bytes()).expect("/run is ours");
        command::run(&["cc", "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", &library, &source]);
        Self { library, shift }
    }

    /// What a program is started with, so that this is its clock.
    fn variables(&self) -> [(&str, &str); 2] {
        [("LD_PRELOAD", &self.library), ("CLOCK_SHIFT", &self.shift)]
    }

    /// Steps it: so many hours ahead of the right time, or behind it.
    fn step(&self, hours: i64) {
        let file = fs::File::options().write(true).open(&self.shift).expect("it was written");
        file.write_all_at(&(hours * 3600).to_ne_bytes(), 0).expect("/run is ours");
    }
}

/// A container engine, as far as a clock may matter.
pub trait Runs {
    /// Starts a container under this name that asks for eth1's exit.
    fn start(&self, name: &str) -> Netns;
    /// Ends it, and forgets it.
    fn end(&self, name: &str);
}

/// Steps egressd's clock either way, by hours and days, and tries after each step whether what the engine and the folder of manifests say is followed.
/// `called` is egressd's word for a container of that name.
pub fn steps_lose_nothing(world: &World, options: &[&str], engine: &impl Runs, called: impl Fn(&str) -> String) {
    let leaves_by = |container: &Netns, nic| world.leaves_by(container, nic);
    leaves_by(&engine.start("control"), Nic::Eth1).expect_err("without egressd it leaves by eth0");
    engine.end("control");
    let clock = WallClock::new();
    let folder = manifests();
    fs::create_dir_all(&folder).expect("/run is ours");
    let folder = folder.to_string_lossy();
    let egressd = world.egressd_started_in(&[&["--manifests", &folder], options].concat(), &clock.variables());
    world.await_ready();
    let bridge = world.bridge("plain0", 29);
    world.masquerade(&bridge);
    let plain = world.container("plain", &bridge, 10);
    for (number, hours) in [-6, 30 * 24, 0, -30 * 24].into_iter().enumerate() {
        clock.step(hours);
        let name = format!("web-{number}");
        let web = engine.start(&name);
        world.await_nic(&called(&name), Nic::Eth1);
        leaves_by(&web, Nic::Eth1).unwrap_or_else(|error| panic!("{hours} hours: {error}"));
        world.bind(&Binding::of(&plain.netns).to(world, Nic::Eth1));
        world.await_nic("netns/plain", Nic::Eth1);
        shows(&egressd, hours);
        // What holds a namespace keeps its interfaces, and who has one may send.
        drop(web);
        engine.end(&name);
        world.unbind("plain");
        until("nobody is bound", || {
            let rows = world.status()["workloads"].to_string();
            if rows.contains("\"Bound\"") { Err(rows) } else { Ok(()) }
        });
        leaves_by(&plain.netns, Nic::Eth0).unwrap_or_else(|error| panic!("{hours} hours: {error}"));
    }
}

/// Its clock did step: its last line has the date.
fn shows(egressd: &Egressd, hours: i64) {
    let date = command::run(&["date", "--utc", "--date", &format!("{hours} hours"), "+%FT%H:"]);
    let log = egressd.log();
    let last = log.lines().last().unwrap_or_default();
    assert!(last.starts_with(date.trim()), "{last}: not of {date}");
}
