//! What egressd leaves in the kernel: all of it while it is dead, nothing of it after cleanup.

use world::{
    Docker, Engine, Nic, Scenario, World,
    s1::{self, CRAWLERS},
};

use crate::support::{ANY, for_each, for_each_engine};

pub fn scenarios() -> Vec<Scenario> {
    let mut scenarios = for_each(&[ANY], "killing the daemon changes nothing, and neither does its next start", killing_changes_nothing);
    scenarios.extend(for_each_engine("cleanup leaves the host as it was found", cleanup_leaves_the_host_as_found));
    scenarios
}

fn start(engine: Engine) -> (World, Docker) {
    let world = World::builder().rp_filter(1).default_by_eth1(200).build();
    let docker = world.docker(engine);
    s1::create_network(&world, &docker);
    for crawler in CRAWLERS {
        crawler.run(&world, &docker);
    }
    (world, docker)
}

fn killing_changes_nothing(engine: Engine) {
    let (world, docker) = start(engine);
    let [_, by_eth1] = CRAWLERS;
    by_eth1.leaves(&world, &docker).expect_err("without egressd it leaves by eth0");
    let mut egressd = world.egressd_for_docker();
    by_eth1.leaves(&world, &docker).expect("it is bound");
    let before = world.state();
    egressd.kill();
    before.assert_same(&world.state(), "killing egressd changes nothing");
    by_eth1.leaves(&world, &docker).expect("it is still bound");
    by_eth1.is_reached(&world).expect("and reached");
    egressd.start();
    before.assert_same(&world.state(), "a start that finds all in place changes nothing");
    by_eth1.leaves(&world, &docker).expect("it is still bound");
}

fn cleanup_leaves_the_host_as_found(engine: Engine) {
    let (world, docker) = start(engine);
    CRAWLERS[1].leaves(&world, &docker).expect_err("without egressd it leaves by eth0");
    let before = world.state();
    let mut egressd = world.egressd_for_docker();
    for crawler in CRAWLERS {
        crawler.leaves(&world, &docker).expect("it is bound");
    }
    assert!(!before.difference(&world.state()).is_empty(), "egressd does change the host");
    egressd.stop();
    world.cleanup();
    before.assert_same(&world.state(), "after cleanup");
    world.leaves_by(&docker.netns(CRAWLERS[1].name), Nic::Eth0).expect("it is masqueraded as before");
}
