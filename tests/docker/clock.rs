//! A wall clock that steps. Docker's events have dates, and none of them decides anything.

use world::{
    Docker, Engine, Netns, Nic, Scenario, World,
    clock::{Runs, steps_lose_nothing},
    docker::SOCKET,
    s1,
};

use crate::support::{ANY, for_each, label};

pub fn scenarios() -> Vec<Scenario> {
    for_each(&[ANY], "a clock that steps by hours or days, either way, loses no event", steps)
}

struct Labelled<'a>(&'a World, &'a Docker);

impl Runs for Labelled<'_> {
    fn start(&self, name: &str) -> Netns {
        let Self(world, docker) = self;
        docker.run(name, &["--network", s1::NETWORK, &label(world, Nic::Eth1)]);
        docker.netns(name)
    }

    fn end(&self, name: &str) {
        self.1.remove(name);
    }
}

fn steps(engine: Engine) {
    let world = World::builder().ipv6(false).build();
    let docker = world.docker(engine);
    s1::create_network(&world, &docker);
    steps_lose_nothing(&world, &["--docker-socket", SOCKET], &Labelled(&world, &docker), str::to_owned);
}
