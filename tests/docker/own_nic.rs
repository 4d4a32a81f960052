//! Containers leave by the NIC that their label asks for, and are reached by it.

use std::net::IpAddr;

use world::{
    Docker, Engine, Nic, Scenario, Subnets, World,
    layout::PORT,
    s1::{self, CRAWLERS},
    talk,
};

pub fn scenarios() -> Vec<Scenario> {
    let mut scenarios = Vec::new();
    for engine in Engine::ALL {
        for subnets in [Subnets::One, Subnets::Two] {
            scenarios.push(Scenario::new(format!("{engine:?}, {subnets:?}: each container leaves through its own NIC"), move || {
                each_container_leaves_through_its_own_nic(engine, subnets)
            }));
        }
    }
    scenarios
}

fn each_container_leaves_through_its_own_nic(engine: Engine, subnets: Subnets) {
    let order = World::builder().subnets(subnets).rp_filter(1);
    let world = match subnets {
        // eth1's gateway is that of its subnet, which eth0's default route names.
        Subnets::One => order.build(),
        // Here nothing but a route of its own can tell it; DHCP clients set one, behind eth0's.
        Subnets::Two => order.default_by_eth1(200).build(),
    };
    let docker = world.docker(engine);
    s1::create_network(&world, &docker);

    run_all(&world, &docker);
    world.leaves_by(&docker.netns("free"), Nic::Eth0).expect("Docker masquerades it");
    let [_, by_eth1] = CRAWLERS;
    by_eth1.leaves(&world, &docker).expect_err("without egressd it leaves by eth0");
    by_eth1.is_reached(&world).expect_err("without egressd its answers leave by eth0");
    for name in ["crawler-1", "crawler-2", "free"] {
        docker.remove(name);
    }

    let _egressd = world.egressd_for_docker();
    run_all(&world, &docker);
    for crawler in CRAWLERS {
        crawler.leaves(&world, &docker).unwrap_or_else(|error| panic!("{error}"));
        crawler.is_reached(&world).unwrap_or_else(|error| panic!("{error}"));
    }
    world.leaves_by(&docker.netns("free"), Nic::Eth0).expect("it is still masqueraded");
    containers_see_each_other(&docker);
}

fn run_all(world: &World, docker: &Docker) {
    for crawler in CRAWLERS {
        crawler.run(world, docker);
    }
    docker.run("free", &["--network", s1::NETWORK]);
}

fn containers_see_each_other(docker: &Docker) {
    let [one, two] = CRAWLERS;
    let guests = talk::serve(&docker.netns(two.name), &[two.address.into()], &[PORT]);
    talk::ask_tcp(&docker.netns(one.name), (two.address, PORT).into()).expect("they are on one bridge");
    let (_, peer) = guests.list()[0];
    assert_eq!(peer.ip(), IpAddr::from(one.address), "container to container is not translated");
}
