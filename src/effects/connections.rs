//! Open connections of the host's programs, by their sockets: conntrack is to know them, and those that a binding resets are ended.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;

use nix::libc;
use tracing::warn;

use super::conntrack::{Flow, Flows};
use crate::facts::cause::with_causes;
use crate::facts::programs::groups_above;
use crate::model::facts::Family;
use crate::model::ports::Protocol;
use crate::netlink::sockets::{self, Connection};
use crate::netlink::{self, Channel};
use crate::plan::resets::{self, Resets};

/// Has conntrack follow all that are open, as if it had from their beginning: what it sees of one that it does not know would pass for the first
/// packet of a new one, and leave by the exit.
pub fn follow() {
    let followed = channel().and_then(|mut channel| {
        let mut listening = HashSet::new();
        for family in [Family::V4, Family::V6] {
            let all = channel.dump(&sockets::dump(Protocol::Tcp, family), |message| sockets::socket(&message))?;
            listening.extend(all.into_iter().map(|socket| socket.port));
        }
        Ok((open(&mut channel)?, listening))
    });
    let (open, listening) = match followed {
        Ok(followed) => followed,
        Err(error) => {
            let error = with_causes(&error);
            return warn!(
                error,
                "failed to read open sockets (load the kernel's module tcp_diag): open connections of bound programs may end"
            );
        }
    };
    let add = || {
        let mut flows = Flows::open()?;
        let mut failed = Ok(());
        for [own, other] in open.into_keys().filter(|[own, _]| !own.ip().is_loopback()) {
            // Who has called came to a port that somebody listens on.
            let (source, destination) = if listening.contains(&own.port()) { (other, own) } else { (own, other) };
            // One that is refused is no reason to leave out the others.
            failed = failed.and(flows.follow(source, destination));
        }
        failed
    };
    if let Err(error) = add() {
        warn!(error = with_causes(&error), "failed to add conntrack entries for all open connections: some of bound programs may end");
    }
}

fn channel() -> Result<Channel, netlink::Error> {
    Channel::open(netlink_sys::protocols::NETLINK_SOCK_DIAG)
}

/// All that are open, by this end and the other one.
fn open(channel: &mut Channel) -> Result<HashMap<[SocketAddr; 2], Connection>, netlink::Error> {
    let mut open = HashMap::new();
    for family in [Family::V4, Family::V6] {
        let all = channel.dump(&sockets::dump_connections(family), |message| sockets::connection(&message))?;
        open.extend(all.into_iter().map(|connection| ([connection.source, connection.destination], connection)));
    }
    Ok(open)
}

/// All that are open, and the hands on them.
pub struct Connections {
    channel: Channel,
    open: HashMap<[SocketAddr; 2], Connection>,
    /// The group above each.
    above: HashMap<u64, u64>,
    /// The kernel ends none.
    refused: bool,
}

impl Connections {
    /// Reads them.
    ///
    /// # Errors
    /// When the kernel does not tell of sockets.
    pub fn read() -> Result<Self, netlink::Error> {
        let mut channel = channel()?;
        let open = open(&mut channel)?;
        Ok(Self { channel, open, above: groups_above(), refused: false })
    }

    /// Ends the socket of a flow if that is to end; whether the flow ends then. Where the kernel ends no socket, only what was translated does:
    /// the entry of what was not is what the rules know it by.
    pub fn end(&mut self, flow: &Flow, resets: &Resets) -> bool {
        let ends = [SocketAddr::new(flow.source, flow.source_port), SocketAddr::new(flow.destination, flow.destination_port)];
        let Some(connection) = self.open.get(&ends).filter(|_| flow.protocol == Protocol::Tcp.number()) else { return false };
        let groups: Vec<u64> = std::iter::successors(connection.cgroup, |group| self.above.get(group).copied()).collect();
        let [source, destination] = ends;
        let (user, mark) = (connection.user, connection.mark);
        if !resets.ends(&resets::Connection { source, destination, user, mark, groups: &groups }, flow.reply_destination) {
            return false;
        }
        match self.channel.request(sockets::destroy(connection), |_| {}) {
            Ok(()) => true,
            Err(error) if error.errno() == Some(libc::ENOENT) => true,
            Err(error) => {
                if !std::mem::replace(&mut self.refused, true) {
                    let error = with_causes(&error);
                    warn!(
                        error,
                        "the kernel ends no sockets (CONFIG_INET_DIAG_DESTROY): connections that a binding resets end with their next packet"
                    );
                }
                flow.reply_destination != flow.source
            }
        }
    }
}
