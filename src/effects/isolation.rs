//! A network namespace for one program: a veth to the host, with addresses and a default route, and name servers that it can reach. It has no
//! name, so it ends with its last process, and the veth with it.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use nix::libc::{O_NOFOLLOW, O_PATH, RT_TABLE_MAIN, RTM_NEWROUTE};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use crate::facts::programs::{RESOLVER, servers_in};
use crate::model::facts::{Family, IfIndex, Route};
use crate::model::isolated::{Ends, LINKS, NoEnds};
use crate::netlink::{self, Channel, link, nexthop, routing};
use crate::wire::{Message, flags};

/// The program's end.
const PROGRAM_END: &str = "eth0";
/// The loopback interface of every namespace.
const LOOPBACK: IfIndex = 1;
/// `RTPROT_STATIC`: a route that is the administrator's.
const STATIC: u8 = 4;
/// How long the link may take to come up; it takes less than a millisecond.
const CARRIER: Duration = Duration::from_secs(1);
/// What [`RESOLVER`] is with the servers that a stub on a loopback address asks itself: systemd-resolved's, NetworkManager's.
const UPSTREAM: [&str; 2] = ["/run/systemd/resolve/resolv.conf", "/run/NetworkManager/no-stub-resolv.conf"];

/// Why there is no namespace.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("failed to {what}")]
    Kernel {
        what: &'static str,
        #[source]
        source: netlink::Error,
    },
    #[error("failed to {what}; are you root?")]
    System {
        what: &'static str,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Ends(#[from] NoEnds),
    #[error("{RESOLVER} names a server on a loopback address alone, which the program cannot reach; give one with --dns ADDRESS")]
    NoServer,
}

/// The destinations of all routes of this namespace.
///
/// # Errors
/// When the kernel does not tell them.
pub fn destinations() -> Result<Vec<IpNet>, Error> {
    let failed = |source| Error::Kernel { what: "read this host's routes", source };
    let mut channel = Channel::open(netlink_sys::protocols::NETLINK_ROUTE).map_err(failed)?;
    let mut all = Vec::new();
    for family in [Family::V4, Family::V6] {
        let routes = channel.dump(&routing::dump(family), |message| routing::route(&message)).map_err(failed)?;
        all.extend(routes.into_iter().map(|route| route.resolve(&nexthop::Objects::default()).destination));
    }
    Ok(all)
}

/// The text of a resolv.conf(5) that the program needs instead of the host's, with these servers or those that the host's stub asks; nothing
/// where the host's own will do.
///
/// # Errors
/// When the host's is a stub, and nobody says whom it asks.
pub fn resolver(servers: &[IpAddr]) -> Result<Option<String>, Error> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    resolver_of(servers, &read(RESOLVER), &UPSTREAM.map(read))
}

fn resolver_of(servers: &[IpAddr], own: &str, upstream: &[String]) -> Result<Option<String>, Error> {
    let reached = |text: &str| servers_in(text).into_iter().filter(|server| !server.is_loopback()).collect::<Vec<_>>();
    let servers = match (servers, servers_in(own)) {
        ([], own_servers) if own_servers.iter().all(|server| !server.is_loopback()) => return Ok(None),
        ([], _) => {
            upstream.iter().chain([&own.to_owned()]).map(|text| reached(text)).find(|found| !found.is_empty()).ok_or(Error::NoServer)?
        }
        (given, _) => given.to_vec(),
    };
    let rest = own.lines().filter(|line| line.split_whitespace().next() != Some("nameserver"));
    let servers = servers.iter().map(|server| format!("nameserver {server}\n"));
    Ok(Some(servers.chain(rest.map(|line| format!("{line}\n"))).collect()))
}

/// What the namespace is to have.
pub struct Isolation {
    pub ends: Vec<Ends>,
    /// What the host's end is for.
    pub alias: String,
    /// Its own resolv.conf(5).
    pub resolver: Option<String>,
}

/// Moves this thread into a new namespace, and returns the index of the host's end of the veth. `scratch` is a folder for a file that is gone
/// afterwards.
///
/// # Errors
/// When the kernel refuses. The thread may be in the namespace then, and has to end.
pub fn enter(isolation: &Isolation, scratch: &Path) -> Result<IfIndex, Error> {
    let open = || Channel::open(netlink_sys::protocols::NETLINK_ROUTE);
    let kernel = |what| move |source| Error::Kernel { what, source };
    let system = |what| move |source| Error::System { what, source };
    let mut host = open().map_err(kernel("open a netlink socket"))?;
    let private = if isolation.resolver.is_some() { CloneFlags::CLONE_NEWNS } else { CloneFlags::empty() };
    unshare(CloneFlags::CLONE_NEWNET | private).map_err(|errno| system("make a network namespace")(errno.into()))?;
    let own = fs::File::open("/proc/thread-self/ns/net").map_err(system("open the network namespace"))?;
    let mut inner = open().map_err(kernel("open a netlink socket"))?;
    let namespace = u32::try_from(own.as_raw_fd()).expect("an open file has a number");
    // The kernel puts the number in.
    let host_end = format!("{LINKS}%d");
    host.request(link::veth(&host_end, PROGRAM_END, namespace), |_| {}).map_err(kernel("make a veth"))?;
    let mut found = None;
    inner.request(link::by_name(PROGRAM_END), |message| found = found.or(link::ends(&message))).map_err(kernel("find the veth"))?;
    let (program_end, host_end) = found.ok_or_else(|| system("find the veth")(io::ErrorKind::NotFound.into()))?;
    let set = |channel: &mut Channel, message: Message| channel.request(message, |_| {}).map_err(kernel("set up the veth"));
    // What it is for is known before it is up.
    set(&mut host, link::set_alias(host_end, &isolation.alias))?;
    for ends in &isolation.ends {
        set(&mut host, link::add_address(host_end, ends.host))?;
        set(&mut inner, link::add_address(program_end, ends.program))?;
    }
    set(&mut host, link::set_up(host_end))?;
    set(&mut inner, link::set_up(LOOPBACK))?;
    set(&mut inner, link::set_up(program_end))?;
    for Ends { host, .. } in &isolation.ends {
        let everywhere = Family::of(host.addr()).everything();
        let gateway = Some(host.addr());
        let route = Route { gateway, interface: Some(program_end), protocol: STATIC, ..Route::new(RT_TABLE_MAIN.into(), everywhere) };
        set(&mut inner, routing::write(RTM_NEWROUTE, flags::CREATE, &route))?;
    }
    await_carrier(&mut host, host_end).map_err(kernel("see the veth up"))?;
    if let Some(text) = &isolation.resolver {
        name_servers(text, scratch).map_err(system("give the program its own name servers"))?;
    }
    Ok(host_end)
}

/// Takes the link to a program away, which sends nothing any more. One that is gone is no error.
///
/// # Errors
/// When the kernel refuses.
pub fn end(link: IfIndex) -> Result<(), netlink::Error> {
    let ended = Channel::open(netlink_sys::protocols::NETLINK_ROUTE)?.request(link::delete(link), |_| {});
    ended.or_else(|error| if error.errno() == Some(nix::libc::ENODEV) { Ok(()) } else { Err(error) })
}

/// The kernel takes note of a carrier a moment after it is there. Until then the host's end drops what is sent by it: its answer to ARP, without
/// which the program's first packet waits a second, longer than many a program lives.
fn await_carrier(host: &mut Channel, link: IfIndex) -> Result<(), netlink::Error> {
    let deadline = Instant::now() + CARRIER;
    let mut up = false;
    while !up && Instant::now() < deadline {
        host.request(link::by_index(link), |message| up |= link::is_operational(&message))?;
        if !up {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    Ok(())
}

/// Puts a file of this mount namespace alone over resolv.conf(5).
fn name_servers(text: &str, scratch: &Path) -> io::Result<()> {
    let none: Option<&str> = None;
    // The host's mounts come here, and ours do not go there.
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SLAVE, none)?;
    let file: PathBuf = scratch.join(format!("resolv.conf.{}", std::process::id()));
    fs::write(&file, text)?;
    let mounted = over(&file, RESOLVER);
    // It is there as long as it is mounted.
    fs::remove_file(&file)?;
    mounted
}

/// Mounts a file over another, and over the link itself where that is one: what a link leads to its owner may replace at any time, by renaming
/// another file over it, and what was mounted there would be gone.
fn over(file: &Path, place: &str) -> io::Result<()> {
    let none: Option<&str> = None;
    let held = fs::OpenOptions::new().read(true).custom_flags(O_PATH | O_NOFOLLOW).open(place).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => io::Error::new(error.kind(), format!("there is no {place}: make an empty one (`touch {place}`)")),
        _ => error,
    })?;
    let place_of = format!("/proc/self/fd/{}", held.as_raw_fd());
    Ok(mount(Some(file), place_of.as_str(), none, MsFlags::MS_BIND, none)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stub_is_replaced_by_whom_it_asks() {
        let of = |servers: &[IpAddr], own: &str, upstream: &str| resolver_of(servers, own, &[upstream.to_owned()]).ok();
        assert_eq!(of(&[], "nameserver 192.0.2.53\n", ""), Some(None), "it can be reached");
        assert_eq!(of(&[], "", ""), Some(None), "there is none");
        let stub = "nameserver 127.0.0.53\noptions edns0\nsearch example.org\n";
        assert_eq!(
            of(&[], stub, "nameserver 192.0.2.53\nnameserver 2001:db8::53\n"),
            Some(Some("nameserver 192.0.2.53\nnameserver 2001:db8::53\noptions edns0\nsearch example.org\n".to_owned()))
        );
        assert_eq!(of(&[], stub, ""), None, "nobody says whom it asks");
        assert_eq!(
            of(&[[192, 0, 2, 1].into()], stub, ""),
            Some(Some("nameserver 192.0.2.1\noptions edns0\nsearch example.org\n".to_owned()))
        );
    }
}
