//! What comes and goes: namespaces, manifests, the process itself.

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpListener},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use world::{
    Netns, command, count,
    status::{until, until_within},
};

use crate::support::{
    PATIENCE, Proxy, SERVER, alive, ask, at, await_listening, await_port, connect, echo, fetch, folder, hello, inside, manifest, port,
    server, status,
};

const LISTEN: &str = "address: 0.0.0.0, port: 8000";
const DIAL: &str = "address: 127.0.0.1, port: 80";

/// A namespace that nothing of ours holds, with a link into it.
fn add(number: usize) -> String {
    let name = format!("n{number}");
    command::run(&["ip", "netns", "add", &name]);
    link(number);
    name
}

/// A link into a namespace, which goes with it.
fn link(number: usize) {
    command::run(&["ip", "link", "add", &format!("v{number}"), "type", "veth", "peer", "name", "eth0", "netns", &format!("n{number}")]);
}

/// Links into namespaces that are still there.
fn links() -> usize {
    let folder = fs::read_dir("/sys/class/net").expect("it is mounted");
    folder.flatten().filter(|link| link.file_name().to_string_lossy().starts_with('v')).count()
}

pub fn come_and_go() {
    let many = count(500, 2_000);
    server(&Netns::host(), SERVER, echo);
    let names: Vec<String> = (0..many).map(|number| format!("n{number}")).collect();
    manifest("many", &format!("networkNamespaces: [{}], {LISTEN}", names.join(", ")), DIAL, "");
    manifest("udp", &format!("networkNamespaces: [{}], protocol: UDP, {LISTEN}", names.join(", ")), DIAL, "");
    let proxy = Proxy::start();
    await_listening(0);
    let before = proxy.descriptors();
    let mut delays = Vec::new();
    for number in 0..many {
        let name = format!("n{number}");
        command::run(&["ip", "netns", "add", &name]);
        if number % 50 == 0 {
            let began = Instant::now();
            let netns = Netns::open(format!("/run/netns/{name}"), &name);
            until_within(PATIENCE, Duration::from_millis(1), "somebody listens in it", || {
                let sockets = netns.enter(|| fs::read_to_string("/proc/thread-self/net/tcp")).expect("procfs is mounted");
                if sockets.contains(":1F40") { Ok(()) } else { Err(sockets) }
            });
            delays.push(began.elapsed());
        }
        link(number);
        if number % 50 != 0 {
            continue;
        }
        let netns = inside(&name);
        let mut stream = connect(&netns, at("127.0.0.1:8000")).expect("it is served");
        assert!(alive(&mut stream), "{name}");
        // Open when the namespace goes: the client's end is the test's, in the namespace, and has to go first.
        drop((stream, netns));
    }
    println!("from the end of `ip netns add` until its port is open: {delays:?}");
    await_listening(2 * many);
    println!("{} ports, {} threads, {} kB", 2 * many, proxy.number("Threads"), proxy.number("VmRSS"));
    assert_eq!(links(), many);
    for name in &names {
        command::run(&["ip", "netns", "del", name]);
    }
    await_listening(0);
    await_no_links();
    until("no file is left open", || {
        let now = proxy.descriptors();
        if now <= before { Ok(()) } else { Err(format!("{now} are open, {before} were")) }
    });
}

pub fn open_connections_do_not_hold_a_namespace() {
    server(&Netns::host(), SERVER, echo);
    server(&Netns::host(), at("127.0.0.1:81"), |mut stream| {
        // Never reads, and has more to say than the buffers take.
        let _ = stream.write_all(&vec![0; 64 << 20]);
        thread::sleep(Duration::from_secs(60));
        Ok(())
    });
    let [listened, dialled] = [add(0), add(1)];
    let (near, far) = (inside(&listened), inside(&dialled));
    server_once(&far, at("127.0.0.1:82"));
    manifest("in", &format!("networkNamespaces: [{listened}], {LISTEN}"), DIAL, "");
    manifest("full", &format!("networkNamespaces: [{listened}], address: 127.0.0.1, port: 8001"), "address: 127.0.0.1, port: 81", "");
    manifest(
        "out",
        "networkNamespaces: [''], address: 127.0.0.1, port: 8002",
        &format!("networkNamespace: {dialled}, address: 127.0.0.1, port: 82"),
        "",
    );
    let proxy = Proxy::start();
    await_listening(3);
    let before = proxy.descriptors();
    let mut echoed = connect(&near, at("127.0.0.1:8000")).expect("it is served");
    let stuck = connect(&near, at("127.0.0.1:8001")).expect("it is served");
    let mut through = connect(&Netns::host(), at("127.0.0.1:8002")).expect("it is served");
    assert!(alive(&mut echoed) && alive(&mut through));
    assert_eq!(port("host", "127.0.0.1:8002")["open"], 1);
    for name in [&listened, &dialled] {
        command::run(&["ip", "netns", "del", name]);
    }
    assert!(through.read(&mut [0]).is_err(), "what was dialled from the namespace is reset");
    assert!(echoed.read(&mut [0]).is_err(), "what was accepted in it is reset");
    until("all of their sockets are closed", || {
        let now = proxy.descriptors();
        // Two of three ports were in the namespace.
        if now + 2 <= before { Ok(()) } else { Err(format!("{now} of {before}")) }
    });
    assert_eq!(port(&listened, "0.0.0.0:8000")["state"], "Waiting");
    // Reset: before connect() returns, or after.
    connect(&Netns::host(), at("127.0.0.1:8002")).and_then(|mut stream| stream.read(&mut [0])).expect_err("there is nowhere to dial from");
    assert_eq!(port("host", "127.0.0.1:8002")["state"], "Listening");
    drop((echoed, stuck, near, far));
    await_no_links();
    // The name comes again, with another namespace.
    command::run(&["ip", "netns", "add", &listened]);
    let renewed = inside(&listened);
    until("it is served again", || ask_alive(&renewed));
}

/// A server that takes one connection, sends back what it gets, and is gone with it.
fn server_once(netns: &Netns, at: SocketAddr) {
    let listener = netns.enter(|| TcpListener::bind(at)).expect("it is free");
    thread::spawn(move || {
        let (stream, _) = listener.accept().expect("somebody calls");
        drop(listener);
        echo(stream)
    });
}

fn await_no_links() {
    until_within(Duration::from_secs(60), Duration::from_millis(100), "the namespaces are gone", || {
        let left = links();
        if left == 0 { Ok(()) } else { Err(format!("{left} are left")) }
    });
}

fn ask_alive(netns: &Netns) -> Result<(), String> {
    let mut stream = connect(netns, at("127.0.0.1:8000")).map_err(|error| error.to_string())?;
    if alive(&mut stream) { Ok(()) } else { Err("no answer".to_owned()) }
}

pub fn a_process() {
    server(&Netns::host(), SERVER, echo);
    let mut inside = Command::new("unshare").args(["--net", "sleep", "60"]).spawn().expect("util-linux is installed");
    let path = format!("/proc/{}/ns/net", inside.id());
    let own = fs::read_link("/proc/self/ns/net").expect("procfs is mounted");
    until("it is in a namespace of its own", || {
        if fs::read_link(&path).is_ok_and(|now| now != own) { Ok(()) } else { Err("not yet".to_owned()) }
    });
    manifest("web", &format!("networkNamespaces: [{path}], {LISTEN}"), DIAL, "");
    let proxy = Proxy::start();
    await_listening(1);
    let before = proxy.descriptors();
    let netns = Netns::of_process(inside.id(), "process");
    netns.ip("link set lo up");
    let mut stream = connect(&netns, at("127.0.0.1:8000")).expect("it is served");
    assert!(alive(&mut stream));
    inside.kill().and_then(|()| inside.wait()).expect("it is a child of ours");
    await_listening(0);
    stream.read(&mut [0]).expect_err("it went with its process");
    until("its sockets are closed", || {
        let now = proxy.descriptors();
        if now < before { Ok(()) } else { Err(format!("{now} of {before}")) }
    });
}

pub fn a_folder_of_names_that_comes_later() {
    server(&Netns::host(), SERVER, echo);
    fs::remove_dir("/run/netns").expect("it is empty");
    manifest("web", &format!("networkNamespaces: [ns1], {LISTEN}"), DIAL, "");
    let _proxy = Proxy::start();
    assert_eq!(port("ns1", "0.0.0.0:8000")["state"], "Waiting");
    let ns1 = Netns::add("ns1");
    await_listening(1);
    until("it is served", || ask_alive(&ns1));
}

pub fn manifests_change() {
    let (host, ns1, ns2) = (Netns::host(), Netns::add("ns1"), Netns::add("ns2"));
    server(&host, SERVER, echo);
    server(&host, at("127.0.0.1:81"), hello);
    manifest("web", &format!("networkNamespaces: [ns1], {LISTEN}"), DIAL, "");
    let mut proxy = Proxy::start();
    await_listening(1);
    let mut open = connect(&ns1, at("127.0.0.1:8000")).expect("it is served");
    assert!(alive(&mut open));
    // Another server for new connections, and another namespace.
    manifest("web", &format!("networkNamespaces: [ns1, ns2], {LISTEN}"), "address: 127.0.0.1, port: 81", "");
    await_listening(2);
    assert_eq!(ask(&ns1, at("127.0.0.1:8000")).expect("it is served"), "hello");
    assert_eq!(ask(&ns2, at("127.0.0.1:8000")).expect("it is served"), "hello");
    assert!(alive(&mut open), "it goes on with its server");
    // A slip changes nothing.
    manifest("web", &format!("networkNamespaces: [ns1, ns2], {LISTEN}"), "address: 127.0.0.1, port: 0", "");
    until("the slip is named", || {
        let problems = status()["problems"].to_string();
        let named = ["EgressProxy default/web", "spec.dial.port", "stays in force"].iter().all(|part| problems.contains(part));
        if named { Ok(()) } else { Err(problems) }
    });
    assert_eq!(ask(&ns1, at("127.0.0.1:8000")).expect("it is served"), "hello");
    fs::remove_file(folder().join("web.yaml")).expect("it was written");
    until("nobody listens", || if connect(&ns1, at("127.0.0.1:8000")).is_err() { Ok(()) } else { Err("somebody listens".to_owned()) });
    assert!(alive(&mut open), "it goes on until it ends");
    manifest("web", &format!("networkNamespaces: [ns1], {LISTEN}"), DIAL, "");
    await_listening(1);
    // Killed: nothing of it is left in the way of the next one.
    proxy.service.kill();
    assert!(!alive(&mut open));
    let _proxy = Proxy::start();
    await_listening(1);
    until("it is served", || ask_alive(&ns1));
}

pub fn handed_over() {
    let (host, ns1) = (Netns::host(), Netns::add("ns1"));
    server(&host, SERVER, echo);
    manifest("web", &format!("networkNamespaces: [ns1], {LISTEN}"), DIAL, "");
    let mut old = Proxy::start();
    await_listening(1);
    let mut open = connect(&ns1, at("127.0.0.1:8000")).expect("it is served");
    assert!(alive(&mut open));
    let mut new = Proxy::start_by(&[], &["--metrics-address", "127.0.0.1:9467"]);
    until_within(PATIENCE, Duration::from_millis(20), "the new one listens, too", || {
        if new.service.log().matches("listening").count() > 1 { Ok(()) } else { Err(new.service.log()) }
    });
    thread::scope(|scope| {
        let ended = scope.spawn(|| old.service.terminate(PATIENCE));
        let calls = (0..200).filter(|_| ask_alive(&ns1).is_ok()).count();
        assert_eq!(calls, 200, "none is refused");
        assert!(alive(&mut open), "the old one keeps what it has");
        drop(open);
        assert!(ended.join().expect("it does not panic").success());
    });
    new.service.kill();
    ask_alive(&ns1).expect_err("both have ended");
}

pub fn ends_in_time() {
    server(&Netns::host(), SERVER, echo);
    let (stays, goes) = (Netns::add("ns1"), inside(&add(0)));
    manifest("web", &format!("networkNamespaces: [ns1, n0], {LISTEN}"), DIAL, "");
    let mut proxy = Proxy::start_by(&[], &["--drain-seconds", "3"]);
    await_listening(2);
    let mut open = connect(&stays, at("127.0.0.1:8000")).expect("it is served");
    let mut lost = connect(&goes, at("127.0.0.1:8000")).expect("it is served");
    assert!(alive(&mut open) && alive(&mut lost));
    thread::scope(|scope| {
        let ended = scope.spawn(|| proxy.service.terminate(PATIENCE));
        until(
            "nobody listens",
            || {
                if connect(&stays, at("127.0.0.1:8000")).is_err() { Ok(()) } else { Err("somebody listens".to_owned()) }
            },
        );
        assert!(fetch("/readyz").is_err(), "it is to get no more");
        assert!(alive(&mut open), "what is open goes on");
        command::run(&["ip", "netns", "del", "n0"]);
        lost.read(&mut [0]).expect_err("a namespace may go meanwhile");
        assert!(alive(&mut open), "what is open goes on");
        assert!(ended.join().expect("it does not panic").success());
    });
    assert!(!alive(&mut open), "but not for ever");
}

pub fn two_names() {
    let host = Netns::host();
    server(&host, SERVER, hello);
    server(&host, at("127.0.0.1:81"), |mut stream| stream.write_all(b"other"));
    command::run(&["ip", "netns", "add", "blue"]);
    std::os::unix::fs::symlink("/run/netns/blue", "/run/netns/alias").expect("/run is ours");
    std::os::unix::fs::symlink("/proc/self/ns/net", "/run/netns/self").expect("/run is ours");
    std::os::unix::fs::symlink("/proc/self/ns/uts", "/run/netns/uts").expect("/run is ours");
    let blue = inside("blue");
    manifest("first", &format!("networkNamespaces: ['', alias], {LISTEN}"), DIAL, "");
    let _proxy = Proxy::start();
    await_listening(2);
    manifest("second", &format!("networkNamespaces: [blue, self, uts], {LISTEN}"), "address: 127.0.0.1, port: 81", "");
    until("the second one is read", || {
        let status = status();
        if status["ports"].as_array().is_some_and(|ports| ports.len() == 5) { Ok(()) } else { Err(status.to_string()) }
    });
    for (name, why) in [
        ("blue", "is also alias, where EgressProxy default/first"),
        ("self", "is also host, where EgressProxy default/first"),
        ("uts", "a namespace of another kind"),
    ] {
        await_port(name, "0.0.0.0:8000", "refused", |port| {
            port["state"] == "Failing" && port["reason"].as_str().is_some_and(|reason| reason.contains(why))
        });
    }
    for _ in 0..20 {
        for netns in [&host, &blue] {
            assert_eq!(ask(netns, at("127.0.0.1:8000")).expect("it is served"), "hello");
        }
    }
    fs::remove_file(folder().join("first.yaml")).expect("it was written");
    until_within(Duration::from_secs(15), Duration::from_millis(20), "the other one has it", || match ask(&blue, at("127.0.0.1:8000")) {
        Ok(word) if word == "other" => Ok(()),
        other => Err(format!("{other:?}")),
    });
}
