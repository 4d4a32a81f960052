//! Single values as users write them: addresses, subnets, ports, names. One place for their rules and texts, for labels and manifests alike.

mod durations;
mod exits;
mod health;
mod rate;
mod sockets;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub use durations::affinity;
pub use exits::{MAX_ADDRESSES, exit_addresses, idle_weights, source_ports, weight, weighted};
pub use health::{datagram, datagram_of_base64, host, path};
use ipnet::IpNet;
pub use rate::{burst, rate};
pub use sockets::{endpoint, listen_address, port, server_address};

use crate::model::binding::{Destination, ExitSpec};
use crate::model::facts::is_link_local;
use crate::model::field_error::FieldError;
use crate::model::ports::{Ports, Protocol};

/// Exits, destinations, or ports of one binding.
pub const MAX_ITEMS: usize = 256;
/// Errors, and warnings, that one object reports; the rest is counted.
pub const MAX_REPORTED: usize = 20;
/// The shortest prefix of a bridge's subnet: that of 10.0.0.0/8.
const LARGEST_SUBNET: u8 = 8;
/// Characters of a user's value that an error repeats.
const MAX_SHOWN: usize = 64;

/// What is wrong with a value, and what would be right where that is known.
#[derive(Debug, PartialEq, Eq)]
pub struct Fault {
    wrong: String,
    cure: Option<String>,
}

impl Fault {
    pub fn new(wrong: impl Into<String>) -> Self {
        Self { wrong: wrong.into(), cure: None }
    }

    pub fn cure(self, cure: impl Into<String>) -> Self {
        Self { cure: Some(cure.into()), ..self }
    }

    /// The whole message; the example of the field is the cure when there is no better one.
    pub fn message(self, example: &str) -> String {
        let cure = self.cure.unwrap_or_else(|| format!("write for instance `{example}`"));
        format!("{}; {cure}", self.wrong)
    }
}

/// Errors of one object, with an upper bound: ten thousand slips are reported as twenty and a number.
#[derive(Debug, Default)]
pub struct Faults {
    kept: Vec<FieldError>,
    more: usize,
}

impl Faults {
    /// `message` is asked for only while there is room.
    pub fn push(&mut self, field: &str, message: impl FnOnce() -> String) {
        if self.kept.len() < MAX_REPORTED {
            self.kept.push(FieldError { field: field.to_owned(), message: message() });
        } else {
            self.more += 1;
        }
    }

    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// Whether the field, or one below it, has an error already.
    pub fn concern(&self, field: &str) -> bool {
        let below = |rest: &str| rest.is_empty() || rest.starts_with(['.', '[']);
        self.kept.iter().any(|error| error.field.strip_prefix(field).is_some_and(below))
    }

    pub fn finish(mut self) -> Vec<FieldError> {
        if self.more > 0
            && let Some(last) = self.kept.last_mut()
        {
            last.message.push_str(&format!(" (and {} more errors)", self.more));
        }
        self.kept
    }
}

/// A user's value for an error text: in backquotes, short, without control characters.
pub fn shown(value: &str) -> String {
    format!("`{}`", printable(value, MAX_SHOWN))
}

/// Up to `most` characters of a text from outside, with control and invisible characters written out.
pub fn printable(text: &str, most: usize) -> String {
    let start: String = text.chars().take(most).flat_map(char::escape_debug).collect();
    // `escape_debug` also escapes quotes, which harm nobody here.
    let mut start = start.replace("\\\"", "\"").replace("\\'", "'");
    if text.chars().nth(most).is_some() {
        start.push('…');
    }
    start
}

/// An address without a prefix length.
fn ip(text: &str) -> Result<IpAddr, Fault> {
    if let Some((address, _)) = text.split_once('/')
        && let Ok(address) = address.parse::<IpAddr>()
    {
        return Err(Fault::new(format!("{} has a prefix length", shown(text))).cure(format!("write `{address}`")));
    }
    let address: IpAddr = text.parse().map_err(|_| Fault::new(format!("{} is not an IP address", shown(text))))?;
    if let IpAddr::V6(v6) = address
        && let Some(v4) = v6.to_ipv4_mapped()
    {
        return Err(Fault::new(format!("{} is an IPv4 address in IPv6 form", shown(text))).cure(format!("write `{v4}`")));
    }
    Ok(address)
}

/// Why no host can have this address, or none that is reached through a router.
fn unusable(address: IpAddr) -> Option<&'static str> {
    let (loopback, broadcast, reserved) = match address {
        IpAddr::V4(v4) => (v4.is_loopback(), v4 == Ipv4Addr::BROADCAST, v4.octets()[0] == 0 || v4.octets()[0] >= 240),
        IpAddr::V6(v6) => (v6.is_loopback(), false, false),
    };
    match () {
        () if address.is_unspecified() => Some("is the unspecified address"),
        () if loopback => Some("is a loopback address"),
        () if address.is_multicast() => Some("is a multicast address"),
        () if broadcast => Some("is the broadcast address"),
        () if reserved => Some("is in a reserved range"),
        () => None,
    }
}

/// An address that packets can leave with.
pub fn exit_address(text: &str) -> Result<IpAddr, Fault> {
    routed_address(text, "write the address that the NIC has towards its gateway")
}

/// The address of a server that calls are brought to, by routes.
pub fn last_resort_address(text: &str) -> Result<IpAddr, Fault> {
    routed_address(text, "write one that a route leads to")
}

fn routed_address(text: &str, cure: &str) -> Result<IpAddr, Fault> {
    let address = host_address(text)?;
    if is_link_local(address) {
        return Err(Fault::new(format!("{} is a link-local address, which no router forwards", shown(text))).cure(cure));
    }
    Ok(address)
}

/// What stands for an interface's own addresses: the unspecified one of each family, or of the gateway's alone.
pub fn own_addresses(gateway: Option<IpAddr>) -> impl Iterator<Item = IpAddr> {
    let both = [IpAddr::from(Ipv4Addr::UNSPECIFIED), IpAddr::from(Ipv6Addr::UNSPECIFIED)];
    both.into_iter().filter(move |address| gateway.is_none_or(|gateway| gateway.is_ipv4() == address.is_ipv4()))
}

/// A next hop. Link-local ones are usual in IPv6.
pub fn gateway(text: &str) -> Result<IpAddr, Fault> {
    host_address(text)
}

/// An address that a host or container can have.
pub fn host_address(text: &str) -> Result<IpAddr, Fault> {
    let address = ip(text)?;
    match unusable(address) {
        Some(reason) => Err(Fault::new(format!("{} {reason}", shown(text)))),
        None => Ok(address),
    }
}

/// A subnet that packets can come from.
pub fn source(net: IpNet) -> Result<IpNet, Fault> {
    let one = net.prefix_len() == net.max_prefix_len();
    let never = net.addr().is_loopback() || net.addr().is_multicast();
    match unusable(net.addr()).filter(|_| one || never) {
        Some(reason) => Err(Fault::new(format!("`{net}` {reason}"))),
        None => Ok(net),
    }
}

/// A subnet in text. Its address is read by the rules of an address: with a leading zero, which other programs take for octal, it is none.
fn net(text: &str) -> Option<IpNet> {
    let (address, length) = text.split_once('/')?;
    let digits = !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit()) && (length == "0" || !length.starts_with('0'));
    IpNet::new(address.parse().ok()?, length.parse().ok().filter(|_| digits)?).ok()
}

/// A subnet: with a prefix length, without host bits.
pub fn cidr(text: &str) -> Result<IpNet, Fault> {
    let Some(net) = net(text) else {
        let fault = Fault::new(format!("{} is not a subnet", shown(text)));
        return Err(match text.parse::<IpAddr>() {
            Ok(address) => fault.cure(format!("write `{}` for this one address", IpNet::from(address))),
            Err(_) => fault,
        });
    };
    if net.trunc() != net {
        return Err(Fault::new(format!("{} has host bits set", shown(text))).cure(format!("write `{}`", net.trunc())));
    }
    if let IpNet::V6(v6) = net
        && v6.prefix_len() >= 96
        && let Some(v4) = v6.addr().to_ipv4_mapped()
    {
        return Err(
            Fault::new(format!("{} is an IPv4 subnet in IPv6 form", shown(text))).cure(format!("write `{v4}/{}`", v6.prefix_len() - 96))
        );
    }
    Ok(net)
}

/// Whether the kernel takes this as the name of a device (`dev_valid_name`: at most 15 bytes, no slash, colon or space).
pub fn interface(text: &str) -> Result<String, Fault> {
    let wrong = match text {
        "" => "is empty".to_owned(),
        _ if text.len() > 15 => format!("{} is longer than the 15 bytes of an interface name", shown(text)),
        "." | ".." => format!("{} is not an interface name", shown(text)),
        _ if text.chars().any(|c| c == '/' || c == ':' || c.is_whitespace() || c.is_control()) => {
            format!("{} is not an interface name", shown(text))
        }
        _ => return Ok(text.to_owned()),
    };
    Err(Fault::new(wrong))
}

/// A name as Docker allows it for networks and containers.
pub fn docker_name(text: &str) -> Result<String, Fault> {
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    if text.len() <= 255 && text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.chars().all(inner) {
        return Ok(text.to_owned());
    }
    Err(Fault::new(format!("{} is not a name that Docker allows (letters, digits, `_`, `.`, `-`)", shown(text))))
}

/// A DNS name as Kubernetes demands it of objects (RFC 1123), up to `longest` bytes.
pub fn object_name(text: &str, longest: usize) -> Result<String, Fault> {
    let label = |l: &str| {
        let edge = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
        let bytes = l.as_bytes();
        bytes.first().is_some_and(|c| edge(*c)) && bytes.last().is_some_and(|c| edge(*c)) && bytes.iter().all(|c| edge(*c) || *c == b'-')
    };
    if text.len() <= longest && text.split('.').all(label) {
        return Ok(text.to_owned());
    }
    let rule = format!("(small letters, digits, `-`, `.`; at most {longest} bytes)");
    Err(Fault::new(format!("{} is not an object name {rule}", shown(text))))
}

/// `tcp`, `udp` or `sctp`, however they are written.
pub fn protocol(text: &str) -> Result<Protocol, Fault> {
    Protocol::named(text).ok_or_else(|| Fault::new(format!("{} is not one of `tcp`, `udp`, `sctp`", shown(text))))
}

/// `tcp/443`, `udp/53`, `sctp/1000-2000`.
pub fn ports(text: &str) -> Result<Ports, Fault> {
    let (protocol, range) = text.split_once('/').ok_or_else(|| Fault::new(format!("{} is not a protocol and a port", shown(text))))?;
    let protocol = self::protocol(protocol)?;
    let port = |text: &str| -> Result<i32, Fault> {
        text.parse().map_err(|_| Fault::new(format!("{} is not a port or a range of ports (1 to 65535)", shown(range))))
    };
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    port_range(protocol, port(first)?, port(last)?)
}

/// Ports `first` to `last`, both of 1 to 65535 and in this order.
pub fn port_range(protocol: Protocol, first: i32, last: i32) -> Result<Ports, Fault> {
    let (first, last) = (port(first)?, port(last)?);
    if first > last {
        return Err(Fault::new(format!("`{first}-{last}` is reversed")).cure(format!("write `{last}-{first}`")));
    }
    Ok(Ports { protocol, first, last })
}

/// Sorted, and each port once: what overlaps or adjoins becomes one range.
pub fn merge_ports(mut all: Vec<Ports>) -> Vec<Ports> {
    all.sort();
    all.dedup_by(|next, kept| {
        let joins = next.protocol == kept.protocol && u32::from(next.first) <= u32::from(kept.last) + 1;
        if joins {
            kept.last = kept.last.max(next.last);
        }
        joins
    });
    all
}

/// The cure for a gateway that does not fit its exit.
pub fn check_gateway(exit: IpAddr, gateway: IpAddr) -> Result<(), Fault> {
    if exit.is_ipv4() != gateway.is_ipv4() {
        return Err(Fault::new(format!("`{gateway}` is {}, but the exit `{exit}` is {}", family(gateway), family(exit)))
            .cure(format!("write the {} gateway of that NIC, or leave it out to have it found", family(exit))));
    }
    if exit == gateway {
        return Err(Fault::new(format!("`{gateway}` is the exit's own address"))
            .cure("write the router's address, or leave it out to have it found"));
    }
    Ok(())
}

/// A subnet of a Docker bridge: one of each family, with room for hosts.
pub fn subnet(net: IpNet, others: &[IpNet]) -> Result<IpNet, Fault> {
    let name = family(net.addr());
    if others.iter().any(|other| other.addr().is_ipv4() == net.addr().is_ipv4()) {
        return Err(Fault::new(format!("`{net}` is a second {name} subnet, and Docker's bridges take one of each family"))
            .cure("write another network for it"));
    }
    if net.max_prefix_len() - net.prefix_len() < 2 {
        return Err(Fault::new(format!("`{net}` has no room for containers")));
    }
    if net.prefix_len() < LARGEST_SUBNET {
        return Err(Fault::new(format!("`{net}` is larger than a /{LARGEST_SUBNET}")));
    }
    let reserved = unusable(net.addr()).or(is_link_local(net.addr()).then_some("is link-local"));
    reserved.map_or(Ok(net), |reason| Err(Fault::new(format!("`{net}` {reason}"))))
}

/// The bridge's own address: inside one of the subnets, the only one there.
pub fn bridge_address(gateway: IpAddr, subnets: &[IpNet], others: &[IpAddr]) -> Result<IpAddr, Fault> {
    let Some(subnet) = subnets.iter().find(|subnet| subnet.contains(&gateway)) else {
        return Err(Fault::new(format!("`{gateway}` is in none of the subnets")));
    };
    if others.iter().any(|other| subnet.contains(other)) {
        return Err(Fault::new(format!("`{gateway}` is a second gateway in `{subnet}`")).cure("keep one"));
    }
    if gateway == subnet.network() || (gateway.is_ipv4() && gateway == subnet.broadcast()) {
        return Err(Fault::new(format!("`{gateway}` is the network or broadcast address of `{subnet}`")));
    }
    Ok(gateway)
}

/// `IPv4` or `IPv6`.
pub fn family(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "IPv4" } else { "IPv6" }
}

/// Everything of both families.
pub fn everywhere() -> [IpNet; 2] {
    [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()].map(|address| IpNet::new_assert(address, 0))
}

/// Said when an exit can never be used, because nothing of its family is asked for, or the other way round.
pub fn idle_families(exits: &[ExitSpec], to: &[Destination]) -> Option<String> {
    let (first_exit, first_to) = (exits.first()?, to.first()?);
    let v4 = first_exit.address.is_ipv4();
    let one_family = exits.iter().all(|e| e.address.is_ipv4() == v4);
    let other = to.iter().all(|d| d.cidr.addr().is_ipv4() != v4);
    (one_family && other).then(|| {
        let (exit, to) = (family(first_exit.address), family(first_to.cidr.addr()));
        format!("all exits are {exit} but all destinations are {to}, so no traffic can use them; add an {to} exit or {exit} destinations")
    })
}

#[cfg(test)]
mod tests;
