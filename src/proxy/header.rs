//! The PROXY protocol, versions 1 and 2 (the specification is HAProxy's `doc/proxy-protocol.txt`): who the client is, told ahead of a TCP
//! connection's first byte. Pure: bytes in, addresses out, and back.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::model::proxy::ProxyProtocol;

/// What version 2 begins with.
pub const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Bytes of version 2 ahead of what its length counts.
pub const FIXED: usize = 16;
/// Bytes that a line of version 1 has at most, with its end.
pub const LONGEST_LINE: usize = 107;
/// Bytes that we read of version 2 behind the fixed part: addresses take 36 of them, the rest are extensions (TLV), which are passed over.
pub const LONGEST_BODY: usize = 4096;

/// Version 2, command PROXY.
const V2_PROXY: u8 = 0x21;
/// Version 2, command LOCAL: a connection of the balancer's own.
const V2_LOCAL: u8 = 0x20;
/// TCP over IPv4, and over IPv6.
const TCP4: u8 = 0x11;
const TCP6: u8 = 0x21;

/// The two ends of a connection, as the client made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// The client.
    pub source: SocketAddr,
    /// The address that it called.
    pub destination: SocketAddr,
}

/// Why a header cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("the connection does not begin with a PROXY protocol header")]
    NoHeader,
    #[error("a PROXY protocol line is not `PROXY TCP4|TCP6 SOURCE DESTINATION PORT PORT`")]
    Line,
    #[error("a PROXY protocol header has a version or command that is not known (byte {0:#04x})")]
    Version(u8),
    #[error("a PROXY protocol header is shorter than its addresses, or longer than {LONGEST_BODY} bytes")]
    Length,
}

/// The header that tells a server of these ends; nothing for [`ProxyProtocol::None`].
pub fn encode(version: ProxyProtocol, ends: Ends) -> Vec<u8> {
    let Ends { source, destination } = ends;
    match version {
        ProxyProtocol::None => Vec::new(),
        ProxyProtocol::V1 => {
            let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
            format!("PROXY {family} {} {} {} {}\r\n", source.ip(), destination.ip(), source.port(), destination.port()).into_bytes()
        }
        ProxyProtocol::V2 => {
            let mut bytes = SIGNATURE.to_vec();
            let (family, length) = if source.is_ipv4() { (TCP4, 12_u16) } else { (TCP6, 36) };
            bytes.extend([V2_PROXY, family]);
            bytes.extend(length.to_be_bytes());
            for end in [source, destination] {
                match end.ip() {
                    IpAddr::V4(address) => bytes.extend(address.octets()),
                    IpAddr::V6(address) => bytes.extend(address.octets()),
                }
            }
            bytes.extend([source, destination].iter().flat_map(|end| end.port().to_be_bytes()));
            bytes
        }
    }
}

/// How long the body is that follows the fixed part of version 2.
pub fn body_length(fixed: &[u8; FIXED]) -> Result<usize, Error> {
    if fixed[..12] != SIGNATURE {
        return Err(Error::NoHeader);
    }
    if !matches!(fixed[12], V2_PROXY | V2_LOCAL) {
        return Err(Error::Version(fixed[12]));
    }
    let length = usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    if length > LONGEST_BODY { Err(Error::Length) } else { Ok(length) }
}

/// What version 2 says. `None` for a connection of the balancer's own, or of another kind than TCP over IP: its own ends count.
pub fn decode_v2(fixed: &[u8; FIXED], body: &[u8]) -> Result<Option<Ends>, Error> {
    if body_length(fixed)? != body.len() {
        return Err(Error::Length);
    }
    if fixed[12] == V2_LOCAL {
        return Ok(None);
    }
    let port = |at: usize| body.get(at..at + 2).map(|two| u16::from_be_bytes([two[0], two[1]])).ok_or(Error::Length);
    let v4 = |at: usize| body.get(at..at + 4).and_then(|b| <[u8; 4]>::try_from(b).ok()).map(Ipv4Addr::from).ok_or(Error::Length);
    let v6 = |at: usize| body.get(at..at + 16).and_then(|b| <[u8; 16]>::try_from(b).ok()).map(Ipv6Addr::from).ok_or(Error::Length);
    match fixed[13] {
        TCP4 => Ok(Some(Ends { source: SocketAddr::new(v4(0)?.into(), port(8)?), destination: SocketAddr::new(v4(4)?.into(), port(10)?) })),
        TCP6 => {
            Ok(Some(Ends { source: SocketAddr::new(v6(0)?.into(), port(32)?), destination: SocketAddr::new(v6(16)?.into(), port(34)?) }))
        }
        _ => Ok(None),
    }
}

/// What a line of version 1 says, its end included. `None` for `UNKNOWN`: the connection's own ends count.
pub fn decode_v1(line: &[u8]) -> Result<Option<Ends>, Error> {
    let line = line.strip_prefix(b"PROXY ").ok_or(Error::NoHeader)?;
    let line = line.strip_suffix(b"\r\n").and_then(|line| std::str::from_utf8(line).ok()).ok_or(Error::Line)?;
    let mut words = line.split(' ');
    let v4 = match words.next() {
        Some("TCP4") => true,
        Some("TCP6") => false,
        Some("UNKNOWN") => return Ok(None),
        _ => return Err(Error::Line),
    };
    let mut address = || words.next().and_then(|word| word.parse::<IpAddr>().ok()).filter(|ip| ip.is_ipv4() == v4).ok_or(Error::Line);
    let (source, destination) = (address()?, address()?);
    // No sign, no leading zero.
    let plain = |word: &&str| word.bytes().all(|byte| byte.is_ascii_digit()) && (*word == "0" || !word.starts_with('0'));
    let mut port = || words.next().filter(plain).and_then(|word| word.parse::<u16>().ok()).ok_or(Error::Line);
    let (from, to) = (port()?, port()?);
    match words.next() {
        None => Ok(Some(Ends { source: SocketAddr::new(source, from), destination: SocketAddr::new(destination, to) })),
        Some(_) => Err(Error::Line),
    }
}

#[cfg(test)]
mod tests;
