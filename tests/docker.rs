//! x
use world::*;
use world::layout::*;
fn main() -> std::process::ExitCode {
    let mut scenarios = Vec::new();
    for engine in Engine::ALL {
        scenarios.push(Scenario::new(format!("{engine:?}: smoke"), move || {
            let t = std::time::Instant::now();
            let world = World::builder().build();
            println!("world {:?}", t.elapsed());
            let docker = world.docker(engine);
            println!("docker {:?}", t.elapsed());
            docker.cli(&["network", "create", "--subnet", "172.19.0.0/16", "--ipv6", "--subnet", "fd72:19::/64", "-o", "com.docker.network.bridge.name=eip_bridge", "eip_bridge"]);
            docker.run("crawler-1", &["--network", "eip_bridge", "--ip", "172.19.0.100", "-p", "172.31.0.8:8090:8080"]);
            println!("run {:?}", t.elapsed());
            let ns = docker.netns("crawler-1");
            println!("{:?}", world::talk::ask_tcp(&ns, (SERVER, PORT).into()));
            println!("{:?}", world::talk::ask_tcp(&ns, (SERVER6, PORT).into()));
            println!("{:?}", world.get((Nic::Eth0.eip(), 8090).into(), "/cgi-bin/ask?198.51.100.10+8000"));
            println!("{} {:?}", world.seen(), world.foreign());
            println!("{:?}", t.elapsed());
            println!("{}", world::command::run(&["ip","route"]));
        }).shown());
    }
    world::harness::main(scenarios)
}
