//! What a call to a published port costs, against one plain rule of destination NAT: `make bench-inbound`.
//!
//! Fronts of the same shape stand side by side in network namespaces, each with a client and servers of its own. Every pass measures all of
//! them, one after the other, and what is printed are medians and their ratios: a figure of one machine says little about another.

use std::{
    fmt::Write,
    fs,
    net::{Ipv4Addr, UdpSocket},
    path::Path,
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use bench::{daemon, host::Host, nth, send};
use world::{FOLDER, Netns, Scenario, command, harness, service::Service};

const LIMIT: Duration = Duration::from_secs(1800);
/// The address that clients call.
const FRONT: Ipv4Addr = Ipv4Addr::new(172, 31, 16, 14);
/// The first of the ports that they call.
const FIRST: u16 = 20_000;
/// The servers of each binding.
const SERVERS: u32 = 10;
/// Ports of a binding, at most.
const EACH: u32 = 50;
/// Calls of a pass, each from a port of its own.
const CALLS: u16 = 500;
const PASSES: usize = 41;

/// A front, and what is measured there.
struct Way {
    name: String,
    front: Host,
    services: u16,
    values: Vec<f64>,
    /// Ends with this.
    _daemon: Option<Service>,
}

fn main() -> ExitCode {
    harness::main(vec![Scenario::new("inbound", run).within(LIMIT).shown()])
}

fn run() {
    let plain = add("plain", 1);
    plain.inside.nft(&format!(
        "table ip nat {{\nchain c {{\ntype nat hook prerouting priority -100\nudp dport {FIRST} dnat to 10.9.0.2:1234\n}}\n}}\n"
    ));
    let mut ways = vec![Way { name: "one plain rule".to_owned(), front: plain, services: 1, values: Vec::new(), _daemon: None }];
    for (name, services, more) in [
        ("1 service", 1, ""),
        ("1,000 services", 1000, ""),
        ("1,000 services, by a hash", 1000, ", balance: BySource"),
        ("1,000 services, with an affinity", 1000, ", affinity: 10m"),
        ("1,000 services, with maxConnections", 1000, ", maxConnections: 1000000"),
    ] {
        let (front, daemon) = with_egressd(&format!("way{}", ways.len()), services, more);
        ways.push(Way {
            name: format!("{name} of 10 servers"),
            front,
            services: services as u16,
            values: Vec::new(),
            _daemon: Some(daemon),
        });
    }
    for pass in 0..=PASSES {
        for way in &mut ways {
            let value = way.measure();
            // The first one warms caches and neighbours.
            if pass > 0 {
                way.values.push(value);
            }
        }
    }
    let plain = median(&mut ways[0].values);
    println!("\n{:44} {:>10} {:>8}", "a new flow", "ns", "ratio");
    for way in &mut ways {
        let value = median(&mut way.values);
        println!("{:44} {value:>10.0} {:>8.3}", way.name, value / plain);
    }
    drop(ways);
    let (front, daemon) = with_egressd("many", 10_000, "");
    let (changes, took) =
        daemon::rounds(&daemon).into_iter().max_by(|one, other| one.1.total_cmp(&other.1)).expect("it has programmed them");
    println!("\n10,000 services of 10 servers: {changes} changes in {took:.0} ms");
    drop(front);
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// A front with a client, and so many servers behind it, which drop and count what arrives.
fn add(name: &str, servers: u32) -> Host {
    let add = |part: &str| Netns::add(&format!("{name}-{part}"));
    let (inside, container, router) = (add("host"), add("servers"), add("client"));
    for netns in [&inside, &container, &router] {
        for interface in ["all", "default"] {
            netns.sysctl(&format!("ipv6/conf/{interface}/disable_ipv6"), "1");
            netns.sysctl(&format!("ipv4/conf/{interface}/rp_filter"), "0");
        }
    }
    inside.sysctl("ipv4/ip_forward", "1");
    inside.ip(&format!(
        "link add eth1 type veth peer name nic1 netns {}
         link add lan type veth peer name eth0 netns {}
         addr add {FRONT}/20 dev eth1
         addr add 10.9.0.1/16 dev lan
         link set eth1 up
         link set lan up",
        router.name(),
        container.name()
    ));
    router.ip("addr add 172.31.16.1/20 dev nic1\nlink set nic1 up");
    let mut addresses = String::from("link set eth0 up\n");
    for n in 0..servers {
        writeln!(addresses, "addr add {}/16 dev eth0 noprefixroute", server(n)).expect("a String takes all");
    }
    container.ip(&format!("{addresses}route add 10.9.0.1 dev eth0\nroute add default via 10.9.0.1"));
    inside.ip("route add default via 172.31.16.1");
    container.nft("table netdev far {\nchain c {\ntype filter hook ingress device eth0 priority 0\nmeta l4proto udp counter drop\n}\n}\n");
    Host { inside, unbound: router.clone(), router, container, workloads: servers }
}

/// The address of server `n`.
fn server(n: u32) -> Ipv4Addr {
    nth(Ipv4Addr::new(10, 9, 0, 2), n)
}

/// The same with egressd, which shares so many ports among ten servers each.
fn with_egressd(name: &str, services: u32, more: &str) -> (Host, Service) {
    let bindings = services.div_ceil(EACH);
    let front = add(name, bindings * SERVERS);
    for binding in 0..bindings {
        write_manifest(name, binding, services.min(EACH), more);
    }
    let (daemon, took) = daemon::start(&front, front.inside.name());
    // Who listens on the ports is looked up first.
    let began = Instant::now();
    let list = ["nft", "list", "map", "ip", "egressd", "services"];
    let served = || front.inside.enter(|| command::try_run(&list)).map_or(0, |map| map.matches(" : jump ").count());
    while served() < services as usize {
        assert!(began.elapsed() < Duration::from_secs(120), "{} services on {name}: {}", served(), daemon.log());
        thread::sleep(Duration::from_millis(100));
    }
    println!("{name}: ready after {took:.0} ms");
    (front, daemon)
}

/// A binding's file: so many ports of its own, shared among ten servers of its own.
fn write_manifest(name: &str, binding: u32, ports: u32, more: &str) {
    let folder = Path::new(FOLDER).join(format!("{name}-host"));
    fs::create_dir_all(&folder).expect("/run is ours");
    let servers: Vec<String> = (0..SERVERS).map(|n| format!("{}/32", server(binding * SERVERS + n))).collect();
    let mut text = format!(
        "apiVersion: egressd.dev/v1alpha1\nkind: EgressBinding\nmetadata: {{name: b{binding}}}\nspec:\n  addresses: [{}]\n  \
         exits: [{{address: {FRONT}, interface: eth1, gateway: 172.31.16.1}}]\n  inbound:\n",
        servers.join(", ")
    );
    for port in 0..ports {
        let port = u32::from(FIRST) + binding * EACH + port;
        writeln!(text, "  - {{protocol: UDP, port: {port}, targetPort: 1234{more}}}").expect("a String takes all");
    }
    fs::write(folder.join(format!("b{binding}.yaml")), text).expect("/run is ours");
}

impl Way {
    /// Nanoseconds a call. Panics when one did not arrive: a drop is not fast.
    fn measure(&self) -> f64 {
        self.front.flush();
        let sockets: Vec<UdpSocket> = self
            .front
            .router
            .enter(|| (0..CALLS).map(|_| UdpSocket::bind(("172.31.16.1", 0)).expect("the client has the address")).collect());
        let before = self.arrived();
        let step = (self.services / CALLS).max(1);
        let ports: Vec<u16> = (0..CALLS).map(|call| FIRST + (call * step) % self.services).collect();
        let took = thread::scope(|scope| {
            let sender = scope.spawn(|| {
                send::pin();
                let began = Instant::now();
                for (socket, port) in sockets.iter().zip(&ports) {
                    socket.send_to(&[0; 32], (FRONT, *port)).expect("a UDP packet can be sent");
                }
                began.elapsed()
            });
            sender.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        assert_eq!(self.arrived() - before, u64::from(CALLS), "calls of {} that arrived", self.name);
        took.as_nanos() as f64 / f64::from(CALLS)
    }

    fn arrived(&self) -> u64 {
        let text = self.front.container.run(&["nft", "list", "table", "netdev", "far"]);
        let count = text.split("packets ").nth(1).and_then(|rest| rest.split(' ').next());
        count.and_then(|count| count.parse().ok()).expect("nft prints a number after `packets`")
    }
}
