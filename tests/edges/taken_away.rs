//! What is taken away from a daemon that runs: its state folder, its folder of manifests, the place of its log.

use std::{fs, time::Duration};

use world::{
    Binding, Nic, World, command,
    egressd::{SOCKET, manifests},
    status::{until, until_within},
};

use super::{bound, bound_at_eth1};

/// What nobody tells is seen every five seconds.
const SEEN: Duration = Duration::from_secs(20);

pub fn state_folder() {
    let world = World::builder().build();
    let blue = bound_at_eth1(&world);
    let egressd = world.egressd_alone();
    bound(&world, &blue);
    let folder = std::path::Path::new(SOCKET).parent().expect("it is in a folder");
    for lost in ["its socket", "its folder"] {
        if lost == "its socket" { fs::remove_file(SOCKET) } else { fs::remove_dir_all(folder) }.expect("it is there");
        assert!(world.egressctl(&["status"]).expect_err("nothing is there").contains("failed to reach egressd"));
        until_within(SEEN, Duration::from_millis(100), lost, || world.egressctl(&["status"]).map(drop));
    }
    assert_eq!(egressd.log().matches("the control socket had been removed").count(), 2, "{}", egressd.log());
    bound(&world, &blue);
}

pub fn folder_of_manifests() {
    let world = World::builder().build();
    let blue = bound_at_eth1(&world);
    let _egressd = world.egressd_alone();
    bound(&world, &blue);
    let folder = manifests();
    let folder = folder.to_str().expect("a path");
    // It is hidden by another one, in which blue leaves by the other NIC.
    command::run(&["mount", "-t", "tmpfs", "tmpfs", folder]);
    fs::write(format!("{folder}/blue.yaml"), Binding::of(&blue.netns).to(&world, Nic::Eth0).text()).expect("it is a folder");
    until_within(SEEN, Duration::from_millis(100), "the other folder is read", || world.leaves_by(&blue.netns, Nic::Eth0));
    command::run(&["umount", folder]);
    until_within(SEEN, Duration::from_millis(100), "the first one is read again", || world.leaves_by(&blue.netns, Nic::Eth1));
}

/// Where a log cannot be written, and for a signal that means nothing here.
pub fn log_and_terminal() {
    let world = World::builder().build();
    let blue = bound_at_eth1(&world);
    let program = world::egressd::program();
    let line = format!("exec {} run --no-docker --manifests {} 2>/dev/full", program.display(), manifests().display());
    let mut child = world.enter(|| std::process::Command::new("sh").args(["-c", &line]).spawn().expect("it starts"));
    until("it runs", || world.egressctl(&["status"]).map(drop));
    world.await_nic("netns/blue", Nic::Eth1);
    command::run(&["kill", "-HUP", &child.id().to_string()]);
    world.bind(&Binding::of(&blue.netns).to(&world, Nic::Eth0));
    world.await_nic("netns/blue", Nic::Eth0);
    world.leaves_by(&blue.netns, Nic::Eth0).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(child.try_wait().expect("it is ours"), None, "it still runs");
    command::run(&["kill", &child.id().to_string()]);
    assert!(child.wait().expect("it is ours").success());
}
