//! `egressd proxy` in containers that a manifest selects.

use std::{fs, io, path::Path, process::Command};

use serde_json::Value;
use world::{
    Docker, FOLDER, Netns, Scenario, World,
    docker::{SOCKET, WEB_PORT},
    egressd::program,
    service::Service,
    talk::get,
};

use crate::support::{ANY, await_some};

/// Where the proxy listens in each container.
const PORT: u16 = 8000;

pub fn scenarios() -> Vec<Scenario> {
    vec![Scenario::new("the proxy listens in containers that a manifest selects, in each of their runs anew", in_containers)]
}

/// What a program in the container gets from the proxy.
fn ask(docker: &Docker, name: &str) -> io::Result<String> {
    get(&docker.netns(name), ([127, 0, 0, 1], PORT).into(), "/")
}

fn status() -> Value {
    let text = get(&Netns::host(), ([127, 0, 0, 1], 9466).into(), "/status").unwrap_or_default();
    serde_json::from_str(&text).unwrap_or_default()
}

fn in_containers() {
    let world = World::builder().ipv6(false).build();
    let docker = world.docker(ANY);
    let folder = Path::new(FOLDER).join("proxies");
    fs::create_dir_all(&folder).expect("/run is ours");
    let text = format!(
        "apiVersion: egressd.dev/v1alpha1\nkind: EgressProxy\nmetadata: {{name: web}}\n\
         spec: {{listen: {{containerSelector: {{matchLabels: {{tier: web}}}}, address: 127.0.0.1, port: {PORT}}},\n\
         dial: {{address: 127.0.0.1, port: {WEB_PORT}}}}}\n"
    );
    fs::write(folder.join("web.yaml"), text).expect("/run is ours");
    let label = "--label=tier=web";
    docker.run("early", &[label]);
    // Its server is the host's.
    let mut server = Command::new("busybox");
    server.args(["httpd", "-f", "-p", &format!("127.0.0.1:{WEB_PORT}"), "-h", FOLDER]);
    fs::write(Path::new(FOLDER).join("index.html"), "hello").expect("/run is ours");
    let _server = Service::start("server", server);
    ask(&docker, "early").expect_err("nobody listens yet");
    let mut command = Command::new(program());
    command.args(["proxy", "--docker-socket", SOCKET, "--manifests"]).arg(&folder);
    let _proxy = Service::start("proxy", command);
    let listens = |name: &str| await_some(&format!("{name} is served"), || ask(&docker, name).ok());
    listens("early");
    docker.run("other", &[]);
    docker.run("late", &[label]);
    docker.run("alone", &[label, "--network=none"]);
    docker.run("hosts", &[label, "--network=host"]);
    listens("late");
    listens("alone");
    ask(&docker, "other").expect_err("it is not selected");
    let named = |name: &str| {
        let ports = status()["ports"].as_array().cloned().unwrap_or_default();
        ports.into_iter().find(|port| port["networkNamespace"] == format!("container {name}"))
    };
    assert!(named("hosts").is_none(), "the host's network is no container's");
    // Each run has a namespace of its own, and the last one's is let go.
    let sandbox = |name: &str| docker.cli(&["inspect", "-f", "{{.NetworkSettings.SandboxKey}}", name]).trim().to_owned();
    let before = sandbox("late");
    docker.cli(&["restart", "-t", "0", "late"]);
    assert_ne!(sandbox("late"), before);
    listens("late");
    docker.remove("early");
    docker.run("early", &[label]);
    listens("early");
    docker.remove("alone");
    await_some("it is forgotten", || named("alone").is_none().then_some(()));
    let problems = status()["problems"].clone();
    assert_eq!(problems, serde_json::json!([]));
}
