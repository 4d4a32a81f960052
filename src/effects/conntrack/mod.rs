//! The kernel's table of flows (ctnetlink): read whole, and single entries deleted.
//!
//! Filters are ours, in user space: the kernel's own compare IPv6 addresses the wrong way round (seen on Linux 6.18), and kernels
//! before 5.8 take a filtered deletion for a flush. 60,000 entries are read in well under 100 ms.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use nix::libc;

use crate::model::facts::Family;
use crate::model::ports::Protocol;
use crate::netlink::routing::family_number;
use crate::netlink::{self, Channel};
use crate::wire::netfilter::{kind, message};
use crate::wire::{Message, Received, address, attributes, find, flags, messages, number_be};

mod follow;
#[cfg(test)]
mod tests;

const NEW: u16 = kind(libc::NFNL_SUBSYS_CTNETLINK as u16, 0);
const GET: u16 = kind(libc::NFNL_SUBSYS_CTNETLINK as u16, 1);
const DELETE: u16 = kind(libc::NFNL_SUBSYS_CTNETLINK as u16, 2);
/// `AF_UNSPEC`: both families.
const EITHER: u8 = 0;

const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_STATUS: u16 = 3;
const CTA_PROTOINFO: u16 = 4;
const CTA_TIMEOUT: u16 = 7;
const CTA_MARK: u16 = 8;
const CTA_COUNTERS_ORIG: u16 = 9;
const CTA_COUNTERS_REPLY: u16 = 10;
const CTA_ID: u16 = 12;
const CTA_ZONE: u16 = 18;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_TUPLE_ZONE: u16 = 3;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V4_DST: u16 = 2;
const CTA_IP_V6_SRC: u16 = 3;
const CTA_IP_V6_DST: u16 = 4;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_SRC_PORT: u16 = 2;
const CTA_PROTO_DST_PORT: u16 = 3;
const CTA_PROTOINFO_TCP: u16 = 1;
const CTA_PROTOINFO_TCP_STATE: u16 = 1;
const CTA_COUNTERS_BYTES: u16 = 2;
/// Attributes of an ICMP tuple: identifier, type, code.
const ICMP: [u16; 3] = [4, 5, 6];
/// The same of an ICMPv6 tuple.
const ICMPV6: [u16; 3] = [7, 8, 9];

/// Why flows could not be read or deleted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("failed to open a socket for conntrack")]
    Open(#[source] netlink::Error),
    #[error("failed to read the conntrack entries")]
    Read(#[source] netlink::Error),
    #[error("failed to add a conntrack entry of {source_address} to {destination}")]
    Add {
        source_address: SocketAddr,
        destination: SocketAddr,
        #[source]
        source: netlink::Error,
    },
    #[error("failed to delete the conntrack entry of {source_address} to {destination} (protocol {protocol})")]
    Delete {
        source_address: IpAddr,
        destination: IpAddr,
        protocol: u8,
        #[source]
        source: netlink::Error,
    },
}

/// One flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    pub family: Family,
    /// `IPPROTO_*`.
    pub protocol: u8,
    /// Original direction: who began it.
    pub source: IpAddr,
    /// Original direction: to whom, before any destination NAT.
    pub destination: IpAddr,
    /// Port, GRE key, or ICMP identifier; 0 for protocols without.
    pub source_port: u16,
    /// Port or GRE key; for ICMP type and code, as the kernel keeps them (`type << 8 | code`).
    pub destination_port: u16,
    /// Where answers go: the address that the world sees the flow come from.
    pub reply_destination: IpAddr,
    /// Port that the world sees it come from; of protocols without, as the destination's.
    pub reply_port: u16,
    /// Who answers: after destination NAT another one than was called.
    pub reply_source: IpAddr,
    /// The port that answers, as `destination_port`.
    pub reply_source_port: u16,
    pub mark: u32,
    /// `IPS_*` bits.
    pub status: u32,
    /// The kernel's number for this entry: two entries of one tuple, one after the other, differ in it.
    pub id: u32,
    /// Seconds that it lives on if nothing is sent.
    pub timeout: u32,
    pub zone: u16,
    /// Zone of the original direction alone: of a bound program's datagrams.
    pub own_zone: u16,
    /// `TCP_CONNTRACK_*`, of TCP.
    pub tcp_state: Option<u8>,
    /// Bytes of both directions, with their IP headers; only where `net.netfilter.nf_conntrack_acct` is 1.
    pub bytes: Option<u64>,
}

/// `IPS_SEEN_REPLY` of `linux/netfilter/nf_conntrack_common.h`.
const SEEN_REPLY: u32 = 1 << 1;
/// `IPS_ASSURED`.
const ASSURED: u32 = 1 << 2;
/// `IPS_CONFIRMED`.
const CONFIRMED: u32 = 1 << 3;

impl Flow {
    /// Whether anybody answered it.
    pub fn is_answered(&self) -> bool {
        self.status & SEEN_REPLY != 0
    }

    /// Whether it is a connection that both ends may know of. Of a call that nobody has answered the next packet is like its first.
    pub fn is_open_connection(&self) -> bool {
        self.is_answered() && [Protocol::Tcp, Protocol::Sctp].map(Protocol::number).contains(&self.protocol)
    }
}

#[cfg(test)]
impl Flow {
    /// A flow of a bound source that asks a name server.
    pub fn sample() -> Self {
        Self {
            family: Family::V4,
            protocol: 17,
            source: [10, 9, 0, 5].into(),
            destination: [198, 51, 100, 1].into(),
            source_port: 5001,
            destination_port: 53,
            reply_destination: [172, 31, 0, 8].into(),
            reply_port: 5001,
            reply_source: [198, 51, 100, 1].into(),
            reply_source_port: 53,
            mark: 0,
            status: 0,
            id: 7,
            timeout: 30,
            zone: 0,
            own_zone: 0,
            tcp_state: None,
            bytes: None,
        }
    }
}

/// What came of deletions.
#[derive(Debug, Default)]
pub struct Ended {
    /// Deleted, or gone by themselves.
    pub gone: Vec<Flow>,
    /// Refused: they go on.
    pub left: Vec<Flow>,
    /// Why the first of those was refused.
    pub error: Option<Error>,
}

/// Client of conntrack, the table of flows.
pub struct Flows {
    channel: Channel,
}

impl Flows {
    /// Opens the socket; needs `CAP_NET_ADMIN`.
    ///
    /// # Errors
    /// When the kernel gives no socket.
    pub fn open() -> Result<Self, Error> {
        let channel = Channel::open(netlink_sys::protocols::NETLINK_NETFILTER);
        channel.map(|channel| Self { channel }).map_err(Error::Open)
    }

    /// Gives each flow to `each`, while the table lives on: what comes or goes meanwhile may be missed. The kernel walks its whole hash for
    /// one family as for both.
    ///
    /// # Errors
    /// When the kernel does not answer to the end.
    pub fn for_each(&mut self, mut each: impl FnMut(Flow)) -> Result<(), Error> {
        let read = self.channel.request(message(GET, flags::DUMP, EITHER, 0), |message| {
            if let Some(flow) = flow(&message) {
                each(flow);
            }
        });
        read.map_err(Error::Read)
    }

    /// Deletes the flows that `ends` says.
    ///
    /// # Errors
    /// As [`Flows::for_each`].
    pub fn end(&mut self, mut ends: impl FnMut(&Flow) -> bool) -> Result<Ended, Error> {
        let mut chosen = Vec::new();
        self.for_each(|flow| {
            if ends(&flow) {
                chosen.push(flow);
            }
        })?;
        Ok(self.delete_all(chosen))
    }

    /// Deletes these flows. One that the kernel refuses to delete (an offloaded one is `EBUSY`) does not stop the others.
    pub fn delete_all(&mut self, flows: Vec<Flow>) -> Ended {
        let mut ended = Ended::default();
        for flow in flows {
            match self.delete(&flow) {
                Ok(()) => ended.gone.push(flow),
                Err(error) => {
                    ended.left.push(flow);
                    ended.error.get_or_insert(error);
                }
            }
        }
        ended
    }

    /// Deletes this very entry: by its tuple and its number. One that is gone, or whose tuple is another flow's by now, is a success.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn delete(&mut self, flow: &Flow) -> Result<(), Error> {
        match self.channel.request(deletion(flow), |_| {}) {
            Err(error) if error.errno() == Some(libc::ENOENT) => Ok(()),
            other => other.map_err(|source| Error::Delete {
                source_address: flow.source,
                destination: flow.destination,
                protocol: flow.protocol,
                source,
            }),
        }
    }
}

/// One direction of a flow.
struct Tuple {
    protocol: u8,
    source: IpAddr,
    destination: IpAddr,
    source_port: u16,
    destination_port: u16,
    zone: u16,
}

fn flow(message: &Received<'_>) -> Option<Flow> {
    let (mut original, mut reply) = (None, None);
    let (mut mark, mut status, mut id, mut timeout, mut zone) = (0, 0, 0, 0, 0);
    let (mut tcp_state, mut bytes) = (None, None);
    for (kind, value) in message.attributes() {
        match kind {
            CTA_TUPLE_ORIG => original = tuple(value),
            CTA_TUPLE_REPLY => reply = tuple(value),
            CTA_STATUS => status = number_be(value)?,
            CTA_PROTOINFO => tcp_state = tcp(value),
            CTA_COUNTERS_ORIG | CTA_COUNTERS_REPLY => bytes = Some(bytes.unwrap_or(0_u64).saturating_add(counted(value)?)),
            CTA_TIMEOUT => timeout = number_be(value)?,
            CTA_MARK => mark = number_be(value)?,
            CTA_ID => id = number_be(value)?,
            CTA_ZONE => zone = short_be(value)?,
            _ => {}
        }
    }
    let (original, reply) = (original?, reply?);
    Some(Flow {
        family: Family::of(original.source),
        protocol: original.protocol,
        source: original.source,
        destination: original.destination,
        source_port: original.source_port,
        destination_port: original.destination_port,
        reply_destination: reply.destination,
        reply_port: reply.destination_port,
        reply_source: reply.source,
        reply_source_port: reply.source_port,
        mark,
        status,
        id,
        timeout,
        zone,
        own_zone: original.zone,
        tcp_state,
        bytes,
    })
}

/// The state of a TCP flow, of a nested `CTA_PROTOINFO`.
fn tcp(value: &[u8]) -> Option<u8> {
    find(find(value, CTA_PROTOINFO_TCP)?, CTA_PROTOINFO_TCP_STATE)?.first().copied()
}

/// The bytes of a direction's counters.
fn counted(value: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(*find(value, CTA_COUNTERS_BYTES)?.first_chunk()?))
}

fn tuple(value: &[u8]) -> Option<Tuple> {
    let nothing = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let mut tuple = Tuple { protocol: 0, source: nothing, destination: nothing, source_port: 0, destination_port: 0, zone: 0 };
    for (kind, value) in attributes(value) {
        match kind {
            CTA_TUPLE_IP => {
                for (kind, value) in attributes(value) {
                    match kind {
                        CTA_IP_V4_SRC | CTA_IP_V6_SRC => tuple.source = address(value)?,
                        CTA_IP_V4_DST | CTA_IP_V6_DST => tuple.destination = address(value)?,
                        _ => {}
                    }
                }
            }
            CTA_TUPLE_PROTO => {
                for (kind, value) in attributes(value) {
                    match kind {
                        CTA_PROTO_NUM => tuple.protocol = *value.first()?,
                        CTA_PROTO_SRC_PORT => tuple.source_port = short_be(value)?,
                        CTA_PROTO_DST_PORT => tuple.destination_port = short_be(value)?,
                        kind if kind == ICMP[0] || kind == ICMPV6[0] => tuple.source_port = short_be(value)?,
                        kind if kind == ICMP[1] || kind == ICMPV6[1] => {
                            tuple.destination_port |= u16::from(*value.first()?) << 8;
                        }
                        kind if kind == ICMP[2] || kind == ICMPV6[2] => {
                            tuple.destination_port |= u16::from(*value.first()?);
                        }
                        _ => {}
                    }
                }
            }
            CTA_TUPLE_ZONE => tuple.zone = short_be(value)?,
            _ => {}
        }
    }
    Some(tuple)
}

fn deletion(flow: &Flow) -> Message {
    let mut message = message(DELETE, 0, family_number(flow.family), 0);
    let &Flow { protocol, source, destination, source_port, destination_port, own_zone: zone, .. } = flow;
    put_tuple(&mut message, CTA_TUPLE_ORIG, &Tuple { protocol, source, destination, source_port, destination_port, zone });
    message.put(CTA_ID, &flow.id.to_be_bytes());
    if flow.zone != 0 {
        message.put(CTA_ZONE, &flow.zone.to_be_bytes());
    }
    message
}

fn put_tuple(message: &mut Message, kind: u16, one: &Tuple) {
    message.nest(kind, |tuple| {
        tuple.nest(CTA_TUPLE_IP, |addresses| {
            let (source, destination) = match Family::of(one.source) {
                Family::V4 => (CTA_IP_V4_SRC, CTA_IP_V4_DST),
                Family::V6 => (CTA_IP_V6_SRC, CTA_IP_V6_DST),
            };
            addresses.put_address(source, one.source);
            addresses.put_address(destination, one.destination);
        });
        tuple.nest(CTA_TUPLE_PROTO, |protocol| {
            protocol.put(CTA_PROTO_NUM, &[one.protocol]);
            let [high, low] = one.destination_port.to_be_bytes();
            let icmp = match i32::from(one.protocol) {
                libc::IPPROTO_ICMP => Some(ICMP),
                libc::IPPROTO_ICMPV6 => Some(ICMPV6),
                _ => None,
            };
            if let Some([identifier, kind, code]) = icmp {
                protocol.put(identifier, &one.source_port.to_be_bytes());
                protocol.put(kind, &[high]);
                protocol.put(code, &[low]);
            } else {
                protocol.put(CTA_PROTO_SRC_PORT, &one.source_port.to_be_bytes());
                protocol.put(CTA_PROTO_DST_PORT, &[high, low]);
            }
        });
        if one.zone != 0 {
            tuple.put(CTA_TUPLE_ZONE, &one.zone.to_be_bytes());
        }
    });
}

fn short_be(value: &[u8]) -> Option<u16> {
    Some(u16::from_be_bytes(value.get(..2)?.try_into().ok()?))
}

/// Reads bytes as the kernel's answers, whatever they are (see [`crate::fuzzing`]).
pub fn read_any(bytes: &[u8]) {
    let _ = messages(bytes).filter_map(|message| flow(&message)).count();
}
