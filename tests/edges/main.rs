//! The daemon's own edges: a second daemon, a port that is taken, no file descriptors left, a step that never works.

mod drops;
mod full_disk;
mod taken_away;

use std::{
    fs,
    net::TcpListener,
    os::unix::net::UnixStream,
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use world::{
    Binding, Container, Nic, Scenario, World, command,
    egressd::{Egressd, SOCKET, manifests},
    layout::{PORT, SERVER},
    status::{until, until_within},
    talk::Flow,
};

fn main() -> ExitCode {
    let scenarios = vec![
        Scenario::new("a second daemon of the network namespace ends, and the first one's work is not disturbed", a_second_daemon_ends),
        Scenario::new("a taken metrics port is a problem, and no end", a_taken_port),
        Scenario::new("without file descriptors the control socket waits, and goes on", no_file_descriptors),
        Scenario::new("a step that never works is tried less and less often, and logged once", a_step_that_never_works),
        Scenario::new("another program's NAT chain ahead of ours is a problem while it is there", a_nat_chain_ahead),
        Scenario::new("each transition of a workload is one line of the log", transitions),
        Scenario::new("what is dropped is counted by reason, bridge and workload", drops::by_reason_bridge_and_workload),
        Scenario::new("a flow that lost its way is counted for its workload, though its source is translated", drops::of_translated_flows),
        Scenario::new("of more sources than are remembered all packets are counted by interface", drops::more_sources_than_remembered),
        Scenario::new("metrics tell of NICs, exits and bindings as they are", metrics_tell),
        Scenario::new("a state folder without room is a problem, and no end", full_disk::is_told),
        Scenario::new("a socket or a state folder that is removed is made anew", taken_away::state_folder),
        Scenario::new("a folder of manifests that is mounted over is read", taken_away::folder_of_manifests),
        Scenario::new("a log that cannot be written, and a hangup, are no end", taken_away::log_and_terminal),
        Scenario::new("a service manager hears of the start, of the loop's life and of the end", a_service_manager),
    ];
    world::harness::main(scenarios)
}

/// Where metrics are served unless told otherwise.
const METRICS: &str = "127.0.0.1:9464";

fn bound_at_eth1(world: &World) -> Container {
    let bridge = world.bridge("plain0", 28);
    world.masquerade(&bridge);
    let blue = world.container("blue", &bridge, 10);
    world.leaves_by(&blue.netns, Nic::Eth1).expect_err("it is not bound");
    world.bind(&Binding::of(&blue.netns).to(world, Nic::Eth1));
    blue
}

fn bound(world: &World, blue: &Container) {
    world.leaves_by(&blue.netns, Nic::Eth1).unwrap_or_else(|error| panic!("{error}"));
}

fn problems(world: &World) -> String {
    world.status()["problems"].to_string()
}

fn lines(egressd: &Egressd, part: &str) -> usize {
    egressd.log().lines().filter(|line| line.contains(part)).count()
}

fn a_second_daemon_ends() {
    let world = World::builder().build();
    let blue = bound_at_eth1(&world);
    let egressd = world.egressd_alone();
    bound(&world, &blue);
    let (before, changes) = (world.state(), world.metric("egressd_kernel_changes_total"));
    let other = ["--state-dir", "/run/other-egressd"];
    for command in [&["run", "--no-docker", "--no-metrics"][..], &["cleanup"]] {
        let refused = world.egressctl(&[command, &other].concat()).expect_err("the first one runs");
        assert!(refused.contains("another egressd runs in this network namespace"), "{refused}");
        assert!(refused.contains(&format!("process {}", egressd.pid())), "{refused}");
        assert!(!refused.contains("its own --state-dir"), "{refused}");
    }
    thread::sleep(Duration::from_millis(300));
    before.assert_same(&world.state(), "the first one's work is not disturbed");
    assert_eq!(world.metric("egressd_kernel_changes_total"), changes, "{}", egressd.log());
    assert_eq!(world.metric("egressd_drift_total"), 0, "{}", egressd.log());
    bound(&world, &blue);
    drop(egressd);
    world.egressctl(&[&["cleanup"][..], &other].concat()).expect("the first one has ended");
}

fn a_taken_port() {
    let world = World::builder().build();
    let blue = bound_at_eth1(&world);
    let taken = world.enter(|| TcpListener::bind(METRICS)).expect("nobody has it");
    let egressd = world.egressd_started(&["--no-docker", "--manifests", &manifests().to_string_lossy()]);
    until("it runs", || world.egressctl(&["status"]).map(drop));
    world.await_nic("netns/blue", Nic::Eth1);
    bound(&world, &blue);
    assert!(problems(&world).contains(METRICS), "{}", problems(&world));
    drop(taken);
    let served = || world.fetch("/readyz").map(drop).map_err(|error| error.to_string());
    until_within(Duration::from_secs(15), Duration::from_millis(100), "metrics are served", served);
    until("it is no problem any more", || if problems(&world).contains(METRICS) { Err(problems(&world)) } else { Ok(()) });
    assert_eq!(lines(&egressd, "failed to listen"), 1, "{}", egressd.log());
}

fn no_file_descriptors() {
    let world = World::builder().build();
    let blue = bound_at_eth1(&world);
    let egressd = world.egressd_alone();
    let process = egressd.pid();
    let open = fs::read_dir(format!("/proc/{process}/fd")).expect("it runs").count();
    command::run(&["prlimit", "--pid", &process.to_string(), &format!("--nofile={}:", open + 4)]);
    let silent: Vec<_> = (0..40).map(|_| UnixStream::connect(SOCKET).expect("they queue")).collect();
    until("it says so", || if lines(&egressd, "failed to accept a client") > 0 { Ok(()) } else { Err(egressd.log()) });
    drop(silent);
    until("clients are answered again", || world.egressctl(&["status"]).map(drop));
    assert_eq!(lines(&egressd, "failed to accept a client"), 1, "{}", egressd.log());
    bound(&world, &blue);
}

fn a_step_that_never_works() {
    let world = World::builder().build();
    bound_at_eth1(&world);
    // A file that says 0, and that the kernel lets nobody write.
    let settings = "/run/settings/net/ipv4";
    fs::create_dir_all(settings).expect("/run is ours");
    let forward = format!("{settings}/ip_forward");
    std::os::unix::fs::symlink("/sys/class/net/lo/link_mode", &forward).expect("/run is ours");
    let egressd = world.egressd_started(&["--no-docker", "--manifests", &manifests().to_string_lossy(), "--sysctl-root", "/run/settings"]);
    until("it runs", || world.egressctl(&["status"]).map(drop));
    until("the step is a problem", || if problems(&world).contains("ip_forward") { Ok(()) } else { Err(problems(&world)) });
    let from = Instant::now();
    thread::sleep(Duration::from_secs(9));
    let tried = world.metric("egressd_failed_steps_total");
    assert!((3..=8).contains(&tried), "{tried} tries in {:?}\n{}", from.elapsed(), egressd.log());
    assert_eq!(lines(&egressd, "step failed"), 1, "{}", egressd.log());
    assert_eq!(lines(&egressd, "changes=0"), 0, "{}", egressd.log());
    fs::remove_file(&forward).and_then(|()| fs::write(&forward, "0\n")).expect("/run is ours");
    until_within(Duration::from_secs(20), Duration::from_millis(100), "it works", || {
        let is_set = fs::read_to_string(&forward).expect("it is there").trim() == "1";
        if problems(&world).contains("ip_forward") || !is_set { Err(egressd.log()) } else { Ok(()) }
    });
    assert_eq!(lines(&egressd, "succeeded after failures"), 1, "{}", egressd.log());
}

fn a_nat_chain_ahead() {
    let world = World::builder().build();
    bound_at_eth1(&world);
    let _egressd = world.egressd_alone();
    let ahead = || problems(&world).contains("NAT chain inet early postrouting");
    assert!(!ahead());
    world.host.nft("table inet early { chain postrouting { type nat hook postrouting priority 50; oifname eth1 masquerade; }; }");
    until("it is told", || if ahead() { Ok(()) } else { Err(problems(&world)) });
    world.host.run(&["nft", "delete", "table", "inet", "early"]);
    until("it is gone", || if ahead() { Err(problems(&world)) } else { Ok(()) });
}

fn transitions() {
    let world = World::builder().build();
    bound_at_eth1(&world);
    let egressd = world.egressd_alone();
    let families = world.servers().len();
    let told = |word: &str, parts: &[&str]| {
        let log = egressd.log();
        let of =
            |line: &&str| line.contains(&format!(" {word}")) && line.contains("netns/blue") && parts.iter().all(|part| line.contains(part));
        log.lines().filter(of).count()
    };
    let awaited = |word: &str, parts: &[&str]| {
        until(word, || if told(word, parts) == families { Ok(()) } else { Err(egressd.log()) });
    };
    awaited("bound", &["eth1", "file/default/blue"]);
    // Otherwise the IPv6 address goes a moment after the link, which is a transition of its own.
    world.host.sysctl("ipv6/conf/eth1/keep_addr_on_down", "1");
    world.host.run(&["ip", "link", "set", "eth1", "down"]);
    awaited("dropped", &["reason=", "why="]);
    world.unbind("blue");
    awaited("freed", &["file/default/blue"]);
    thread::sleep(Duration::from_millis(200));
    assert_eq!(told("bound", &[]), families, "once each: {}", egressd.log());
}

fn metrics_tell() {
    let world = World::builder().ipv6(false).build();
    let blue = bound_at_eth1(&world);
    let _egressd = world.egressd_alone();
    let exit = format!("egressd_exit_flows{{exit=\"{}\",nic=\"eth1\"}}", world.layout.address(Nic::Eth1));
    assert_eq!(world.metric(&exit), 0, "nobody has sent anything yet");
    let _flows: Vec<Flow> = (0..3).map(|_| Flow::open(&blue.netns, (SERVER, PORT).into()).expect("it is bound")).collect();
    assert_eq!(world.metric(&exit), 3);
    assert_eq!(world.metric(&format!("egressd_build_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION"))), 1);
    assert_eq!(world.metric("egressd_bindings{accepted=\"true\"}"), 1);
    assert_eq!(world.metric("egressd_uplink_up{nic=\"eth1\"}"), 1);
    assert_eq!((world.metric("egressd_problems"), world.metric("egressd_failing_steps")), (0, 0));
    world.bind(&Binding::new("wrong", "networkNamespaces: [blue]").with("exits: [{address: nonsense}]"));
    world.host.run(&["ip", "link", "set", "eth1", "down"]);
    world.await_handled();
    assert_eq!(world.metric("egressd_bindings{accepted=\"false\"}"), 1);
    assert_eq!(world.metric("egressd_uplink_up{nic=\"eth1\"}"), 0);
}

fn a_service_manager() {
    let world = World::builder().build();
    let blue = bound_at_eth1(&world);
    let at = "/run/notify";
    let manager = std::os::unix::net::UnixDatagram::bind(at).expect("/run is ours");
    manager.set_read_timeout(Some(Duration::from_secs(5))).expect("a socket");
    let hear = || {
        let mut told = [0; 256];
        let length = manager.recv(&mut told).expect("it tells in time");
        String::from_utf8_lossy(&told[..length]).trim().to_owned()
    };
    let environment = [("NOTIFY_SOCKET", at), ("WATCHDOG_USEC", "400000")];
    let mut egressd = world.egressd_started_in(&["--no-docker", "--manifests", &manifests().to_string_lossy()], &environment);
    until("it says that it is ready", || if hear() == "READY=1" { Ok(()) } else { Err("not yet".to_owned()) });
    bound(&world, &blue);
    let from = Instant::now();
    (0..3).for_each(|_| assert_eq!(hear(), "WATCHDOG=1"));
    assert!(from.elapsed() < Duration::from_secs(2), "{:?}", from.elapsed());
    egressd.stop();
    until("it says that it stops", || if hear() == "STOPPING=1" { Ok(()) } else { Err("not yet".to_owned()) });
}
