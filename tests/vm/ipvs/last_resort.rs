//! A server of last resort behind IPVS.

use world::{
    Nic, World,
    published::{called, stage},
    status::until,
    talk::{Flow, ask_tcp, serve},
};

use super::{listed, publish, until_listed};

/// The port that servers are asked at for their health.
const PROBED: u16 = 1235;
/// Where the last resort listens.
const PORT: u16 = 1240;

pub fn gets_calls() {
    let world = World::builder().build();
    let (_, [one, two, three]) = stage(&world);
    for server in [&one, &two] {
        serve(&server.at.netns, &[server.at.address.into(), server.at.address6.into()], &[PROBED]);
    }
    let (address, address6) = (three.at.address, three.at.address6);
    let sorry = serve(&three.at.netns, &[address.into(), address6.into()], &[PORT]);
    let health = format!(", scheduler: rr, health: {{tcp: {{port: {PROBED}}}, intervalMilliseconds: 200}}");
    let last = format!(", lastResort: [{{address: {address}, port: {PORT}}}, {{address: '{address6}', port: {PORT}}}]");
    publish(&world, &[&one, &two], &health);
    let _egressd = world.egressd_alone();
    world.forget_neighbours();
    until_listed(&world, &["172.28.0.10:1234", "172.28.0.11:1234"], &[]);
    let at = called(&world, Nic::Eth1)[0];
    let set = |how: &str| {
        for server in [&one, &two] {
            server.at.netns.nft(&format!(
                "table inet deaf\ndelete table inet deaf\ntable inet deaf {{\n chain in {{\n type filter hook input priority 0\n {how}\n }}\n}}\n"
            ));
        }
    };
    let deaf = format!("tcp dport {PROBED} reject with tcp reset");
    set(&deaf);
    until("nobody is healthy, and calls are refused", || match ask_tcp(&world.internet, at) {
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => Ok(()),
        other => Err(format!("{other:?}\n{}", listed(&world))),
    });
    set("");
    publish(&world, &[&one, &two], &format!("{health}{last}"));
    until("servers are back", || {
        let status = world.status()["services"].to_string();
        let down = ["Unhealthy", "Unknown", "\"inUse\":true"].iter().any(|word| status.contains(word));
        if down || !status.contains("inUse") { Err(status) } else { Ok(()) }
    });
    // IPVS is looked at a moment later, and nobody has anything open: who has weight 0 goes.
    until_listed(&world, &["172.28.0.10:1234", "172.28.0.11:1234"], &["Masq    0"]);
    ask_tcp(&world.internet, at).expect("it is served");
    assert_eq!(sorry.list().len(), 0, "it gets no call while a server is up");
    let mut kept = Flow::open(&world.internet, at).expect("it is served");
    set(&deaf);
    until_listed(&world, &[&format!("{address}:{PORT}"), &format!("[{address6}]:{PORT}")], &[]);
    let before = [one.calls(), two.calls()];
    for at in Nic::ALL.into_iter().flat_map(|nic| called(&world, nic)) {
        let seen = sorry.list().len();
        ask_tcp(&world.internet, at).unwrap_or_else(|error| panic!("{at}: {error}\n{}", listed(&world)));
        assert_eq!(sorry.list().len(), seen + 1, "{at}: it gets all of them, and answers by the NIC that was called");
    }
    assert_eq!([one.calls(), two.calls()], before);
    kept.ask().expect("what is open at a server goes on");
    let mut there = Flow::open(&world.internet, at).expect("it is served");
    assert!(world.status()["services"].to_string().contains("\"inUse\":true"), "{:#}", world.status()["services"]);
    set("");
    until("servers are back", || {
        let status = world.status()["services"].to_string();
        if status.contains("\"inUse\":true") { Err(status) } else { Ok(()) }
    });
    let seen = sorry.list().len();
    until("calls go to servers", || {
        let before = sorry.list().len();
        ask_tcp(&world.internet, at).map_err(|error| error.to_string())?;
        if sorry.list().len() == before { Ok(()) } else { Err(listed(&world)) }
    });
    assert!(sorry.list().len() <= seen + 10, "{}", listed(&world));
    there.ask().expect("what is open at the last resort goes on");
    drop(there);
    kept.ask().expect("and what is open at a server");
}
