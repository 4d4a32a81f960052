//! It stays as it is wanted.

use std::{thread, time::Duration};

use world::{
    Nic, World,
    published::{CALLED, called, stage},
    status::until,
    talk::{Flow, ask_tcp, ask_udp_from, serve},
};

use super::{call, listed, problems, publish, until_listed};

/// The port that servers are asked at for their health.
const PROBED: u16 = 1235;

pub fn kept() {
    let world = World::builder().build();
    // Each of these brings sysctls, which would come while another scenario asks for its schedulers.
    world.host.run(&["modprobe", "--all", "ip_vs", "ip_vs_lblc", "ip_vs_lblcr"]);
    let (_, servers) = stage(&world);
    // Another program's service, at an address of ours and elsewhere.
    let own = world.layout.address(Nic::Eth1);
    for service in [format!("{own}:9"), "10.99.0.1:80".to_owned()] {
        world.host.run(&["ipvsadm", "-A", "-t", &service, "-s", "rr"]);
    }
    let foreign = listed(&world);
    let before = world.state();
    publish(&world, &servers.each_ref(), ", scheduler: rr");
    ask_tcp(&world.internet, called(&world, Nic::Eth1)[0]).expect_err("nobody serves it without egressd");
    let mut egressd = world.egressd_alone();
    world.forget_neighbours();
    until_listed(&world, &["172.28.0.12:1234", &format!("{own}:{CALLED} rr")], &[]);
    let mut flow = Flow::open(&world.internet, called(&world, Nic::Eth1)[0]).expect("it is served");
    let running = listed_services(&world);

    egressd.kill();
    assert_eq!(call(&world, 3, servers.each_ref()), [1, 1, 1], "new calls are served while it is dead");
    egressd.start();
    world.await_ready();
    thread::sleep(Duration::from_secs(2));
    assert_eq!(world.metric("egressd_kernel_changes_total"), 0, "{}", egressd.log());
    assert_eq!(listed_services(&world), running, "the next start changes nothing");
    flow.ask().expect("it goes on");

    let drift = world.metric("egressd_drift_total");
    world.host.run(&["ipvsadm", "-C"]);
    until_listed(&world, &["172.28.0.12:1234", &format!("{own}:{CALLED} rr")], &[]);
    assert!(world.metric("egressd_drift_total") > drift, "it is counted");
    assert!(problems(&world).contains("another program changed egressd's virtual services"), "{}", problems(&world));
    assert_eq!(call(&world, 3, servers.each_ref()), [1, 1, 1]);
    let server = ["-t", &format!("{own}:{CALLED}"), "-r", "172.28.0.11:1234"];
    world.host.run(&[&["ipvsadm", "-e"], &server[..], &["-m", "-w", "7"]].concat());
    until("the weight is put back", || {
        let list = listed(&world);
        if list.contains("Masq    7") { Err(list) } else { Ok(()) }
    });
    world.host.run(&["sysctl", "-qw", "net.ipv4.vs.conntrack=0"]);
    until("the setting is put back", || {
        let value = world.host.run(&["sysctl", "-n", "net.ipv4.vs.conntrack"]);
        if value.trim() == "1" { Ok(()) } else { Err(value) }
    });

    // What another program serves is refused, and is left alone.
    for service in [format!("{own}:9"), "10.99.0.1:80".to_owned()] {
        world.host.run(&["ipvsadm", "-A", "-t", &service, "-s", "rr"]);
    }
    let taken = world::Binding::of(&servers[0].at.netns).to(&world, Nic::Eth1).with("priority: 1");
    world.bind(&taken.with("inbound: [{protocol: TCP, port: 9, engine: Ipvs}]"));
    until("the port is refused", || {
        let told = problems(&world);
        if told.contains("is a virtual service of another program") { Ok(()) } else { Err(told) }
    });
    world.unbind("s10");
    world.await_handled();

    egressd.stop();
    world.cleanup();
    assert_eq!(listed(&world), foreign, "others' services stay");
    before.assert_same(&world.state(), "cleanup takes all away");
    assert_eq!(world.host.run(&["sysctl", "-n", "net.ipv4.vs.conntrack", "net.ipv4.vs.expire_nodest_conn"]), "0\n0\n");
    ask_tcp(&world.internet, called(&world, Nic::Eth0)[0]).expect_err("nobody serves it any more");
}

/// The services without their counts of connections.
fn listed_services(world: &World) -> String {
    world.host.run(&["ipvsadm", "-Sn"])
}

pub fn servers_come_and_go() {
    let world = World::builder().build();
    let (_, [one, two, three]) = stage(&world);
    for server in [&one, &two, &three] {
        serve(&server.at.netns, &[server.at.address.into(), server.at.address6.into()], &[PROBED]);
    }
    let health = &format!(", scheduler: rr, health: {{tcp: {{port: {PROBED}}}, intervalMilliseconds: 200}}");
    publish(&world, &[&one, &two], health);
    let at = called(&world, Nic::Eth1)[0];
    ask_tcp(&world.internet, at).expect_err("nobody serves it without egressd");
    let _egressd = world.egressd_alone();
    world.forget_neighbours();
    until_listed(&world, &["172.28.0.10:1234", "172.28.0.11:1234"], &[]);
    let open = || Flow::open(&world.internet, at).expect("it is served");
    let mut flows: Vec<Flow> = (0..2).map(|_| open()).collect();
    let datagram = || ask_udp_from(&world.internet, ([0; 4], 5000).into(), at);
    let before = [one.calls(), two.calls()];
    datagram().expect("it is served");
    let [left, stays] = if one.calls() > before[0] { [&one, &two] } else { [&two, &one] };
    publish(&world, &[stays, &three], health);
    until_listed(&world, &["172.28.0.12:1234"], &[]);
    assert!(flows.iter_mut().all(|flow| flow.ask().is_ok()), "open connections drain: {}", listed(&world));
    assert_eq!(call(&world, 2, [left, stays, &three]), [0, 1, 1]);
    until("its datagrams go to another server", || {
        let seen = left.calls();
        datagram().map_err(|error| error.to_string())?;
        if left.calls() == seen { Ok(()) } else { Err("they still go to the one that left".to_owned()) }
    });
    // One that fails gets nothing new, and one that dies takes only its own along.
    stays.at.netns.nft(&format!(
        "table inet deaf {{\n chain in {{\n type filter hook input priority 0\n tcp dport {PROBED} reject with tcp reset\n }}\n}}\n"
    ));
    until("it is unhealthy", || {
        let status = world.status()["services"].to_string();
        if status.contains("Unhealthy") { Ok(()) } else { Err(status) }
    });
    world.await_handled();
    assert_eq!(call(&world, 2, [left, stays, &three]), [0, 0, 2]);
    assert!(flows.iter_mut().all(|flow| flow.ask().is_ok()), "open connections go on: {}", listed(&world));
    let address = left.at.address;
    let (left, stays) = if one.at.address == address { (one, two) } else { (two, one) };
    world.remove(left.at);
    until_listed(&world, &[], &[&format!("{address}:1234")]);
    let ended = flows.iter_mut().map(Flow::ask).filter(Result::is_err).count();
    assert_eq!(ended, 1, "those of the dead one alone");
    // When none is left, the host refuses.
    publish(&world, &[&stays], health);
    until("its only server is unhealthy", || match ask_tcp(&world.internet, at) {
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => Ok(()),
        other => Err(format!("{other:?}\n{}", listed(&world))),
    });
    // What nobody publishes any more is gone.
    world.unbind("service");
    until("IPVS has nothing of ours", || {
        let list = listed_services(&world);
        if list.is_empty() { Ok(()) } else { Err(list) }
    });
}
