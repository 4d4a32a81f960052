//! Addresses and ports that sockets are bound and connected to.

use std::net::{IpAddr, SocketAddr};

use super::{Fault, host_address, ip, shown, unusable};
use crate::model::facts::is_link_local;

/// An address to listen on: one of a host, loopback, or the unspecified one of a family.
pub fn listen_address(text: &str) -> Result<IpAddr, Fault> {
    let address = ip(text)?;
    if address.is_unspecified() { Ok(address) } else { socket_address(address, text) }
}

/// An address to connect to: one of a host, or loopback.
pub fn server_address(text: &str) -> Result<IpAddr, Fault> {
    socket_address(ip(text)?, text)
}

fn socket_address(address: IpAddr, text: &str) -> Result<IpAddr, Fault> {
    if is_link_local(address) && address.is_ipv6() {
        return Err(Fault::new(format!("{} is a link-local address, which means nothing without an interface", shown(text)))
            .cure("write a global or a unique local address"));
    }
    match unusable(address).filter(|_| !address.is_loopback()) {
        Some(reason) => Err(Fault::new(format!("{} {reason}", shown(text)))),
        None => Ok(address),
    }
}

/// An address of a host, and a port: `198.51.100.10:443`, `[2001:db8::10]:443`.
pub fn endpoint(text: &str) -> Result<SocketAddr, Fault> {
    let endpoint: SocketAddr = text.trim().parse().map_err(|_| Fault::new(format!("{} is not an address with a port", shown(text))))?;
    host_address(&endpoint.ip().to_string())?;
    port(endpoint.port().into()).map(|_| endpoint)
}

/// A port of a socket.
pub fn port(number: i32) -> Result<u16, Fault> {
    match u16::try_from(number) {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(Fault::new(format!("`{number}` is not a port (1 to 65535)"))),
    }
}
