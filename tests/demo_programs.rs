//! `make demo-programs`: one program of the host, unchanged and in no container, started twice: each leaves by an exit of its own.
//!
//! It runs in namespaces and a control group of its own, ends by itself and leaves nothing behind; it is a test as well, and fails when the table
//! does not show what it should.

use std::{net::IpAddr, process::ExitCode, time::Duration};

use world::{
    Binding, Nic, Programs, Scenario, World,
    egressd::program,
    layout::{PORT, SERVER},
    programs::Program,
};

/// A group for each start, with its exit.
const STARTS: [(&str, Nic); 2] = [("/jobs/first", Nic::Eth0), ("/jobs/second", Nic::Eth1)];

fn main() -> ExitCode {
    let demo = Scenario::new("demo-programs", demo).within(Duration::from_secs(60)).shown();
    world::harness::main(vec![demo])
}

/// Whom the server saw, and by which NICs packets left.
type Call = (Option<IpAddr>, Vec<&'static str>);

fn demo() {
    let world = World::builder().ipv6(false).build();
    let programs = Programs::new();
    println!("\n\nA host with two NICs, in a cloud that drops what does not come from a NIC's own address:");
    for nic in Nic::ALL {
        println!("  {}  {:<12}  public (elastic) address {}", nic.name(), world.layout.address(nic), nic.eip());
    }
    println!("\nA file gives two control groups an exit each:\n");
    let bindings = STARTS.map(|(group, nic)| {
        let (_, name) = group.rsplit_once('/').expect("it is a path");
        programs.make(group);
        Binding::new(name, &format!("hostSelector: {{cgroups: [{group}]}}"))
            .with(&format!("exits: [{{address: {}}}]", world.layout.address(nic)))
    });
    println!("{}", bindings.each_ref().map(Binding::text).join("---\n"));

    let before = STARTS.map(|(group, _)| call(&world, &programs.within(group)));
    bindings.iter().for_each(|binding| world.bind(binding));
    let _egressd = world.egressd_alone();
    let after = STARTS.map(|(group, _)| call(&world, &programs.within(group)));
    let address = world.layout.address(Nic::Eth1).to_string();
    let egressd = program().to_string_lossy().into_owned();
    let started = call(&world, &programs.program().through(&[&egressd, "exec", "--ip", &address, "--"]));
    let status = world.egressctl(&["status"]).unwrap_or_else(|error| panic!("{error}"));

    println!("The same program, {}, is started in each:\n", asks().join(" "));
    println!("  {:<7} {:<34} {:<14} left by", "", "started", "server saw");
    let rows = |when: &'static str, calls: &[Call; 2]| {
        STARTS.iter().zip(calls.clone()).map(|((group, _), call)| (when, format!("in {group}"), call)).collect::<Vec<_>>()
    };
    let by_command = ("after", format!("by egressd exec --ip {address}"), started.clone());
    for (when, how, (seen, nics)) in [rows("before", &before), rows("after", &after), vec![by_command]].concat() {
        println!("  {when:<7} {how:<34} {:<14} {}", seen.map_or("nothing".to_owned(), |seen| seen.to_string()), nics.join("+"));
    }
    println!("\n\"before\" is without egressd, \"after\" with it. egressd's own view:\n\n{status}");

    let by = |nic: Nic| (Some(IpAddr::from(nic.eip())), vec![nic.name()]);
    assert_eq!(before, [by(Nic::Eth0), by(Nic::Eth0)], "without egressd both leave by the default route");
    assert_eq!(after, STARTS.map(|(_, nic)| by(nic)), "each by its exit");
    assert_eq!(started, by(Nic::Eth1), "by the command");
}

/// A program of Debian that prints what a server answers, which is whom it sees.
fn asks() -> [String; 6] {
    ["busybox", "nc", "-w", "3", &SERVER.to_string(), &PORT.to_string()].map(str::to_owned)
}

fn call(world: &World, program: &Program<'_>) -> Call {
    let asks = asks();
    let (answer, seen) = world.watch(|| program.instead(&asks.each_ref().map(String::as_str)));
    let answer = answer.ok().and_then(|answer| answer.split(' ').next()?.parse().ok());
    (answer, Nic::ALL.into_iter().filter(|nic| seen.by(*nic) > 0).map(Nic::name).collect())
}
