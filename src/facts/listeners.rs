//! Programs of this host that listen on ports which bindings publish: looked up as soon as a port is asked for, and every few seconds as long as
//! any is, since the kernel tells nothing when a socket is bound or closed.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tracing::warn;

use crate::facts::cause::with_causes;
use crate::model::facts::Family;
use crate::model::listeners::{Holder, Listener, Listeners};
use crate::model::ports::{Called, Ports, Protocol};
use crate::netlink::sockets::{self, Socket};
use crate::netlink::{Channel, Error};

/// What the kernel has once it has SCTP.
const SCTP: &str = "/proc/net/sctp";
/// How often they are looked up as long as any port is asked for.
const EVERY: Duration = Duration::from_secs(2);

/// Looks up who listens on the ports that are asked for, as a whole: first as soon as that is known, then whenever it is something else.
pub struct Source {
    asked: watch::Receiver<Arc<BTreeSet<Called>>>,
    last: Option<Listeners>,
    /// Who holds sockets that were seen before, by inode: looking through all processes takes much longer than a look at the sockets.
    holders: HashMap<u32, Holder>,
}

impl Source {
    pub fn new(asked: watch::Receiver<Arc<BTreeSet<Called>>>) -> Self {
        Self { asked, last: None, holders: HashMap::new() }
    }

    /// Who listens now; waits until that is news. `None` when nobody asks any more.
    pub async fn next(&mut self) -> Option<Listeners> {
        loop {
            let asked = Arc::clone(&self.asked.borrow_and_update());
            if !asked.is_empty() || self.last.is_some() {
                let listeners = self.look(asked).await;
                if self.last.as_ref() != Some(&listeners) {
                    if let Some(problem) = &listeners.problem {
                        warn!("{problem}");
                    }
                    self.last = Some(listeners.clone());
                    return Some(listeners);
                }
            }
            let idle = self.asked.borrow().is_empty();
            tokio::select! {
                changed = self.asked.changed() => changed.ok()?,
                () = tokio::time::sleep(EVERY), if !idle => {}
            }
        }
    }

    /// Off the loop: a host may have many sockets and processes.
    async fn look(&mut self, asked: Arc<BTreeSet<Called>>) -> Listeners {
        let mut holders = std::mem::take(&mut self.holders);
        let looked = tokio::task::spawn_blocking(move || (look(asked, &mut holders), holders)).await;
        let (listeners, holders) = looked.expect("it does not panic, and the runtime ends last");
        self.holders = holders;
        listeners
    }
}

/// Those of all listeners that have a port which is asked for.
pub fn look(asked: Arc<BTreeSet<Called>>, holders: &mut HashMap<u32, Holder>) -> Listeners {
    let ports: BTreeSet<Ports> = asked.iter().map(|(_, ports)| *ports).collect();
    let mut listeners = Listeners { asked, ..Listeners::default() };
    if ports.is_empty() {
        return listeners;
    }
    let sockets = match read(&ports) {
        Ok(sockets) => sockets,
        Err(error) => {
            listeners.problem = Some(format!(
                "cannot list this host's listening sockets ({}), so a published port may take calls meant for a local program; load the kernel modules tcp_diag, udp_diag and, for SCTP, sctp_diag",
                with_causes(&error)
            ));
            return listeners;
        }
    };
    name_holders(sockets.iter().map(|(_, socket)| socket), holders);
    let mut all: BTreeMap<_, Vec<Listener>> = BTreeMap::new();
    for (protocol, socket) in sockets {
        let Socket { address, port, dual_stack, interface, user, inode, .. } = socket;
        let holder = holders.get(&inode).cloned().unwrap_or(Holder::User(user));
        let listener = Listener { protocol, address, port, dual_stack, interface, holder };
        all.entry((protocol, port)).or_default().push(listener);
    }
    // One program may have many sockets on one port (`SO_REUSEPORT`), and the kernel has them in no order.
    all.values_mut().for_each(|listeners| {
        listeners.sort();
        listeners.dedup();
    });
    listeners.all = all;
    listeners
}

/// The sockets that take calls to some of these ports.
fn read(ports: &BTreeSet<Ports>) -> Result<Vec<(Protocol, Socket)>, Error> {
    let mut channel = Channel::open(netlink_sys::protocols::NETLINK_SOCK_DIAG)?;
    let mut all = Vec::new();
    // Asking for sockets of SCTP would bring its modules. Without them nobody listens.
    let is_there = |protocol: &Protocol| *protocol != Protocol::Sctp || Path::new(SCTP).exists();
    for protocol in Protocol::ALL.into_iter().filter(is_there) {
        let ranges: Vec<&Ports> = ports.iter().filter(|ports| ports.protocol == protocol).collect();
        if ranges.is_empty() {
            continue;
        }
        let wanted = Marked::new(&ranges);
        for family in [Family::V4, Family::V6] {
            let sockets = channel.dump(&sockets::dump(protocol, family), |message| {
                let socket = sockets::socket(&message).filter(|socket| wanted.has(socket.port))?;
                // Of SCTP the kernel tells those of clients, too.
                (socket.listens || protocol == Protocol::Udp).then_some((protocol, socket))
            });
            all.extend(sockets?);
        }
    }
    Ok(all)
}

/// A bit for each port: ranges may lie in each other, and both they and the sockets may be many.
struct Marked(Vec<bool>);

impl Marked {
    fn new(ranges: &[&Ports]) -> Self {
        let mut marked = vec![false; usize::from(u16::MAX) + 1];
        ranges.iter().for_each(|ports| marked[usize::from(ports.first)..=usize::from(ports.last)].fill(true));
        Self(marked)
    }

    fn has(&self, port: u16) -> bool {
        self.0[usize::from(port)]
    }
}

/// Finds the processes of sockets that were not seen before, and forgets those of sockets that are gone. Who has no right to look into a
/// process does not find it.
fn name_holders<'a>(sockets: impl Iterator<Item = &'a Socket>, holders: &mut HashMap<u32, Holder>) {
    let inodes: HashMap<u32, u32> = sockets.map(|socket| (socket.inode, socket.user)).collect();
    holders.retain(|inode, _| inodes.contains_key(inode));
    let mut sought: HashMap<u32, u32> = inodes.into_iter().filter(|(inode, _)| !holders.contains_key(inode)).collect();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    while !sought.is_empty() {
        let Some(pid) = pids.next() else { break };
        for file in fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten() {
            let inode = fs::read_link(file.path()).ok().and_then(|target| inode_in(target.to_str()?));
            let Some(inode) = inode.filter(|inode| sought.remove(inode).is_some()) else { continue };
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim().to_owned();
            holders.insert(inode, Holder::Process { name, pid });
        }
    }
    // Not looked for again as long as the socket is there.
    holders.extend(sought.into_iter().map(|(inode, user)| (inode, Holder::User(user))));
}

/// `socket:[4711]`
fn inode_in(link: &str) -> Option<u32> {
    link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, TcpListener};

    use super::*;

    #[test]
    fn a_listener_on_a_port_that_is_asked_for_is_told_with_its_process() {
        let listener = TcpListener::bind("0.0.0.0:0").expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let called = |port| (IpAddr::from([172, 31, 0, 14]), Ports { protocol: Protocol::Tcp, first: port, last: port });
        let asked = Arc::new(BTreeSet::from([called(port)]));
        let mut holders = HashMap::new();
        let listeners = look(Arc::clone(&asked), &mut holders);
        let told: Vec<_> = listeners.at(called(port).1).collect();
        let [one] = told.as_slice() else { panic!("{told:?}") };
        assert!(one.takes(called(port), 2), "{one:?}");
        assert!(matches!(&one.holder, Holder::Process { pid, .. } if *pid == std::process::id()), "{one:?}");
        assert_eq!(look(Arc::clone(&asked), &mut holders), listeners, "the same again is no news");
        drop(listener);
        assert_eq!(look(asked, &mut holders).all, BTreeMap::new());
        assert_eq!(holders, HashMap::new());
    }
}
