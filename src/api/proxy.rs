//! The `EgressProxy` document: ports that `egressd proxy` serves inside network namespaces. Files only, so it is no custom resource.

// A length of time; no clock.
use core::time::Duration;
use std::net::{IpAddr, SocketAddr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::binding::ContainerSelector;
use super::spec;
use super::values::{self, Fault, Faults};
use crate::model::field_error::FieldError;
use crate::model::proxy as model;
pub use crate::model::proxy::KIND;

/// Ports that one process, `egressd proxy`, serves inside network namespaces. Each connection to such a port is joined with one that is dialled
/// from a namespace of your choice.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EgressProxySpec {
    /// Where clients call.
    pub listen: Listen,
    /// Where their connections go.
    pub dial: Dial,
    /// TCP connections, or SCTP associations, at a time, in each namespace. A new one above that is reset.
    #[serde(default = "max_connections")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_connections: u32,
    /// Limits of TCP connections.
    #[serde(default)]
    pub tcp: Tcp,
    /// Bounds of UDP sessions.
    #[serde(default)]
    pub udp: Udp,
    /// Limits of SCTP associations.
    #[serde(default)]
    pub sctp: Sctp,
    /// Subnets of load balancers that tell the client's address by the PROXY protocol. A TCP connection from there has to begin with its header
    /// (version 1 or 2); of all others it is payload.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub trusted_sources: Vec<String>,
}

/// The port that clients call. It takes `networkNamespaces`, `containerSelector`, or both.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Listen {
    /// The namespaces in which the port is opened: names as `ip netns` lists them, absolute paths, or `""` for the one that `egressd proxy` runs
    /// in. One that does not exist yet is served as soon as it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096), inner(length(max = 4095)))]
    pub network_namespaces: Option<Vec<String>>,
    /// Containers of a Docker engine in which the port is opened, those that fit all that is given here: as soon as one runs, and as long as it
    /// runs. One that has the host's network is passed over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_selector: Option<ContainerSelector>,
    /// What is served.
    #[serde(default)]
    pub protocol: Protocol,
    /// The address, `0.0.0.0` or `::` for all of a family. It need not be there yet.
    pub address: String,
    /// The port.
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
}

/// Where connections go, and from where.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Dial {
    /// The namespace that is dialled from, written as in `listen`; the one that `egressd proxy` runs in when not given.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 4095))]
    pub network_namespace: String,
    /// Address of the server.
    pub address: String,
    /// Its port.
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
    /// The address to dial from, one that the namespace has. An exit of the host (which `egressd run` serves) leaves by its own NIC and gateway.
    /// While the address is not there no connection is made: never one from another address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Whether a TCP connection begins with a PROXY protocol header, which tells the server who the client is.
    #[serde(default)]
    pub proxy_protocol: ProxyProtocol,
}

/// Limits of TCP connections.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Tcp {
    /// Seconds without a byte in either direction after which a connection is reset.
    #[schemars(range(min = 1, max = 2_678_400))]
    pub idle_seconds: u32,
    /// The same once one side has ended its direction.
    #[schemars(range(min = 1, max = 2_678_400))]
    pub half_closed_seconds: u32,
}

/// Bounds of UDP sessions. A session is a client's address and port, and the address that it called.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Udp {
    /// Sessions at a time, in each namespace. What a new client sends above that is dropped.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub sessions: u32,
    /// Seconds without a datagram in either direction after which a session is forgotten.
    #[schemars(range(min = 1, max = 86_400))]
    pub idle_seconds: u32,
}

/// Limits of SCTP associations.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Sctp {
    /// Seconds without a message in either direction after which an association is aborted. Heartbeats are no messages.
    #[schemars(range(min = 1, max = 2_678_400))]
    pub idle_seconds: u32,
    /// Seconds that the one side may take to confirm the shutdown of the other one; then it is aborted.
    #[schemars(range(min = 1, max = 2_678_400))]
    pub shutdown_seconds: u32,
}

/// What a port is of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum Protocol {
    #[default]
    Tcp,
    Udp,
    Sctp,
}

/// Version of the PROXY protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum ProxyProtocol {
    #[default]
    None,
    V1,
    V2,
}

fn max_connections() -> u32 {
    10_000
}

impl Default for Tcp {
    fn default() -> Self {
        Self { idle_seconds: 3600, half_closed_seconds: 300 }
    }
}

impl Default for Udp {
    fn default() -> Self {
        Self { sessions: 1000, idle_seconds: 60 }
    }
}

impl Default for Sctp {
    fn default() -> Self {
        Self { idle_seconds: 3600, shutdown_seconds: 60 }
    }
}

/// The proxy that a spec asks for.
///
/// # Errors
/// All that is wrong with it. Nothing of it is served then.
pub fn proxy(name: String, spec: &EgressProxySpec) -> Result<model::Proxy, Vec<FieldError>> {
    let mut faults = Faults::default();
    let (listen, containers) = listen(spec, &mut faults);
    let dial = dial(spec, &mut faults);
    let trusted = trusted(spec, &mut faults);
    let (Some(dial), true) = (dial, faults.is_empty()) else {
        return Err(faults.finish());
    };
    if let Some(own) = listen.iter().find(|endpoint| is_own(endpoint, &dial)) {
        faults.push("spec.dial", || format!("is {own}, where this proxy itself listens; dial the server's own address and port"));
        return Err(faults.finish());
    }
    let seconds = |seconds: u32| Duration::from_secs(seconds.into());
    let limits = match spec.listen.protocol {
        Protocol::Tcp => model::Limits {
            open: spec.max_connections as usize,
            idle: seconds(spec.tcp.idle_seconds),
            half_closed: seconds(spec.tcp.half_closed_seconds),
        },
        Protocol::Udp => {
            let idle = seconds(spec.udp.idle_seconds);
            model::Limits { open: spec.udp.sessions as usize, idle, half_closed: idle }
        }
        Protocol::Sctp => model::Limits {
            open: spec.max_connections as usize,
            idle: seconds(spec.sctp.idle_seconds),
            half_closed: seconds(spec.sctp.shutdown_seconds),
        },
    };
    Ok(model::Proxy { name, listen, containers, dial, limits, trusted })
}

fn listen(spec: &EgressProxySpec, faults: &mut Faults) -> (Vec<model::Endpoint>, Option<model::InContainers>) {
    let Listen { network_namespaces, container_selector, protocol, address, port } = &spec.listen;
    let address = take(faults, "spec.listen.address", "0.0.0.0", values::listen_address(address));
    let port = take(faults, "spec.listen.port", "8000", values::port(*port));
    let transport = match protocol {
        Protocol::Tcp => model::Transport::Tcp,
        Protocol::Udp => model::Transport::Udp,
        Protocol::Sctp => model::Transport::Sctp,
    };
    if network_namespaces.is_none() && container_selector.is_none() {
        faults.push("spec.listen", || {
            "says not where; give `networkNamespaces`, for instance `[\"\", blue]`, where `\"\"` is the host, or `containerSelector`"
                .to_owned()
        });
    }
    if network_namespaces.as_ref().is_some_and(Vec::is_empty) {
        faults.push("spec.listen.networkNamespaces", || "is empty; write for instance `[\"\", blue]`, where `\"\"` is the host".to_owned());
    }
    let containers = container_selector.as_ref().and_then(|given| spec::containers("spec.listen.containerSelector", given, faults));
    let containers = match (containers, address, port) {
        (Some(selector), Some(address), Some(port)) => {
            Some(model::InContainers { selector, transport, address: SocketAddr::new(address, port) })
        }
        _ => None,
    };
    let mut endpoints = Vec::new();
    for (i, name) in network_namespaces.iter().flatten().enumerate() {
        let field = format!("spec.listen.networkNamespaces[{i}]");
        let namespace = take(faults, &field, "blue", namespace(name));
        let (Some(namespace), Some(address), Some(port)) = (namespace, address, port) else { continue };
        let endpoint = model::Endpoint { namespace, transport, address: SocketAddr::new(address, port) };
        if endpoints.contains(&endpoint) {
            faults.push(&field, || format!("{} is given twice; keep one", values::shown(name)));
        } else {
            endpoints.push(endpoint);
        }
    }
    (endpoints, containers)
}

fn dial(spec: &EgressProxySpec, faults: &mut Faults) -> Option<model::Dial> {
    let Dial { network_namespace, address, port, source, proxy_protocol } = &spec.dial;
    let namespace = take(faults, "spec.dial.networkNamespace", "blue", namespace(network_namespace));
    let address = take(faults, "spec.dial.address", "10.0.0.2", values::server_address(address));
    let port = take(faults, "spec.dial.port", "80", values::port(*port));
    let source = source.as_deref().map(|source| take(faults, "spec.dial.source", "10.0.1.98", values::exit_address(source)));
    let proxy_protocol = match proxy_protocol {
        ProxyProtocol::None => model::ProxyProtocol::None,
        ProxyProtocol::V1 => model::ProxyProtocol::V1,
        ProxyProtocol::V2 => model::ProxyProtocol::V2,
    };
    if spec.listen.protocol != Protocol::Tcp && proxy_protocol != model::ProxyProtocol::None {
        faults.push("spec.dial.proxyProtocol", || "is for TCP alone; write `None`, or serve TCP".to_owned());
    }
    if let (Some(address), Some(Some(source))) = (address, source)
        && address.is_ipv4() != source.is_ipv4()
    {
        let (source, address) = (values::family(source), values::family(address));
        faults.push("spec.dial.source", || format!("is {source}, but the server's address is {address}; write an {address} address"));
    }
    let dial = model::Dial { namespace: namespace?, address: SocketAddr::new(address?, port?), source: source.flatten(), proxy_protocol };
    Some(dial)
}

fn trusted(spec: &EgressProxySpec, faults: &mut Faults) -> Vec<ipnet::IpNet> {
    if spec.listen.protocol != Protocol::Tcp && !spec.trusted_sources.is_empty() {
        faults.push("spec.trustedSources", || "is for TCP alone; take it out, or serve TCP".to_owned());
    }
    let nets = spec.trusted_sources.iter().enumerate();
    nets.filter_map(|(i, net)| take(faults, &format!("spec.trustedSources[{i}]"), "10.0.0.0/24", values::cidr(net))).collect()
}

/// A name, an absolute path, or nothing for the host.
fn namespace(text: &str) -> Result<model::Namespace, Fault> {
    if text.is_empty() {
        return Ok(model::Namespace::Host);
    }
    let wrong = |why: &str| Err(Fault::new(format!("{} {why}", values::shown(text))));
    if text.chars().any(char::is_control) {
        return wrong("has a control character");
    }
    if text.starts_with('/') {
        return Ok(model::Namespace::path(text));
    }
    if text.contains('/') || matches!(text, "." | "..") || text.len() > 255 {
        return wrong("is neither a namespace's name nor an absolute path");
    }
    Ok(model::Namespace::named(text))
}

/// Whether a dialled connection would come back to the same proxy for ever.
fn is_own(endpoint: &model::Endpoint, dial: &model::Dial) -> bool {
    let (own, to) = (endpoint.address, dial.address);
    let covers = |own: IpAddr, to: IpAddr| own == to || (own.is_unspecified() && own.is_ipv4() == to.is_ipv4() && to.is_loopback());
    endpoint.namespace == dial.namespace && own.port() == to.port() && covers(own.ip(), to.ip())
}

fn take<T>(faults: &mut Faults, field: &str, example: &str, value: Result<T, Fault>) -> Option<T> {
    value.map_err(|fault| faults.push(field, || fault.message(example))).ok()
}

#[cfg(test)]
mod tests;
