//! Uplinks of every kind: each is an exit like any other, is missed when it goes, and found again when it comes anew.

use std::process::Command;

use world::{
    Binding, Netns, Nic, Scenario, World, command,
    segment::{Plain, Router},
    service::Service,
    status::until,
};

/// A kind that `ip` makes alone.
struct Kind {
    name: &'static str,
    /// What the device on the host stands on, besides the wire, for `ip`.
    wire: &'static str,
    /// What makes the device `up7` there.
    host: &'static str,
    /// The same at the router: the device `up7`.
    router: &'static str,
    /// It has no next hop: whatever is sent arrives.
    point_to_point: bool,
}

const KINDS: [Kind; 7] = [
    Kind {
        name: "a VLAN",
        wire: "",
        host: "link add link wire name up7 type vlan id 7",
        router: "link add link eth0 name up7 type vlan id 7",
        point_to_point: false,
    },
    Kind {
        name: "a bond",
        wire: "",
        host: "link add up7 type bond mode active-backup miimon 50
               link set wire down
               link set wire master up7",
        router: "link add up7 link eth0 type macvlan mode bridge",
        point_to_point: false,
    },
    Kind {
        name: "a VLAN on a bond",
        wire: "link add bond7 type bond mode active-backup miimon 50
               link set wire down
               link set wire master bond7
               link set bond7 up",
        host: "link add link bond7 name up7 type vlan id 7",
        router: "link add link eth0 name up7 type vlan id 7",
        point_to_point: false,
    },
    Kind {
        name: "a macvlan",
        wire: "",
        host: "link add up7 link wire type macvlan mode bridge",
        router: "link add up7 link eth0 type macvlan mode bridge",
        point_to_point: false,
    },
    Kind {
        name: "an ipvlan",
        wire: "",
        host: "link add up7 link wire type ipvlan mode l2",
        router: "link add up7 link eth0 type macvlan mode bridge",
        point_to_point: false,
    },
    Kind {
        name: "a GRE tunnel",
        wire: "",
        host: "link add up7 type gre local 192.0.2.2 remote 192.0.2.1 ttl 64",
        router: "link add up7 type gre local 192.0.2.1 remote 192.0.2.2 ttl 64",
        point_to_point: true,
    },
    Kind {
        name: "a VXLAN",
        wire: "",
        host: "link add up7 type vxlan id 7 local 192.0.2.2 remote 192.0.2.1 dstport 4789 dev wire",
        router: "link add up7 type vxlan id 7 local 192.0.2.1 remote 192.0.2.2 dstport 4789 dev eth0",
        point_to_point: false,
    },
];

pub fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new("a NIC of every kind is an uplink, is missed when it goes, and found when it comes anew", every_kind),
        Scenario::new("a PPP line is an uplink, at each dial-up anew", ppp),
        Scenario::new("a NIC in a VRF is refused by that reason, and nobody else is touched", vrf),
    ]
}

fn every_kind() {
    let plain = Plain::new(World::builder().build());
    let (world, blue) = (&plain.world, &plain.blue.netns);
    let mut egressd = world.egressd_alone();
    let wireguard = Tunnel::new();
    let kinds = KINDS.iter().map(|kind| kind as &dyn Uplink).chain([&wireguard as &dyn Uplink]);
    for (at, kind) in kinds.enumerate() {
        let what = kind.name();
        println!("{what}");
        let place = Router::place(&format!("beyond{at}"));
        world.host.ip(&format!(
            "link add wire type veth peer name eth0 netns {}
             addr add 192.0.2.2/30 dev wire
             link set wire up",
            place.name()
        ));
        place.ip("addr add 192.0.2.1/30 dev eth0
             link set eth0 up");
        kind.plug(world, &place);
        let up = || {
            kind.make(world);
            world.host.ip("addr add 10.7.0.2/24 dev up7
                 addr add fd10:7::2/64 dev up7 nodad
                 link set up7 up");
        };
        up();
        let router = Router::start(place, "up7", 7, 1);
        router.serves(world, blue).expect_err("it is not bound");
        let exits = if kind.has_gateway() { router.exits(true) } else { "exits: [{interface: up7}]".to_owned() };
        world.bind(&Binding::of(blue).with(&exits));
        until(&format!("{what} is an exit"), || router.serves(world, blue));
        world.host.run(&["ip", "link", "del", "up7"]);
        world.await_state("netns/blue", "Dropped");
        world.leaves_not_at_all(blue).unwrap_or_else(|error| panic!("{what} is gone: {error}"));
        up();
        until(&format!("{what} is an exit again"), || router.serves(world, blue));
        egressd.kill();
        router.serves(world, blue).unwrap_or_else(|error| panic!("{what}, and egressd is dead: {error}"));
        plain.free_by_eth0(what);
        egressd.start();
        world.unbind(blue.name());
        until("it is unbound", || world.leaves_by(blue, Nic::Eth0));
        for link in ["up7", "bond7", "wire"] {
            // The wire takes what is on it along.
            let _ = command::try_run(&["ip", "link", "del", link]);
        }
    }
}

/// A kind of uplink: the device `up7`, over a wire (`wire` on the host, `eth0` at its router) with addresses of its own.
trait Uplink {
    fn name(&self) -> &'static str;
    /// Its packets go to a next hop.
    fn has_gateway(&self) -> bool;
    /// Makes the router's end, and what the host's end stands on.
    fn plug(&self, world: &World, router: &Netns);
    /// Makes the host's end.
    fn make(&self, world: &World);
}

impl Uplink for Kind {
    fn name(&self) -> &'static str {
        self.name
    }

    fn has_gateway(&self) -> bool {
        !self.point_to_point
    }

    fn plug(&self, world: &World, router: &Netns) {
        world.host.ip(self.wire);
        router.ip(self.router);
    }

    fn make(&self, world: &World) {
        world.host.ip(self.host);
    }
}

/// WireGuard, and the keys of both ends.
struct Tunnel {
    ours: String,
    theirs: String,
}

impl Tunnel {
    fn new() -> Self {
        let [ours, theirs] = [(); 2].map(|()| command::run(&["wg", "genkey"]).trim().to_owned());
        Self { ours, theirs }
    }

    /// Makes `up7` in a namespace, with a key and what this peer needs.
    fn end(netns: &Netns, own: &str, peer: &str, more: &[&str]) {
        let file = "/run/world/wireguard.key";
        std::fs::write(file, own).expect("/run is ours");
        let peer = command::feed(&["wg", "pubkey"], peer);
        netns.ip("link add up7 type wireguard");
        let usual = ["wg", "set", "up7", "private-key", file, "listen-port", "51820", "peer", peer.trim(), "allowed-ips", "0.0.0.0/0,::/0"];
        netns.run(&[&usual, more].concat());
    }
}

impl Uplink for Tunnel {
    fn name(&self) -> &'static str {
        "a WireGuard tunnel"
    }

    fn has_gateway(&self) -> bool {
        false
    }

    fn plug(&self, _: &World, router: &Netns) {
        Self::end(router, &self.theirs, &self.ours, &[]);
    }

    fn make(&self, world: &World) {
        Self::end(&world.host, &self.ours, &self.theirs, &["endpoint", "192.0.2.1:51820"]);
    }
}

/// pppd at both ends of a line. What the provider gives is the exit: IPv4 alone.
fn ppp() {
    let plain = Plain::new(World::builder().ipv6(false).build());
    let (world, blue) = (&plain.world, &plain.blue.netns);
    let place = Router::place("beyond");
    let dial = || {
        let mut pppd = Command::new("pppd");
        let far = "ip netns exec beyond pppd nodetach notty noauth local nodefaultroute unit 7 ifname up7 10.7.0.1:10.7.0.2";
        pppd.args(["nodetach", "noauth", "local", "nodefaultroute", "noipdefault", "ifname", "up7", "pty", far]);
        let line = world.host.enter(|| Service::start("pppd", pppd));
        until("the line is up", || {
            let shown = command::try_run(&["ip", "-4", "-brief", "address", "show", "dev", "up7"])?;
            if shown.contains("10.7.0.2") { Ok(()) } else { Err(shown) }
        });
        line
    };
    let mut line = dial();
    let router = Router::start(place, "up7", 7, 1);
    router.serves_as(world, blue, &router.host()[..1]).expect_err("it is not bound");
    world.bind(&Binding::of(blue).with("exits: [{interface: up7}]"));
    let _egressd = world.egressd_alone();
    for _ in 0..2 {
        until("it is bound", || router.serves_as(world, blue, &router.host()[..1]));
        plain.free_by_eth0("beside it");
        line.kill();
        world.await_state("netns/blue", "Dropped");
        world.leaves_not_at_all(blue).unwrap_or_else(|error| panic!("the line is down: {error}"));
        line = dial();
        router.netns.ip("route replace default dev up7");
    }
}

fn vrf() {
    let plain = Plain::new(World::builder().build());
    let (world, blue) = (&plain.world, &plain.blue.netns);
    world.host.ip("link add vrf7 type vrf table 77
         link set vrf7 up
         link add wire type veth peer name far
         link set wire master vrf7
         link set far up
         link set wire up
         addr add 10.7.0.2/24 dev wire");
    let _egressd = world.egressd_alone();
    world.bind(&Binding::of(blue).with("exits: [{address: 10.7.0.2, gateway: 10.7.0.1}]"));
    let mut message = String::new();
    until("it is refused", || {
        let status = world.status();
        let row = status["workloads"].as_array().into_iter().flatten().find(|row| row["workload"] == "netns/blue").cloned();
        let row = row.ok_or_else(|| format!("{status:#}"))?;
        message = row["message"].as_str().unwrap_or_default().to_owned();
        if row["reason"] == "NotAnUplink" { Ok(()) } else { Err(format!("{row:#}")) }
    });
    assert!(message.contains("VRF") && message.contains("vrf7"), "{message}");
    world.leaves_not_at_all(blue).unwrap_or_else(|error| panic!("it has no exit: {error}"));
    plain.free_by_eth0("beside it");
    world.bind_to(blue, Binding::of(blue), Nic::Eth1);
    plain.blue_by_eth1("by a NIC in no VRF");
}
