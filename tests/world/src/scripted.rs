//! A Docker engine that says what a scenario tells it: wrong dates, odd states, silence, half answers, and the same by Podman's rules.
//!
//! It has no containers of its own. A scenario makes them (`World::container`) and tells the engine that they are there, so that packets can
//! be looked at as with a real one.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, BufRead, BufReader, Read, Write},
    net::IpAddr,
    os::unix::net::{UnixListener, UnixStream},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde_json::{Value, json};

use crate::{build::World, docker::SOCKET, egressd::Egressd};

/// How questions of a kind are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// Not at all, and the connection stays.
    Silence,
    /// With the head and half of the body, and then silence.
    Half,
    /// The same, and then the connection is closed.
    Reset,
    /// With an error of the engine.
    Error,
}

/// What the dates of events are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dates {
    Right,
    /// As after a clock that was set back.
    Behind(Duration),
    Ahead(Duration),
}

#[derive(Default)]
struct Script {
    /// By name, as the list shows them.
    containers: BTreeMap<String, Value>,
    /// By name, as an inspect shows them.
    networks: BTreeMap<String, Value>,
    /// By the beginning of a path.
    manners: Vec<(String, Manner)>,
    dates: Option<Dates>,
    /// Events are told to nobody.
    muted: bool,
    unpaged: bool,
    /// Answers as Podman, with the devices of its networks by id.
    devices: Option<BTreeMap<String, String>>,
    listeners: Vec<UnixStream>,
    asked: Vec<String>,
}

/// A running engine.
pub struct Scripted(Arc<Mutex<Script>>);

impl World {
    /// Starts one where Docker's socket is.
    pub fn scripted_engine(&self) -> Scripted {
        let script = Arc::new(Mutex::new(Script::default()));
        let engine = Scripted(script);
        engine.listen();
        engine
    }

    /// Starts egressd for it.
    pub fn egressd_for_script(&self) -> Egressd {
        self.egressd(&["--docker-socket", SOCKET])
    }
}

impl Scripted {
    /// Listens again after [`Scripted::go_away`].
    pub fn listen(&self) {
        let _ = fs::remove_file(SOCKET);
        let listener = UnixListener::bind(SOCKET).expect("/run is the scenario's");
        let script = Arc::clone(&self.0);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (script, Ok(stream)) = (Arc::clone(&script), stream) else { return };
                // A client that goes away is none of the engine's business.
                thread::spawn(move || drop(answer(stream, &script)));
            }
        });
    }

    /// Closes all streams of events, and takes no more questions.
    pub fn go_away(&self) {
        fs::remove_file(SOCKET).expect("it listens");
        self.script().listeners.clear();
    }

    /// Dates events like this from now on.
    pub fn date(&self, dates: Dates) {
        self.script().dates = Some(dates);
    }

    /// Tells no events from now on, or tells them again.
    pub fn mute(&self, muted: bool) {
        self.script().muted = muted;
    }

    /// Answers questions whose path begins so in this manner; `None`: as they should be.
    pub fn answer(&self, path: &str, manner: Option<Manner>) {
        let mut script = self.script();
        script.manners.retain(|(known, _)| known != path);
        script.manners.extend(manner.map(|manner| (path.to_owned(), manner)));
    }

    /// Takes no note of where a page of the list is to begin, from now on.
    pub fn know_no_pages(&self) {
        self.script().unpaged = true;
    }

    /// Speaks as Podman does, which hides a bridge's device from Docker's API.
    pub fn be_podman(&self) {
        self.script().devices = Some(BTreeMap::new());
    }

    /// The requests so far: method and path.
    pub fn asked(&self) -> Vec<String> {
        self.script().asked.clone()
    }

    /// Makes a bridge network whose device is called so. `more` goes over what it says of it.
    pub fn create_network(&self, name: &str, device: &str, more: Value) {
        let mut network = json!({
            "Id": network_id(name), "Name": name, "Driver": "bridge", "Internal": false, "Labels": {}, "IPAM": { "Config": [] },
            "Options": { "com.docker.network.bridge.name": device }, "Containers": {},
        });
        overlay(&mut network, more);
        let mut script = self.script();
        if let Some(devices) = &mut script.devices {
            network["Options"] = json!({});
            devices.insert(network_id(name), device.to_owned());
        }
        script.networks.insert(name.to_owned(), network);
        script.tell(&[event("network", "create", &network_id(name), json!({ "name": name, "type": "bridge" }))]);
    }

    /// Says that a container runs on a network, as `docker run` makes it. `more` goes over what the list says of it.
    pub fn run(&self, name: &str, network: &str, address: impl Into<IpAddr>, labels: &Value, more: Value) {
        let address = address.into();
        let mut container = json!({
            "Id": container_id(name), "Names": [format!("/{name}")], "Labels": labels, "HostConfig": { "NetworkMode": network }, "Created": 1,
            "State": "running",
            "NetworkSettings": { "Networks": { network: { "NetworkID": network_id(network), "IPAddress": address.to_string() } } },
        });
        overlay(&mut container, more);
        let mut made = labels.clone();
        made["name"] = name.into();
        let mut script = self.script();
        script.containers.insert(name.to_owned(), container);
        if let Some(network) = script.networks.get_mut(network) {
            network["Containers"][container_id(name)] = json!({ "Name": name, "IPv4Address": format!("{address}/16") });
        }
        let connect = json!({ "container": container_id(name), "name": network, "type": "bridge" });
        script.tell(&[
            event("container", "create", &container_id(name), made),
            event("network", "connect", &network_id(network), connect),
            event("container", "start", &container_id(name), json!({ "name": name })),
        ]);
    }

    /// Says that a container was made and not started, on the default network.
    pub fn create(&self, name: &str, labels: &Value) {
        let container = json!({
            "Id": container_id(name), "Names": [format!("/{name}")], "Labels": labels, "HostConfig": { "NetworkMode": "default" }, "State": "created",
            "NetworkSettings": { "Networks": { "bridge": {} } },
        });
        let mut made = labels.clone();
        made["name"] = name.into();
        let mut script = self.script();
        script.containers.insert(name.to_owned(), container);
        script.tell(&[event("container", "create", &container_id(name), made)]);
    }

    /// Says that a container has ended and is gone.
    pub fn remove(&self, name: &str) {
        let mut script = self.script();
        script.containers.remove(name);
        for network in script.networks.values_mut() {
            if let Some(all) = network["Containers"].as_object_mut() {
                all.remove(&container_id(name));
            }
        }
        script.tell(&["die", "destroy"].map(|action| event("container", action, &container_id(name), json!({ "name": name }))));
    }

    /// Says that a container, and its network, have gone, though both are there.
    pub fn lie_of_the_end(&self, name: &str, network: &str) {
        self.script().tell(&[
            event("network", "destroy", &network_id(network), json!({ "name": network, "type": "bridge" })),
            event("container", "destroy", &container_id(name), json!({ "name": name })),
        ]);
    }

    fn script(&self) -> MutexGuard<'_, Script> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Script {
    /// Tells events, all in one piece.
    fn tell(&mut self, events: &[Value]) {
        if self.muted {
            return;
        }
        let now = SystemTime::now();
        let at = match self.dates.unwrap_or(Dates::Right) {
            Dates::Right => now,
            Dates::Behind(by) => now - by,
            Dates::Ahead(by) => now + by,
        };
        let at = at.duration_since(UNIX_EPOCH).expect("after 1970");
        let mut text = String::new();
        for one in events {
            let mut one = one.clone();
            one["time"] = at.as_secs().into();
            one["timeNano"] = u64::try_from(at.as_nanos()).expect("it is before 2554").into();
            text.push_str(&format!("{one}\n"));
        }
        let chunk = format!("{:x}\r\n{text}\r\n", text.len());
        self.listeners.retain_mut(|listener| listener.write_all(chunk.as_bytes()).is_ok());
    }

    fn manner(&self, path: &str) -> Option<Manner> {
        self.manners.iter().find(|(begins, _)| path.starts_with(begins.as_str())).map(|(_, manner)| *manner)
    }

    /// What is answered, with its status.
    fn body(&self, method: &str, path: &str, query: &str) -> (u16, Value) {
        let filter = |key: &str| query.contains(key);
        let listed = |object: &Value| !filter("%22id%22") || object["Id"].as_str().is_some_and(filter);
        if method == "POST" {
            return (200, Value::Null);
        }
        if path.ends_with("/libpod/networks/json") {
            let devices = self.devices.iter().flatten();
            return (200, devices.map(|(id, device)| json!({ "id": id, "network_interface": device })).collect());
        }
        match path {
            "/containers/json" if filter("before") && !self.unpaged => (200, json!([])),
            "/containers/json" => (200, self.containers.values().filter(|one| listed(one)).cloned().collect()),
            "/networks" => (200, self.networks.values().filter(|one| listed(one)).cloned().collect()),
            "/version" => (200, json!({ "Version": "99.0", "ApiVersion": "1.41", "MinAPIVersion": "1.24" })),
            _ => {
                let name = path.strip_prefix("/networks/").unwrap_or_default();
                match self.networks.values().find(|one| one["Id"] == name || one["Name"] == name) {
                    Some(network) => (200, network.clone()),
                    None => (404, json!({ "message": format!("no such object: {path}") })),
                }
            }
        }
    }
}

fn answer(stream: UnixStream, script: &Mutex<Script>) -> io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let (mut first, mut length, mut line) = (String::new(), 0, String::new());
    reader.read_line(&mut first)?;
    while reader.read_line(&mut line)? > 2 {
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().unwrap_or(0);
        }
        line.clear();
    }
    io::copy(&mut reader.by_ref().take(length), &mut io::sink())?;
    let mut words = first.split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut script = script.lock().unwrap_or_else(PoisonError::into_inner);
    script.asked.push(format!("{method} {path}"));
    let mut stream = stream;
    if path == "/events" {
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        script.listeners.push(stream);
        return Ok(());
    }
    let manner = script.manner(path);
    let (mut status, body) = script.body(method, path, query);
    let podman = if script.devices.is_some() { "Libpod-API-Version: 5.4.0\r\n" } else { "" };
    drop(script);
    let mut body = body.to_string();
    match manner {
        Some(Manner::Silence) => return hold(reader),
        Some(Manner::Error) => (status, body) = (500, json!({ "message": "as the scenario wants" }).to_string()),
        _ => {}
    }
    let head = format!(
        "HTTP/1.1 {status} X\r\n{podman}Content-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes())?;
    if matches!(manner, Some(Manner::Half | Manner::Reset)) {
        stream.write_all(&body.as_bytes()[..body.len() / 2])?;
        return if manner == Some(Manner::Half) { hold(reader) } else { Ok(()) };
    }
    stream.write_all(body.as_bytes())
}

/// Keeps the connection until the client closes it.
fn hold(mut reader: BufReader<UnixStream>) -> io::Result<()> {
    io::copy(&mut reader, &mut io::sink()).map(drop)
}

fn event(kind: &str, action: &str, id: &str, attributes: Value) -> Value {
    json!({ "Type": kind, "Action": action, "Actor": { "ID": id, "Attributes": attributes }, "scope": "local" })
}

/// The id of a network.
pub fn network_id(name: &str) -> String {
    id("e0", name)
}

/// The id of a container.
fn container_id(name: &str) -> String {
    id("c0", name)
}

/// An id of 64 digits that tells the name, of no other kind of object.
fn id(kind: &str, name: &str) -> String {
    let mut id = kind.to_owned();
    id.extend(name.bytes().map(|byte| format!("{byte:02x}")));
    id.truncate(64);
    format!("{id:0<64}")
}

fn overlay(value: &mut Value, more: Value) {
    for (key, one) in more.as_object().into_iter().flatten() {
        value[key] = one.clone();
    }
}
