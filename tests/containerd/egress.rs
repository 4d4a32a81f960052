//! A container that containerd runs without a kubelet leaves by the NIC that its labels ask for.
//!
//! Every check of packets is made twice in the same world: without egressd, where it has to fail, and with it.

use std::cell::RefCell;

use world::containerd::{Containerd, Release, SOCKET};
use world::status::until;
use world::{Netns, Nic, World};

pub fn a_labelled_container_leaves_by_its_nic(release: Release) {
    let world = World::builder().ipv6(false).rp_filter(1).build();
    let bridge = world.bridge("plain0", 28);
    world.masquerade(&bridge);
    let containerd = Containerd::start(release);
    let exit = format!("egress.ip={}", world.layout.address(Nic::Eth1));
    let gateway = format!("egress.gateway={}", world.layout.gateway(Nic::Eth1));

    // In a namespace with a name, as a CNI runtime leaves it; one that asks for an exit, one that does not.
    let blue = world.container("blue", &bridge, 10).netns;
    let free = world.container("free", &bridge, 11).netns;
    containerd.run("default", "blue", &["--label", &exit, "--label", &gateway, "--with-ns", "network:/run/netns/blue"]);
    containerd.run("default", "free", &["--with-ns", "network:/run/netns/free"]);
    for netns in [&blue, &free] {
        world.leaves_by(netns, Nic::Eth0).expect("the world masquerades it");
        world.leaves_by(netns, Nic::Eth1).expect_err("it is not bound yet");
    }
    let _egressd = world.egressd_alone_with(&["--containerd-socket", SOCKET]);
    world.await_nic("default/blue", Nic::Eth1);
    world.leaves_by(&blue, Nic::Eth1).expect("it is bound");
    world.leaves_by(&free, Nic::Eth0).expect("it is known to be free, on a bridge that is guarded by now");

    // In a namespace without a name, as nerdctl's: its interface is put in from outside.
    containerd.run("default", "own", &["--label", &exit, "--label", &gateway]);
    let pid = containerd.pid("default", "own");
    world.host.ip(&format!(
        "link add v-own type veth peer name eth0 netns {pid}
         link set v-own master plain0 up"
    ));
    let own = Netns::of_process(pid, "own");
    own.ip(&format!(
        "addr add {}/16 dev eth0
         link set eth0 up
         route add default via {}",
        bridge.address(12),
        bridge.address(1)
    ));
    world.await_nic("default/own", Nic::Eth1);
    world.leaves_by(&own, Nic::Eth1).expect("it is bound");

    // Who comes after it has nothing of it.
    containerd.remove("default", "blue");
    until("a namespace that nobody is known to have is held on a guarded bridge", || world.leaves_not_at_all(&blue));
}

pub fn a_lost_containerd_is_seen(release: Release) {
    let world = World::builder().ipv6(false).rp_filter(1).build();
    let bridge = world.bridge("plain0", 28);
    world.masquerade(&bridge);
    let containerd = RefCell::new(Containerd::start(release));
    let exit = format!("egress.ip={}", world.layout.address(Nic::Eth1));
    let gateway = format!("egress.gateway={}", world.layout.gateway(Nic::Eth1));
    let blue = world.container("blue", &bridge, 10).netns;
    containerd.borrow().run("default", "blue", &["--label", &exit, "--label", &gateway, "--with-ns", "network:/run/netns/blue"]);
    world.leaves_by(&blue, Nic::Eth1).expect_err("it is not bound yet");
    let _egressd = world.egressd_alone_with(&["--containerd-socket", SOCKET]);
    world.await_nic("default/blue", Nic::Eth1);
    let (lose, return_) = (|| containerd.borrow_mut().kill(), || containerd.borrow_mut().come_back());
    let holds = || world.leaves_by(&blue, Nic::Eth1).expect("what is programmed stays");
    world.source_is_lost("containerd", "containerd", lose, holds, return_);
}
