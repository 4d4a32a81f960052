//! Each label does what the reference says; a wrong one is told and does not become a masquerade.

use std::{fmt::Write as _, fs};

use world::{
    Docker, Egressd, Engine, Nic, Scenario, World,
    docker::IMAGE,
    egressd,
    layout::{PORT, SERVER, SERVER_B},
    s1,
};

use crate::support::{ANY, await_row, await_state, fails_without_egressd, for_each, label};

pub fn scenarios() -> Vec<Scenario> {
    let mut scenarios = for_each(&[ANY], "labels say for what traffic and by which NIC", for_what_traffic);
    scenarios.extend(for_each(&[ANY], "a wrong label is told with its cure, and nothing leaves", wrong));
    scenarios.extend(for_each(&[ANY], "of a label and a manifest one wins, and the loser is told", one_winner));
    scenarios.push(Scenario::new("Debian: ten thousand labels of one container do no harm", || ten_thousand(Engine::Debian)));
    scenarios
}

fn start(engine: Engine) -> (World, Docker, Egressd) {
    let world = World::builder().build();
    let docker = world.docker(engine);
    s1::create_network(&world, &docker);
    fails_without_egressd(&docker, &["--network", s1::NETWORK, &label(&world, Nic::Eth1)], |netns| {
        quiet(&world, &docker, "control").expect_err("nothing holds it");
        world.leaves_by_to(netns, Nic::Eth1, (SERVER, PORT).into())
    });
    let egressd = world.egressd_for_docker();
    (world, docker, egressd)
}

/// Nothing leaves when the container's program calls a server.
fn quiet(world: &World, docker: &Docker, name: &str) -> Result<(), String> {
    let (_, seen) = world.watch(|| docker.try_cli(&["exec", name, "nc", "-w", "1", &SERVER.to_string(), &PORT.to_string()]));
    if seen.is_empty() { Ok(()) } else { Err(format!("{name}: {seen} left")) }
}

/// Starts a container on the network with these labels of ours.
fn run(docker: &Docker, name: &str, labels: &[&str]) {
    let labels: Vec<String> = labels.iter().map(|label| format!("--label=egress.{label}")).collect();
    docker.run(name, &["--network", s1::NETWORK].into_iter().chain(labels.iter().map(String::as_str)).collect::<Vec<_>>());
}

fn for_what_traffic(engine: Engine) {
    let (world, docker, _egressd) = start(engine);
    let (v4, v6) = (world.layout.address(Nic::Eth1).to_string(), world.layout.address6(Nic::Eth1).to_string());
    let (ip, both) = (format!("ip={v4}"), format!("ip={v4},{v6}"));
    let leaves = |name: &str, nic: Nic, server, port: u16| {
        let result = world.leaves_by_to(&docker.netns(name), nic, (server, port).into());
        result.unwrap_or_else(|error| panic!("{name}, {server}:{port}: {error}"));
    };

    run(&docker, "both", &[&both, "interface=eth1"]);
    await_state(&world, "both", "Bound");
    world.leaves_by(&docker.netns("both"), Nic::Eth1).unwrap_or_else(|error| panic!("{error}"));

    run(&docker, "to", &[&ip, &format!("to={SERVER}/32")]);
    await_state(&world, "to", "Bound");
    leaves("to", Nic::Eth1, SERVER, PORT);
    leaves("to", Nic::Eth0, SERVER_B, PORT);

    run(&docker, "except", &[&ip, &format!("except={SERVER}/32")]);
    await_state(&world, "except", "Bound");
    leaves("except", Nic::Eth0, SERVER, PORT);
    leaves("except", Nic::Eth1, SERVER_B, PORT);

    run(&docker, "ports", &[&ip, "ports=tcp/8000-8001,udp/8000-8001"]);
    await_state(&world, "ports", "Bound");
    leaves("ports", Nic::Eth1, SERVER, 8001);
    leaves("ports", Nic::Eth0, SERVER, 443);

    run(&docker, "gateway", &[&ip, &format!("gateway={}", world.layout.gateway(Nic::Eth1))]);
    await_row(&world, "gateway", |row| row["gateway"] == world.layout.gateway(Nic::Eth1).to_string());
    leaves("gateway", Nic::Eth1, SERVER, PORT);

    // Without an exit of its family a packet is dropped, or falls back if that is asked for.
    run(&docker, "only-4", &[&ip]);
    let row = await_row(&world, "only-4", |row| row["state"] == "Dropped");
    assert_eq!(row["reason"], "NoExitInFamily", "{row}");
    leaves("only-4", Nic::Eth1, SERVER, PORT);
    run(&docker, "fallback", &["ip=172.31.0.99", "unavailable=fallback"]);
    let row = await_state(&world, "fallback", "Fallback");
    assert!(row["message"].as_str().is_some_and(|message| message.contains("172.31.0.99")), "{row}");
    leaves("fallback", Nic::Eth0, SERVER, PORT);
}

fn wrong(engine: Engine) {
    let (world, docker, _egressd) = start(engine);
    let ip = format!("ip={}", world.layout.address(Nic::Eth1));
    for (name, labels, told) in [
        ("no-address", vec!["ip=server"], vec!["egress.ip", "server"]),
        ("not-here", vec!["ip=172.31.0.99"], vec!["172.31.0.99", "ip address add"]),
        ("elsewhere", vec![ip.as_str(), "interface=eth0"], vec!["eth1", "not on eth0"]),
        ("no-nic", vec![&ip, "interface=eth7"], vec!["eth7"]),
        ("reversed", vec![&ip, "ports=tcp/90-80"], vec!["egress.ports", "90-80"]),
        ("no-subnet", vec![&ip, "to=10.0.0.0/33"], vec!["egress.to", "10.0.0.0/33"]),
        ("no-word", vec![&ip, "unavailable=maybe"], vec!["egress.unavailable", "maybe"]),
        ("slip", vec!["ipp=172.31.0.14"], vec!["egress.ip", "missing"]),
        ("port-only", vec!["ports=tcp/80"], vec!["egress.ip", "missing"]),
    ] {
        run(&docker, name, &labels);
        let row = await_state(&world, name, "Dropped");
        let message = row["message"].as_str().unwrap_or_default();
        assert!(told.iter().all(|word| message.contains(word)), "{name}: {told:?} is not in {message}");
        quiet(&world, &docker, name).unwrap_or_else(|error| panic!("{error}"));
        docker.remove(name);
    }
    // A label that is unknown is no reason to drop.
    run(&docker, "unknown", &[&ip, "colour=blue"]);
    let row = await_state(&world, "unknown", "Bound");
    let warnings = row["warnings"].to_string();
    assert!(warnings.contains("egress.colour") && warnings.contains("unknown"), "{row}");
    world.leaves_by_to(&docker.netns("unknown"), Nic::Eth1, (SERVER, PORT).into()).unwrap_or_else(|error| panic!("{error}"));
    // What asks for nothing does leave.
    run(&docker, "free", &[]);
    await_state(&world, "free", "Unbound");
    world.leaves_by(&docker.netns("free"), Nic::Eth0).expect("it is masqueraded");
}

fn one_winner(engine: Engine) {
    let (world, docker, _egressd) = start(engine);
    let write = |priority: i32| {
        let eth0 = world.layout.address(Nic::Eth0);
        let binding = |name: &str, selector: &str, priority: i32| {
            format!(
                "apiVersion: egressd.dev/v1alpha1\nkind: EgressBinding\nmetadata:\n  name: {name}\nspec:\n  priority: {priority}\n  exits:\n  - address: \
                 {eth0}\n  containerSelector:\n    {selector}\n"
            )
        };
        let both = [
            binding("named", "names: [claimed]", priority),
            binding("composed", "compose:\n      project: shop\n      service: crawler", 0),
        ];
        fs::write(egressd::manifests().join("bindings.yaml"), both.join("---\n")).expect("/run is ours");
    };
    let leaves = |name: &str, nic: Nic| {
        let result = world.leaves_by_to(&docker.netns(name), nic, (SERVER, PORT).into());
        result.unwrap_or_else(|error| panic!("{name}: {error}"));
    };

    write(-1);
    run(&docker, "claimed", &[&format!("ip={}", world.layout.address(Nic::Eth1))]);
    let by_label = await_row(&world, "claimed", |row| row["state"] == "Bound" && row["binding"] == "label/claimed");
    assert_eq!(by_label["alsoAskedBy"][0], "file/default/named", "{by_label}");
    leaves("claimed", Nic::Eth1);
    write(1);
    let by_file = await_row(&world, "claimed", |row| row["state"] == "Bound" && row["binding"] == "file/default/named");
    assert_eq!(by_file["alsoAskedBy"][0], "label/claimed", "{by_file}");
    leaves("claimed", Nic::Eth0);
    let status = world.status();
    let loser = status["bindings"].as_array().into_iter().flatten().find(|binding| binding["binding"] == "label/claimed");
    assert_eq!(loser.map(|loser| &loser["lost"][0]), Some(&"claimed (file/default/named)".into()), "{status:#}");

    let compose =
        |service: &str| ["--label=com.docker.compose.project=shop".to_owned(), format!("--label=com.docker.compose.service={service}")];
    for (name, service) in [("shop-crawler-1", "crawler"), ("shop-web-1", "web")] {
        let [project, service] = compose(service);
        docker.run(name, &["--network", s1::NETWORK, &project, &service]);
    }
    await_row(&world, "shop-crawler-1", |row| row["state"] == "Bound" && row["binding"] == "file/default/composed");
    await_state(&world, "shop-web-1", "Unbound");
    fs::remove_file(egressd::manifests().join("bindings.yaml")).expect("it is there");
    await_row(&world, "claimed", |row| row["binding"] == "label/claimed");
    leaves("claimed", Nic::Eth1);
}

fn ten_thousand(engine: Engine) {
    let (world, docker, _egressd) = start(engine);
    let mut labels = String::new();
    for number in 0..10_000 {
        writeln!(labels, "egress.x{number}={number}").expect("memory is there");
    }
    let file = format!("{}/labels", world::FOLDER);
    fs::write(&file, labels).expect("/run is ours");
    docker.cli(&[
        "run",
        "-d",
        "--stop-timeout=0",
        "--name=many",
        "--network",
        s1::NETWORK,
        "--label-file",
        &file,
        &label(&world, Nic::Eth1),
        IMAGE,
    ]);
    let row = await_state(&world, "many", "Bound");
    let warnings = row["warnings"].as_array().map(Vec::len).unwrap_or_default();
    assert!((1..50).contains(&warnings), "it is told, and briefly: {warnings} warnings");
    assert!(row["warnings"].to_string().contains("more labels"), "{}", row["warnings"]);
    world.leaves_by_to(&docker.netns("many"), Nic::Eth1, (SERVER, PORT).into()).unwrap_or_else(|error| panic!("{error}"));
    run(&docker, "next", &[&format!("ip={}", world.layout.address(Nic::Eth1))]);
    await_state(&world, "next", "Bound");
}
