//! Echo requests: those of one identifier are one flow.

use std::{collections::BTreeSet, net::IpAddr};

use world::{
    Binding, Netns, Nic,
    layout::{SERVER, SERVER6},
};

use crate::stage::Stage;

/// Requests of a stream.
const ECHOES: u64 = 5;

/// Sends requests with this identifier. Panics unless each of them is answered.
fn ping(from: &Netns, to: IpAddr, identifier: u16) {
    let (count, identifier) = (ECHOES.to_string(), identifier.to_string());
    let told = from.run(&["ping", "-n", "-q", "-c", &count, "-i", "0.01", "-W", "2", "-e", &identifier, &to.to_string()]);
    assert!(told.contains(&format!("{ECHOES} received")), "{} to {to}: {told}", from.name());
}

pub fn streams() {
    let stage = Stage::<3>::new(1);
    let (world, router) = (&stage.world, &stage.router);
    let lan = world.lan();
    let senders = [&lan.netns, &stage.workloads[0]];
    let servers = [IpAddr::from(SERVER), SERVER6.into()];
    world.bind(&stage.binding("RoundRobin", [1; 3]));
    world.bind(&stage.spread(Binding::new("lan", "addresses: [10.9.0.0/24, 'fd10:9::/64']"), "RoundRobin", [1; 3]));
    for (sender, to) in senders.into_iter().flat_map(|sender| servers.map(|to| (sender, to))) {
        let ((), seen) = world.watch(|| ping(sender, to, 1));
        assert_eq!(seen.count(Nic::Eth0, world.layout.private(Nic::Eth0, to)), ECHOES, "without egressd: {seen}");
    }
    let _egressd = world.egressd_alone();
    for (family, to) in servers.into_iter().enumerate() {
        let exits: BTreeSet<IpAddr> = stage.exits.iter().map(|exit| exit[family]).collect();
        for sender in senders {
            let chosen = || {
                [100, 101, 102].map(|identifier| {
                    router.forget();
                    ping(sender, to, identifier);
                    let seen = router.seen();
                    let [(exit, ECHOES)] = seen.0.clone().into_iter().collect::<Vec<_>>()[..] else {
                        panic!("one stream of {}, one exit: {seen}", sender.name())
                    };
                    exit
                })
            };
            let streams = chosen();
            assert_eq!(BTreeSet::from(streams), exits, "{} to {to}: the streams are spread", sender.name());
            assert_eq!(chosen(), streams, "{} to {to}: each goes on as it began", sender.name());
        }
    }
}
