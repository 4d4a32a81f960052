//! `egressd exec`.

use std::{fs, path::Path, process::Command};

use world::{Binding, FOLDER, Nic, Programs, World, egressd, layout::SERVER, programs::Program, service::Service, status::until};

use crate::lab::{assert_leaves_by, await_state, binding, leaves_by, servers};

fn through<'a>(programs: &'a Programs, how: &[&str]) -> Program<'a> {
    let program = egressd::program().to_string_lossy().into_owned();
    programs.program().through(&[&[&program as &str, "exec"], how, &["--"]].concat())
}

/// How it ended, and what it said of that.
fn ended(arguments: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(egressd::program()).arg("exec").args(arguments).output().expect("it can be run");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout))
}

pub fn by_a_binding_and_as_an_address() {
    let world = World::builder().ipv6(false).build();
    let programs = Programs::new();
    // Whoever else a binding is for.
    world.bind(&Binding::new("crawler", "networkNamespaces: [blue]").to(&world, Nic::Eth1));
    let mut daemon = world.egressd_alone();
    let address = world.layout.address(Nic::Eth1).to_string();
    let ways = [vec!["--binding", "default/crawler"], vec!["--binding", "crawler"], vec!["--ip", &address]];
    leaves_by(&world, &programs.program(), Nic::Eth1).expect_err("it is not bound");
    for how in &ways {
        let program = through(&programs, how);
        assert_leaves_by(&world, &program, Nic::Eth1);
        let ((), seen) = world.watch(|| (0..10).for_each(|_| program.shout(SERVER.into())));
        assert!(seen.by(Nic::Eth1) >= 20 && seen.by(Nic::Eth0) == 0, "from the first packet: {seen}");
    }
    assert!(programs.exists("/egressd/default_crawler") && programs.exists(&format!("/egressd/{address}")));
    await_state(&world, "cgroup/egressd/default_crawler", "Bound");
    let mut flow = through(&programs, &ways[0]).flow(servers(&world)[0]);
    daemon.kill();
    assert_eq!(flow.ask().map(|seen| seen.ip()), Ok(Nic::Eth1.eip().into()), "what it started goes on");
    daemon.start();
    world.await_handled();
    assert_eq!(flow.ask().map(|seen| seen.ip()), Ok(Nic::Eth1.eip().into()));
    // The exit status and the output are the program's own.
    assert_eq!(ended(&["--ip", &address, "--", "sh", "-c", "echo out; exit 7"]), (Some(7), "out\n".to_owned()));
    assert_eq!(ended(&["--ip", &address, "--", "sh", "-c", "kill -TERM $$"]).0, None, "a signal ends it");
    // As another user, with that one's groups.
    let own = Command::new("id").args(["-G", "nobody"]).output().expect("it can be run");
    let own = format!("nobody\n{}", String::from_utf8_lossy(&own.stdout));
    for more in [&[][..], &["--namespace"]] {
        let arguments = [&["--ip", &address, "--user", "nobody"], more, &["--", "sh", "-c", "id -un; id -G"]].concat();
        assert_eq!(ended(&arguments), (Some(0), own.clone()));
    }
    let (code, said) = ended(&["--ip", &address, "--user", "who", "--", "true"]);
    assert!(code == Some(125) && said.contains("there is no user who"), "{code:?} {said}");
    drop(flow);
    daemon.stop();
    // Programs make groups in theirs.
    programs.make("/egressd/default_crawler/own/deeper");
    world.cleanup();
    assert!(!programs.exists("/egressd"), "cleanup leaves no group behind");
}

pub fn refused() {
    let world = World::builder().ipv6(false).build();
    let _programs = Programs::new();
    world.bind(&Binding::new("wrong", "networkNamespaces: [blue]").with("exits: [{address: 172.31.0.299}]"));
    let mut daemon = world.egressd_alone();
    let address = world.layout.address(Nic::Eth1).to_string();
    let starts = ["--", "sh", "-c", "echo started"];
    let refused = |how: &[&str], why: &str| {
        let (code, said) = ended(&[how, &starts].concat());
        assert!(code == Some(125) && said.contains(why) && said.contains("nothing was started"), "{code:?} {said}");
    };
    refused(&["--binding", "shop/none"], "no file has a binding shop/none");
    refused(&["--binding", "wrong"], "is invalid");
    refused(&["--binding", "default/../../elsewhere"], "not a binding's name");
    refused(&["--binding", &format!("shop/{}", "x".repeat(253))], "is too long for a control group");
    refused(&["--namespace", "--binding", &format!("shop/{}", "x".repeat(253))], "too long together");
    world.host.sysctl("ipv6/conf/default/disable_ipv6", "1");
    refused(&["--namespace", "--ip", "2001:db8::1"], "net.ipv6.conf.default.disable_ipv6=0");
    refused(&["--ip", "172.31.9.9"], "no interface holds 172.31.9.9");
    for (wrong, why) in
        [("0.0.0.0", "unspecified"), ("::ffff:172.31.0.14", "write `172.31.0.14`"), ("fe80::1", "link-local"), ("eth1", "IP address")]
    {
        let (code, said) = ended(&[&["--ip", wrong], &starts as &[&str]].concat());
        assert!(code == Some(2) && said.contains(why), "{code:?} {said}");
    }
    let user = ["setpriv", "--reuid=4242", "--clear-groups"];
    let output = Command::new(user[0]).args(&user[1..]).arg(egressd::program()).args(["exec", "--ip", &address, "--", "true"]).output();
    let output = output.expect("it can be run");
    assert!(output.status.code() == Some(125) && String::from_utf8_lossy(&output.stderr).contains("are you root?"), "{output:?}");
    let elsewhere = world::Netns::add("elsewhere");
    let output = Command::new("ip")
        .args(["netns", "exec", elsewhere.name()])
        .arg(egressd::program())
        .args(["exec", "--ip", &address, "--", "true"])
        .output();
    let output = output.expect("it can be run");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.code() == Some(125) && said.contains("another network namespace"),
        "its rules would hold nobody there: {output:?}"
    );
    assert_eq!(ended(&["--ip", &address, "--", "/no/such/program"]).0, Some(127));
    assert_eq!(ended(&["--ip", &address, "--", "/etc/passwd"]).0, Some(126));
    assert_eq!(ended(&["--", "true"]).0, Some(2), "by what is not said");
    daemon.kill();
    refused(&["--ip", &address], "failed to reach egressd");
}

pub fn options_of_a_file() {
    let world = World::builder().ipv6(false).build();
    let programs = Programs::new();
    let state = Path::new(FOLDER).join("elsewhere");
    let file = Path::new(FOLDER).join("config.yaml");
    fs::write(&file, format!("state-dir: {}\n", state.display())).expect("/run is ours");
    let mut command = Command::new(egressd::program());
    command.args(["run", "--no-docker", "--no-metrics", "--config"]).arg(&file);
    let _daemon = Service::start("elsewhere", command);
    until("its socket is there", || if state.join("egressd.sock").exists() { Ok(()) } else { Err("none".to_owned()) });
    let (address, file) = (world.layout.address(Nic::Eth1).to_string(), file.to_string_lossy().into_owned());
    let echo = |arguments: &[&str]| ended(&[arguments, &["echo", "its", "own"]].concat());
    assert_eq!(echo(&["--config", &file, "--ip", &address, "--"]), (Some(0), "its own\n".to_owned()));
    assert_eq!(echo(&["--config", &file, "--ip", &address]), (Some(0), "its own\n".to_owned()));
    assert_eq!(echo(&["--ip", &address, "--"]).0, Some(125), "without the file the daemon is not found");
    assert_leaves_by(&world, &through(&programs, &["--config", &file, "--ip", &address]), Nic::Eth1);
}

pub fn many_addresses() {
    let world = World::builder().ipv6(false).build();
    let programs = Programs::new();
    let _egressd = world.egressd_alone();
    let addresses: Vec<String> = (1..=40).map(|last| format!("172.31.9.{last}")).collect();
    world.host.ip(&addresses.iter().map(|address| format!("addr add {address}/32 dev eth1\n")).collect::<String>());
    world.await_handled();
    let kept =
        programs.program().through(&["sh", "-c", "exec \"$0\" exec --ip 172.31.9.1 -- \"$@\"", &egressd::program().to_string_lossy()]);
    let _running = kept.serve("127.0.0.1:8090".parse().expect("an address"));
    for address in &addresses[1..] {
        assert_eq!(ended(&["--ip", address, "--", "true"]), (Some(0), String::new()), "{address}");
    }
    let there = addresses.iter().filter(|address| programs.exists(&format!("/egressd/{address}"))).count();
    assert!(there <= 34, "{there} control groups are left");
    assert!(programs.exists("/egressd/172.31.9.1"), "a program is in it");
    await_state(&world, "cgroup/egressd/172.31.9.1", "Bound");
}

pub fn ahead_of_other_bindings() {
    let world = World::builder().build();
    let programs = Programs::new();
    world.bind(&Binding::new("crawler", "networkNamespaces: [blue]").to(&world, Nic::Eth1));
    // Whoever these are for, a program that was started by an exit leaves by that.
    world.bind(&binding(&world, "nobody", "users: [nobody]", Nic::Eth0).with("priority: 9"));
    let six = format!("exits: [{{address: '{}'}}]", world.layout.address6(Nic::Eth0));
    world.bind(&Binding::new("all", "hostSelector: {cgroups: [/egressd]}").with(&six).with("priority: 9"));
    let _egressd = world.egressd_alone();
    let address = world.layout.address(Nic::Eth1).to_string();
    let nobody = programs.program().user(65534);
    await_state(&world, "user/nobody", "Bound");
    assert_leaves_by(&world, &nobody, Nic::Eth0);
    let as_nobody = ["setpriv", "--reuid=65534", "--clear-groups", "--inh-caps=+sys_admin", "--ambient-caps=+sys_admin"];
    assert_leaves_by(&world, &through(&programs, &["--binding", "crawler"]).through(&as_nobody), Nic::Eth1);
    // An address is an exit of its own family alone: in the other one nothing leaves.
    let by_address = through(&programs, &["--ip", &address]).through(&as_nobody);
    for server in servers(&world) {
        match by_address.udp(server) {
            Ok(seen) => assert_eq!(seen.ip(), world.layout.public(Nic::Eth1, server.ip()), "{server}"),
            Err(error) => assert!(server.is_ipv6(), "{server}: {error}"),
        }
    }
    let ((), seen) = world.watch(|| servers(&world).iter().for_each(|server| by_address.shout(server.ip())));
    assert!(seen.by(Nic::Eth1) >= 2 && seen.by(Nic::Eth0) == 0, "{seen}");
}

pub fn a_rate() {
    let world = World::builder().ipv6(false).build();
    let _programs = Programs::new();
    world.bind(&Binding::new("slow", "networkNamespaces: [blue]").to(&world, Nic::Eth1).with("rate: 8Mbit"));
    let _egressd = world.egressd_alone();
    let (code, said) = ended(&["--binding", "slow", "--", "true"]);
    assert!(code == Some(125) && said.contains("has a rate limit (8Mbit)") && said.contains("add --namespace"), "{code:?} {said}");
    assert_eq!(ended(&["--binding", "slow", "--namespace", "--", "true"]), (Some(0), String::new()));
}
