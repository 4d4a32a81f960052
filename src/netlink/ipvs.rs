//! IPVS's messages (`include/uapi/linux/ip_vs.h`): services and their servers, read and changed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nix::libc;

use crate::model::ipvs::Thresholds;
use crate::model::ipvs::table::{Forwarding, Persistent, RealServer, Settings};
use crate::model::ports::{Called, Ports, Protocol};
use crate::model::services::Endpoint;
use crate::wire::{Message, Received, find, generic, number, text};

/// Name of the family.
pub const FAMILY: &str = "IPVS";
/// `IPVS_GENL_VERSION`.
const VERSION: u8 = 1;

const GET_SERVICE: u8 = 4;
const GET_DEST: u8 = 8;

const CMD_ATTR_SERVICE: u16 = 1;
const CMD_ATTR_DEST: u16 = 2;
const SVC_ATTR_AF: u16 = 1;
const SVC_ATTR_PROTOCOL: u16 = 2;
const SVC_ATTR_ADDR: u16 = 3;
const SVC_ATTR_PORT: u16 = 4;
const SVC_ATTR_SCHED_NAME: u16 = 6;
const SVC_ATTR_FLAGS: u16 = 7;
const SVC_ATTR_TIMEOUT: u16 = 8;
const SVC_ATTR_NETMASK: u16 = 9;
const DEST_ATTR_ADDR: u16 = 1;
const DEST_ATTR_PORT: u16 = 2;
const DEST_ATTR_FWD_METHOD: u16 = 3;
const DEST_ATTR_WEIGHT: u16 = 4;
const DEST_ATTR_U_THRESH: u16 = 5;
const DEST_ATTR_L_THRESH: u16 = 6;
const DEST_ATTR_ACTIVE_CONNS: u16 = 7;
const DEST_ATTR_INACT_CONNS: u16 = 8;
const DEST_ATTR_ADDR_FAMILY: u16 = 11;

/// `IP_VS_SVC_F_PERSISTENT`.
const PERSISTENT: u32 = 0x1;
/// `IP_VS_SVC_F_HASHED`: the kernel's own note.
const HASHED: u32 = 0x2;
/// `IP_VS_CONN_F_FWD_MASK`; 0 in it is NAT (`IP_VS_CONN_F_MASQ`).
const FORWARDING_MASK: u32 = 0x7;

/// What is done to a service or to one of its servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change<'a> {
    AddService(&'a Settings),
    EditService(&'a Settings),
    DeleteService,
    AddServer(Endpoint, &'a RealServer),
    EditServer(Endpoint, &'a RealServer),
    DeleteServer(Endpoint),
}

impl Change<'_> {
    /// `IPVS_CMD_*`.
    fn command(&self) -> u8 {
        match self {
            Self::AddService(_) => 1,
            Self::EditService(_) => 2,
            Self::DeleteService => 3,
            Self::AddServer(..) => 5,
            Self::EditServer(..) => 6,
            Self::DeleteServer(_) => 7,
        }
    }
}

/// Asks for all services.
pub fn ask_services(family: u16) -> Message {
    generic::dump(family, GET_SERVICE, VERSION)
}

/// Asks for the servers of a service.
pub fn ask_servers(family: u16, called: Called) -> Message {
    let mut ask = generic::dump(family, GET_DEST, VERSION);
    ask.nest(CMD_ATTR_SERVICE, |service| put_called(service, called));
    ask
}

/// Changes a service, or one of its servers.
pub fn change(family: u16, called: Called, change: &Change<'_>) -> Message {
    let mut message = generic::message(family, 0, change.command(), VERSION);
    message.nest(CMD_ATTR_SERVICE, |service| {
        put_called(service, called);
        if let Change::AddService(settings) | Change::EditService(settings) = change {
            put_settings(service, called.0, settings);
        }
    });
    match change {
        Change::AddServer(endpoint, server) | Change::EditServer(endpoint, server) => message.nest(CMD_ATTR_DEST, |dest| {
            put_endpoint(dest, *endpoint);
            dest.put_u32(DEST_ATTR_FWD_METHOD, 0);
            dest.put_u32(DEST_ATTR_WEIGHT, server.weight);
            dest.put_u32(DEST_ATTR_U_THRESH, server.thresholds.upper);
            dest.put_u32(DEST_ATTR_L_THRESH, server.thresholds.lower);
        }),
        Change::DeleteServer(endpoint) => message.nest(CMD_ATTR_DEST, |dest| put_endpoint(dest, *endpoint)),
        Change::AddService(_) | Change::EditService(_) | Change::DeleteService => {}
    }
    message
}

/// The service that a message tells of; `None` for those of firewall marks, and of other protocols.
pub fn service(message: &Received<'_>) -> Option<(Called, Settings)> {
    let body = nested(message, CMD_ATTR_SERVICE)?;
    let v6 = short(find(body, SVC_ATTR_AF)?)? == libc::AF_INET6 as u16;
    let protocol = u8::try_from(short(find(body, SVC_ATTR_PROTOCOL)?)?).ok().and_then(Protocol::numbered)?;
    let address = address(find(body, SVC_ATTR_ADDR)?, v6)?;
    let port = port(find(body, SVC_ATTR_PORT)?)?;
    let given = find(body, SVC_ATTR_FLAGS).and_then(number)?;
    let persistence = (given & PERSISTENT != 0).then(|| {
        let seconds = find(body, SVC_ATTR_TIMEOUT).and_then(number).unwrap_or_default();
        let netmask = find(body, SVC_ATTR_NETMASK).unwrap_or_default();
        Persistent { seconds, prefix_length: prefix_length(netmask, v6) }
    });
    let scheduler = find(body, SVC_ATTR_SCHED_NAME).and_then(text).unwrap_or_default().to_owned();
    let settings = Settings { scheduler, persistence, flags: given & !(PERSISTENT | HASHED) };
    Some(((address, Ports { protocol, first: port, last: port }), settings))
}

/// The server that a message tells of, of a service of this family. (Kernels before 3.18 do not say the server's own.)
pub fn server(message: &Received<'_>, service_v6: bool) -> Option<(Endpoint, RealServer)> {
    let body = nested(message, CMD_ATTR_DEST)?;
    let v6 = find(body, DEST_ATTR_ADDR_FAMILY).and_then(short).map_or(service_v6, |family| family == libc::AF_INET6 as u16);
    let endpoint = (address(find(body, DEST_ATTR_ADDR)?, v6)?, port(find(body, DEST_ATTR_PORT)?)?);
    let of = |kind| find(body, kind).and_then(number).unwrap_or_default();
    let forwarding = if of(DEST_ATTR_FWD_METHOD) & FORWARDING_MASK == 0 { Forwarding::Nat } else { Forwarding::Other };
    let thresholds = Thresholds { upper: of(DEST_ATTR_U_THRESH), lower: of(DEST_ATTR_L_THRESH) };
    let connections = of(DEST_ATTR_ACTIVE_CONNS).saturating_add(of(DEST_ATTR_INACT_CONNS));
    Some((endpoint, RealServer { forwarding, weight: of(DEST_ATTR_WEIGHT), thresholds, connections }))
}

fn nested<'a>(message: &Received<'a>, kind: u16) -> Option<&'a [u8]> {
    generic::body(message).find_map(|(found, value)| (found == kind).then_some(value))
}

fn put_called(service: &mut Message, (address, ports): Called) {
    service.put(SVC_ATTR_AF, &family_of(address).to_ne_bytes());
    service.put(SVC_ATTR_PROTOCOL, &u16::from(ports.protocol.number()).to_ne_bytes());
    service.put(SVC_ATTR_ADDR, &union(address));
    service.put(SVC_ATTR_PORT, &ports.first.to_be_bytes());
}

fn put_settings(service: &mut Message, address: IpAddr, settings: &Settings) {
    let (persistent, seconds) = settings.persistence.map_or((0, 0), |persistence| (PERSISTENT, persistence.seconds));
    let length = settings.persistence.map_or(if address.is_ipv6() { 128 } else { 32 }, |persistence| persistence.prefix_length);
    service.put_text(SVC_ATTR_SCHED_NAME, &settings.scheduler);
    // `struct ip_vs_flags`: the flags, and which of them are meant.
    let given = [(settings.flags | persistent).to_ne_bytes(), u32::MAX.to_ne_bytes()].concat();
    service.put(SVC_ATTR_FLAGS, &given);
    service.put_u32(SVC_ATTR_TIMEOUT, seconds);
    service.put(SVC_ATTR_NETMASK, &netmask(length, address.is_ipv6()));
}

fn put_endpoint(dest: &mut Message, (address, port): Endpoint) {
    dest.put(DEST_ATTR_ADDR, &union(address));
    dest.put(DEST_ATTR_PORT, &port.to_be_bytes());
    dest.put(DEST_ATTR_ADDR_FAMILY, &family_of(address).to_ne_bytes());
}

fn family_of(address: IpAddr) -> u16 {
    (if address.is_ipv6() { libc::AF_INET6 } else { libc::AF_INET }) as u16
}

/// `union nf_inet_addr`: 16 bytes, of which IPv4 has the first four.
fn union(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(own) => {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&own.octets());
            bytes
        }
        IpAddr::V6(own) => own.octets(),
    }
}

fn address(bytes: &[u8], v6: bool) -> Option<IpAddr> {
    Some(if v6 { Ipv6Addr::from(*bytes.first_chunk::<16>()?).into() } else { Ipv4Addr::from(*bytes.first_chunk::<4>()?).into() })
}

/// IPv4 has a mask in network byte order, IPv6 the length in the host's.
fn netmask(length: u8, v6: bool) -> [u8; 4] {
    if v6 { u32::from(length).to_ne_bytes() } else { u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0).to_be_bytes() }
}

/// 0 for a mask with gaps, which none of ours has.
fn prefix_length(bytes: &[u8], v6: bool) -> u8 {
    let Some(bytes) = bytes.first_chunk() else { return 0 };
    if v6 {
        return u8::try_from(u32::from_ne_bytes(*bytes)).unwrap_or_default();
    }
    let mask = u32::from_be_bytes(*bytes);
    if mask.leading_ones() == mask.count_ones() { mask.leading_ones() as u8 } else { 0 }
}

fn short(value: &[u8]) -> Option<u16> {
    Some(u16::from_ne_bytes(*value.first_chunk()?))
}

fn port(value: &[u8]) -> Option<u16> {
    Some(u16::from_be_bytes(*value.first_chunk()?))
}

#[cfg(test)]
mod tests;
