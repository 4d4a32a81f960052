//! `egressd verify`.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Command;
use std::thread;

use world::{Binding, Nic, Programs, World, egressd, layout::SERVER};

/// Where the service listens, on each server of the internet.
const PORT: u16 = 8888;

/// Answers each GET with a line of JSON that has the caller's address in it.
fn echo(world: &World) {
    for address in world.servers() {
        let listener = world.internet.enter(|| TcpListener::bind((address, PORT)).expect("nobody has the port"));
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let seen = stream.peer_addr().map_or_else(|error| error.to_string(), |peer| peer.ip().to_string());
                let _ = stream.read(&mut [0; 1024]);
                let body = format!("{{\"ip\": \"{seen}\", \"at\": \"12:30:45\"}}");
                let _ = stream.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).as_bytes());
            }
        });
    }
}

/// Exit status, and what is printed.
fn verify(url: &str, exits: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(egressd::program()).args(["verify", "--echo", url]).args(exits).output().expect("it can be run");
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr))
}

/// The line of an exit, its words.
fn line<'a>(said: &'a str, exit: &str) -> Vec<&'a str> {
    let line = said.lines().find(|line| line.split(' ').next() == Some(exit));
    line.unwrap_or_else(|| panic!("{exit} has a line: {said}")).split_whitespace().collect()
}

pub fn each_exit_is_asked() {
    let world = World::builder().build();
    let _programs = Programs::new();
    echo(&world);
    let [first, second] = [Nic::Eth0, Nic::Eth1].map(|nic| world.layout.address(nic).to_string());
    let publics = [Nic::Eth0, Nic::Eth1].map(|nic| nic.eip().to_string());
    let url = format!("http://{SERVER}:{PORT}/ip");
    let (code, said) = verify(&url, &[&second]);
    assert!(code == Some(1) && said.contains("is `egressd run` running"), "without egressd nothing is asked: {said}");

    let bind = |public: &str| {
        let exits = format!("exits: [{{address: {second}, publicAddress: {public}}}]");
        world.bind(&Binding::new("crawler", "hostSelector: {users: [daemon]}").with(&exits));
    };
    bind(&publics[1]);
    let _egressd = world.egressd_alone();
    world.await_handled();
    let (code, said) = verify(&url, &[]);
    assert_eq!(line(&said, &second), [&second, "eth1", &publics[1], &publics[1], "Ok"].map(str::to_owned), "{said}");
    assert_eq!(code, Some(0), "{said}");

    // Its default route is by the other NIC, and another service sees the same.
    let (code, said) = verify(&url, &[&first, &second]);
    assert_eq!(line(&said, &first), [&first, "eth0", "-", &publics[0], "Answered"].map(str::to_owned), "{said}");
    assert_eq!((line(&said, &second)[4], code), ("Ok", Some(0)), "{said}");

    bind("203.0.113.99");
    world.await_handled();
    let (code, said) = verify(&url, &[]);
    assert_eq!(line(&said, &second), [&second, "eth1", "203.0.113.99", &publics[1], "Differs"].map(str::to_owned), "{said}");
    assert!(code == Some(1) && said.contains("1 of 1 exits do not leave as they should"), "{said}");

    // Of several exits each has its own public address.
    let several = format!(
        "exits: [{{address: {first}, publicAddress: {}}}, {{address: {second}, publicAddress: {}}}], spread: RoundRobin",
        publics[0], publics[1]
    );
    world.bind(&Binding::new("crawler", "hostSelector: {users: [daemon]}").with(&several));
    world.await_handled();
    let (code, said) = verify(&url, &[&first, &second]);
    assert_eq!((line(&said, &first)[4], line(&said, &second)[4], code), ("Ok", "Ok", Some(0)), "{said}");

    let (code, said) = verify(&format!("http://{SERVER}:9/"), &[&first, "172.31.99.99"]);
    assert!(line(&said, &first).contains(&"Failed:") && said.contains("failed to connect"), "{said}");
    assert!(line(&said, "172.31.99.99").contains(&"Failed:"), "{said}");
    assert_eq!(code, Some(1), "{said}");
    let (code, said) = verify("https://echo.example/", &[&first]);
    assert!(code == Some(2) && said.contains("http://echo.example/ip"), "{said}");
}
