//! Connections of the host's programs that have to end: their binding resets what is open, and they leave by another address than its exits.
//!
//! No address tells whose such a connection is, so its socket is asked. The rules end it with its program's next packet in any case; by this it
//! ends at once, though nobody sends. So what is not certain here is left to the rules.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use crate::model::binding::{ExistingFlows, Traffic};
use crate::model::facts::is_link_local;
use crate::model::policy::{Standing, standing};
use crate::model::ports::Protocol;
use crate::model::resolve::Outcome;
use crate::model::workload::{Entry, Row};

/// What a socket tells of an open connection.
#[derive(Clone, Copy, Debug)]
pub struct Connection<'a> {
    pub source: SocketAddr,
    pub destination: SocketAddr,
    pub user: u32,
    /// `SO_MARK`: another program routes it.
    pub mark: u32,
    /// Its control group and those above it.
    pub groups: &'a [u64],
}

/// Whose connections end, and which of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resets {
    programs: Vec<Programs>,
    /// Addresses of uplinks: what has another one does not leave.
    own: BTreeSet<IpAddr>,
    /// Addresses that the kernel picks, where all programs are bound.
    picked: BTreeSet<IpAddr>,
    inside: Vec<IpNet>,
}

/// Programs that are known by one thing, in one family. Those that take precedence come first.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Programs {
    v6: bool,
    entry: Entry,
    reset: Option<Reset>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Reset {
    exits: Vec<IpAddr>,
    traffic: Traffic,
}

/// Whether open connections of these programs end that have another address than the exits.
pub fn is_reset(row: &Row) -> bool {
    row.binding.as_ref().is_some_and(|binding| binding.existing_flows == ExistingFlows::Reset)
}

impl Resets {
    /// What an outcome asks for; `None`: no binding of programs resets.
    pub fn of(outcome: &Outcome) -> Option<Self> {
        let programs = outcome.programs.rows.iter().filter_map(|row| {
            let (entry, net, binding) = (row.entry?, row.address?, row.binding.as_ref()?);
            let reset = match standing(row) {
                Standing::Bound(_) => is_reset(row).then(|| Reset { exits: outcome.borne_by(row), traffic: binding.traffic.clone() }),
                Standing::Free => None,
                Standing::Unknown => return None,
            };
            Some(Programs { v6: net.addr().is_ipv6(), entry, reset })
        });
        let programs: Vec<Programs> = programs.collect();
        programs.iter().any(|programs| programs.reset.is_some()).then(|| Self {
            programs,
            own: outcome.uplinks.nics.values().flat_map(|nic| &nic.addresses).copied().collect(),
            picked: outcome.programs.picked.iter().map(|(_, address)| *address).collect(),
            inside: outcome.uplinks.inside.routes.iter().map(|(_, net)| *net).chain(outcome.inside.iter().copied()).collect(),
        })
    }

    /// Whether a connection ends that was translated to this address, or was not and has it.
    pub fn ends(&self, connection: &Connection<'_>, translated: IpAddr) -> bool {
        let (source, to) = (connection.source.ip(), connection.destination);
        let Some(Programs { entry, reset: Some(reset), .. }) = self.owner(connection) else { return false };
        // All programs at once are bound for what they send by the default route, from an address that they have not chosen.
        let is_taken = *entry != Entry::Everybody || (connection.mark == 0 && self.picked.contains(&source));
        is_taken && self.own.contains(&source) && self.is_outside(to.ip()) && reset.is_for(to) && !reset.exits.contains(&translated)
    }

    /// Those that a socket belongs to, as the rules look them up: the deepest group, and a user where no group comes before it.
    fn owner(&self, connection: &Connection<'_>) -> Option<&Programs> {
        let mut deepest: Option<(u32, &Programs)> = None;
        for programs in self.programs.iter().filter(|programs| programs.v6 == connection.source.is_ipv6()) {
            match programs.entry {
                Entry::Cgroup { id, level } => {
                    if connection.groups.contains(&id) && deepest.is_none_or(|(other, _)| other < level) {
                        deepest = Some((level, programs));
                    }
                }
                _ if deepest.is_some() => break,
                Entry::User { uid } if uid == connection.user => return Some(programs),
                Entry::Everybody => return Some(programs),
                Entry::User { .. } | Entry::Port { .. } | Entry::Routed { .. } | Entry::Socket => {}
            }
        }
        deepest.map(|(_, programs)| programs)
    }

    fn is_outside(&self, to: IpAddr) -> bool {
        let stays = to.is_loopback() || to.is_multicast() || is_link_local(to) || self.own.contains(&to);
        !stays && self.inside.iter().all(|net| !net.contains(&to))
    }
}

impl Reset {
    fn is_for(&self, to: SocketAddr) -> bool {
        self.traffic.is_for(to, Protocol::Tcp)
    }
}

impl fmt::Display for Resets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("end open connections of programs whose bindings reset, but for those that leave through an exit of theirs")
    }
}
