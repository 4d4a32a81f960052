//! The proxy under test, its manifests, and servers and clients for it.

use std::{
    fs,
    io::{self, Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use serde_json::Value;
use world::{
    FOLDER, Netns,
    egressd::program,
    service::Service,
    status::{until, until_within},
};

/// How long a client waits for anything.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// Where servers listen, in the host's namespace.
pub const SERVER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 80);
/// Where metrics and status are.
const HTTP: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9466);

/// An address and port.
pub fn at(address: &str) -> SocketAddr {
    address.parse().expect("an address and a port")
}

/// A running `egressd proxy`.
pub struct Proxy {
    pub service: Service,
}

impl Proxy {
    /// Starts it for [`folder`], and waits until it has read the manifests.
    pub fn start() -> Self {
        Self::start_by(&[], &[])
    }

    /// The same by another program (`prlimit`), and with more arguments.
    pub fn start_by(by: &[&str], arguments: &[&str]) -> Self {
        fs::create_dir_all(folder()).expect("/run is ours");
        let program = program();
        let mut command = match by {
            [] => Command::new(program),
            [first, rest @ ..] => {
                let mut command = Command::new(first);
                command.args(rest).arg(program);
                command
            }
        };
        command.arg("proxy").arg("--manifests").arg(folder()).args(arguments);
        let mut proxy = Self { service: Service::start("proxy", command) };
        proxy.service.wait_until("ready", PATIENCE, || fetch("/readyz").is_ok());
        proxy
    }

    /// Files that it has open, but for pipes: some of them wait for the next burst.
    pub fn descriptors(&self) -> usize {
        let open = fs::read_dir(format!("/proc/{}/fd", self.service.pid())).expect("it runs").flatten();
        open.filter(|file| fs::read_link(file.path()).is_ok_and(|to| !to.to_string_lossy().starts_with("pipe:"))).count()
    }

    /// Processor time that it has used, in ticks of 10 ms.
    pub fn processor_time(&self) -> u64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.service.pid())).expect("it runs");
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        fields[11..13].iter().map(|ticks| ticks.parse::<u64>().expect("a number")).sum()
    }

    /// A number of its `/proc/PID/status`: `Threads`, or in kB `VmRSS`.
    pub fn number(&self, line: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.service.pid())).expect("it runs");
        let value = status.lines().find_map(|text| text.strip_prefix(line)?.strip_prefix(':'));
        let value = value.and_then(|value| value.split_whitespace().next()).and_then(|value| value.parse().ok());
        value.unwrap_or_else(|| panic!("no {line} in {status}"))
    }
}

/// The namespace of this name, with its loopback up. It is kept as long as this is.
pub fn inside(name: &str) -> Netns {
    let netns = Netns::open(format!("/run/netns/{name}"), name);
    netns.ip("link set lo up");
    netns
}

/// The folder of manifests.
pub fn folder() -> PathBuf {
    Path::new(FOLDER).join("manifests")
}

/// Writes a manifest, all at once.
pub fn write(name: &str, text: &str) {
    fs::create_dir_all(folder()).expect("/run is ours");
    let hidden = folder().join(".new");
    fs::write(&hidden, text).and_then(|()| fs::rename(&hidden, folder().join(format!("{name}.yaml")))).expect("/run is ours");
}

/// Writes an `EgressProxy`.
pub fn manifest(name: &str, listen: &str, dial: &str, more: &str) {
    let head = "apiVersion: egressd.dev/v1alpha1\nkind: EgressProxy\nmetadata: {name: ";
    write(name, &format!("{head}{name}}}\nspec: {{listen: {{{listen}}}, dial: {{{dial}}}{more}}}\n"));
}

/// What the proxy says of itself.
pub fn status() -> Value {
    let text = fetch("/status").unwrap_or_else(|error| panic!("no status: {error}"));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("status is not JSON ({error}): {text}"))
}

/// The report of one port.
pub fn port(namespace: &str, address: &str) -> Value {
    let status = status();
    let all = status["ports"].as_array().expect("a list");
    let found = all.iter().find(|port| port["networkNamespace"] == namespace && port["address"] == address);
    found.cloned().unwrap_or_else(|| panic!("no port {address} in {namespace}: {status:#}"))
}

/// Waits until the port is as it should be.
pub fn await_port(namespace: &str, address: &str, what: &str, good: impl Fn(&Value) -> bool) {
    until(&format!("{address} in {namespace} is {what}"), || {
        let port = port(namespace, address);
        if good(&port) { Ok(()) } else { Err(port.to_string()) }
    });
}

/// Waits until so many ports are listening.
pub fn await_listening(count: usize) {
    until_within(PATIENCE, Duration::from_millis(5), &format!("{count} ports listen"), || {
        let status = status();
        let all = status["ports"].as_array().expect("a list");
        let listening = all.iter().filter(|port| port["state"] == "Listening").count();
        if listening == count { Ok(()) } else { Err(format!("{listening} of {} listen", all.len())) }
    });
}

/// What the proxy's HTTP server answers.
pub fn fetch(path: &str) -> io::Result<String> {
    world::talk::get(&Netns::host(), HTTP, path)
}

/// A server in the namespace, each connection of which `serve` has on a thread of its own.
pub fn server(netns: &Netns, at: SocketAddr, serve: impl Fn(TcpStream) -> io::Result<()> + Clone + Send + 'static) {
    let listener = netns.enter(|| TcpListener::bind(at)).unwrap_or_else(|error| panic!("failed to listen on {at}: {error}"));
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let serve = serve.clone();
            // A client that is gone ends only its own connection.
            thread::spawn(move || drop(serve(stream)));
        }
    });
}

/// Says hello, and ends.
pub fn hello(mut stream: TcpStream) -> io::Result<()> {
    stream.write_all(b"hello")
}

/// Sends back what it gets, and then ends as the client did.
pub fn echo(mut stream: TcpStream) -> io::Result<()> {
    io::copy(&mut stream.try_clone()?, &mut stream)?;
    stream.shutdown(std::net::Shutdown::Write)
}

/// Connects from the namespace.
pub fn connect(netns: &Netns, to: SocketAddr) -> io::Result<TcpStream> {
    let stream = netns.enter(|| TcpStream::connect_timeout(&to, PATIENCE))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Whether what is sent to [`echo`] comes back.
pub fn alive(stream: &mut TcpStream) -> bool {
    stream.write_all(b"x").is_ok() && stream.read_exact(&mut [0]).is_ok()
}

/// Whether a call is taken and then answered by nothing but a reset, which may come before the call has returned.
pub fn is_refused(netns: &Netns, to: SocketAddr) -> bool {
    connect(netns, to).and_then(|mut stream| stream.read(&mut [0])).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionReset)
}

/// All that a server says to a client that says nothing.
pub fn ask(netns: &Netns, to: SocketAddr) -> io::Result<String> {
    let mut answer = String::new();
    connect(netns, to)?.read_to_string(&mut answer)?;
    Ok(answer)
}
