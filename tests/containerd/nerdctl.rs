//! nerdctl itself: its containers, on its own bridges, leave by the NIC that their labels ask for.

use world::clock::{Runs, steps_lose_nothing};
use world::containerd::{Containerd, Release, SOCKET};
use world::nerdctl::{BRIDGE, Nerdctl};
use world::sender::sends;
use world::status::until;
use world::{Netns, Nic, Seen, World, s1};

/// Containers that send in their first instruction, on each network.
const STARTS: usize = 4;

/// The bridge of the second has a name that nerdctl makes of the network's.
const NETWORKS: [&str; 2] = ["bridge", "shop"];

fn world() -> World {
    World::builder().ipv6(false).rp_filter(1).build()
}

fn label(world: &World) -> String {
    format!("--label=egress.ip={}", world.layout.address(Nic::Eth1))
}

pub fn no_first_packet_goes_astray(release: Release) {
    let world = world();
    let containerd = Containerd::start(release);
    let nerdctl = containerd.nerdctl();
    nerdctl.cli(&["network", "create", NETWORKS[1]]);
    let label = label(&world);
    let program = sends("once", 8000);
    let program: Vec<&str> = program.iter().map(String::as_str).collect();

    let ((), seen) = world.watch(|| drop(nerdctl.run("control", &["--rm", &label], &program)));
    all_by(&world, &seen, Nic::Eth1).expect_err("without egressd it leaves by eth0");

    let _egressd = world.egressd_alone_with(&["--containerd-socket", SOCKET]);
    let ((), seen) = world.watch(|| {
        for network in NETWORKS {
            let network = format!("--network={network}");
            for number in 0..STARTS {
                nerdctl.run(&format!("first-{number}"), &["--rm", &network, &label], &program);
            }
        }
        // Made once, and started twice.
        nerdctl.run("again", &[&label], &program);
        nerdctl.cli(&["start", "--attach", "again"]);
        nerdctl.remove("again");
        // What their sockets had to say at the end is counted, too.
        until("nothing is left of them", || nobody_is_shown(&world));
    });
    all_by(&world, &seen, Nic::Eth1).unwrap_or_else(|error| panic!("{error}"));

    let ((), seen) = world.watch(|| drop(nerdctl.run("free", &["--rm"], &program)));
    all_by(&world, &seen, Nic::Eth0).expect("it asks for nothing");
}

struct Labelled<'a>(&'a World, Nerdctl);

impl Runs for Labelled<'_> {
    fn start(&self, name: &str) -> Netns {
        self.1.run(name, &["--detach", &label(self.0)], &["sleep", "1000"]);
        self.1.netns(name)
    }

    fn end(&self, name: &str) {
        self.1.remove(name);
    }
}

pub fn a_clock_that_steps(release: Release) {
    let world = world();
    let containerd = Containerd::start(release);
    let nerdctl = Labelled(&world, containerd.nerdctl());
    steps_lose_nothing(&world, &["--no-docker", "--containerd-socket", SOCKET], &nerdctl, |name| format!("default/{name}"));
}

pub fn a_bridge_is_guarded_as_long_as_a_container_is_made_for_it(release: Release) {
    let world = world();
    let containerd = Containerd::start(release);
    let nerdctl = containerd.nerdctl();
    let label = label(&world);
    nerdctl.run("first", &["--rm"], &["true"]);
    let stray = stray(&world);
    let _egressd = world.egressd_alone_with(&["--containerd-socket", SOCKET]);
    world.sends_nothing_out(&stray).expect_err("nobody asks for an exit");

    nerdctl.create("web", &[&label]);
    until("nobody knows the stray", || world.sends_nothing_out(&stray));
    nerdctl.cli(&["start", "web"]);
    world.await_nic("default/web", Nic::Eth1);
    nerdctl.cli(&["stop", "--time=0", "web"]);
    until("web is shown while it runs", || nobody_is_shown(&world));
    world.sends_nothing_out(&stray).expect("web may be started again");
    nerdctl.remove("web");
    until("nobody asks for an exit any more", || match world.sends_nothing_out(&stray) {
        Ok(()) => Err("nothing leaves".to_owned()),
        Err(_) => Ok(()),
    });
}

pub fn a_container_is_served_by_its_name_as_far_as_its_network_allows(release: Release) {
    let world = world();
    let containerd = Containerd::start(release);
    let nerdctl = containerd.nerdctl();
    let label = label(&world);
    let serve = |name: &str| {
        nerdctl.run(name, &["--detach", &label, "--publish=8090:8080"], &[]);
        nerdctl.netns(name)
    };
    let control = serve("control");
    world.leaves_by(&control, Nic::Eth1).expect_err("without egressd it leaves by eth0");
    world.reached_by(Nic::Eth1, 8090, s1::ASK).expect_err("without egressd the answer leaves by eth0");
    nerdctl.remove("control");

    let _egressd = world.egressd_alone_with(&["--containerd-socket", SOCKET]);
    let web = serve("web");
    world.await_nic("default/web", Nic::Eth1);
    world.leaves_by(&web, Nic::Eth1).expect("it is bound");
    let page = world.reached_by(Nic::Eth1, 8090, s1::ASK).expect("it is answered by eth1");
    assert!(page.starts_with(&format!("{} ", Nic::Eth1.eip())), "the program that is called calls out as {page}");

    for (name, network, reason) in [
        ("host", "host", "`host` gives the container the host's own addresses"),
        ("none", "none", "`none` gives the container no network"),
        ("joined", "container:web", "the container uses the network of container"),
    ] {
        nerdctl.run(name, &["--detach", &label, &format!("--network={network}")], &world::image::IDLE);
        world.await_state(&format!("default/{name}"), "Refused");
        let status = world.egressctl(&["status"]).expect("it runs");
        assert!(status.contains(&format!("default/{name}: network mode: {reason}")), "{status}");
        nerdctl.remove(name);
    }
    // What holds its namespace open holds its binding.
    drop(web);
    nerdctl.remove("web");
    until("nothing is left of them", || nobody_is_shown(&world));
}

/// All that left did so by this NIC, with its address.
fn all_by(world: &World, seen: &Seen, nic: Nic) -> Result<(), String> {
    let right = seen.count(nic, world.layout.address(nic).into());
    if seen.0.len() == 1 && right > 0 { Ok(()) } else { Err(format!("not all by {}: {seen}", nic.name())) }
}

fn nobody_is_shown(world: &World) -> Result<(), String> {
    let status = world.status();
    if status["workloads"].as_array().is_some_and(Vec::is_empty) { Ok(()) } else { Err(format!("{status:#}")) }
}

/// Somebody on nerdctl's bridge whom it knows nothing of.
fn stray(world: &World) -> Netns {
    let stray = Netns::add("stray");
    world.host.ip(&format!(
        "link add stray type veth peer name eth0 netns stray
         link set stray master {BRIDGE} up"
    ));
    stray.ip("addr add 10.4.0.200/24 dev eth0
         link set eth0 up
         route add default via 10.4.0.1");
    stray
}
