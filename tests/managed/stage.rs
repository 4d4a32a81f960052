//! A host with a NIC beyond the cloud's, and a masqueraded workload.

use std::net::IpAddr;
use std::time::Duration;

use serde_json::Value;
use world::{
    Binding, Container, World,
    segment::{Router, Segment},
    status::{until, until_within},
    talk,
    traffic::nobody,
};

/// The NIC that gets the addresses.
pub const NIC: &str = "ens5";
/// Number of its subnet.
pub const SUBNET: u8 = 5;

pub struct Stage {
    pub world: World,
    pub segment: Segment,
    pub router: Router,
    pub blue: Container,
}

impl Stage {
    pub fn new() -> Self {
        let world = World::builder().build();
        let segment = Segment::plug(&world, NIC);
        let router = segment.router(&world, SUBNET);
        let bridge = world.bridge("plain0", 28);
        world.masquerade(&bridge);
        let blue = world.container("blue", &bridge, 10);
        Self { world, segment, router, blue }
    }

    /// An exit of the router's subnet in each family, with these further fields.
    pub fn exits(&self, addresses: &[IpAddr], fields: &str) -> String {
        let exits: Vec<String> = addresses.iter().map(|address| self.router.exit(address, fields)).collect();
        format!("exits: [{}]", exits.join(", "))
    }

    /// Binds the workload to addresses that egressd manages.
    pub fn manage(&self, addresses: &[IpAddr]) {
        self.world.bind(&Binding::of(&self.blue.netns).with(&self.exits(addresses, "assignment: Managed")));
    }

    /// Waits until the workload leaves as these.
    pub fn await_exits(&self, addresses: &[IpAddr]) {
        let all: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        self.world.await_rows("netns/blue", |row| {
            row["state"] == "Bound" && row["exit"].as_str().is_some_and(|exit| all.iter().any(|one| one == exit))
        });
    }

    /// Waits until the workload has no exit, for this reason. Returns the sentences that say so.
    pub fn await_reason(&self, reason: &str) -> Vec<String> {
        self.world.await_rows("netns/blue", |row| row["state"] == "Dropped" && row["reason"] == reason);
        let status = self.world.status();
        let rows = status["workloads"].as_array().expect("a list").iter();
        rows.filter_map(|row| row["message"].as_str().map(str::to_owned)).collect()
    }

    /// Waits until an address of the workload has no exit, for this reason. Returns the sentence that says so.
    pub fn await_row(&self, reason: &str) -> String {
        let found = |rows: &Value| rows.as_array()?.iter().find(|row| row["reason"] == reason)?["message"].as_str().map(str::to_owned);
        until_within(Duration::from_secs(30), Duration::from_millis(20), reason, || {
            let status = self.world.status();
            found(&status["workloads"]).ok_or_else(|| format!("{status:#}"))
        })
    }

    pub fn serves(&self, addresses: &[IpAddr]) {
        self.router.serves_as(&self.world, &self.blue.netns, addresses).unwrap_or_else(|error| panic!("{error}"));
    }

    /// Nothing of what the workload sends reaches the router or the cloud.
    pub fn holds_back(&self) {
        self.router.forget();
        let ((), elsewhere) = self.world.watch(|| {
            for from in [IpAddr::from(self.blue.address), self.blue.address6.into()] {
                talk::shout(&self.blue.netns, from, nobody(from));
            }
        });
        let seen = self.router.seen();
        assert!(seen.0.is_empty() && elsewhere.is_empty(), "the router saw {seen}; elsewhere {elsewhere}");
    }

    /// The router answers nobody's question for an address any more, or does again, and routes on.
    pub fn mute(&self, mute: bool) {
        if mute {
            self.router.netns.nft(
                "table netdev mute {
                     chain input {
                         type filter hook ingress device \"eth0\" priority -400;
                         meta protocol arp drop
                         icmpv6 type nd-neighbor-solicit drop
                     }
                 }",
            );
        } else {
            self.router.netns.nft("delete table netdev mute");
        }
    }

    /// What the NIC has of an address, as `ip -j` prints it.
    pub fn on_nic(&self, address: IpAddr) -> Option<Value> {
        let printed = self.world.host.run(&["ip", "-j", "address", "show", "dev", NIC]);
        let printed: Value = serde_json::from_str(&printed).expect("ip prints JSON");
        let all = printed.as_array().into_iter().flatten().flat_map(|link| link["addr_info"].as_array().cloned().unwrap_or_default());
        let mut all = all.filter(|one| one["local"] == address.to_string());
        all.next()
    }

    pub fn await_on_nic(&self, address: IpAddr, there: bool) {
        until(&format!("{address} is {}on {NIC}", if there { "" } else { "not " }), || match self.on_nic(address) {
            found if found.is_some() == there => Ok(()),
            found => Err(format!("{found:?}")),
        });
    }

    /// The source of the host's own calls to somewhere behind the router, on the link, and to a group on it.
    pub fn own_source(&self) -> [String; 3] {
        self.world.host.ip(&format!("route replace 192.0.2.7 via 10.5.0.1 dev {NIC}\nroute replace 192.0.2.8 dev {NIC}"));
        ["192.0.2.7", "192.0.2.8", "224.0.0.251"].map(|to| {
            let got = self.world.host.run(&["ip", "route", "get", to, "oif", NIC]);
            got.split_whitespace().skip_while(|word| *word != "src").nth(1).unwrap_or("none").to_owned()
        })
    }

    /// The link-layer address of a device, as `ip` prints it.
    pub fn mac(netns: &world::Netns, device: &str) -> String {
        let printed = netns.run(&["ip", "-j", "link", "show", "dev", device]);
        let printed: Value = serde_json::from_str(&printed).expect("ip prints JSON");
        printed[0]["address"].as_str().expect("it has one").to_owned()
    }
}

/// Address number `number` of the router's subnet, in each family.
pub fn numbered(number: u16) -> [IpAddr; 2] {
    let v4 = std::net::Ipv4Addr::new(10, SUBNET, 0, number as u8);
    [v4.into(), std::net::Ipv6Addr::new(0xfd10, SUBNET.into(), 0, 0, 0, 0, 0, number).into()]
}
