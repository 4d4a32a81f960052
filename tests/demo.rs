//! `make demo`: two containers of a real Docker daemon, each with the public address of its own NIC, before and after egressd.
//!
//! It runs in namespaces of its own, ends by itself and leaves nothing behind; it is a test as well, and fails when the table
//! does not show what it should.

use std::{net::IpAddr, process::ExitCode, time::Duration};

use world::{
    Docker, Engine, Nic, Scenario, World,
    layout::{PORT, SERVER},
    s1::{self, ASK, CRAWLERS, Crawler},
};

fn main() -> ExitCode {
    let demo = Scenario::new("demo", demo).within(Duration::from_secs(60)).shown();
    world::harness::main(vec![demo])
}

/// What happened to a container's calls, out and in.
struct Calls {
    seen: Option<IpAddr>,
    nics: Vec<&'static str>,
    reached: bool,
}

fn demo() {
    let world = World::builder().ipv6(false).build();
    println!("\n\nA host with two NICs in one subnet, in a cloud that drops what does not come from a NIC's own address:");
    for nic in Nic::ALL {
        println!("  {}  {:<12}  public (elastic) address {}", nic.name(), world.layout.address(nic), nic.eip());
    }
    let docker = world.docker(Engine::Debian);
    println!("On it, {}, a bridge network and two containers:", version(&docker));
    s1::create_network(&world, &docker);
    for crawler in &CRAWLERS {
        println!("  docker run {} {}", crawler.options(&world).join(" "), crawler.name);
    }

    let before = calls_of_each(&world, &docker);
    remove_all(&docker);
    let _egressd = world.egressd_for_docker();
    let after = calls_of_each(&world, &docker);
    let status = world.egressctl(&["status"]).unwrap_or_else(|error| panic!("{error}"));
    remove_all(&docker);

    println!("\nEach calls a server on the internet ({SERVER}), and is called at its NIC's public address:\n");
    print_row(["", "container", "assigned", "server saw", "left by", "call from outside"]);
    for (when, all) in [("before", &before), ("after", &after)] {
        for (crawler, calls) in CRAWLERS.iter().zip(all) {
            print_row([
                when,
                crawler.name,
                &world.layout.address(crawler.nic).to_string(),
                &calls.seen.map_or("nothing".to_owned(), |seen| seen.to_string()),
                &calls.nics.join("+"),
                &format!("{}:{} {}", crawler.nic.eip(), crawler.port, if calls.reached { "answers" } else { "is silent" }),
            ]);
        }
    }
    println!("\n\"before\" is without egressd, \"after\" with it. egressd's own view:\n");
    println!("{status}");

    for (crawler, calls) in CRAWLERS.iter().zip(&after) {
        assert_eq!(calls.seen, Some(crawler.nic.eip().into()), "{} has its NIC's address", crawler.name);
        assert_eq!(calls.nics, [crawler.nic.name()], "{} leaves by its NIC alone", crawler.name);
        assert!(calls.reached, "{} is reached", crawler.name);
    }
    assert_ne!(before[1].seen, Some(Nic::Eth1.eip().into()), "without egressd all leave by eth0");
    assert!(!before[1].reached, "without egressd its answers leave by eth0");
}

fn calls_of_each(world: &World, docker: &Docker) -> [Calls; 2] {
    for crawler in CRAWLERS {
        crawler.run(world, docker);
    }
    CRAWLERS.map(|crawler| calls(world, docker, &crawler))
}

fn remove_all(docker: &Docker) {
    for crawler in CRAWLERS {
        docker.remove(crawler.name);
    }
}

/// Lets the container call and be called.
fn calls(world: &World, docker: &Docker, crawler: &Crawler) -> Calls {
    let (server, port) = (SERVER.to_string(), PORT.to_string());
    let call = ["exec", crawler.name, "nc", "-w", "3", &server, &port];
    let (answer, seen) = world.watch(|| docker.try_cli(&call));
    let page = world.get((crawler.nic.eip(), crawler.port).into(), ASK);
    Calls {
        seen: answer.ok().and_then(|answer| answer.split(' ').next()?.parse().ok()),
        nics: Nic::ALL.into_iter().filter(|nic| seen.by(*nic) > 0).map(Nic::name).collect(),
        reached: page.is_ok(),
    }
}

fn version(docker: &Docker) -> String {
    let version = docker.cli(&["version", "--format", "{{.Server.Version}}"]);
    format!("Docker {}", version.trim())
}

fn print_row(cells: [&str; 6]) {
    let [when, container, assigned, saw, by, call] = cells;
    println!("  {when:<7} {container:<10} {assigned:<12} {saw:<14} {by:<8} {call}");
}
