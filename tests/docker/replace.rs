//! Containers of a published port that are replaced one by one while clients call.

use std::net::SocketAddr;

use world::{
    Binding, Docker, Engine, Nic, Scenario, World,
    callers::Callers,
    docker::{IMAGE, WEB_PORT},
    s1,
    status::until,
    talk::get,
};

/// The port that is called.
const CALLED: u16 = 8090;
/// Serves its own name. Told to stop, it is not ready any more, and serves on for a second.
const SERVER: &str = "hostname >/www/index.html; echo ready >/www/ready; httpd -f -p 8080 -h /www &
    trap 'rm /www/ready; sleep 1; kill $!; exit 0' TERM; wait";

pub fn scenarios() -> Vec<Scenario> {
    vec![Scenario::new("Debian: all containers of a published port are replaced under load, and no call is lost", replaced)]
}

fn start(docker: &Docker, name: &str) {
    let options = ["run", "-d", "--name", name, "--hostname", name, "--network", s1::NETWORK, "--label=app=web"];
    docker.cli(&[options.as_slice(), &[IMAGE, "sh", "-c", SERVER]].concat());
}

/// Each by both of its addresses.
fn await_healthy(world: &World, count: usize) {
    until(&format!("{count} containers serve"), || {
        let services = world.status()["services"].to_string();
        if services.matches("\"Healthy\"").count() == 2 * count { Ok(()) } else { Err(services) }
    });
}

fn replaced() {
    let world = World::builder().build();
    let docker = world.docker(Engine::Debian);
    s1::create_network(&world, &docker);
    let at: SocketAddr = (world.layout.eip(Nic::Eth1), CALLED).into();
    // A machine that stands still for a moment answers no question: nobody is refused for that.
    let health = "health: {http: {path: /ready}, intervalMilliseconds: 100}, allDown: KeepAll";
    let entry = format!("inbound: [{{protocol: TCP, port: {CALLED}, targetPort: {WEB_PORT}, {health}}}]");
    world.bind(&Binding::new("web", "containerSelector: {matchLabels: {app: web}}").to(&world, Nic::Eth1).with(&entry));
    ["old-1", "old-2", "old-3"].iter().for_each(|name| start(&docker, name));
    get(&world.internet, at, "/index.html").expect_err("nobody serves it without egressd");
    let _egressd = world.egressd_for_docker();
    world.forget_neighbours();
    await_healthy(&world, 3);
    let internet = world.internet.clone();
    let callers = Callers::start(2, move || get(&internet, at, "/index.html"));
    for number in 1..=3 {
        start(&docker, &format!("new-{number}"));
        await_healthy(&world, 4);
        docker.cli(&["stop", &format!("old-{number}")]);
        await_healthy(&world, 3);
    }
    let mut names: Vec<String> = callers.end().iter().map(|name| name.trim().to_owned()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names, ["new-1", "new-2", "new-3", "old-1", "old-2", "old-3"]);
}
