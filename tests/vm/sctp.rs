//! `egressd proxy` and SCTP: what a client and a server see of each other through it.

use std::{fs, future::Future, io, net::SocketAddr, path::Path, process::Command, time::Duration};

use nix::sys::socket::{setsockopt, sockopt};
use oxirush_sctp::{ConnectedSocket, InitParams, Listener, NotificationOrData, SendInfo, SendOptions, Socket, SocketToAssociation};
use serde_json::Value;
use tokio::runtime::Handle;
use world::{FOLDER, Netns, Scenario, command, egressd::program, service::Service, status::until, talk};

/// How long a client waits for anything: the processor is emulated.
const PATIENCE: Duration = Duration::from_secs(120);
/// Where the proxy listens in each namespace.
const PROXY: &str = "127.0.0.1:3868";
/// More than a packet, than a socket's buffer holds at first, and as much as is carried.
const LENGTHS: [usize; 4] = [1, 1500, 300_000, 1 << 20];

pub fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new("SCTP through the proxy: each message with its bounds, stream, PPID and order, in two namespaces", messages),
        Scenario::new("SCTP through the proxy: a shutdown and an abort are passed on, and associations have a bound", ends),
        Scenario::new("SCTP through the proxy: an association that is dialled from an address has that one alone", by_source),
    ]
}

/// A message, with how it was sent.
#[derive(Debug, PartialEq)]
pub struct Message {
    stream: u16,
    ppid: u32,
    unordered: bool,
    pub payload: Vec<u8>,
}

/// Runs a test's side of an association.
pub fn run<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("there is an epoll");
    runtime.block_on(async { tokio::time::timeout(PATIENCE, work).await.expect("in time") })
}

fn socket(netns: &Netns, v6: bool) -> Socket {
    let runtime = Handle::current();
    netns.enter(|| {
        let _entered = runtime.enter();
        let new = if v6 { Socket::new_v6 } else { Socket::new_v4 };
        let socket = new(SocketToAssociation::OneToOne).expect("the kernel has SCTP");
        socket.options().set_init_params(InitParams::streams(32, 32)).expect("it is not connected");
        // The longest message has to fit.
        setsockopt(&socket, sockopt::SndBufForce, &(2 << 20)).expect("root may");
        setsockopt(&socket, sockopt::RcvBufForce, &(2 << 20)).expect("root may");
        socket
    })
}

/// Listens in a namespace.
pub fn listener(netns: &Netns, at: SocketAddr) -> Listener {
    let socket = socket(netns, at.is_ipv6());
    socket.bind(at).and_then(|()| socket.listen(16)).unwrap_or_else(|error| panic!("failed to listen on {at}: {error}"))
}

/// Calls from a namespace.
pub async fn connect(netns: &Netns, to: SocketAddr) -> io::Result<ConnectedSocket> {
    Ok(socket(netns, to.is_ipv6()).connect(to).await?.0)
}

/// Sends a message on the first stream.
pub async fn say(to: &ConnectedSocket, text: &str) {
    send(to, &Message { stream: 0, ppid: 0, unordered: false, payload: text.as_bytes().to_vec() }).await;
}

async fn send(to: &ConnectedSocket, message: &Message) {
    let options = SendOptions::new().stream(message.stream).ppid(message.ppid).unordered(message.unordered);
    to.send(&message.payload, options).await.expect("it is connected");
}

/// The next message; nothing at the end.
pub async fn receive(from: &ConnectedSocket) -> io::Result<Option<Message>> {
    loop {
        match from.recv().await? {
            None => return Ok(None),
            Some(NotificationOrData::Data(data)) => {
                let (stream, ppid) = (data.stream_id().expect("it is asked for"), data.ppid().expect("it is asked for"));
                let unordered = data.rcv_info.is_some_and(|info| info.flags & SendInfo::UNORDERED != 0);
                return Ok(Some(Message { stream, ppid, unordered, payload: data.payload }));
            }
            Some(_) => {}
        }
    }
}

fn at(address: &str) -> SocketAddr {
    address.parse().expect("an address and a port")
}

/// Starts the proxy for one manifest, and waits for its ports.
fn proxy(spec: &str, ports: usize) -> Service {
    let folder = Path::new(FOLDER).join("proxies");
    fs::create_dir_all(&folder).expect("/run is ours");
    let text = format!("apiVersion: egressd.dev/v1alpha1\nkind: EgressProxy\nmetadata: {{name: calls}}\nspec: {spec}\n");
    fs::write(folder.join("calls.yaml"), text).expect("/run is ours");
    let mut command = Command::new(program());
    command.arg("proxy").arg("--manifests").arg(&folder);
    let service = Service::start("proxy", command);
    until("the ports listen", || {
        let text = talk::get(&Netns::host(), at("127.0.0.1:9466"), "/status").map_err(|error| error.to_string())?;
        let status: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        let listening = status["ports"].as_array().into_iter().flatten().filter(|port| port["state"] == "Listening").count();
        if listening == ports { Ok(()) } else { Err(text) }
    });
    service
}

fn messages() {
    let (host, ns1, ns2) = (Netns::host(), Netns::add("ns1"), Netns::add("ns2"));
    let server = run(async { connect(&ns1, at(PROXY)).await.expect_err("nobody listens yet") });
    assert_eq!(server.kind(), io::ErrorKind::ConnectionRefused);
    let spec = "{listen: {networkNamespaces: [ns1, ns2], protocol: SCTP, address: 127.0.0.1, port: 3868},
                 dial: {address: 127.0.0.1, port: 3869}}";
    let _proxy = proxy(spec, 2);
    run(async {
        let server = listener(&host, at("127.0.0.1:3869"));
        for (number, netns) in (1..).zip([&ns1, &ns2]) {
            let client = connect(netns, at(PROXY)).await.expect("it is served");
            let (called, _) = server.accept().await.expect("it is dialled on");
            for (length, from, to) in LENGTHS.iter().flat_map(|length| [(*length, &client, &called), (*length, &called, &client)]) {
                // Nothing of one side is on the way twice, so that the order is known.
                for unordered in [false, true] {
                    let payload: Vec<u8> = (0..length).map(|i: usize| (i % 251) as u8).collect();
                    let message = Message { stream: 31 - number, ppid: 0x0a0b_0c00 + u32::from(number), unordered, payload };
                    send(from, &message).await;
                    let got = receive(to).await.expect("it is connected").expect("it has not ended");
                    assert!(got == message, "{length} bytes in {}: {} came", netns.name(), got.payload.len());
                }
            }
            // Two messages are two, however fast they come.
            for payload in [b"one".to_vec(), b"two".to_vec()] {
                send(&client, &Message { stream: 0, ppid: 60, unordered: false, payload }).await;
            }
            let got =
                [receive(&called).await, receive(&called).await].map(|got| got.expect("it is connected").map(|message| message.payload));
            assert_eq!(got, [Some(b"one".to_vec()), Some(b"two".to_vec())]);
        }
    });
}

fn ends() {
    let (host, ns1) = (Netns::host(), Netns::add("ns1"));
    let spec = "{listen: {networkNamespaces: [ns1], protocol: SCTP, address: 127.0.0.1, port: 3868},
                 dial: {address: 127.0.0.1, port: 3869}, maxConnections: 1}";
    let _proxy = proxy(spec, 1);
    run(async {
        let server = listener(&host, at("127.0.0.1:3869"));
        let last = || Message { stream: 1, ppid: 7, unordered: false, payload: b"last".to_vec() };
        // What one side sends ahead of its shutdown arrives, and the shutdown behind it; also by a client that is gone before it is accepted.
        for by_client in [true, false] {
            let client = connect(&ns1, at(PROXY)).await.expect("it is served");
            if by_client {
                send(&client, &last()).await;
                drop(client);
                let (called, _) = server.accept().await.expect("it is dialled on");
                assert_eq!(receive(&called).await.expect("no abort"), Some(last()));
                assert_eq!(receive(&called).await.expect("no abort"), None);
            } else {
                let (called, _) = server.accept().await.expect("it is dialled on");
                send(&called, &last()).await;
                drop(called);
                assert_eq!(receive(&client).await.expect("no abort"), Some(last()));
                assert_eq!(receive(&client).await.expect("no abort"), None);
            }
        }
        for by_client in [true, false] {
            let client = connect(&ns1, at(PROXY)).await.expect("it is served");
            let (called, _) = server.accept().await.expect("it is dialled on");
            let (ends, other) = if by_client { (client, called) } else { (called, client) };
            ends.abort(b"").expect("it is connected");
            receive(&other).await.expect_err("an abort is no shutdown");
        }
        let client = connect(&ns1, at(PROXY)).await.expect("it is served");
        let (called, _) = server.accept().await.expect("it is dialled on");
        let second = connect(&ns1, at(PROXY)).await;
        match second {
            Ok(second) => drop(receive(&second).await.expect_err("there is room for one")),
            // The abort comes before the association is up, or right after.
            Err(error) => {
                let refused = [io::ErrorKind::ConnectionRefused, io::ErrorKind::ConnectionReset];
                assert!(refused.contains(&error.kind()), "{error}");
            }
        }
        send(&client, &last()).await;
        assert_eq!(receive(&called).await.expect("it goes on"), Some(last()));
        // The namespace's name goes: nothing of the proxy keeps it.
        command::run(&["ip", "netns", "del", "ns1"]);
        receive(&called).await.expect_err("it was cut off");
    });
}

fn by_source() {
    let (host, ns1) = (Netns::host(), Netns::add("ns1"));
    host.ip("addr add 192.0.2.1/32 dev lo\naddr add 192.0.2.2/32 dev lo");
    for (source, expected) in [(", source: 192.0.2.2", &["192.0.2.2"][..]), (", source: 192.0.2.9", &[])] {
        let spec = format!(
            "{{listen: {{networkNamespaces: [ns1], protocol: SCTP, address: 127.0.0.1, port: 3868}},
               dial: {{address: 192.0.2.1, port: 3869{source}}}}}"
        );
        let _proxy = proxy(&spec, 1);
        run(async {
            let server = listener(&host, at("192.0.2.1:3869"));
            let client = connect(&ns1, at(PROXY)).await.expect("it is served");
            if expected.is_empty() {
                receive(&client).await.expect_err("nobody has that address: never by another one");
                return;
            }
            let (called, _) = server.accept().await.expect("it is dialled on");
            let paths: Vec<String> = called.peer_addrs().expect("it is connected").iter().map(|peer| peer.ip().to_string()).collect();
            assert_eq!(paths, expected, "the association has no other path");
        });
    }
}
