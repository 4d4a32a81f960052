//! nerdctl, containerd's client that is used as Docker's is: a real one, whose containers are on its own bridge.

use std::{env, path::Path, process::Command};

use crate::{
    FOLDER, command,
    containerd::{Containerd, Release, SOCKET, program},
    image, isolate,
    netns::Netns,
    sender,
};

/// The bridge of the network that a container is on unless told otherwise. It is made for the first one.
pub const BRIDGE: &str = "nerdctl0";
/// Name of its image: busybox and the sending program, and a web server on [`image::WEB_PORT`] as its program.
const IMAGE: &str = "probe:latest";

/// A client of the scenario's containerd.
pub struct Nerdctl(());

impl Containerd {
    /// The client, with an image.
    pub fn nerdctl(&self) -> Nerdctl {
        // The address manager of its networks writes below /var/lib/cni, whatever nerdctl is told.
        isolate::run_line("mount -t tmpfs world /var/lib").unwrap_or_else(|error| panic!("{error}"));
        let nerdctl = Nerdctl(());
        let tar = image::archive(&[(IMAGE, &image::WEB_SERVER)], &[&sender::build()]);
        nerdctl.cli(&["load", "--input", &tar]);
        nerdctl
    }
}

impl Nerdctl {
    /// Runs it and returns what it prints. Panics when it fails.
    pub fn cli(&self, arguments: &[&str]) -> String {
        let mut nerdctl = Command::new(program(Release::Current, "nerdctl"));
        nerdctl.args(["--address", SOCKET, "--cgroup-manager", "cgroupfs", "--cni-path", "/usr/lib/cni"]);
        for (option, folder) in [("--cni-netconfpath", "cni"), ("--data-root", "nerdctl")] {
            nerdctl.arg(option).arg(Path::new(FOLDER).join(folder));
        }
        nerdctl.args(arguments);
        command::finish(nerdctl, &[&["nerdctl"], arguments].concat(), "").unwrap_or_else(|error| panic!("{error}"))
    }

    /// `nerdctl run` with these options; returns what it prints.
    pub fn run(&self, name: &str, options: &[&str], program: &[&str]) -> String {
        self.make("run", name, options, program)
    }

    /// Makes a container that is a web server once it is started.
    pub fn create(&self, name: &str, options: &[&str]) {
        self.make("create", name, options, &[]);
    }

    fn make(&self, how: &str, name: &str, options: &[&str], program: &[&str]) -> String {
        let cgroup = format!("--cgroup-parent=/{}", env::var(isolate::CGROUP).expect("the harness names one"));
        // A profile would be loaded into the machine's kernel, and stay there.
        let first = [how, "--pull=never", &cgroup, "--security-opt=apparmor=unconfined", "--name", name];
        self.cli(&[&first, options, &[IMAGE], program].concat())
    }

    /// Removes a container, running or not.
    pub fn remove(&self, name: &str) {
        self.cli(&["rm", "--force", name]);
    }

    /// The network namespace of a running container.
    pub fn netns(&self, name: &str) -> Netns {
        let pid = self.cli(&["inspect", "--format", "{{.State.Pid}}", name]);
        Netns::of_process(pid.trim().parse().expect("a process id"), name)
    }
}
