//! Instructions that a packet costs, from `sendto` in the container until the router drops it: `make count`.
//!
//! Runs in a virtual machine whose clock counts instructions, so that what takes a nanosecond is one, and each run finds the same. It is no
//! time (caches and branches are free): it stands beside docs/benchmarks.md, and shows what a rule costs as soon as it is added. Writes
//! docs/instructions.md into the folder that it is given.

use std::{fmt::Write, fs, net::Ipv4Addr, path::PathBuf, process::ExitCode, thread, time::Duration};

use bench::{
    daemon::{manifest, one_exit, orphan_at, start, start_with},
    host::{self, Host, UNBOUND},
    send,
    without::WITHOUT,
};
use world::{Netns, Scenario, command, harness, service::Service, status::until_within};

/// The processor is emulated.
const LIMIT: Duration = Duration::from_secs(1800);
/// Packets of a measurement.
const PACKETS: u32 = 1000;
/// Measurements of a way.
const PASSES: usize = 5;
/// Exits of the host whose flows leave by turn.
const EXITS: u8 = 8;
/// The way whose flows are in a flowtable.
const FAST: &str = "egressd, the fast path";
/// The variable that names the page.
const PAGE: &str = "PAGE";

/// A way to leave, and what its packets cost.
struct Way {
    name: &'static str,
    established: f64,
}

fn main() -> ExitCode {
    harness::main(vec![Scenario::new("instructions", run).within(LIMIT).shown()])
}

fn run() {
    for module in ["nft_chain_nat", "nf_conntrack", "nft_masq", "veth", "bridge"] {
        command::run(&["modprobe", module]);
    }
    let mut ways = Vec::new();
    let mut note = |name, host: &Host, from: &Netns, source| {
        let way = measure(name, host, from, source);
        println!("{name}: {:.0}", way.established);
        ways.push(way);
    };
    let bound = host::source(0);
    let plain = Host::add("plain", 1);
    note("masquerade", &plain, &plain.container, bound);
    plain.inside.ip("rule add pref 1561 fwmark 0x1001/0xffff1fff lookup 15601");
    note("masquerade and a policy rule that never fits", &plain, &plain.container, bound);
    let (one, _daemon) = with_egressd("one", &one_exit());
    note("egressd", &one, &one.container, bound);
    note("egressd, an unbound container", &one, &one.unbound, UNBOUND);
    let exits: String = (0..EXITS).map(|n| format!("{{address: 172.31.16.{}, interface: eth1, gateway: 172.31.16.1}},", 14 + n)).collect();
    let (several, _daemon) = with_egressd("several", &format!("exits: [{exits}]\n  spread: RoundRobin"));
    note("egressd, eight exits by turn", &several, &several.container, bound);
    let fast = Host::add("fast", 1);
    let _daemon = start_with(&fast, &manifest(&fast, &one_exit()), &["--fast-path", "auto"]);
    until_within(Duration::from_secs(60), Duration::from_millis(100), "the fast path is open", || {
        let tables = fast.inside.run(&["nft", "list", "tables"]);
        if tables.contains("egressd-fast") { Ok(()) } else { Err(tables) }
    });
    note(FAST, &fast, &fast.container, bound);
    for (name, host, change) in &WITHOUT[1..] {
        let host = orphan_at(Host::add(host, 1));
        change(&host);
        note(name, &host, &host.container, bound);
    }
    let page = page(&ways);
    print!("{page}");
    if let Some(file) = std::env::var_os(PAGE) {
        fs::write(PathBuf::from(file), page).expect("the page can be written");
    }
}

/// A host with the daemon on it, which has programmed its one workload.
fn with_egressd(name: &str, exits: &str) -> (Host, Service) {
    let host = Host::add(name, 1);
    for n in 1..EXITS {
        host.inside.ip(&format!("addr add 172.31.16.{}/20 dev eth1", 14 + n));
    }
    let name = manifest(&host, exits);
    let (service, _) = start(&host, &name);
    (host, service)
}

/// The median of some measurements: the first ones meet empty caches, and now and then the kernel has other work.
fn measure(name: &'static str, host: &Host, from: &Netns, source: Ipv4Addr) -> Way {
    let mut passes = Vec::new();
    for _ in 0..PASSES {
        let before = host.arrived();
        let sockets = send::open(from, &[source]);
        if name == FAST {
            send::established(&sockets, 1);
            // As an answer after two seconds would make it.
            host.inside.run(&["conntrack", "-U", "-p", "udp", "-s", &source.to_string(), "-u", "SEEN_REPLY,ASSURED"]);
            send::established(&sockets, 1);
            assert!(host.inside.run(&["conntrack", "-L"]).contains("OFFLOAD"), "the flow is in the flowtable");
        }
        passes.push(send::established(&sockets, PACKETS));
        let arrived = host.arrived();
        // Each measurement begins with one packet more.
        let sent = u64::from(PACKETS + 1) + if name == FAST { 4 } else { 0 };
        let nic = usize::from(!name.starts_with("masquerade") && source != UNBOUND);
        assert_eq!(arrived[nic] - before[nic], sent, "packets of {name} that arrived by eth{nic}");
        host.flush();
        // What a flow leaves behind is freed later (RCU), on the time of whoever comes next.
        thread::sleep(Duration::from_secs(2));
    }
    passes.sort_by(f64::total_cmp);
    Way { name, established: passes[PASSES / 2] }
}

fn page(ways: &[Way]) -> String {
    let mut text = String::from("<!-- Written by `make count`. -->\n# Instructions for a packet\n\n");
    let kernel = command::run(&["uname", "-v"]);
    writeln!(text, "Debian's kernel in a virtual machine that counts instructions ({}). One bound address;", kernel.trim())
        .expect("a String takes all");
    text.push_str(
        "from `sendto` in the container over veth, bridge and veth to the router that drops it. A packet of\na flow that is known. No time: caches and branches are free. Lines that are the same differ by a percent.\n\n",
    );
    text.push_str("| | instructions | of masquerade |\n|---|---|---|\n");
    let plain = ways[0].established;
    for Way { name, established } in ways {
        writeln!(text, "| {name} | {established:.0} | {:.3} |", established / plain).expect("a String takes all");
    }
    text
}
