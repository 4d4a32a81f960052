//! A forwarder with one NIC: what its servers send comes in and leaves by that NIC, and so do the answers.

use world::{
    Binding, World,
    layout::{PORT, SERVER},
    segment::Segment,
    status::until,
    talk,
};

const NIC: &str = "ens5";

/// By a slip the subnet of another binding is one of the internet, and nobody knows by which interface it comes.
pub fn a_slip_beside_it() {
    let world = World::builder().ipv6(false).build();
    let segment = Segment::plug(&world, NIC);
    let _router = segment.router(&world, 5);
    let servers = [segment.client("business", 5, 11)];
    world.host.ip(&format!("route replace default via 10.5.0.1 dev {NIC}"));
    world.host.sysctl("ipv4/ip_forward", "1");
    let exit = |last: u8| format!("exits: [{{address: 10.5.0.{last}, assignment: Managed}}]");
    world.bind(&Binding::new("business", "addresses: [10.5.0.0/24]").with(&exit(98)));
    let _egressd = world.egressd_for_manifests();
    world.await_state("10.5.0.0/24", "Bound");
    let seen = || talk::peers(&servers, (SERVER, PORT).into(), 3).into_iter().collect::<Vec<_>>();
    let by_exit = vec![("10.5.0.98".parse().expect("an address"), 3)];
    until("the exit is in use", || if seen() == by_exit { Ok(()) } else { Err(format!("{:?}", seen())) });

    let outside = "198.51.100.0/24";
    world.bind(&Binding::new("slip", &format!("addresses: [{outside}]")).with(&exit(99)));
    world.await_state(outside, "Waiting");
    let claimed = || {
        let set = world.host.run(&["nft", "list", "set", "ip", "egressd", "claimed"]);
        if set.contains("198.51.100.0") { Ok(()) } else { Err(set) }
    };
    until("what it names is held", claimed);
    assert_eq!(seen(), by_exit, "an answer is of the flow that it answers");
}
