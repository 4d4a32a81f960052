//! egressd with no engine: bindings in manifests, plain containers, and a subnet behind another interface.

use std::{
    fs,
    io::{self, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, connect, socket};
use serde_json::Value;

use crate::{
    build::World,
    cloud::Seen,
    container::Container,
    egressd::{Egressd, manifests},
    layout::Nic,
    netns::Netns,
};

/// How long the daemon may take to do as it is told: many times what it takes.
const PATIENCE: Duration = Duration::from_secs(5);
/// Where the daemon serves metrics unless told otherwise.
const METRICS: ([u8; 4], u16) = ([127, 0, 0, 1], 9464);

/// A manifest of one `EgressBinding`.
#[derive(Clone, Debug)]
pub struct Binding {
    name: String,
    fields: Vec<String>,
}

impl Binding {
    /// Binds `who`, one field of the spec in YAML: `networkNamespaces: [blue]`.
    pub fn new(name: &str, who: &str) -> Self {
        Self { name: name.to_owned(), fields: vec![who.to_owned()] }
    }

    /// Binds the network namespace of that name.
    pub fn of(netns: &Netns) -> Self {
        Self::new(netns.name(), &format!("networkNamespaces: [{}]", netns.name()))
    }

    /// To the NIC's addresses, each with its gateway.
    #[must_use]
    pub fn to(self, world: &World, nic: Nic) -> Self {
        let exit = |like: &IpAddr| format!("{{address: '{}', gateway: '{}'}}", world.layout.private(nic, *like), world.gateway(nic, *like));
        let exits: Vec<String> = world.servers().iter().map(exit).collect();
        self.with(&format!("exits: [{}]", exits.join(", ")))
    }

    /// With one more field of the spec.
    #[must_use]
    pub fn with(mut self, field: &str) -> Self {
        self.fields.push(field.to_owned());
        self
    }

    /// The document.
    pub fn text(&self) -> String {
        let fields = self.fields.join(", ");
        format!("apiVersion: egressd.dev/v1alpha1\nkind: EgressBinding\nmetadata: {{name: {}}}\nspec: {{{fields}}}\n", self.name)
    }
}

impl World {
    /// Starts egressd with no engine, for the folder [`manifests`], and waits until it has programmed what is there.
    pub fn egressd_alone(&self) -> Egressd {
        self.egressd_alone_with(&[])
    }

    /// The same, with more arguments.
    pub fn egressd_alone_with(&self, arguments: &[&str]) -> Egressd {
        fs::create_dir_all(manifests()).expect("/run is ours");
        let folder = manifests();
        let egressd = self.egressd(&[&["--no-docker", "--manifests", &folder.to_string_lossy()], arguments].concat());
        until("egressd is ready", || self.fetch("/readyz").map(drop).map_err(|error| error.to_string()));
        egressd
    }

    /// Writes a manifest, all at once, as a careful operator would. Its name is that of the binding.
    pub fn bind(&self, binding: &Binding) {
        self.write_manifest(&format!("{}.yaml", binding.name), binding.text().as_bytes());
    }

    /// Removes the manifest of a binding.
    pub fn unbind(&self, name: &str) {
        self.remove_manifest(&format!("{name}.yaml"));
    }

    /// Removes a file from the folder of manifests.
    pub fn remove_manifest(&self, file: &str) {
        fs::remove_file(manifests().join(file)).expect("it was written");
    }

    /// Writes any file into the folder of manifests.
    pub fn write_manifest(&self, file: &str, content: &[u8]) {
        fs::create_dir_all(manifests()).expect("/run is ours");
        let hidden = manifests().join(".new");
        fs::write(&hidden, content).and_then(|()| fs::rename(&hidden, manifests().join(file))).expect("/run is ours");
    }

    /// Writes it, and waits until each address of the workload has the NIC's address as its exit.
    pub fn bind_to(&self, netns: &Netns, binding: Binding, nic: Nic) {
        self.bind(&binding.to(self, nic));
        self.await_nic(&format!("netns/{}", netns.name()), nic);
    }

    /// Waits until each address of the workload is bound to this NIC.
    pub fn await_nic(&self, workload: &str, nic: Nic) {
        self.await_rows(workload, |row| row["state"] == "Bound" && row["nic"] == nic.name());
    }

    /// Waits until each address of the workload is in this state.
    pub fn await_state(&self, workload: &str, state: &str) {
        self.await_rows(workload, |row| row["state"] == state);
    }

    /// Waits until each row of the workload in `egressd status` is as it should be, as many as the world has families.
    pub fn await_rows(&self, workload: &str, good: impl Fn(&Value) -> bool) {
        until(&format!("{workload} is as it should be"), || {
            let status = self.status();
            let rows = status["workloads"].as_array().expect("a list of workloads");
            let rows: Vec<&Value> = rows.iter().filter(|row| row["workload"] == workload).collect();
            let all = !rows.is_empty() && rows.iter().all(|row| good(row));
            if all { Ok(()) } else { Err(format!("{status:#}")) }
        });
    }

    /// The gateway of the NIC in the family of `like`.
    pub fn gateway(&self, nic: Nic, like: IpAddr) -> IpAddr {
        match like {
            IpAddr::V4(_) => self.layout.gateway(nic).into(),
            IpAddr::V6(_) => self.layout.gateway6(nic).into(),
        }
    }

    /// What the daemon's HTTP server answers, or the failure that it reports.
    pub fn fetch(&self, path: &str) -> io::Result<String> {
        let mut stream = self.host.enter(|| TcpStream::connect(SocketAddr::from(METRICS)))?;
        stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        if answer.lines().next().is_some_and(|line| line.contains(" 200 ")) { Ok(answer) } else { Err(io::Error::other(answer)) }
    }

    /// One metric without labels: `egressd_kernel_changes_total`.
    pub fn metric(&self, name: &str) -> u64 {
        let text = self.fetch("/metrics").expect("metrics are served");
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {name} in {text}"))
    }

    /// A subnet behind an interface `lan0` of the host, masqueraded as containers are, and a server in it that routes through the host.
    pub fn lan(&self) -> Lan {
        let netns = Netns::add("lan");
        netns.sysctl("ipv6/conf/default/dad_transmits", "0");
        let lan = Lan { netns, address: Ipv4Addr::new(10, 9, 0, 10), address6: Ipv6Addr::new(0xfd10, 9, 0, 0, 0, 0, 0, 0x10) };
        self.host.ip("link add lan0 type veth peer name eth0 netns lan
             addr add 10.9.0.1/24 dev lan0
             link set lan0 up");
        self.host.ip("addr add fd10:9::1/64 dev lan0 nodad");
        lan.netns.ip(&format!(
            "addr add {}/24 dev eth0
             addr add {}/64 dev eth0 nodad
             link set eth0 up
             route add default via 10.9.0.1
             route add default via fd10:9::1",
            lan.address, lan.address6
        ));
        for (iptables, subnet) in [("iptables", "10.9.0.0/24"), ("ip6tables", "fd10:9::/64")] {
            self.host.run(&[iptables, "-t", "nat", "-A", "POSTROUTING", "-s", subnet, "!", "-o", "lan0", "-j", "MASQUERADE"]);
        }
        lan
    }

    /// Whether packets leave the host when the namespace sends: datagrams and calls that nobody waits for.
    pub fn sends_nothing_out(&self, from: &Netns) -> Result<(), String> {
        let ((), seen) = self.watch(|| {
            for server in self.servers() {
                for _ in 0..3 {
                    shout(from, nobody(server));
                }
            }
        });
        if seen.is_empty() { Ok(()) } else { Err(format!("{}: {seen} left", from.name())) }
    }

    /// Calls `f` and returns what has left meanwhile, while somebody sends all the time: [`World::watch`] would wait for the end.
    pub fn count(&self, f: impl FnOnce()) -> Seen {
        self.forget();
        f();
        self.seen()
    }

    /// Begins to send datagrams that nobody answers, in one flow a family, and new flows, too, if `fresh`.
    pub fn trickle(&self, from: &Netns, fresh: bool) -> Trickle {
        let kept: Vec<(UdpSocket, SocketAddr)> =
            self.servers().into_iter().map(nobody).map(|to| (from.enter(|| datagrams(to)), to)).collect();
        let (stop, netns) = (Arc::new(AtomicBool::new(false)), from.clone());
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            netns.enter(|| {
                while !stopped.load(Ordering::Relaxed) {
                    for (socket, to) in &kept {
                        // What the host refuses on the spot has not left.
                        let _ = socket.send_to(b"?", to);
                        if fresh {
                            let _ = datagrams(*to).send_to(b"?", to);
                        }
                    }
                    thread::sleep(Duration::from_micros(500));
                }
            });
        });
        Trickle { stop, thread: Some(thread) }
    }
}

/// A server that routes through the host.
pub struct Lan {
    /// Where it is.
    pub netns: Netns,
    /// Its address, in 10.9.0.0/24.
    pub address: Ipv4Addr,
    /// Its IPv6 address, in fd10:9::/64.
    pub address6: Ipv6Addr,
}

/// Datagrams that are sent until this is dropped.
pub struct Trickle {
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Drop for Trickle {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("sending does not panic");
        }
    }
}

fn datagrams(to: SocketAddr) -> UdpSocket {
    UdpSocket::bind(if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }).expect("a port is free")
}

impl Container {
    /// Sends one datagram to the internet from one of its addresses, given or taken.
    pub fn shout_as(&self, address: IpAddr) {
        let to = nobody(address);
        let sent = self.netns.enter(|| UdpSocket::bind(SocketAddr::new(address, 0)).and_then(|socket| socket.send_to(b"?", to)));
        sent.unwrap_or_else(|error| panic!("{} cannot send as {address}: {error}", self.netns.name()));
    }
}

/// Where nobody answers, on the internet, in the family of `like`: what has left can be counted, and nothing else follows from it.
fn nobody(like: IpAddr) -> SocketAddr {
    match like {
        IpAddr::V4(_) => ([198, 51, 100, 99], 4500).into(),
        IpAddr::V6(_) => (Ipv6Addr::new(0x2001, 0xdb8, 0x10, 0, 0, 0, 0, 0x99), 4500).into(),
    }
}

/// Sends one datagram and one first packet of a TCP connection, and waits for nothing.
fn shout(from: &Netns, to: SocketAddr) {
    from.enter(|| {
        let _ = datagrams(to).send_to(b"?", to);
        let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let caller = socket(family, SockType::Stream, SockFlag::SOCK_NONBLOCK, None).expect("a socket can be had");
        let _ = connect(std::os::fd::AsRawFd::as_raw_fd(&caller), &SockaddrStorage::from(to));
    });
}

/// Waits until it is so. Panics with what is instead.
pub fn until(what: &str, mut so: impl FnMut() -> Result<(), String>) {
    let start = Instant::now();
    while let Err(error) = so() {
        assert!(start.elapsed() < PATIENCE, "not after {} s: {what}: {error}", PATIENCE.as_secs());
        thread::sleep(Duration::from_millis(20));
    }
}
