//! Each symptom of docs/troubleshooting.md, made in a world of its own: egressd prints what the page shows.

use world::{Docker, Engine, Nic, Scenario, Subnets, World, s1, status::until};

use crate::page::Page;

const PAGE: &str = "troubleshooting.md";
/// The one section whose host is another one: each NIC in a subnet of its own.
const GATEWAY: &str = "The gateway is not known";

pub fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new("the troubleshooting page shows what egressd prints", the_page_shows_what_egressd_prints),
        Scenario::new("the troubleshooting page shows what egressd prints of a NIC without a gateway", a_gateway_that_is_not_known),
    ]
}

/// Runs a command line of the page: egressd's or Docker's. What it prints, or how it fails.
fn run(world: &World, docker: Option<&Docker>, line: &str) -> String {
    let (program, arguments) = line.split_once(' ').unwrap_or((line, ""));
    let arguments: Vec<_> = arguments.split(' ').collect();
    let ran = match (program, docker) {
        ("egressd", _) => world.egressctl(&arguments),
        ("docker", Some(docker)) => docker.try_cli(&arguments),
        _ => panic!("this scenario cannot run {line}"),
    };
    // A failure names the command and its status first.
    ran.unwrap_or_else(|error| error.split_once("): ").map_or(error.clone(), |(_, said)| said.to_owned()))
}

fn start(docker: &Docker, name: &str, address: &str, labels: &[&str]) {
    let mut options = vec![format!("--network={}", s1::NETWORK), format!("--ip={address}")];
    options.extend(labels.iter().map(|label| format!("--label={label}")));
    docker.run(name, &options.iter().map(String::as_str).collect::<Vec<_>>());
}

fn the_page_shows_what_egressd_prints() {
    let page = Page::read(PAGE);
    let world = World::builder().ipv6(false).build();
    page.shows("Commands fail: failed to reach egressd", |line| run(&world, None, line));

    let docker = world.docker(Engine::Debian);
    let run = |line: &str| run(&world, Some(&docker), line);
    s1::create_network(&world, &docker);
    let mut egressd = world.egressd_for_docker();
    page.does_not_show("Commands fail: failed to reach egressd", run);

    start(&docker, "web", "172.19.0.100", &[]);
    start(&docker, "crawler", "172.19.0.101", &["egress.ip=172.31.0.14"]);
    start(&docker, "slip", "172.19.0.103", &["egress.ip=172.31.0.14", "egress.gatway=172.31.0.1"]);
    docker.run("hosted", &["--network=host", "--label=egress.ip=172.31.0.14"]);
    page.shows("The container still leaves through the host's address", run);

    page.does_not_show("No route to host", run);
    start(&docker, "typo", "172.19.0.102", &["egress.ip=172.31.0.15"]);
    start(&docker, "wrong", "172.19.0.104", &["egress.ip=172.31.0.14/33"]);
    page.shows("No route to host", run);

    page.does_not_show("The NIC is down", run);
    world.host.run(&["ip", "link", "set", "eth1", "down"]);
    page.shows("The NIC is down", run);
    world.host.run(&["ip", "link", "set", "eth1", "up"]);

    page.does_not_show("Is another program in the way", run);
    world.host.run(&["ip", "rule", "add", "from", "172.19.0.101", "lookup", "main", "preference", "100"]);
    page.shows("Is another program in the way", run);
    world.host.run(&["ip", "rule", "del", "preference", "100"]);

    page.does_not_show("Connections time out", run);
    egressd.kill();
    start(&docker, "late", "172.19.0.110", &[]);
    world.leaves_by(&docker.netns("late"), Nic::Eth0).expect_err("the guard holds who came while the daemon was dead");
    egressd.start();
    world.leaves_by(&docker.netns("late"), Nic::Eth0).expect("the daemon knows it now");
    page.shows("Connections time out", run);
    page.assert_all_shown(|section| section != GATEWAY);
}

fn a_gateway_that_is_not_known() {
    let page = Page::read(PAGE);
    let world = World::builder().ipv6(false).subnets(Subnets::Two).build();
    let docker = world.docker(Engine::Debian);
    let run = |line: &str| run(&world, Some(&docker), line);
    s1::create_network(&world, &docker);
    let _egressd = world.egressd_for_docker();
    let label = format!("egress.ip={}", world.layout.address(Nic::Eth1));
    start(&docker, "crawler", "172.19.0.101", &[&label]);
    page.shows(GATEWAY, run);
    world.leaves_by(&docker.netns("crawler"), Nic::Eth1).expect_err("it is dropped");

    // The page's own cure.
    let gateway = world.layout.gateway(Nic::Eth1).to_string();
    world.host.run(&["ip", "route", "add", "default", "via", &gateway, "dev", "eth1", "metric", "200"]);
    until("the cure of the page helps", || world.leaves_by(&docker.netns("crawler"), Nic::Eth1));
    page.does_not_show(GATEWAY, run);
}
