//! Asks the page's server as a program of the host would.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use serde_json::Value;
use world::{Egressd, World};

/// Where the page is served.
pub const ADDRESS: &str = "127.0.0.1:9467";

/// An answer: its status, its head and its body.
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    /// A header's value; empty when it is not there.
    pub fn header(&self, name: &str) -> &str {
        let of = |line: &'_ str| line.split_once(": ").is_some_and(|(found, _)| found.eq_ignore_ascii_case(name));
        self.head.lines().find(|line| of(line)).and_then(|line| line.split_once(": ")).map_or("", |(_, value)| value)
    }

    /// Its body as JSON. Panics when it is none.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("no JSON ({error}): {} {}", self.head, self.body))
    }
}

/// Starts egressd for the folder of manifests, with the page.
pub fn egressd(world: &World) -> Egressd {
    world.egressd_alone_with(&["--ui-address", ADDRESS])
}

/// Connects from the host.
pub fn connect(world: &World) -> std::io::Result<TcpStream> {
    let at: SocketAddr = ADDRESS.parse().expect("an address");
    let stream = world.netns().enter(|| TcpStream::connect(at))?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    Ok(stream)
}

/// Sends a request with these lines of a head, and reads the answer.
pub fn request(world: &World, head: &str) -> std::io::Result<Answer> {
    let mut stream = connect(world)?;
    stream.write_all(format!("{head}\r\nConnection: close\r\n\r\n").as_bytes())?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    Ok(Answer { status, head: head.to_owned(), body: body.to_owned() })
}

/// Gets a path.
pub fn get(world: &World, path: &str) -> Answer {
    request(world, &format!("GET {path} HTTP/1.0\r\nHost: {ADDRESS}")).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The stream of events.
pub struct Events(BufReader<TcpStream>);

impl Events {
    /// Begins to listen.
    pub fn listen(world: &World) -> Self {
        let mut stream = connect(world).expect("the page is served");
        stream.write_all(format!("GET /api/v1/events HTTP/1.0\r\nHost: {ADDRESS}\r\n\r\n").as_bytes()).expect("it listens");
        Self(BufReader::new(stream))
    }

    /// The data of the next event of that name. Panics when there is none for long.
    pub fn next(&mut self, name: &str) -> Value {
        let mut found = false;
        loop {
            let mut line = String::new();
            let read = self.0.read_line(&mut line).unwrap_or_else(|error| panic!("no event {name}: {error}"));
            assert!(read > 0, "the stream has ended before an event {name}");
            match line.trim_end().split_once(": ") {
                Some(("event", event)) => found = event == name,
                Some(("data", data)) if found => return serde_json::from_str(data).expect("the data of an event is JSON"),
                _ => {}
            }
        }
    }
}
