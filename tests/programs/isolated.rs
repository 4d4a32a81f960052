//! `egressd exec --namespace`.

use std::{fs, io::Write, os::unix::fs::PermissionsExt, path::Path, process::Command, time::Duration};

use world::{
    Binding, FOLDER, Nic, Programs, World, command::run, egressd, layout::SERVER, programs::Program, service::Service, status::until,
};

use crate::lab::{assert_leaves_by, leaves_by, servers};

/// Links to programs that are on the host just now.
pub fn links() -> usize {
    fs::read_dir("/sys/class/net")
        .map_or(0, |all| all.flatten().filter(|link| link.file_name().to_string_lossy().starts_with("egx")).count())
}

pub fn through<'a>(programs: &'a Programs, how: &[&str]) -> Program<'a> {
    let program = egressd::program().to_string_lossy().into_owned();
    programs.program().through(&[&[&program as &str, "exec", "--namespace"], how, &["--"]].concat())
}

fn ended(arguments: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(egressd::program()).args(["exec", "--namespace"]).args(arguments).output().expect("it can be run");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout))
}

/// Starts a server in a namespace, and waits until it is called.
fn served(world: &World, how: &[&str], nic: Nic, port: u16) -> Service {
    let mut server = Command::new(egressd::program());
    server.args(["exec", "--namespace"]).args(how).args(["--", "busybox", "httpd", "-f", "-p", &port.to_string(), "-h", FOLDER]);
    fs::write(Path::new(FOLDER).join("index.html"), "hello").expect("/run is ours");
    let service = Service::start("served", server);
    until("it is reached", || world.get((nic.eip(), 8090).into(), "/index.html").map(drop).map_err(|error| error.to_string()));
    service
}

pub fn out_and_in() {
    let world = World::builder().build();
    let programs = Programs::new();
    world.bind(&Binding::new("crawler", "networkNamespaces: [blue]").to(&world, Nic::Eth1));
    let mut daemon = world.egressd_alone();
    let address = world.layout.address(Nic::Eth1).to_string();
    leaves_by(&world, &programs.program(), Nic::Eth1).expect_err("it is not bound");
    let by_binding = through(&programs, &["--binding", "crawler"]);
    assert_leaves_by(&world, &by_binding, Nic::Eth1);
    let ((), seen) = world.watch(|| (0..10).for_each(|_| by_binding.shout(SERVER.into())));
    assert!(seen.by(Nic::Eth1) >= 20 && seen.by(Nic::Eth0) == 0, "from the first packet: {seen}");
    world.get((Nic::Eth1.eip(), 8090).into(), "/index.html").expect_err("nobody serves it");
    let mut service = served(&world, &["--publish", "8090:80", "--ip", &address], Nic::Eth1, 80);
    world.get((Nic::Eth0.eip(), 8090).into(), "/index.html").expect_err("by its exit alone");
    // What runs goes on without the daemon, and under the next one.
    let mut flow = by_binding.flow(servers(&world)[0]);
    daemon.kill();
    world.get((Nic::Eth1.eip(), 8090).into(), "/index.html").unwrap_or_else(|error| panic!("the daemon is dead: {error}"));
    daemon.start();
    world.await_handled();
    world.get((Nic::Eth1.eip(), 8090).into(), "/index.html").unwrap_or_else(|error| panic!("the next daemon: {error}"));
    assert_eq!(flow.ask().map(|seen| seen.ip()), Ok(Nic::Eth1.eip().into()));
    drop(flow);
    // Killed, it leaves nothing.
    service.kill();
    until("its link is gone", || if links() == 0 { Ok(()) } else { Err(links().to_string()) });
    until("its port is closed", || match world.get((Nic::Eth1.eip(), 8090).into(), "/index.html") {
        Ok(_) => Err("it is served".to_owned()),
        Err(_) => Ok(()),
    });
    let told = || world.status()["workloads"].to_string();
    until("it is forgotten", || if told().contains("exec/egx") { Err(told()) } else { Ok(()) });
}

pub fn blocked_with_its_exit() {
    let world = World::builder().ipv6(false).build();
    let programs = Programs::new();
    world.bind(&Binding::new("crawler", "networkNamespaces: [blue]").to(&world, Nic::Eth1));
    let _daemon = world.egressd_alone();
    let program = through(&programs, &["--binding", "crawler"]);
    let mut flow = program.flow(servers(&world)[0]);
    assert_eq!(flow.ask().map(|seen| seen.ip()), Ok(Nic::Eth1.eip().into()));
    world.unbind("crawler");
    world.await_handled();
    let ((), seen) = world.watch(|| drop(flow.ask()));
    assert_eq!(seen.by(Nic::Eth0), 0, "its binding is gone, and what is open keeps its way or has none: {seen}");
    let (code, said) = ended(&["--binding", "crawler", "--", "true"]);
    assert!(code == Some(125) && said.contains("no file has a binding default/crawler"), "{code:?} {said}");
}

pub fn by_turn() {
    let world = World::builder().ipv6(false).build();
    let programs = Programs::new();
    let exits = [Nic::Eth0, Nic::Eth1].map(|nic| world.layout.address(nic));
    let spread = Binding::new("crawler", "networkNamespaces: [blue]").with("spread: RoundRobin");
    world.bind(&spread.with(&format!("exits: [{{address: {}}}, {{address: {}}}]", exits[0], exits[1])));
    let _egressd = world.egressd_alone();
    let program = through(&programs, &["--binding", "crawler"]);
    // Each has a namespace of its own, and lives for one flow; the turn goes on, though nobody has it in between.
    let ((), seen) = world.watch(|| {
        for _ in 0..4 {
            program.udp(servers(&world)[0]).expect("it has a way out");
            until("its link is gone", || if links() == 0 { Ok(()) } else { Err(links().to_string()) });
            world.await_handled();
        }
    });
    let counts = [Nic::Eth0, Nic::Eth1].map(|nic| seen.count(nic, world.layout.address(nic).into()));
    assert!(counts[0] == counts[1] && counts[0] > 0, "half each: {seen}");
}

/// What is tried from within a namespace: with addresses that it gives itself, and with all that it has.
fn pings(world: &World, from: &str) -> String {
    let servers: Vec<String> = servers(world).iter().map(|server| server.ip().to_string()).collect();
    let servers = servers.join(" ");
    format!("for a in {from}; do for to in {servers}; do case $a$to in *.*:* | *:*.*) ;; *) ping -n -c1 -W1 -I $a $to ;; esac; done; done")
}

pub fn never_masqueraded() {
    let world = World::builder().build();
    let _programs = Programs::new();
    let lan = world.lan();
    for sysctl in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
        world.host.sysctl(sysctl, "1");
    }
    for filter in ["all", "default"] {
        world.host.sysctl(&format!("ipv4/conf/{filter}/rp_filter"), "0");
    }
    // As a careless firewall has it.
    for (iptables, nic) in ["iptables", "ip6tables"].into_iter().flat_map(|iptables| [(iptables, "eth0"), (iptables, "eth1")]) {
        world.host.run(&[iptables, "-t", "nat", "-I", "POSTROUTING", "-o", nic, "-j", "MASQUERADE"]);
    }
    world.bind(&Binding::new("crawler", "networkNamespaces: [blue]").to(&world, Nic::Eth1));
    let mut daemon = world.egressd_alone();
    world.leaves_by(&lan.netns, Nic::Eth0).expect("others are masqueraded");
    let said = FOLDER.to_owned() + "/go";
    run(&["mkfifo", &said]);
    let script = format!("while read -r line; do eval \"$line\"; echo done >{said}.done; done <{said}");
    let mut command = Command::new(egressd::program());
    command.args(["exec", "--namespace", "--binding", "crawler", "--", "sh", "-c", &script]);
    run(&["mkfifo", &format!("{said}.done")]);
    let _program = Service::start("program", command);
    let mut go = fs::OpenOptions::new().write(true).open(&said).expect("it is read");
    let taken = pings(&world, "10.77.0.9 fd77::9");
    let all = pings(&world, "$(ip -o addr show dev eth0 scope global | sed 's,.*inet6* \\([^/]*\\)/.*,\\1,')");
    let take = "ip addr add 10.77.0.9/32 dev eth0; ip -6 addr add fd77::9/128 dev eth0 nodad";
    let mut acts = |when: &str, act: &str| {
        let ((), seen) = world.watch(|| {
            writeln!(go, "{act}").expect("the program reads it");
            fs::read_to_string(format!("{said}.done")).expect("the program writes it");
        });
        assert!(seen.is_empty(), "{when}: {seen}");
    };
    acts("with addresses that nobody gave it", &format!("{take}; {taken}"));
    daemon.kill();
    acts("and the daemon dead", &taken);
    daemon.start();
    world.await_handled();
    world.unbind("crawler");
    world.await_handled();
    acts("its binding is gone", &all);
    daemon.kill();
    acts("its binding is gone, and the daemon dead", &all);
    world.leaves_by(&lan.netns, Nic::Eth0).expect("others are masqueraded all the time");
    world.cleanup();
    assert_eq!(links(), 0, "cleanup takes its link away");
    acts("egressd is gone", &all);
}

pub fn refused_and_named() {
    let world = World::builder().ipv6(false).build();
    let _programs = Programs::new();
    let _daemon = world.egressd_alone();
    let address = world.layout.address(Nic::Eth1).to_string();
    let by = |more: &[&str], program: &[&str]| ended(&[&["--ip", &address], more, &["--"], program].concat());
    assert_eq!(by(&[], &["sh", "-c", "echo out; exit 7"]), (Some(7), "out\n".to_owned()));
    assert_eq!(by(&[], &["sh", "-c", "kill -TERM $$"]).0, None, "a signal ends it");
    assert_eq!(by(&[], &["/no/such/program"]).0, Some(127));
    let (code, said) = by(&["--subnet", "10.9.0.0/30"], &["ip", "-4", "-o", "addr", "show", "dev", "eth0"]);
    assert!(code == Some(0) && said.contains("10.9.0.2/30"), "{said}");
    let (code, said) = by(&["--subnet", "172.31.0.0/30"], &["true"]);
    assert!(code == Some(125) && said.contains("is in use") && said.contains("nothing was started"), "{code:?} {said}");
    let (code, said) = by(&["--subnet", "10.9.0.0/24"], &["true"]);
    assert!(code == Some(125) && said.contains("length 30 or 31"), "{code:?} {said}");
    for (wrong, why) in [("8090/icmp", "`tcp`, `udp`"), ("x", "not a published port")] {
        let (code, said) = by(&["--publish", wrong], &["true"]);
        assert!(code == Some(2) && said.contains(why), "{code:?} {said}");
    }
    let before = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    if Path::new("/etc/resolv.conf").exists() {
        let (code, said) = by(&["--dns", "192.0.2.53"], &["cat", "/etc/resolv.conf"]);
        assert!(code == Some(0) && said.starts_with("nameserver 192.0.2.53\n"), "{said}");
        assert_eq!(fs::read_to_string("/etc/resolv.conf").unwrap_or_default(), before, "the host keeps its own");
    }
    until("no link is left", || if links() == 0 { Ok(()) } else { Err(links().to_string()) });
}

pub fn one_after_the_other() {
    let world = World::builder().ipv6(false).build();
    let _programs = Programs::new();
    let mut daemon = world.egressd_alone();
    let address = world.layout.address(Nic::Eth1).to_string();
    let how = ["--ip", &address, "--subnet", "10.9.0.0/31", "--publish", "8090:80"];
    // The kernel takes each namespace away a moment after its program has ended, however that ended.
    for round in 0..10 {
        for (program, code) in [("true", Some(0)), ("kill -9 $$", None)] {
            let (ended, said) = ended(&[&how[..], &["--", "sh", "-c", program]].concat());
            assert_eq!((ended, said.as_str()), (code, ""), "{round}: {program}");
        }
    }
    // Killed at any moment, it is in nobody's way.
    for pause in (0..60).step_by(4) {
        let mut killed = Command::new(egressd::program());
        killed.args(["exec", "--namespace"]).args(how).args(["--", "sleep", "60"]);
        let mut killed = killed.spawn().expect("it can be run");
        std::thread::sleep(Duration::from_millis(pause));
        killed.kill().and_then(|()| killed.wait()).expect("it is ours");
        assert_eq!(ended(&[&how[..], &["--", "true"]].concat()), (Some(0), String::new()), "after {pause} ms");
    }
    // Those that start at once have subnets of their own, and one of them the port.
    let start = |more: &[&str]| {
        let mut command = Command::new(egressd::program());
        command.args(["exec", "--namespace", "--ip", &address]).args(more).args(["--", "sh", "-c", "ip -4 -o addr show dev eth0; sleep 2"]);
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().expect("it can be run")
    };
    let all: Vec<_> = (0..8).map(|_| start(&[])).collect();
    let outputs = all.into_iter().map(|child| child.wait_with_output().expect("it ends"));
    let nets: Vec<String> = outputs.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).collect();
    let net = |text: &String| text.split_whitespace().nth(3).map(str::to_owned).unwrap_or_else(|| panic!("{nets:?}"));
    assert_eq!(nets.iter().map(net).collect::<std::collections::BTreeSet<_>>().len(), nets.len(), "{nets:?}");
    let pair: Vec<_> = (0..2).map(|_| start(&["--publish", "8090:80"])).collect();
    let codes: Vec<_> =
        pair.into_iter().map(|child| child.wait_with_output().expect("it ends")).map(|output| output.status.code()).collect();
    assert!(codes.contains(&Some(0)) && codes.contains(&Some(125)), "one of them has the port: {codes:?}");
    // Nobody else may open its lock.
    let lock = Path::new("/run/egressd/exec.lock");
    let mode = fs::metadata(lock).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "{mode:o}");
    // Another one that does not go on is named, and not waited for without end.
    fs::set_permissions(lock, fs::Permissions::from_mode(0o644)).expect("it is ours");
    let held = fs::File::open(lock).expect("it is there");
    held.lock().expect("nobody has it");
    let (code, said) = ended(&["--ip", &address, "--", "true"]);
    assert!(code == Some(125) && said.contains("holds") && said.contains("exec.lock"), "{code:?} {said}");
    daemon.kill();
}

pub fn name_servers() {
    let world = World::builder().ipv6(false).build();
    let _programs = Programs::new();
    let _daemon = world.egressd_alone();
    let address = world.layout.address(Nic::Eth1).to_string();
    let folder = Path::new(FOLDER);
    let (etc, stub) = (folder.join("etc"), folder.join("stub.conf"));
    // A folder of the scenario's own, where links may be made.
    fs::create_dir_all(&etc).expect("/run is ours");
    run(&["cp", "-a", "/etc/.", &etc.to_string_lossy()]);
    run(&["mount", "--bind", &etc.to_string_lossy(), "/etc"]);
    let place = Path::new("/etc/resolv.conf");
    let asked = |more: &[&str], script: &str| ended(&[&["--ip", &address], more, &["--", "sh", "-c", script]].concat());
    let set = |make: &dyn Fn()| {
        let _ = fs::remove_file(place);
        make();
    };
    let link = || std::os::unix::fs::symlink(&stub, place).expect("it is ours");
    let dns: &[&str] = &["--dns", "192.0.2.53"];
    let own = (Some(0), "nameserver 192.0.2.53\n".to_owned());
    set(&|| fs::write(place, "").expect("it is ours"));
    assert_eq!(asked(dns, "cat /etc/resolv.conf"), own);
    // As systemd-resolved has it, which puts a new file in the place of the old one at any time.
    fs::write(&stub, "nameserver 127.0.0.53\n").expect("it is ours");
    set(&link);
    let renewed = format!("mv {0}.new {0}; cat /etc/resolv.conf", stub.display());
    fs::write(folder.join("stub.conf.new"), "nameserver 127.0.0.53\n").expect("it is ours");
    assert_eq!(asked(dns, &renewed), own, "the stub's file is another by now");
    fs::remove_file(&stub).expect("it is ours");
    assert_eq!(asked(dns, "cat /etc/resolv.conf"), own, "what the link leads to is not there");
    set(&|| ());
    let (code, said) = asked(dns, "true");
    assert!(code == Some(125) && said.contains("`touch /etc/resolv.conf`"), "{code:?} {said}");
    // As an engine has it in a container.
    set(&|| fs::write(place, "").expect("it is ours"));
    let bound = folder.join("bound.conf");
    fs::write(&bound, "nameserver 127.0.0.11\n").expect("it is ours");
    run(&["mount", "--bind", &bound.to_string_lossy(), "/etc/resolv.conf"]);
    assert_eq!(asked(dns, "cat /etc/resolv.conf"), own);
    let (code, said) = asked(&[], "true");
    assert!(code == Some(125) && said.contains("give one with --dns"), "{code:?} {said}");
    assert_eq!(fs::read_to_string(place).unwrap_or_default(), "nameserver 127.0.0.11\n", "the host keeps its own");
}
