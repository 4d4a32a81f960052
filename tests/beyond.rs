//! Exits that are in order on the host, and are of no use beyond it: the cloud does not show them yet, or their probe fails.

use std::{
    fs,
    net::{IpAddr, TcpListener},
    path::Path,
    process::ExitCode,
};

use world::{Binding, Nic, Scenario, World, layout::PORT, status::until};

/// The state folder of `egressd-cloud`.
const CLOUD: &str = "/run/world/cloud";

fn main() -> ExitCode {
    world::harness::main_of_waiting(vec![
        Scenario::new("an address of a cloud's pool is used once the cloud shows it, with its public address", cloud),
        Scenario::new("an exit whose probe fails takes no new flow, and is back when it is answered", probe),
    ])
}

/// What `egressd-cloud` says of one address.
fn say(address: IpAddr, ready: bool, message: &str) {
    let text = format!(
        r#"{{"pools": {{"forwarder": {{"networkInterface": null, "ready": {ready}, "problem": null, "conditions": {{}}, "surplus": [], "addresses":
            {{"{address}": {{"ready": {ready}, "publicAddress": "203.0.113.41", "elasticAddress": null, "message": "{message}"}}}}}}}}, "errors": []}}"#
    );
    fs::create_dir_all(CLOUD).expect("/run is ours");
    let next = Path::new(CLOUD).join("next");
    fs::write(&next, text).and_then(|()| fs::rename(next, Path::new(CLOUD).join("status.json"))).expect("/run is ours");
}

fn cloud() {
    let world = World::builder().ipv6(false).build();
    let bridge = world.bridge("plain0", 28);
    world.masquerade(&bridge);
    let blue = world.container("blue", &bridge, 10);
    let address = IpAddr::from(world.layout.address(Nic::Eth1));
    world.bind(&Binding::of(&blue.netns).to(&world, Nic::Eth1));
    let mut egressd = world.egressd_alone_with(&["--cloud-state-dir", CLOUD]);
    world.leaves_by(&blue.netns, Nic::Eth1).expect("no pool has the address: nobody has to say anything of it");
    let pool = format!(
        "apiVersion: egressd.dev/v1alpha1\nkind: EgressPool\nmetadata: {{name: forwarder}}\nspec: {{blocks: [{{cidr: {address}/32}}], cloud: {{aws: {{elasticAddresses: Allocate}}}}}}\n"
    );
    world.write_manifest("pool.yaml", pool.as_bytes());
    let await_message = |part: &str| {
        until("it says why the address is not used", || {
            let row = world.status()["workloads"][0].clone();
            let good = row["reason"] == "CloudPending" && row["message"].as_str().is_some_and(|message| message.contains(part));
            if good { Ok(()) } else { Err(row.to_string()) }
        });
    };
    await_message("egressd-cloud has not reported yet");
    world.leaves_not_at_all(&blue.netns).expect("the cloud does not show it yet");
    say(address, false, "it has no elastic address");
    await_message("it has no elastic address");
    say(address, true, "");
    world.await_nic("netns/blue", Nic::Eth1);
    world.leaves_by(&blue.netns, Nic::Eth1).expect("the cloud shows it");
    assert_eq!(world.status()["workloads"][0]["publicAddress"], "203.0.113.41");
    egressd.kill();
    egressd.start();
    world.await_nic("netns/blue", Nic::Eth1);
    world.leaves_by(&blue.netns, Nic::Eth1).expect("a restart changes nothing");
    fs::remove_dir_all(CLOUD).expect("it is there");
    world.await_handled();
    world.leaves_by(&blue.netns, Nic::Eth1).expect("what the cloud has shown holds while egressd-cloud is away");
}

fn probe() {
    let world = World::builder().build();
    let bridge = world.bridge("plain0", 28);
    world.masquerade(&bridge);
    let blue = world.container("blue", &bridge, 10);
    let listen = |at: &std::net::SocketAddr| world.neighbour(Nic::Eth1).enter(|| TcpListener::bind(at)).expect("the port is free");
    let targets: Vec<_> = world.servers().into_iter().map(|like| world.neighbour_at(Nic::Eth1, like, PORT + 1000)).collect();
    let listeners: Vec<TcpListener> = targets.iter().map(listen).collect();
    let exit = |nic: Nic, to: &std::net::SocketAddr, probe: &str| {
        let address = world.layout.private(nic, to.ip());
        format!("{{address: '{address}', gateway: '{}'{probe}}}", world.gateway(nic, address))
    };
    let probe = |to: &std::net::SocketAddr| format!(", probe: {{tcp: '{to}', intervalMilliseconds: 100, failures: 2}}");
    let exits = targets.iter().flat_map(|to| [exit(Nic::Eth0, to, ""), exit(Nic::Eth1, to, &probe(to))]).collect::<Vec<_>>();
    let bind = |exits: &[String]| {
        world.bind(&Binding::of(&blue.netns).with(&format!("exits: [{}]", exits.join(", "))).with("spread: RoundRobin"));
    };
    bind(&exits);
    let _egressd = world.egressd_alone();
    // How many of eight new flows leave by eth0.
    let by_eth0 = || {
        let ((), seen) = world.watch(|| {
            for _ in 0..4 {
                blue.shout_as(blue.address.into());
                blue.shout_as(blue.address6.into());
            }
        });
        // By eth1 the probes leave as well.
        seen.by(Nic::Eth0)
    };
    assert_eq!(by_eth0(), 4, "by turn, while the probes are answered");
    let exits_of_rows = |count: usize| {
        until("the exits are as the probes say", || {
            let status = world.status();
            let rows = status["workloads"].as_array().cloned().unwrap_or_default();
            // One exit is told by `exit` alone.
            let good = rows.iter().all(|row| row["exits"].as_array().map_or(1, Vec::len) == count);
            if good { Ok(()) } else { Err(status.to_string()) }
        });
    };
    drop(listeners);
    exits_of_rows(1);
    assert_eq!(by_eth0(), 8, "what its exit is to reach refuses");
    let listeners: Vec<TcpListener> = targets.iter().map(listen).collect();
    exits_of_rows(2);
    assert_eq!(by_eth0(), 4, "and does not any more");
    drop(listeners);
    bind(&targets.iter().map(|to| exit(Nic::Eth1, to, &probe(to))).collect::<Vec<_>>());
    until("it says what does not answer", || {
        let row = world.status()["workloads"][0].clone();
        let message = row["message"].as_str().unwrap_or_default().to_owned();
        if row["reason"] == "ProbeFailed" && message.contains("refused") { Ok(()) } else { Err(row.to_string()) }
    });
    blue.ask_tcp((world.servers()[0], PORT)).expect_err("no exit is usable");
}
