//! `egress.network` and `egress.container-ip`: containers that are put where their labels say as they are made.

use std::{fs, thread, time::Duration};

use serde_json::Value;
use world::{
    Docker, Engine, Nic, Scenario, World, command,
    docker::{IMAGE, WEB_PORT},
    egressd,
    layout::{PORT, SERVER},
    s1,
    talk::get,
};

use crate::support::{await_problem, await_row, await_some, await_state, fails_without_egressd, for_each_engine, label, sender};

pub fn scenarios() -> Vec<Scenario> {
    let mut scenarios = for_each_engine("a container is put where its labels say when it is made", placed_when_made);
    scenarios.extend(for_each_engine("docker run with a network's label starts, or is moved, where the label says", placed_when_run));
    scenarios.extend(for_each_engine("a running container is not moved, and an address that cannot be had is told", not_placed));
    scenarios.extend(for_each_engine("an EgressNetwork is there before its containers, and goes with its manifest", managed));
    scenarios
}

fn placed_when_made(engine: Engine) {
    let world = World::builder().ipv6(false).build();
    let docker = world.docker(engine);
    s1::create_network(&world, &docker);
    create(&world, &docker, "early", "172.19.0.77");
    docker.cli(&["start", "early"]);
    assert_eq!(networks(&docker, "early"), ["bridge"], "without egressd it is where Docker puts it");
    world.leaves_by(&docker.netns("early"), Nic::Eth1).expect_err("and leaves by eth0");
    docker.remove("early");

    let _egressd = world.egressd_for_docker();
    create(&world, &docker, "placed", "172.19.0.77");
    await_some("it is on its network alone", || (networks(&docker, "placed") == [s1::NETWORK]).then_some(()));
    docker.cli(&["start", "placed"]);
    let row = await_state(&world, "placed", "Bound");
    assert_eq!((row["address"].as_str(), row["network"].as_str()), (Some("172.19.0.77"), Some(s1::NETWORK)));
    assert_eq!(row["defaultRoute"], true, "{row}");
    world.leaves_by(&docker.netns("placed"), Nic::Eth1).unwrap_or_else(|error| panic!("{error}"));
    let problems = world.status()["problems"].clone();
    assert_eq!(problems, Value::Array(Vec::new()), "nothing is wrong");
}

/// Whether the call or the start comes first, the container ends on its network, and what it sends meanwhile leaves by no other NIC.
fn placed_when_run(engine: Engine) {
    let world = World::builder().ipv6(false).build();
    let docker = world.docker(engine);
    s1::create_network(&world, &docker);
    let volume = sender();
    let run = |name: &str, number: usize| {
        let address = format!("172.19.1.{number}");
        let placed = place_options(&world, &address);
        let options = ["run", "-d", "--stop-timeout=0", "--name", name, &volume, "--publish", &format!("{}:{WEB_PORT}", 9000 + number)];
        let options = options.into_iter().chain(placed.iter().map(String::as_str)).chain([IMAGE, "sh", "-c", PROGRAM]);
        docker.cli(&options.collect::<Vec<_>>());
        address
    };
    run("control", 1);
    assert_eq!(networks(&docker, "control"), ["bridge"], "without egressd it is where Docker puts it");
    world.leaves_by(&docker.netns("control"), Nic::Eth1).expect_err("and leaves by eth0");
    docker.remove("control");

    let _egressd = world.egressd_for_docker();
    let ((), seen) = world.watch(|| {
        for number in 1..=RUNS {
            let name = format!("run-{number}");
            let address = run(&name, number);
            let placed = |row: &Value| row["network"] == s1::NETWORK && row["address"] == address.as_str() && row["defaultRoute"] == true;
            await_row(&world, &name, |row| row["state"] == "Bound" && placed(row));
            assert_eq!(networks(&docker, &name), [s1::NETWORK]);
        }
    });
    assert!(seen.by(Nic::Eth1) > 0 && seen.0.len() == 1, "all by eth1 with its address: {seen}");
    let problems = world.status()["problems"].clone();
    assert_eq!(problems, Value::Array(Vec::new()), "nothing is wrong");
    let netns = docker.netns("run-1");
    assert!(netns.run(&["ip", "route", "show", "default"]).contains("172.19.0.1"), "the default route is its network's");
    world.leaves_by(&netns, Nic::Eth1).unwrap_or_else(|error| panic!("{error}"));
    let port = format!("127.0.0.1:{}", 9001);
    let page = get(&world.host, port.parse().expect("an address"), "/").map(drop);
    page.or_else(|error| if error.to_string().contains("404") { Ok(()) } else { Err(error) }).expect("its published port answers");
}

/// Containers that are run one after the other.
const RUNS: usize = 15;
/// Sends before it does anything else, and then serves pages.
const PROGRAM: &str = "/sender once 198.51.100.10 8001 & exec httpd -f -p 8080 -h /www";

fn not_placed(engine: Engine) {
    let world = World::builder().ipv6(false).build();
    let docker = world.docker(engine);
    s1::create_network(&world, &docker);
    let options = place_options(&world, "172.19.0.77");
    docker.run("before", &options.iter().map(String::as_str).collect::<Vec<_>>());
    world.leaves_by(&docker.netns("before"), Nic::Eth1).expect_err("without egressd it leaves by eth0");
    let egressd = world.egressd_for_docker();
    // An egressd that hears late of a container leaves it alone as well.
    let pid = egressd.pid().to_string();
    command::run(&["kill", "-STOP", &pid]);
    let options = place_options(&world, "172.19.0.78");
    docker.run("late", &options.iter().map(String::as_str).collect::<Vec<_>>());
    thread::sleep(Duration::from_secs(1));
    command::run(&["kill", "-CONT", &pid]);
    for name in ["before", "late"] {
        await_state(&world, name, "Bound");
        await_problem(&world, &["container", name, "not moved"]);
        assert_eq!(networks(&docker, name), ["bridge"]);
        world.leaves_by(&docker.netns(name), Nic::Eth1).unwrap_or_else(|error| panic!("it is bound where it is: {error}"));
    }

    create(&world, &docker, "outside", "172.20.0.5");
    await_problem(&world, &["container outside", "egress.container-ip", "172.20.0.5", "172.19.0.0/16"]);
    create(&world, &docker, "gateway", "172.19.0.1");
    await_problem(&world, &["container gateway", "egress.container-ip", "172.19.0.1", "gateway"]);
    docker.run("owner", &["--network", s1::NETWORK, "--ip=172.19.0.88"]);
    create(&world, &docker, "taken", "172.19.0.88");
    await_problem(&world, &["container taken", "egress.container-ip", "172.19.0.88", "owner"]);
    docker.cli(&["create", "--name=nowhere", "--label=egress.network=nosuch", IMAGE]);
    await_problem(&world, &["container nowhere", "egress.network", "nosuch", "docker network create nosuch"]);
    docker.cli(&["create", "--name=nonsense", "--label=egress.container-ip=172.19.0.300", IMAGE]);
    await_problem(&world, &["container nonsense", "egress.container-ip", "172.19.0.300"]);
    for name in ["outside", "gateway", "taken", "nowhere", "nonsense"] {
        assert_eq!(networks(&docker, name), ["bridge"], "{name} stays where it was");
        docker.remove(name);
    }
    await_some("the told goes with the containers", || {
        let problems = world.status()["problems"].as_array().map(Vec::len);
        (problems == Some(2)).then_some(())
    });
}

fn managed(engine: Engine) {
    let world = World::builder().ipv6(false).build();
    let docker = world.docker(engine);
    fails_without_egressd(&docker, &[&label(&world, Nic::Eth1)], |netns| world.leaves_by(netns, Nic::Eth1));
    docker.try_cli(&["network", "inspect", "shop"]).expect_err("without egressd nobody makes it");
    let _egressd = world.egressd_for_docker();
    let manifest = egressd::manifests().join("network.yaml");
    fs::write(&manifest, NETWORK).expect("/run is ours");
    await_some("the network is there", || docker.try_cli(&["network", "inspect", "shop"]).ok());
    world.host.run(&["ip", "link", "show", "br-shop", "type", "bridge"]);
    docker.run("bound", &["--network=shop", "--ip=172.25.0.9", &label(&world, Nic::Eth1)]);
    await_state(&world, "bound", "Bound");
    world.leaves_by_to(&docker.netns("bound"), Nic::Eth1, (SERVER, PORT).into()).unwrap_or_else(|error| panic!("{error}"));

    fs::remove_file(&manifest).expect("it is there");
    await_problem(&world, &["EgressNetwork shop", "in use by bound"]);
    docker.remove("bound");
    await_some("the network is gone", || docker.try_cli(&["network", "inspect", "shop"]).err());
    // Somebody else's network of the same name is not touched.
    docker.cli(&["network", "create", "--subnet=172.26.0.0/16", "shop"]);
    fs::write(&manifest, NETWORK).expect("/run is ours");
    await_problem(&world, &["EgressNetwork shop", "spec.subnets", "172.26.0.0/16"]);
    fs::remove_file(&manifest).expect("it is there");
    await_some("nothing is asked for any more", || world.status()["problems"].as_array().is_some_and(Vec::is_empty).then_some(()));
    docker.cli(&["network", "inspect", "shop"]);
}

const NETWORK: &str = "apiVersion: egressd.dev/v1alpha1
kind: EgressNetwork
metadata:
  name: shop
spec:
  subnets: [172.25.0.0/16]
  gateways: [172.25.0.1]
  bridgeName: br-shop
";

fn place_options(world: &World, address: &str) -> [String; 3] {
    [format!("--label=egress.network={}", s1::NETWORK), format!("--label=egress.container-ip={address}"), label(world, Nic::Eth1)]
}

fn create(world: &World, docker: &Docker, name: &str, address: &str) {
    let options = place_options(world, address);
    let command = ["create", "--stop-timeout=0", "--name", name];
    docker.cli(&command.into_iter().chain(options.iter().map(String::as_str)).chain([IMAGE]).collect::<Vec<_>>());
}

/// Names of the networks that a container is on.
fn networks(docker: &Docker, name: &str) -> Vec<String> {
    let networks = docker.cli(&["inspect", "--format", "{{range $name, $_ := .NetworkSettings.Networks}}{{$name}} {{end}}", name]);
    networks.split_whitespace().map(str::to_owned).collect()
}
