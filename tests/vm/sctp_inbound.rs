//! Published ports of SCTP: whom calls reach, and which way the answers leave.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use std::{io, thread};

use oxirush_sctp::ConnectedSocket;
use world::{
    Nic, Scenario, World,
    published::{CALLED, Server, TARGET, called, stage},
    status::until,
};

use crate::sctp::{connect, listener, receive, run, say};

/// How long a call may take that nobody answers.
const UNANSWERED: Duration = Duration::from_secs(10);

pub fn scenarios() -> Vec<Scenario> {
    [("Nftables", ""), ("Ipvs", ", scheduler: rr")]
        .map(|(engine, more)| {
            let name =
                format!("SCTP to published ports, {engine}: by turn, answered by the NIC that was called, of a server that leaves no more");
            Scenario::new(name, move || served(&format!(", engine: {engine}{more}")))
        })
        .into()
}

/// Whom a server has seen, in the order of their calls.
type Seen = Arc<Mutex<Vec<IpAddr>>>;

/// Answers each association's message by the server's own word, as long as the test runs.
fn serve(server: &Server) -> Seen {
    let seen = Seen::default();
    for address in [IpAddr::from(server.at.address), server.at.address6.into()] {
        let (netns, name, seen) = (server.at.netns.clone(), server.at.netns.name().to_owned(), Arc::clone(&seen));
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("there is an epoll");
            let local = tokio::task::LocalSet::new();
            local.block_on(&runtime, async move {
                let listener = listener(&netns, SocketAddr::new(address, TARGET));
                while let Ok((client, from)) = listener.accept().await {
                    seen.lock().expect("nobody panics").push(from.ip());
                    let name = name.clone();
                    tokio::task::spawn_local(async move {
                        while let Ok(Some(_)) = receive(&client).await {
                            say(&client, &name).await;
                        }
                    });
                }
            });
        });
    }
    seen
}

/// Asks on an open association.
async fn ask(client: &ConnectedSocket) -> io::Result<String> {
    say(client, "who").await;
    let answer = tokio::time::timeout(UNANSWERED, receive(client)).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    let answer = answer.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?;
    Ok(String::from_utf8(answer.payload).expect("it is a name"))
}

async fn call(world: &World, at: SocketAddr) -> io::Result<(ConnectedSocket, String)> {
    let connected = tokio::time::timeout(UNANSWERED, connect(&world.internet, at)).await;
    let client = connected.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    let name = ask(&client).await?;
    Ok((client, name))
}

/// Binds these to both NICs' exits, with the port of SCTP.
fn publish(world: &World, servers: &[&Server], more: &str) {
    let names: Vec<&str> = servers.iter().map(|server| server.at.netns.name()).collect();
    let exits = Nic::ALL
        .into_iter()
        .flat_map(|nic| [IpAddr::from(world.layout.address(nic)), world.layout.address6(nic).into()].map(|at| (nic, at)));
    let exits: Vec<String> = exits.map(|(nic, at)| format!("{{address: '{at}', gateway: '{}'}}", world.gateway(nic, at))).collect();
    world.bind(
        &world::Binding::new("service", &format!("networkNamespaces: [{}]", names.join(", ")))
            .with(&format!("exits: [{}]", exits.join(", ")))
            .with(&format!("inbound: [{{protocol: SCTP, port: {CALLED}, targetPort: {TARGET}{more}}}]")),
    );
}

fn served(more: &str) {
    let world = World::builder().rp_filter(1).build();
    let (_, servers) = stage(&world);
    let seen = servers.each_ref().map(serve);
    for iptables in ["iptables", "ip6tables"] {
        world.host.run(&[iptables, "-P", "FORWARD", "DROP"]);
    }
    publish(&world, &servers.each_ref(), more);
    for at in Nic::ALL.into_iter().flat_map(|nic| called(&world, nic)) {
        run(async { call(&world, at).await.map(|(_, name)| name).expect_err("nobody serves it without egressd") });
    }
    let _egressd = world.egressd_alone();
    world.forget_neighbours();
    until("the firewalls have the rule, and the port is served", || {
        let all = Nic::ALL.into_iter().flat_map(|nic| called(&world, nic));
        run(async {
            for at in all {
                call(&world, at).await.map_err(|error| format!("{at}: {error}\n{:#}", world.status()))?;
            }
            Ok(())
        })
    });
    let clients: Vec<IpAddr> = seen.iter().flat_map(|seen| seen.lock().expect("nobody panics").clone()).collect();
    let own = Nic::ALL.into_iter().flat_map(|nic| world.layout.own(nic)).collect::<Vec<_>>();
    assert!(clients.len() >= 4 && clients.iter().all(|client| !own.contains(client)), "they see their client: {clients:?}");
    for (nic, at) in Nic::ALL.into_iter().flat_map(|nic| called(&world, nic).map(|at| (nic, at))) {
        let counts = || seen.each_ref().map(|seen| seen.lock().expect("nobody panics").len());
        let before = counts();
        let (_, left) = world.watch(|| {
            for _ in 0..3 {
                run(async { call(&world, at).await.map(drop).unwrap_or_else(|error| panic!("{at}: {error}")) });
            }
        });
        let own = world.layout.private(nic, at.ip());
        assert_eq!(left.count(nic, own), left.0.values().sum::<u64>(), "answers of {at} leave by {nic:?} alone: {left}");
        assert!(left.count(nic, own) > 0, "{left}");
        let after = counts();
        assert_eq!(std::array::from_fn::<_, 3, _>(|i| after[i] - before[i]), [1; 3], "{at}: by turn");
    }
    let explained = world.egressctl(&["explain", "--inbound", &format!("{}:{CALLED}/sctp", world.layout.address(Nic::Eth1))]);
    assert!(
        explained.as_ref().is_ok_and(|text| text.contains(&format!("sctp/{}:{CALLED}", world.layout.address(Nic::Eth1)))),
        "{explained:?}"
    );

    // One leaves: it gets nothing new, and what is open goes on.
    run(async {
        let at = called(&world, Nic::Eth1)[0];
        let mut open = Vec::new();
        for _ in 0..3 {
            open.push(call(&world, at).await.expect("it is served"));
        }
        publish(&world, &[&servers[0], &servers[1]], more);
        world.await_handled();
        // IPVS is looked at a moment later.
        tokio::time::sleep(Duration::from_secs(2)).await;
        let gone = servers[2].at.netns.name();
        let before = seen[2].lock().expect("nobody panics").len();
        for _ in 0..4 {
            let (_, name) = call(&world, at).await.expect("the others serve");
            assert_ne!(name, gone);
        }
        assert_eq!(seen[2].lock().expect("nobody panics").len(), before, "it gets none");
        for (client, name) in &open {
            assert_eq!(&ask(client).await.expect("it goes on"), name);
        }
    });
}
