//! Neighbours that send with a bound container's address, whatever its flows do.

use std::net::IpAddr;

use world::{
    Binding, Container, Nic, Scenario, World,
    layout::{PORT, SERVER},
    segment::Plain,
    talk::Flow,
};

pub fn scenarios() -> Vec<Scenario> {
    vec![Scenario::new("a spoofer gets nothing before, during and after the owner's flow", a_spoofer_around_a_flow)]
}

/// How many packets leave by any NIC, with any source, when a container sends with an address.
fn sent_as(world: &World, from: &Container, address: IpAddr) -> u64 {
    let ((), seen) = world.watch(|| (0..3).for_each(|_| from.shout_as(address)));
    seen.0.values().sum()
}

fn a_spoofer_around_a_flow() {
    let plain = Plain::new(World::builder().build());
    let (world, blue, spoofer) = (&plain.world, &plain.blue, &plain.free);
    let both: [IpAddr; 2] = [blue.address.into(), blue.address6.into()];
    for address in both {
        spoofer.take(address);
        assert!(sent_as(world, spoofer, address) >= 3, "without egressd nothing holds it");
    }
    world.leaves_by(&blue.netns, Nic::Eth1).expect_err("it is not bound");
    world.bind(&Binding::of(&blue.netns).to(world, Nic::Eth1));
    let _egressd = world.egressd_alone();
    let never = |when: &str| {
        for address in both {
            assert_eq!(sent_as(world, spoofer, address), 0, "{when}: as {address}");
        }
    };
    never("before");
    let mut flow = Flow::open(&blue.netns, (SERVER, PORT).into()).expect("it is bound");
    assert_eq!(flow.seen.ip(), IpAddr::from(Nic::Eth1.eip()));
    never("during");
    assert_eq!(flow.ask().expect("it goes on").ip(), IpAddr::from(Nic::Eth1.eip()));
    flow.close().expect("it ends");
    never("after");
    plain.blue_by_eth1("all the while");
}
