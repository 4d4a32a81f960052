//! Thousands of connections: how exactly exits have their parts.

use std::{collections::BTreeMap, net::IpAddr, thread};

use world::{
    Nic,
    layout::{PORT, SERVER},
    talk::peers,
};

use crate::stage::Stage;

const CONNECTIONS: usize = 3_000;
/// Workloads that call at once, on all processors.
const SENDERS: usize = 4;

/// The negative control: without egressd all connections leave by the host's own NIC.
fn assert_unspread<const N: usize>(stage: &Stage<N>) {
    let own = IpAddr::from(stage.world.layout.eip(Nic::Eth0));
    assert_eq!(peers(&stage.workloads, (SERVER, PORT).into(), 12), BTreeMap::from([(own, 12)]));
}

/// How many of these are of which exit.
fn parts<const N: usize>(stage: &Stage<N>, peers: &BTreeMap<IpAddr, usize>) -> [usize; N] {
    let parts = stage.exits.map(|[v4, _]| peers.get(&v4).copied().unwrap_or(0));
    assert_eq!(parts.iter().sum::<usize>(), CONNECTIONS, "all by the exits: {peers:?}");
    parts
}

pub fn by_turn() {
    let stage = Stage::<6>::new(SENDERS as u8);
    stage.world.bind(&stage.binding("RoundRobin", [1; 6]));
    assert_unspread(&stage);
    let _egressd = stage.world.egressd_alone();
    let call = |senders, times| peers(senders, (SERVER, PORT).into(), times);
    assert_eq!(parts(&stage, &call(&stage.workloads[..1], CONNECTIONS)), [CONNECTIONS / 6; 6], "one sender");
    let at_once = thread::scope(|scope| {
        let senders: Vec<_> = stage.workloads.chunks(1).map(|one| scope.spawn(move || call(one, CONNECTIONS / SENDERS))).collect();
        let mut all = BTreeMap::new();
        for (exit, count) in senders.into_iter().flat_map(|sender| sender.join().expect("it is answered")) {
            *all.entry(exit).or_default() += count;
        }
        all
    });
    let parts = parts(&stage, &at_once);
    assert!(parts.iter().all(|part| part.abs_diff(CONNECTIONS / 6) <= 1), "{SENDERS} senders at once: {parts:?}");
}

pub fn by_weight() {
    let stage = Stage::<3>::new(1);
    stage.world.bind(&stage.binding("RoundRobin", [1, 2, 3]));
    assert_unspread(&stage);
    let _egressd = stage.world.egressd_alone();
    assert_eq!(parts(&stage, &peers(&stage.workloads, (SERVER, PORT).into(), CONNECTIONS)), [500, 1_000, 1_500]);
}

pub fn at_random() {
    let stage = Stage::<6>::new(1);
    stage.world.bind(&stage.binding("Random", [1; 6]));
    assert_unspread(&stage);
    let _egressd = stage.world.egressd_alone();
    let parts = parts(&stage, &peers(&stage.workloads, (SERVER, PORT).into(), CONNECTIONS));
    let expected = (CONNECTIONS / 6) as f64;
    // Chi-square with five degrees of freedom: one run in 10^6 is beyond 35.9, and a turn is at 0.
    let chi: f64 = parts.iter().map(|part| (*part as f64 - expected).powi(2) / expected).sum();
    assert!(chi > 0.0 && chi < 35.9, "{parts:?}");
}
