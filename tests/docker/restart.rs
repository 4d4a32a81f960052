//! Docker starts again, with containers that it starts again, possibly with one another's addresses.

use std::net::IpAddr;
use std::time::Duration;

use world::{Docker, Engine, Nic, Scenario, World, docker::IMAGE, layout::SERVER, s1, talk};

use crate::support::{BOUND_PORT, FREE_PORT, await_some, for_each_engine, label, sender, sends};

/// It starts Docker five times: half a minute on a quiet machine, minutes beside a cluster.
const LONG: Duration = Duration::from_secs(300);
const BOUND: [&str; 3] = ["bound-1", "bound-2", "bound-3"];
const FREE: [&str; 3] = ["free-1", "free-2", "free-3"];

pub fn scenarios() -> Vec<Scenario> {
    let name = "containers that Docker's restart starts again never leave by the wrong way";
    for_each_engine(name, nobody_goes_astray_by_a_restart).into_iter().map(|one| one.within(LONG)).collect()
}

fn nobody_goes_astray_by_a_restart(engine: Engine) {
    let world = World::builder().build();
    let mut docker = world.docker(engine);
    s1::create_network(&world, &docker);
    run_all(&world, &docker);
    let watch = Watch::begin(&world);
    docker.restart();
    await_answers(&docker, |_| Nic::Eth0);
    watch.end().expect_err("without egressd all leave by eth0");
    for name in FREE.into_iter().chain(BOUND) {
        docker.remove(name);
    }

    let mut egressd = world.egressd_for_docker();
    run_all(&world, &docker);
    await_answers(&docker, assigned);
    let before = addresses(&docker);

    let watch = Watch::begin(&world);
    docker.restart();
    await_answers(&docker, assigned);
    docker.kill();
    docker.start();
    await_answers(&docker, assigned);
    println!("addresses before {before}, after a restart and a kill {}", addresses(&docker));
    watch.end().unwrap_or_else(|error| panic!("egressd is alive: {error}"));

    let watch = Watch::begin(&world);
    egressd.kill();
    docker.restart();
    await_some("all run again", || (docker.cli(&["ps", "-q"]).lines().count() == BOUND.len() + FREE.len()).then_some(()));
    egressd.start();
    await_answers(&docker, assigned);
    watch.end().unwrap_or_else(|error| panic!("egressd is dead during Docker's restart: {error}"));
}

/// Bound and unbound in turn, all of which send all the time.
fn run_all(world: &World, docker: &Docker) {
    let (volume, label) = (sender(), label(world, Nic::Eth1));
    for (bound, free) in BOUND.into_iter().zip(FREE) {
        for (name, port, more) in [(bound, BOUND_PORT, Some(label.as_str())), (free, FREE_PORT, None)] {
            let options = ["run", "-d", "--restart=always", "--stop-timeout=0", "--network", s1::NETWORK, "--name", name, &volume];
            let program = sends("always", port);
            let arguments = options.into_iter().chain(more).chain([IMAGE]).chain(program.iter().map(String::as_str));
            docker.cli(&arguments.collect::<Vec<_>>());
        }
    }
}

fn assigned(name: &str) -> Nic {
    if BOUND.contains(&name) { Nic::Eth1 } else { Nic::Eth0 }
}

/// Waits until each is answered, by the address of its NIC.
fn await_answers(docker: &Docker, nic: impl Fn(&str) -> Nic) {
    for name in BOUND.into_iter().chain(FREE) {
        let port = if BOUND.contains(&name) { BOUND_PORT } else { FREE_PORT };
        let peer = await_some(&format!("{name} is answered"), || talk::ask_udp(&docker.netns(name), (SERVER, port).into()).ok());
        assert_eq!(peer.ip(), IpAddr::from(nic(name).eip()), "{name} leaves by its NIC");
    }
}

fn addresses(docker: &Docker) -> String {
    let format = format!("{{{{.Name}}}} {{{{(index .NetworkSettings.Networks \"{}\").IPAddress}}}}", s1::NETWORK);
    let inspect = ["inspect", "--format", &format];
    docker.cli(&inspect.into_iter().chain(BOUND).chain(FREE).collect::<Vec<_>>()).replace('\n', ", ")
}

/// A time in which senders send.
struct Watch<'a> {
    world: &'a World,
    guests: usize,
}

impl<'a> Watch<'a> {
    fn begin(world: &'a World) -> Self {
        world.forget();
        Self { world, guests: world.guests.list().len() }
    }

    /// Nothing left with a foreign source, and the servers saw the bound as eth1's address and the others as eth0's alone.
    fn end(self) -> Result<(), String> {
        let foreign = self.world.foreign();
        if !foreign.is_empty() {
            return Err(format!("left with a foreign source: {foreign}"));
        }
        let guests = self.world.guests.list().split_off(self.guests);
        let count = |port, nic: Nic| guests.iter().filter(|(at, peer)| at.port() == port && peer.ip() == IpAddr::from(nic.eip())).count();
        let counts = [(BOUND_PORT, Nic::Eth1), (FREE_PORT, Nic::Eth0), (BOUND_PORT, Nic::Eth0), (FREE_PORT, Nic::Eth1)];
        let [bound, free, bound_astray, free_astray] = counts.map(|(port, nic)| count(port, nic));
        if bound > 0 && free > 0 && bound_astray + free_astray == 0 {
            return Ok(());
        }
        Err(format!("bound: {bound} by eth1, {bound_astray} by eth0; unbound: {free} by eth0, {free_astray} by eth1"))
    }
}
