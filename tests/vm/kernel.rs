//! What an older kernel does otherwise: its tables have no owner, so anybody may flush them.

use std::{process::Command, thread, time::Duration};

use world::{
    Binding, Nic, Scenario, World, command,
    layout::SERVER,
    segment::Plain,
    service::Service,
    status::{until, until_within},
};

pub fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "tables without an owner: a restart changes nothing, a flush is repaired, cleanup leaves all as found",
            without_an_owner,
        ),
        Scenario::new("SCTP leaves by the exit", sctp),
    ]
}

fn without_an_owner() {
    let plain = Plain::new(World::builder().build());
    let (world, blue) = (&plain.world, &plain.blue.netns);
    world.leaves_by(blue, Nic::Eth1).expect_err("it is not bound");
    world.bind(&Binding::of(blue).to(world, Nic::Eth1));
    let mut egressd = world.egressd_alone();
    plain.blue_by_eth1("at first");
    egressd.kill();
    plain.blue_by_eth1("dead");
    egressd.start();
    world.await_ready();
    thread::sleep(Duration::from_millis(200));
    assert_eq!(world.metric("egressd_kernel_changes_total"), 0, "{}", egressd.log());
    world.host.run(&["nft", "flush", "ruleset"]);
    until_within(Duration::from_secs(10), Duration::from_millis(20), "what is ours is back", || {
        let now = command::run(&["nft", "list", "tables"]);
        if ["table ip egressd", "table ip6 egressd", "table bridge egressd"].iter().all(|table| now.contains(table)) {
            Ok(())
        } else {
            Err(now)
        }
    });
    plain.blue_by_eth1("after a flush");
    egressd.stop();
    world.cleanup();
    let left = command::run(&["nft", "list", "ruleset"]) + &command::run(&["ip", "rule"]);
    assert!(!left.contains("egressd") && !left.contains("156"), "{left}");
}

/// Conntrack follows its associations, and translates them as it does TCP's connections.
fn sctp() {
    let plain = Plain::new(World::builder().ipv6(false).build());
    let (world, blue) = (&plain.world, &plain.blue.netns);
    let mut server = Command::new("socat");
    server.args([&format!("SCTP-LISTEN:3868,bind={SERVER},fork"), "SYSTEM:echo $SOCAT_PEERADDR"]);
    let _server = world.internet.enter(|| Service::start("sctp", server));
    let ask = || {
        let asked = world.watch(|| {
            blue.enter(|| command::try_run(&["socat", "-u", "-T5", &format!("SCTP-CONNECT:{SERVER}:3868,connect-timeout=5"), "-"]))
        });
        let (answer, seen) = asked;
        answer.map(|answer| (answer.trim().to_owned(), seen))
    };
    let eip = |nic| world.layout.eip(nic).to_string();
    until("the server answers", || match ask()? {
        (peer, _) if peer == eip(Nic::Eth0) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    let _egressd = world.egressd_alone();
    world.bind_to(blue, Binding::of(blue), Nic::Eth1);
    let (peer, seen) = ask().unwrap_or_else(|error| panic!("it is bound: {error}"));
    assert!(peer == eip(Nic::Eth1) && seen.by(Nic::Eth0) == 0, "{peer}: {seen}");
}
