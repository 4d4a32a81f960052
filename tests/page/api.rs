//! The API and the headers, without a browser.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use serde_json::{Value, json};
use world::{
    Binding, Container, Nic, World,
    layout::{PORT, SERVER, SERVER6},
    status::{until, until_within},
    talk::Flow,
};

use crate::{
    http::{ADDRESS, Answer, Events, connect, egressd, get, request},
    schema::misfits,
};

/// Two workloads, of which `blue` is bound to eth1 and `neighbour` is not.
pub fn stage(world: &World) -> [Container; 2] {
    let bridge = world.bridge("plain0", 28);
    world.masquerade(&bridge);
    let both = [world.container("blue", &bridge, 10), world.container("neighbour", &bridge, 11)];
    world.bind(&Binding::of(&both[0].netns).to(world, Nic::Eth1));
    both
}

pub fn off_by_default() {
    let world = World::builder().build();
    let without = world.egressd_alone();
    connect(&world).expect_err("nobody asked for it");
    drop(without);
    for address in ["0.0.0.0:9467", "[::]:9467", "172.31.0.8:9467", "9467"] {
        let refused = world.egressctl(&["run", "--no-docker", "--ui-address", address]).expect_err("it is no loopback address");
        assert!(refused.contains("--ui-address") && refused.contains("127.0.0.1:9467"), "{refused}");
    }
    let _egressd = egressd(&world);
    assert_eq!(get(&world, "/").status, 200);
    let elsewhere: SocketAddr = format!("{}:9467", world.layout.address(Nic::Eth0)).parse().expect("an address");
    world.get(elsewhere, "/").expect_err("it is for this host alone");
}

pub fn strict() {
    let world = World::builder().build();
    let _egressd = egressd(&world);
    let page = get(&world, "/");
    assert_eq!((page.status, page.header("content-type")), (200, "text/html; charset=utf-8"), "{}", page.head);
    let policy = page.header("content-security-policy");
    for part in ["default-src 'none'", "script-src 'sha256-", "style-src 'sha256-", "connect-src 'self'", "frame-ancestors 'none'"] {
        assert!(policy.contains(part), "{policy}");
    }
    assert!(!policy.contains("unsafe"), "{policy}");
    // Nothing of it is anywhere else.
    for outside in ["http:", "https:", "//www", " src=", "@import", "url("] {
        assert!(!page.body.contains(outside), "{outside}");
    }
    for path in ["/", "/api/v1/status", "/api/v1/nothing"] {
        let answer = get(&world, path);
        assert_eq!(answer.header("access-control-allow-origin"), "", "{}", answer.head);
        assert_eq!(answer.header("cache-control"), "no-store", "{}", answer.head);
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{}", answer.head);
        let foreign = ask(&world, &format!("GET {path} HTTP/1.1\r\nHost: egressd.example:9467"));
        assert_eq!(foreign.status, 421, "a name that an attacker's DNS may move here: {}", foreign.head);
        assert!(!foreign.body.contains("workloads"), "{}", foreign.body);
        assert_eq!(ask(&world, &format!("GET {path} HTTP/1.0")).status, 421, "no name at all");
    }
    assert_eq!(ask(&world, "GET /api/v1/status HTTP/1.1\r\nHost: localhost:1").status, 200, "as by ssh -L");
    for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
        let answer = ask(&world, &format!("{method} /api/v1/status HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0"));
        assert_eq!(answer.status, 405, "{method}: {}", answer.head);
    }
    let wrong = [
        ("/api/v1/nothing", 404, "/api/v1/openapi.json"),
        ("/api/v1/explain", 400, "from"),
        ("/api/v1/explain?from=nobody", 404, "nobody"),
        ("/api/v1/explain?from=nobody&to=example", 400, "egressd explain nobody example"),
        ("/api/v1/explain?from=a&to=127.0.0.1&by=b", 400, "by"),
        ("/api/v1/flows?workload=nobody", 404, "nobody"),
        ("/api/v1/flows?exit=127.0.0.1", 400, "exit"),
    ];
    for (path, status, part) in wrong {
        let answer = get(&world, path);
        assert_eq!(answer.status, status, "{path}: {}", answer.body);
        assert!(answer.json()["error"].as_str().is_some_and(|error| error.contains(part)), "{path}: {}", answer.body);
    }
}

fn ask(world: &World, head: &str) -> Answer {
    request(world, head).unwrap_or_else(|error| panic!("{head}: {error}"))
}

pub fn as_the_commands() {
    let world = World::builder().build();
    let [blue, _] = stage(&world);
    let _egressd = egressd(&world);
    world.await_nic("netns/blue", Nic::Eth1);
    assert_eq!(get(&world, "/api/v1/status").json(), world.status());
    let row = &world.status()["workloads"][0];
    assert!(row["since"].as_str().is_some_and(|since| since.starts_with("20") && since.ends_with('Z')), "{row}");
    for to in [SERVER.to_string(), SERVER6.to_string()] {
        let printed = world.egressctl(&["explain", "netns/blue", &to]).expect("it is known");
        let answer = get(&world, &format!("/api/v1/explain?from=netns%2Fblue&to={to}")).json();
        assert_eq!(answer["text"], printed);
    }
    let document = get(&world, "/api/v1/openapi.json").json();
    let committed = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/api.json");
    let committed: Value =
        serde_json::from_str(&std::fs::read_to_string(committed).expect("it is in the tree")).expect("the document is JSON");
    assert_eq!(document, committed);
    blue.ask_tcp((SERVER, PORT)).expect("it leaves");
    for (path, query) in [("status", ""), ("flows", "?workload=netns/blue"), ("changes", ""), ("explain", "?from=netns/blue")] {
        let answer = get(&world, &format!("/api/v1/{path}{query}")).json();
        let schema = &document["paths"][format!("/api/v1/{path}")]["get"]["responses"]["200"]["content"]["application/json"]["schema"];
        assert_eq!(misfits(&document, schema, &answer, path), Vec::<String>::new());
        let (wrong, emptied) = (json!({ "nonsense": 1 }), json!([]));
        assert!(!misfits(&document, schema, &wrong, path).is_empty() && !misfits(&document, schema, &emptied, path).is_empty(), "{path}");
    }
    let table = world.egressctl(&["status"]).expect("it answers");
    assert!(table.lines().next().is_some_and(|header| header.contains("SINCE")), "{table}");
    let yaml = world.egressctl(&["status", "-o", "yaml"]).expect("it answers");
    assert!(yaml.contains("workload: netns/blue"), "{yaml}");

    let [eth0, eth1] = Nic::ALL.map(|nic| world.layout.address(nic));
    let exit = |nic| format!("{{address: {}, gateway: {}}}", world.layout.address(nic), world.layout.gateway(nic));
    let both = format!("exits: [{}, {}]", exit(Nic::Eth0), exit(Nic::Eth1));
    world.bind(&Binding::of(&blue.netns).with(&both).with("spread: RoundRobin").with("whenUnavailable: Fallback"));
    let spread = |row: &Value| row["spread"] == "RoundRobin" && row["exits"] == json!([eth0, eth1]);
    until("its flows are spread", || {
        let status = get(&world, "/api/v1/status").json();
        let is_spread = status["workloads"].as_array().is_some_and(|rows| rows.iter().any(spread));
        if is_spread { Ok(()) } else { Err(format!("{status:#}")) }
    });
    let status = |form: &str| world.egressctl(&["status", "-o", form]).expect("it answers");
    assert!(status("table").contains(&format!("{eth0} +1 ")), "{}", status("table"));
    assert!(status("wide").contains(&format!("{eth0},{eth1} (RoundRobin)")), "{}", status("wide"));
}

pub fn changes() {
    let world = World::builder().build();
    stage(&world);
    let mut egressd = egressd(&world);
    world.await_nic("netns/blue", Nic::Eth1);
    let mut events = Events::listen(&world);
    let first = events.next("status")["number"].as_u64().expect("a number");
    events.next("flows");
    world.unbind("blue");
    let second = events.next("status")["number"].as_u64().expect("a number");
    assert!(second > first, "{second} is news after {first}");
    assert_eq!(get(&world, "/api/v1/status").json()["workloads"], world.status()["workloads"]);
    let told = changed(&world);
    let of_v4 = |to: &str| told.iter().filter(|one| one["to"] == to && one["address"].as_str().is_some_and(|at| !at.contains(':'))).count();
    assert_eq!((of_v4("Bound"), of_v4("Freed")), (1, 1), "{told:#?}");
    let last = told.last().expect("there are some");
    assert_eq!((&last["workload"], &last["from"], &last["binding"]), (&"netns/blue".into(), &"Bound".into(), &"file/default/blue".into()));
    // An exit that is not there: dropped, with the reason.
    world.bind(&Binding::new("blue", "networkNamespaces: [blue]").with("exits: [{address: 172.31.0.99}]"));
    world.await_state("netns/blue", "Dropped");
    let told = changed(&world);
    let last = told.last().expect("there are some");
    assert!(last["to"] == "Dropped" && last["reason"].is_string() && last["message"].is_string(), "{last:#}");

    egressd.kill();
    egressd.start();
    until("it is served again", || connect(&world).map(drop).map_err(|error| error.to_string()));
    world.await_state("netns/blue", "Dropped");
    let told = changed(&world);
    assert!(told.iter().all(|one| one["to"] == "Dropped" && one.get("from").is_none()), "what it found: {told:#?}");
    assert_eq!(Events::listen(&world).next("status")["number"], 1);
}

fn changed(world: &World) -> Vec<Value> {
    get(world, "/api/v1/changes").json()["changes"].as_array().expect("a list").clone()
}

pub fn flows() {
    let world = World::builder().build();
    let [blue, neighbour] = stage(&world);
    world.netns().sysctl("netfilter/nf_conntrack_acct", "1");
    let _egressd = egressd(&world);
    world.await_nic("netns/blue", Nic::Eth1);
    let servers: [IpAddr; 2] = [SERVER.into(), SERVER6.into()];
    let open: Vec<Flow> = servers.iter().map(|&to| Flow::open(&blue.netns, SocketAddr::new(to, PORT)).expect("it leaves")).collect();
    blue.ask_udp((SERVER, PORT)).expect("it leaves");
    let _unbound = Flow::open(&neighbour.netns, SocketAddr::new(SERVER.into(), PORT)).expect("it is masqueraded");

    let listed = get(&world, "/api/v1/flows?workload=netns/blue").json();
    let flows = listed["flows"].as_array().expect("a list");
    for (&to, flow) in servers.iter().zip(&open) {
        let exit = world.layout.private(Nic::Eth1, to).to_string();
        let own = if to.is_ipv4() { blue.address.to_string() } else { blue.address6.to_string() };
        let is_it = |listed: &&Value| listed["protocol"] == "tcp" && listed["destination"] == to.to_string();
        let found = flows.iter().find(is_it).unwrap_or_else(|| panic!("{listed:#}"));
        assert_eq!(
            (&found["workload"], &found["direction"], &found["state"]),
            (&"netns/blue".into(), &"Out".into(), &"ESTABLISHED".into())
        );
        assert_eq!((&found["exit"], &found["nic"]), (&exit.clone().into(), &"eth1".into()), "{found:#}");
        assert_eq!((&found["source"], &found["destinationPort"]), (&own.into(), &PORT.into()), "{found:#}");
        assert!(flow.seen.ip().to_string() != "", "the flow is kept open");
        let of_exit = |one: &&Value| one["exit"] == exit;
        let exit = listed["exits"].as_array().and_then(|exits| exits.iter().find(of_exit)).unwrap_or_else(|| panic!("{listed:#}"));
        assert!(exit["flows"].as_u64().is_some_and(|count| count >= 1) && exit["nic"] == "eth1", "{exit:#}");
    }
    assert!(flows.iter().any(|flow| flow["protocol"] == "udp" && flow["exit"] == "172.31.0.14"), "{listed:#}");
    assert!(flows.iter().all(|flow| flow["workload"] == "netns/blue"), "the neighbour's are not: {listed:#}");

    let table = world.egressctl(&["flows", "netns/blue"]).expect("it answers");
    assert!(table.contains("ESTABLISHED") && table.contains("172.31.0.14") && !table.contains("172.31.0.8"), "{table}");
    let refused = world.egressctl(&["flows", "nobody"]).expect_err("there is none");
    assert!(refused.contains("nobody") && refused.contains("egressd status"), "{refused}");

    let top = format!("timeout 5 {} top || true", world::egressd::program().display());
    let top = world.netns().run(&["sh", "-c", &top]);
    let line = top.lines().find(|line| line.starts_with("172.31.0.14")).unwrap_or_else(|| panic!("{top}"));
    assert!(top.starts_with("EXIT") && line.contains("eth1") && !line.contains(" - "), "it has a rate: {top}");
    let exits = get(&world, "/api/v1/flows").json();
    let rated = |exit: &Value| exit["newPerSecond"].is_number() && exit["bytesPerSecond"].is_number();
    assert!(exits["exits"].as_array().is_some_and(|all| all.iter().any(rated)), "the kernel counts bytes: {exits:#}");

    for flow in open {
        flow.close().expect("it is open");
    }
    until("no flow is established any more", || {
        let left = get(&world, "/api/v1/flows?workload=netns/blue").json();
        let listed = left["flows"].as_array().into_iter().flatten();
        if listed.clone().any(|flow| flow["state"] == "ESTABLISHED") { Err(format!("{left:#}")) } else { Ok(()) }
    });
}

/// More than the server takes at once.
const MANY: usize = 70;

pub fn silent_clients() {
    let world = World::builder().build();
    let [blue, _] = stage(&world);
    let _egressd = egressd(&world);
    world.await_nic("netns/blue", Nic::Eth1);
    let silent: Vec<_> = (0..MANY).map(|_| connect(&world).expect("the kernel takes them")).collect();
    world.unbind("blue");
    until("the loop works all the same", || {
        let status = world.status();
        if status["workloads"].as_array().is_some_and(Vec::is_empty) { Ok(()) } else { Err(format!("{status:#}")) }
    });
    // They are hung up on one after another, and who comes behind them is answered.
    until_within(Duration::from_secs(60), Duration::from_millis(200), "another one is answered", || {
        let answer = request(&world, &format!("GET /api/v1/status HTTP/1.0\r\nHost: {ADDRESS}")).map_err(|error| error.to_string())?;
        if answer.status == 200 { Ok(()) } else { Err(answer.head) }
    });
    drop((silent, blue));
}
