//! The two containers that most Docker scenarios are about: one program twice on one bridge, each with a NIC of its own.

use std::net::{IpAddr, Ipv4Addr};

use crate::{
    build::World,
    docker::{Docker, WEB_PORT},
    layout::Nic,
};

/// Name of the Docker network, and of its bridge device.
pub const NETWORK: &str = "eip_bridge";
/// A page of the containers' web server that makes the program call a server on the internet and say what that one saw.
pub const ASK: &str = "/cgi-bin/ask?198.51.100.10+8000";

/// One of the two containers.
#[derive(Clone, Copy, Debug)]
pub struct Crawler {
    /// Its name.
    pub name: &'static str,
    /// The NIC that it is to leave by.
    pub nic: Nic,
    /// Its address on the bridge.
    pub address: Ipv4Addr,
    /// The port of its NIC's address that leads to its web server.
    pub port: u16,
}

/// Both.
pub const CRAWLERS: [Crawler; 2] = [
    Crawler { name: "crawler-1", nic: Nic::Eth0, address: Ipv4Addr::new(172, 19, 0, 100), port: 8090 },
    Crawler { name: "crawler-2", nic: Nic::Eth1, address: Ipv4Addr::new(172, 19, 0, 101), port: 8091 },
];

/// Makes their network: 172.19.0.0/16, and fd72:19::/64 where the world has IPv6.
pub fn create_network(world: &World, docker: &Docker) {
    let mut arguments = vec!["network", "create", "--subnet=172.19.0.0/16", "--opt=com.docker.network.bridge.name=eip_bridge"];
    if world.layout.ipv6 {
        arguments.extend(["--ipv6", "--subnet=fd72:19::/64"]);
    }
    arguments.push(NETWORK);
    docker.cli(&arguments);
}

impl Crawler {
    /// The options of `docker run`: label, address, published port.
    pub fn options(&self, world: &World) -> Vec<String> {
        let private = world.layout.address(self.nic);
        let exits: Vec<String> = world.servers().iter().map(|like| world.layout.private(self.nic, *like).to_string()).collect();
        vec![
            format!("--network={NETWORK}"),
            format!("--ip={}", self.address),
            format!("--publish={private}:{}:{WEB_PORT}", self.port),
            format!("--label=egress.ip={}", exits.join(",")),
        ]
    }

    /// Starts it.
    pub fn run(&self, world: &World, docker: &Docker) {
        let options = self.options(world);
        docker.run(self.name, &options.iter().map(String::as_str).collect::<Vec<_>>());
    }

    /// It leaves by its NIC, to the internet and to neighbours.
    pub fn leaves(&self, world: &World, docker: &Docker) -> Result<(), String> {
        let netns = docker.netns(self.name);
        world.leaves_by(&netns, self.nic)?;
        world.leaves_to_neighbour_by(&netns, self.nic, Nic::Eth0)?;
        world.leaves_to_neighbour_by(&netns, self.nic, Nic::Eth1)
    }

    /// A call to its NIC's public address is answered by that NIC, and the program that is called there calls out with the
    /// same address.
    pub fn is_reached(&self, world: &World) -> Result<(), String> {
        let page = world.reached_by(self.nic, self.port, ASK)?;
        let peer = page.split(' ').next().and_then(|peer| peer.parse::<IpAddr>().ok());
        if peer == Some(self.nic.eip().into()) { Ok(()) } else { Err(format!("{}: its program calls out as {page:?}", self.name)) }
    }
}
