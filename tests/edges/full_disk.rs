//! A state folder on a disk without room: what is bound is bound, and what could not be written is told, until there is room.

use std::{fs, time::Duration};

use world::{
    World, command,
    egressd::{Egressd, manifests},
    status::{until, until_within},
};

use super::{bound, bound_at_eth1};

/// A disk of its own.
const DISK: &str = "/run/full";

pub fn is_told() {
    let world = World::builder().build();
    let blue = bound_at_eth1(&world);
    fs::create_dir_all(DISK).expect("/run is ours");
    command::run(&["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", DISK]);
    let full = format!("{DISK}/full");
    command::run(&["sh", "-c", &format!("! dd if=/dev/zero of={full} bs=4k 2>/dev/null")]);
    let start = || world.egressd_started(&["--no-docker", "--manifests", &manifests().to_string_lossy(), "--state-dir", DISK]);
    let status = || world.egressctl(&["--state-dir", DISK, "status"]);
    let mut egressd: Egressd = start();
    until("it runs, and tells", || {
        status().and_then(|text| if text.contains("cannot be written: No space left") { Ok(()) } else { Err(text) })
    });
    bound(&world, &blue);
    fs::remove_file(full).expect("it is there");
    let told = || status().and_then(|text| if text.contains("No space left") { Err(text) } else { Ok(()) });
    until_within(Duration::from_secs(15), Duration::from_millis(100), "it is written, and told no more", told);
    egressd.kill();
    // The next start knows what the folder said.
    fs::rename(manifests(), "/run/away").expect("it is there");
    let _egressd = start();
    until("it is told", || status().and_then(|text| if text.contains("does not exist") { Ok(()) } else { Err(text) }));
    bound(&world, &blue);
}
