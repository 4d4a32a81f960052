//! Containers of real Docker daemons leave by the NIC that their label asks for.
//!
//! Every check is made twice in the same world: without egressd, where it has to fail, and with it.

use std::process::ExitCode;

use world::{Docker, Engine, Nic, Scenario, Subnets, World, docker::WEB_PORT, layout::PORT, talk};

fn main() -> ExitCode {
    let mut scenarios = Vec::new();
    for engine in Engine::ALL {
        for subnets in [Subnets::One, Subnets::Two] {
            scenarios.push(Scenario::new(
                format!("{engine:?}, {subnets:?}: each container leaves through its own NIC"),
                move || each_container_leaves_through_its_own_nic(engine, subnets),
            ));
        }
    }
    world::harness::main(scenarios)
}

/// Bound containers: name, NIC, address on the bridge, published port.
const BOUND: [(&str, Nic, &str, u16); 2] = [
    ("crawler-1", Nic::Eth0, "172.19.0.100", 8090),
    ("crawler-2", Nic::Eth1, "172.19.0.101", 8091),
];

fn each_container_leaves_through_its_own_nic(engine: Engine, subnets: Subnets) {
    let world = World::builder().subnets(subnets).build();
    let docker = world.docker(engine);
    docker.cli(&[
        "network",
        "create",
        "--subnet=172.19.0.0/16",
        "--ipv6",
        "--subnet=fd72:19::/64",
        "--opt=com.docker.network.bridge.name=eip_bridge",
        "eip_bridge",
    ]);

    run_all(&world, &docker);
    world
        .leaves_by(&docker.netns("free"), Nic::Eth0)
        .expect("a container is masqueraded by Docker");
    world
        .leaves_by(&docker.netns("crawler-2"), Nic::Eth1)
        .expect_err("without egressd it leaves by eth0");
    world
        .leaves_to_neighbour_by(&docker.netns("crawler-2"), Nic::Eth1, Nic::Eth0)
        .expect_err("as above");
    world
        .reached_by(Nic::Eth1, 8091, ASK)
        .expect_err("without egressd the answer leaves by eth0");
    for name in ["crawler-1", "crawler-2", "free"] {
        docker.remove(name);
    }

    let _egressd = world.egressd_for_docker();
    run_all(&world, &docker);
    for (name, nic, address, port) in BOUND {
        let container = docker.netns(name);
        let check = || -> Result<(), String> {
            world.leaves_by(&container, nic)?;
            world.leaves_to_neighbour_by(&container, nic, Nic::Eth0)?;
            world.leaves_to_neighbour_by(&container, nic, Nic::Eth1)?;
            let page = world.reached_by(nic, port, ASK)?;
            if page.trim().starts_with(&nic.eip().to_string()) {
                Ok(())
            } else {
                Err(format!("its program called from {page:?}"))
            }
        };
        check().unwrap_or_else(|error| panic!("{name} ({address}): {error}"));
    }
    world
        .leaves_by(&docker.netns("free"), Nic::Eth0)
        .expect("an unbound container is still masqueraded");
    containers_see_each_other(&docker);
    assert!(world.foreign().is_empty(), "{}", world.foreign());
}

/// A page whose program calls the internet itself.
const ASK: &str = "/cgi-bin/ask?198.51.100.10+8000";

fn run_all(world: &World, docker: &Docker) {
    for (name, nic, address, port) in BOUND {
        let private = world.layout.address(nic);
        let label = format!("egress.ip={private},{}", world.layout.address6(nic));
        let published = format!("{private}:{port}:{WEB_PORT}");
        docker.run(
            name,
            &[
                "--network=eip_bridge",
                "--ip",
                address,
                "--label",
                &label,
                "-p",
                &published,
            ],
        );
    }
    docker.run("free", &["--network=eip_bridge"]);
}

fn containers_see_each_other(docker: &Docker) {
    let (one, two) = (docker.netns("crawler-1"), docker.netns("crawler-2"));
    let address = "172.19.0.101".parse().expect("an address");
    let guests = talk::serve(&two, &[address], &[PORT]);
    talk::ask_tcp(&one, (address, PORT).into()).expect("containers of one bridge reach each other");
    let (_, peer) = guests.list()[0];
    assert_eq!(
        peer.ip().to_string(),
        "172.19.0.100",
        "container to container is not translated"
    );
}
