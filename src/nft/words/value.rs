//! Values as `nft` writes them: interfaces, addresses, marks, ports.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::nft::{Bytes, Data, Datatype, Key, Set, Verdict};

/// The name of an interface, by its number.
pub type NameOf<'a> = &'a dyn Fn(u32) -> Option<String>;

/// What a value is, and so how it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Of(Datatype),
    /// An interface's name itself.
    Name,
    /// A direction of a flow.
    Direction,
    /// A version of IP, as `NFPROTO_*`.
    IpVersion,
    /// What an Ethernet frame carries.
    EtherType,
    /// What an address is to this host, as `RTN_*`.
    AddressType,
    /// A number in host order.
    Number,
}

/// nft's name of a type.
pub fn datatype(kind: Datatype) -> String {
    match kind {
        Datatype::IfIndex => "iface_index",
        Datatype::Ipv4 => "ipv4_addr",
        Datatype::Ipv6 => "ipv6_addr",
        Datatype::Mac => "ether_addr",
        Datatype::Mark => "mark",
        Datatype::Uid => "uid",
        Datatype::Cgroup => "cgroupsv2",
        Datatype::Protocol => "inet_proto",
        Datatype::Service => "inet_service",
        Datatype::Endpoint4 => "ipv4_addr . inet_service",
        Datatype::Endpoint6 => "ipv6_addr . inet_service",
        Datatype::Verdict => "verdict",
        Datatype::Other(number) => return format!("type {number}"),
    }
    .to_owned()
}

/// An element of a set, with its data if it has some.
pub fn element(set: Option<&Set>, key: &Key, data: Option<&Data>, name: NameOf<'_>) -> String {
    let Some(set) = set else { return format!("{key:?}") };
    let mut at = 0;
    let fields = set.key.iter().map(|kind| {
        let width = kind.width() as usize;
        let field = |bytes: &Bytes| bytes.as_slice().get(at..at + width).unwrap_or_default().to_vec();
        let (first, last) = (field(&key.first), key.last.as_ref().map(field));
        at += width.next_multiple_of(4);
        // The numbers of ranges are in network order, so that they can be compared byte by byte.
        let one = |bytes: &[u8]| write(Kind::Of(*kind), bytes, set.interval, name);
        match last.filter(|last| *last != first) {
            Some(last) => prefix(*kind, &first, &last).unwrap_or_else(|| format!("{}-{}", one(&first), one(&last))),
            None => one(&first),
        }
    });
    let key = fields.collect::<Vec<_>>().join(" . ");
    match (data, set.data) {
        (Some(Data::Verdict(verdict)), _) => format!("{key} : {}", self::verdict(verdict)),
        (Some(Data::Value(value)), Some(kind)) => format!("{key} : {}", write(Kind::Of(kind), value.as_slice(), false, name)),
        _ => key,
    }
}

fn prefix(kind: Datatype, first: &[u8], last: &[u8]) -> Option<String> {
    let (first, last) = (address(kind, first)?, address(kind, last)?);
    (0..=if first.is_ipv4() { 32 } else { 128 }).filter_map(|length| IpNet::new(first, length).ok()).find_map(|net| {
        let whole = net.network() == first && net.broadcast() == last;
        whole.then(|| net.to_string())
    })
}

fn address(kind: Datatype, bytes: &[u8]) -> Option<IpAddr> {
    match kind {
        Datatype::Ipv4 => Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?).into()),
        Datatype::Ipv6 => Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).into()),
        _ => None,
    }
}

/// A value of this kind. Its numbers are in host order, or all in network order.
pub fn write(kind: Kind, bytes: &[u8], network_order: bool, name: NameOf<'_>) -> String {
    let number = number(bytes, network_order);
    match kind {
        Kind::Of(Datatype::IfIndex) => interface(number as u32, name),
        Kind::Of(of @ (Datatype::Ipv4 | Datatype::Ipv6)) => address(of, bytes).map_or_else(|| hexadecimal(bytes), |a| a.to_string()),
        Kind::Of(Datatype::Endpoint4) if bytes.len() >= 6 => endpoint(Datatype::Ipv4, bytes, 4),
        Kind::Of(Datatype::Endpoint6) if bytes.len() >= 18 => endpoint(Datatype::Ipv6, bytes, 16),
        Kind::Of(Datatype::Mac) => bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":"),
        Kind::Of(Datatype::Mark) => format!("{number:#010x}"),
        Kind::Of(Datatype::Protocol) => protocol(number).map_or_else(|| number.to_string(), str::to_owned),
        // As packets have it, whatever the numbers beside it are.
        Kind::Of(Datatype::Service) => self::number(bytes, true).to_string(),
        Kind::Name => format!("\"{}\"", String::from_utf8_lossy(bytes).trim_end_matches('\0')),
        Kind::Direction => if number == 0 { "original" } else { "reply" }.to_owned(),
        Kind::IpVersion => if number == 2 { "ipv4" } else { "ipv6" }.to_owned(),
        Kind::EtherType => match self::number(bytes, true) {
            0x0800 => "ip".to_owned(),
            0x0806 => "arp".to_owned(),
            0x86dd => "ip6".to_owned(),
            other => format!("{other:#06x}"),
        },
        Kind::AddressType => ["unspec", "unicast", "local", "broadcast", "anycast", "multicast", "blackhole", "unreachable", "prohibit"]
            .get(number as usize)
            .map_or_else(|| number.to_string(), |word| (*word).to_owned()),
        _ => number.to_string(),
    }
}

/// What becomes of a packet.
pub fn verdict(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Accept => "accept".to_owned(),
        Verdict::Drop => "drop".to_owned(),
        Verdict::Return => "return".to_owned(),
        Verdict::Jump(chain) => format!("jump {chain}"),
        Verdict::Goto(chain) => format!("goto {chain}"),
    }
}

fn endpoint(kind: Datatype, bytes: &[u8], length: usize) -> String {
    let address = address(kind, &bytes[..length]).map_or_else(|| hexadecimal(bytes), |address| address.to_string());
    format!("{address} . {}", number(&bytes[length..length + 2], true))
}

fn interface(index: u32, name: NameOf<'_>) -> String {
    name(index).map_or_else(|| index.to_string(), |name| format!("\"{name}\""))
}

fn protocol(number: u64) -> Option<&'static str> {
    Some(match number {
        1 => "icmp",
        6 => "tcp",
        17 => "udp",
        58 => "ipv6-icmp",
        132 => "sctp",
        _ => return None,
    })
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold("0x".to_owned(), |text, byte| text + &format!("{byte:02x}"))
}

/// Up to eight bytes as a number.
pub fn number(bytes: &[u8], network_order: bool) -> u64 {
    let add = |number: u64, byte: &u8| number << 8 | u64::from(*byte);
    let bytes = bytes.get(..8).unwrap_or(bytes);
    if network_order || cfg!(target_endian = "big") { bytes.iter().fold(0, add) } else { bytes.iter().rev().fold(0, add) }
}
