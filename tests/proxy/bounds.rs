//! Bounds, and bad input.

use std::{
    fs,
    net::{TcpListener, TcpStream},
};

use socket2::{Domain, Protocol, Socket, Type};
use world::{Netns, status::until};

use crate::support::{
    Proxy, SERVER, alive, ask, at, await_listening, await_port, connect, echo, fetch, folder, hello, is_refused, manifest, port, server,
    status, write,
};

const LISTEN: &str = "address: 0.0.0.0, port: 8000";
const DIAL: &str = "address: 127.0.0.1, port: 80";

pub fn connections() {
    let (host, ns1, ns2) = (Netns::host(), Netns::add("ns1"), Netns::add("ns2"));
    server(&host, SERVER, echo);
    manifest("web", &format!("networkNamespaces: [ns1, ns2], {LISTEN}"), DIAL, ", maxConnections: 3");
    let proxy = Proxy::start();
    await_listening(2);
    let to = at("127.0.0.1:8000");
    let mut old: Vec<TcpStream> = (0..3).map(|_| connect(&ns1, to).expect("there is a place")).collect();
    assert!(old.iter_mut().all(alive));
    assert!(is_refused(&ns1, to), "there are three");
    assert!(old.iter_mut().all(alive), "those that are there go on");
    assert!(alive(&mut connect(&ns2, to).expect("it is served")), "another namespace has its own");
    await_port("ns1", "0.0.0.0:8000", "full", |port| port["open"] == 3 && port["refused"] == 1);
    drop(old.pop());
    until("there is a place again", || {
        if alive(&mut connect(&ns1, to).map_err(|error| error.to_string())?) { Ok(()) } else { Err("refused".to_owned()) }
    });
    let metrics = fetch("/metrics").expect("they are served");
    for line in [
        "egressd_proxy_accepted_total{proxy=\"default/web\",namespace=\"ns2\",protocol=\"tcp\",address=\"0.0.0.0:8000\"} 1",
        "egressd_proxy_ports{state=\"Listening\"} 2",
        "egressd_proxy_bytes_total{proxy=\"default/web\",namespace=\"ns2\",protocol=\"tcp\",address=\"0.0.0.0:8000\",direction=\"up\"} 1",
    ] {
        assert!(metrics.contains(line), "no {line} in\n{metrics}");
    }
    assert_eq!(proxy.service.log().matches("refusing new connections").count(), 1, "{}", proxy.service.log());
}

pub fn descriptors() {
    let (host, ns1) = (Netns::host(), Netns::add("ns1"));
    server(&host, SERVER, echo);
    manifest("web", &format!("networkNamespaces: [ns1], {LISTEN}"), DIAL, "");
    // Room for 20 connections behind what is kept back; the soft limit is raised to the hard one.
    let proxy = Proxy::start_by(&["prlimit", "--nofile=100:300"], &[]);
    await_listening(1);
    let to = at("127.0.0.1:8000");
    let mut streams: Vec<TcpStream> = Vec::new();
    let open: Vec<bool> = (0..60)
        .map(|_| {
            let stream = connect(&ns1, to).ok().filter(|stream| stream.try_clone().is_ok_and(|mut stream| alive(&mut stream)));
            stream.is_some_and(|stream| {
                streams.push(stream);
                true
            })
        })
        .collect();
    let taken = open.iter().filter(|open| **open).count();
    assert!((15..25).contains(&taken), "{taken} of 60 were taken");
    assert!(open[..taken].iter().all(|open| *open), "the first ones");
    assert_eq!(port("ns1", "0.0.0.0:8000")["refused"], 60 - taken);
    assert!(streams.iter_mut().all(alive), "those that are there go on");
    drop(streams);
    until("there is room again", || {
        if alive(&mut connect(&ns1, to).map_err(|error| error.to_string())?) { Ok(()) } else { Err("refused".to_owned()) }
    });
    assert!(proxy.service.log().contains("LimitNOFILE"), "{}", proxy.service.log());
}

/// A whole spec, and what the error has to name: the field, and a word of the cure.
const BAD: [(&str, &str, &str); 17] = [
    ("dial: {address: 10.0.0.2, port: 80}", "spec.listen", "is missing"),
    ("listen: {networkNamespaces: [ns1], address: 0.0.0.0, port: 8000}", "spec.dial", "is missing"),
    (
        "listen: {networkNamespaces: [], address: 0.0.0.0, port: 8000}, dial: {address: 10.0.0.2, port: 80}",
        "spec.listen.networkNamespaces",
        "is empty",
    ),
    (
        "listen: {networkNamespaces: [ns1, ns1], address: 0.0.0.0, port: 8000}, dial: {address: 10.0.0.2, port: 80}",
        "networkNamespaces[1]",
        "keep one",
    ),
    (
        "listen: {networkNamespaces: [a/b], address: 0.0.0.0, port: 8000}, dial: {address: 10.0.0.2, port: 80}",
        "networkNamespaces[0]",
        "absolute path",
    ),
    (
        "listen: {networkNamespaces: [..], address: 0.0.0.0, port: 8000}, dial: {address: 10.0.0.2, port: 80}",
        "networkNamespaces[0]",
        "absolute path",
    ),
    (
        "listen: {networkNamespaces: [ns1], address: 0.0.0.0, port: 80000}, dial: {address: 10.0.0.2, port: 80}",
        "spec.listen.port",
        "1 to 65535",
    ),
    (
        "listen: {networkNamespaces: [ns1], address: localhost, port: 8000}, dial: {address: 10.0.0.2, port: 80}",
        "spec.listen.address",
        "localhost",
    ),
    (
        "listen: {networkNamespaces: [ns1], address: 'fe80::1', port: 8000}, dial: {address: 10.0.0.2, port: 80}",
        "spec.listen.address",
        "link-local",
    ),
    (
        "listen: {networkNamespaces: [ns1], address: 0.0.0.0, port: 8000}, dial: {address: 0.0.0.0, port: 80}",
        "spec.dial.address",
        "0.0.0.0",
    ),
    (
        "listen: {networkNamespaces: [ns1], address: 0.0.0.0, port: 8000}, dial: {address: 10.0.0.2, port: 80, source: 'fd00::1'}",
        "spec.dial.source",
        "IPv4",
    ),
    ("listen: {networkNamespaces: [''], address: 0.0.0.0, port: 8000}, dial: {address: 127.0.0.1, port: 8000}", "spec.dial", "itself"),
    (
        "listen: {networkNamespaces: [ns1], protocol: DCCP, address: 0.0.0.0, port: 8000}, dial: {address: 10.0.0.2, port: 80}",
        "spec.listen.protocol",
        "TCP",
    ),
    (
        "listen: {networkNamespaces: [ns1], protocol: UDP, address: 0.0.0.0, port: 8000}, dial: {address: 10.0.0.2, port: 80, proxyProtocol: V2}",
        "proxyProtocol",
        "TCP only",
    ),
    (
        "listen: {networkNamespaces: [ns1], address: 0.0.0.0, port: 8000}, dial: {address: 10.0.0.2, port: 80}, maxConections: 5",
        "spec.maxConections",
        "maxConnections",
    ),
    (
        "listen: {networkNamespaces: [ns1], address: 0.0.0.0, port: 8000}, dial: {address: 10.0.0.2, port: 80}, trustedSources: [10.0.0.1/8]",
        "spec.trustedSources[0]",
        "host bits",
    ),
    (
        "listen: {networkNamespaces: [ns2], address: 0.0.0.0, port: 8000}, dial: {address: 10.0.0.2, port: 80}",
        "spec.listen",
        "EgressProxy default/good",
    ),
];

pub fn bad_manifests() {
    let (host, _ns1, ns2) = (Netns::host(), Netns::add("ns1"), Netns::add("ns2"));
    server(&host, SERVER, hello);
    manifest("good", &format!("networkNamespaces: [ns2], {LISTEN}"), DIAL, "");
    // Of the agent's folder: nothing to say about it here, be it right or wrong.
    write("binding", "apiVersion: egressd.dev/v1alpha1\nkind: EgressBinding\nmetadata: {name: x}\nspec: {exits: [{address: nonsense}]}\n");
    let _proxy = Proxy::start();
    await_listening(1);
    assert_eq!(status()["problems"], serde_json::json!([]));
    for (spec, field, cure) in BAD {
        write("red", &format!("apiVersion: egressd.dev/v1alpha1\nkind: EgressProxy\nmetadata: {{name: red}}\nspec: {{{spec}}}\n"));
        until(&format!("a problem names {field} of `{spec}` and says {cure:?}"), || {
            let problems = status()["problems"].to_string();
            let named = ["EgressProxy default/red", field, cure].iter().all(|part| problems.contains(part));
            if named { Ok(()) } else { Err(problems) }
        });
        assert_eq!(ask(&ns2, at("127.0.0.1:8000")).expect("the good one goes on"), "hello");
    }
    write("red", "kind: EgressProxy\nspec: [");
    until("a file that is no manifest is named", || {
        let problems = status()["problems"].to_string();
        if problems.contains("red.yaml") { Ok(()) } else { Err(problems) }
    });
    assert_eq!(ask(&ns2, at("127.0.0.1:8000")).expect("the good one goes on"), "hello");
    fs::remove_file(folder().join("red.yaml")).expect("it was written");
    until("nothing is wrong any more", || {
        let problems = status()["problems"].to_string();
        if problems == "[]" { Ok(()) } else { Err(problems) }
    });
}

pub fn a_taken_port() {
    let (host, ns1) = (Netns::host(), Netns::add("ns1"));
    server(&host, SERVER, hello);
    let other = ns1.enter(|| TcpListener::bind("127.0.0.1:8000")).expect("it is free");
    manifest("web", "networkNamespaces: [ns1, ''], address: 127.0.0.1, port: 8000", DIAL, "");
    let _proxy = Proxy::start();
    await_port("host", "127.0.0.1:8000", "open", |port| port["state"] == "Listening");
    await_port("ns1", "127.0.0.1:8000", "failing", |port| {
        port["state"] == "Failing" && port["reason"].as_str().is_some_and(|reason| reason.contains("another program"))
    });
    assert_eq!(ask(&host, at("127.0.0.1:8000")).expect("it is served"), "hello");
    drop(other);
    await_port("ns1", "127.0.0.1:8000", "open", |port| port["state"] == "Listening");
    assert_eq!(ask(&ns1, at("127.0.0.1:8000")).expect("it is served"), "hello");
}

pub fn no_sctp() {
    let host = Netns::host();
    server(&host, SERVER, hello);
    manifest("calls", "networkNamespaces: [''], protocol: SCTP, address: 127.0.0.1, port: 8000", DIAL, "");
    manifest("web", "networkNamespaces: [''], address: 127.0.0.1, port: 8001", DIAL, "");
    let _proxy = Proxy::start();
    let has_sctp = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::SCTP)).is_ok();
    await_port("host", "127.0.0.1:8000", "as the kernel is", |port| {
        let named = port["reason"].as_str().is_some_and(|reason| reason.contains("no SCTP") && reason.contains("modprobe sctp"));
        if has_sctp { port["state"] == "Listening" } else { port["state"] == "Failing" && named }
    });
    assert_eq!(port("host", "127.0.0.1:8000")["protocol"], "sctp");
    assert_eq!(ask(&host, at("127.0.0.1:8001")).expect("it is served"), "hello");
}

pub fn rights() {
    let (host, ns1) = (Netns::host(), Netns::add("ns1"));
    server(&host, SERVER, hello);
    manifest("web", "networkNamespaces: [ns1, ''], address: 127.0.0.1, port: 443", DIAL, "");
    let mut proxy = Proxy::start_by(&["setpriv", "--bounding-set", "-all,+net_bind_service"], &[]);
    await_port("host", "127.0.0.1:443", "open", |port| port["state"] == "Listening");
    await_port("ns1", "127.0.0.1:443", "failing", |port| {
        port["state"] == "Failing" && port["reason"].as_str().is_some_and(|reason| reason.contains("CAP_SYS_ADMIN"))
    });
    assert_eq!(ask(&host, at("127.0.0.1:443")).expect("it is served"), "hello");
    proxy.service.kill();
    // Those of the unit in examples/systemd.
    let _proxy = Proxy::start_by(&["setpriv", "--bounding-set", "-all,+net_bind_service,+sys_admin"], &[]);
    await_listening(2);
    assert_eq!(ask(&ns1, at("127.0.0.1:443")).expect("it is served"), "hello");
}
