//! What many exits cost: 4,096 of them in 1,000 policies, and 250 in one. The model and the plan in process, and the kernel's part in a network
//! namespace of its own: at first, and when one exit goes and comes back.
//!
//! `cargo run --release --package bench --bin exits`, as root.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use egressd::effects::nft::Nft;
use egressd::model::binding::{Binding, ExitSpec, RoutedSource, Selector, Source, Spread};
use egressd::model::facts::{Address, KernelChange, Link, LinkKind, Place, Route};
use egressd::model::known::Facts;
use egressd::model::manifests::Manifests;
use egressd::model::resolve::{Past, resolve};
use egressd::model::select::Index;
use egressd::nft::{Ruleset, diff};
use egressd::plan::tables::{self, Cache};
use ipnet::{IpNet, Ipv4Net};
use nix::sched::{CloneFlags, unshare};

const ROUNDS: u32 = 20;
const NIC: Place = Place { nsid: None, index: 3 };
const LAN: u32 = 4;

fn main() {
    unshare(CloneFlags::CLONE_NEWNET).expect("root can make a network namespace");
    for (policies, exits) in [(1_000, 4_096), (1, 250)] {
        for spread in [Spread::RoundRobin, Spread::BySource] {
            println!("{exits} exits in {policies} policies, {spread:?}");
            measure(policies, exits, spread);
        }
    }
}

/// Everything that one round works on.
struct Loop {
    facts: Facts,
    past: Past,
    made: Cache,
    mirror: Ruleset,
    nft: Nft,
}

impl Loop {
    /// One round: its two parts, and how many changes the kernel was told.
    fn round(&mut self) -> (Duration, Duration, usize) {
        let began = Instant::now();
        let outcome = resolve(&self.facts, &mut self.past);
        let desired = tables::ruleset(&outcome, &self.facts.kernel, &mut self.made);
        let changes = diff(&desired, &self.mirror);
        let planned = began.elapsed();
        let began = Instant::now();
        self.nft.commit(&changes).expect("the kernel takes it");
        self.mirror = desired;
        (planned, began.elapsed(), changes.len())
    }
}

fn measure(policies: u32, exits: u32, spread: Spread) {
    let nft = Nft::open().expect("root can open nf_tables");
    let mut all =
        Loop { facts: facts(policies, exits, spread), past: Past::default(), made: Cache::default(), mirror: Ruleset::default(), nft };
    let (planned, told, changes) = all.round();
    println!("  at first: planned in {planned:.1?}, the kernel took {changes} changes in {told:.1?}");
    let mut times = Vec::new();
    for round in 0..ROUNDS {
        let net = host(exit(round * 11 % exits));
        all.facts.kernel.apply(KernelChange::AddressGone(NIC, net));
        times.push(all.round());
        all.facts.kernel.apply(KernelChange::Address(NIC, Address::new(net)));
        times.push(all.round());
    }
    let median = |of: fn(&(Duration, Duration, usize)) -> Duration| {
        let mut of: Vec<Duration> = times.iter().map(of).collect();
        of.sort();
        of[of.len() / 2]
    };
    let most = times.iter().map(|(_, _, changes)| *changes).max().unwrap_or_default();
    println!(
        "  one exit goes or comes: planned in {:.1?}, the kernel took at most {most} changes in {:.1?}",
        median(|t| t.0),
        median(|t| t.1)
    );
    all.nft.commit(&diff(&Ruleset::default(), &all.mirror)).expect("the kernel lets go of it");
}

/// A NIC with all the exits, and a subnet behind another interface for each policy, whose part of the exits is by turn.
fn facts(policies: u32, exits: u32, spread: Spread) -> Facts {
    let mut facts = Facts::default();
    let link = |index, name: &str| Link { up: true, carrier: true, ..Link::new(index, name, LinkKind::Other(String::new())) };
    facts.kernel.apply(KernelChange::Link(link(NIC.index, "eth1")));
    facts.kernel.apply(KernelChange::Link(link(LAN, "lan0")));
    for n in 0..exits {
        facts.kernel.apply(KernelChange::Address(NIC, Address::new(host(exit(n)))));
    }
    let default = Route {
        gateway: Some([172, 31, 0, 1].into()),
        interface: Some(NIC.index),
        protocol: 4,
        ..Route::new(254, "0.0.0.0/0".parse().expect("a prefix"))
    };
    facts.kernel.apply(KernelChange::Routing { routes: vec![default], rules: Vec::new() });
    let binding = |policy: u32| {
        let net = Ipv4Net::new(Ipv4Addr::from(0x0a00_0000 + (policy << 8)), 24).expect("a prefix length").into();
        let selector = Selector::Addresses(vec![RoutedSource { net, interface: Some("lan0".to_owned()) }]);
        let own = (0..exits).filter(|n| n % policies == policy).map(|n| ExitSpec::new(exit(n)));
        Arc::new(Binding { exits: own.collect(), spread, ..Binding::plain(Source::File, &format!("default/p{policy}"), selector) })
    };
    facts.manifests = Index::new(Manifests { bindings: (0..policies).map(binding).collect(), ..Manifests::default() });
    facts
}

fn exit(n: u32) -> IpAddr {
    Ipv4Addr::from(0xac1f_1000 + n).into()
}

fn host(address: IpAddr) -> IpNet {
    address.into()
}
