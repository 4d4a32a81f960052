//! What a server behind IPVS needs where its answers are to be routed back through this host.

use std::net::IpAddr;

use crate::contract::TABLE_ROUTE_BACK;
use crate::model::inbound::ClientSource;
use crate::model::services::{Server, Service};

/// Commands for the server's network namespace, in one line; nothing for services of another kind. A later call of the same commands is an error of
/// `ip rule`, and changes nothing.
pub fn route_back(service: &Service, server: &Server) -> Option<String> {
    if service.client_source != ClientSource::RouteBack {
        return None;
    }
    let (family, redirects) = match server.address {
        IpAddr::V4(_) => ("", ""),
        // Of IPv6 no setting of this host keeps it from telling the server of the client beside it.
        IpAddr::V6(_) => (" -6", "sysctl -w net.ipv6.conf.DEV.accept_redirects=0 && "),
    };
    let protocol = service.ports.protocol.name();
    let via = server.route_back.map_or_else(|| "THIS_HOST".to_owned(), |address| address.to_string());
    let (address, port) = (server.address, server.port.unwrap_or(service.ports.first));
    Some(format!(
        "{redirects}ip{family} route replace default via {via} table {TABLE_ROUTE_BACK} && ip{family} rule add from {address} ipproto {protocol} sport {port} lookup {TABLE_ROUTE_BACK}"
    ))
}
