//! What IPVS has beyond turns: its schedulers, persistence, weights and thresholds.

use world::{
    Nic, World,
    published::{CALLED, called, stage},
    status::until,
    talk::ask_tcp,
};

use super::{call, listed, problems, publish, until_listed};

/// Those of Debian's kernel.
const SCHEDULERS: [&str; 13] = ["rr", "wrr", "lc", "wlc", "lblc", "lblcr", "dh", "sh", "sed", "nq", "fo", "ovf", "mh"];

pub fn all() {
    let world = World::builder().build();
    let (_, servers) = stage(&world);
    let service = format!("TCP  {}:{CALLED}", world.layout.address(Nic::Eth1));
    publish(&world, &servers.each_ref(), "");
    ask_tcp(&world.internet, called(&world, Nic::Eth1)[0]).expect_err("nobody serves it without egressd");
    let _egressd = world.egressd_alone();
    world.forget_neighbours();
    until_listed(&world, &[&format!("{service} wlc")], &[]);
    for scheduler in SCHEDULERS {
        publish(&world, &servers.each_ref(), &format!(", scheduler: {scheduler}"));
        until_listed(&world, &[&format!("{service} {scheduler}\n")], &[]);
        assert_eq!(call(&world, 3, servers.each_ref()).iter().sum::<usize>(), 3, "{scheduler}");
    }
    // One that this kernel lacks is refused with the cure, and nothing takes its place.
    publish(&world, &servers.each_ref(), ", scheduler: twos");
    until("the scheduler is refused", || {
        let told = problems(&world);
        let words = ["spec.inbound[0].scheduler", "no IPVS scheduler `twos`", "modprobe ip_vs_twos"];
        if words.iter().all(|word| told.contains(word)) { Ok(()) } else { Err(told) }
    });
    until_listed(&world, &[], &[&service]);
    ask_tcp(&world.internet, called(&world, Nic::Eth1)[0]).expect_err("it is not served");
    // Weights.
    let weights = ", scheduler: wrr, servers: [{address: 172.28.0.10, weight: 3}, {address: 172.28.0.12, weight: 0}]";
    publish(&world, &servers.each_ref(), weights);
    until_listed(&world, &[&format!("{service} wrr")], &[]);
    assert_eq!(call(&world, 8, servers.each_ref()), [6, 2, 0]);
    // A client comes to its server again.
    publish(&world, &servers.each_ref(), ", scheduler: rr, persistence: {seconds: 100, ipv4PrefixLength: 24}");
    until_listed(&world, &[&format!("{service} rr persistent 100 mask 255.255.255.0")], &[]);
    let mut calls = call(&world, 4, servers.each_ref());
    calls.sort_unstable();
    assert_eq!(calls, [0, 0, 4], "one server for one client: {}", listed(&world));
    // One that has enough gets no more.
    let thresholds = ", scheduler: lc, servers: [{address: 172.28.0.10, weight: 1, upperThreshold: 1}, {address: 172.28.0.11, weight: 1, upperThreshold: 2, lowerThreshold: 1}, {address: 172.28.0.12, weight: 1, upperThreshold: 1}]";
    publish(&world, &servers.each_ref(), thresholds);
    until("the thresholds are set", || {
        let list = world.host.run(&["ipvsadm", "-Ln", "--thresholds"]);
        let has = |line: &str| line.split_whitespace().take(4).eq(["->", "172.28.0.11:1234", "2", "1"]);
        if list.lines().any(has) { Ok(()) } else { Err(list) }
    });
}
