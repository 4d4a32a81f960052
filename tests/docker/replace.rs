//! Containers of a published port that are replaced one by one while clients call.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use world::{
    Binding, Docker, Engine, Nic, Scenario, World,
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
    let world = Arc::new(World::builder().build());
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
    let (over, answers) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
    let callers: Vec<_> = (0..2)
        .map(|_| {
            let (world, over, answers) = (Arc::clone(&world), Arc::clone(&over), Arc::clone(&answers));
            thread::spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    let answer = get(&world.internet, at, "/index.html").map_err(|error| error.to_string());
                    answers.lock().expect("no caller panics while it holds the lock").push(answer);
                }
            })
        })
        .collect();
    for number in 1..=3 {
        start(&docker, &format!("new-{number}"));
        await_healthy(&world, 4);
        docker.cli(&["stop", &format!("old-{number}")]);
        await_healthy(&world, 3);
    }
    over.store(true, Ordering::Relaxed);
    callers.into_iter().for_each(|caller| caller.join().expect("it calls to the end"));
    let answers = answers.lock().expect("they are done").clone();
    let lost: Vec<_> = answers.iter().filter_map(|answer| answer.as_ref().err()).collect();
    assert!(lost.is_empty(), "{} of {}: {lost:?}", lost.len(), answers.len());
    let mut names: Vec<_> = answers.iter().flatten().map(|name| name.trim()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names, ["new-1", "new-2", "new-3", "old-1", "old-2", "old-3"]);
}
