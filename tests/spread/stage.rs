//! A NIC beyond the cloud's whose router answers all of the NIC's addresses, and workloads that leave by it.

use std::net::IpAddr;

use world::{
    Binding, Netns, World,
    segment::{Router, Segment},
};

/// The NIC, and the number of its subnet.
const NIC: &str = "ens5";
const SUBNET: u8 = 5;

pub struct Stage<const N: usize> {
    pub world: World,
    pub router: Router,
    /// Addresses of the NIC.
    pub exits: [[IpAddr; 2]; N],
    /// Masqueraded workloads.
    pub workloads: Vec<Netns>,
}

impl<const N: usize> Stage<N> {
    pub fn new(workloads: u8) -> Self {
        let world = World::builder().build();
        let segment = Segment::plug(&world, NIC);
        let router = segment.router(&world, SUBNET);
        let exits = std::array::from_fn(|at| segment.address(&world, SUBNET, 98 + at as u8));
        let bridge = world.bridge("plain0", 28);
        world.masquerade(&bridge);
        let workloads = (10..10 + workloads).map(|number| world.container(&format!("c{number}"), &bridge, number).netns).collect();
        Self { world, router, exits, workloads }
    }

    /// A binding of the workloads to the exits, each of which has its weight.
    pub fn binding(&self, spread: &str, weights: [u8; N]) -> Binding {
        let names: Vec<&str> = self.workloads.iter().map(Netns::name).collect();
        self.spread(Binding::new("many", &format!("networkNamespaces: [{}]", names.join(", "))), spread, weights)
    }

    /// To the exits, each with its weight.
    pub fn spread(&self, binding: Binding, spread: &str, weights: [u8; N]) -> Binding {
        let weighted = self.exits.iter().zip(weights).flat_map(|(exit, weight)| exit.iter().map(move |address| (address, weight)));
        let exits: Vec<String> = weighted.map(|(address, weight)| self.router.exit(address, &format!("weight: {weight}"))).collect();
        binding.with(&format!("exits: [{}]", exits.join(", "))).with(&format!("spread: {spread}"))
    }
}
