//! `egressd exec --namespace`.

use std::{fs, path::Path, process::Command};

use world::{Binding, FOLDER, Nic, Programs, World, egressd, layout::SERVER, programs::Program, service::Service, status::until};

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
    let ((), seen) = world.watch(|| drop(flow.ask()));
    assert_eq!(seen.by(Nic::Eth0), 0, "its binding is gone: it is blocked: {seen}");
    let (code, said) = ended(&["--binding", "crawler", "--", "true"]);
    assert!(code == Some(125) && said.contains("no file has a binding default/crawler"), "{code:?} {said}");
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
