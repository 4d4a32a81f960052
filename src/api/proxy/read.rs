//! An `EgressProxy`'s `spec` to the model's types.

// A length of time; no clock.
use core::time::Duration;
use std::net::{IpAddr, SocketAddr};

use super::super::spec;
use super::super::values::{self, Fault, Faults};
use super::{Dial, EgressProxySpec, Listen, Protocol, ProxyProtocol};
use crate::model::binding::Source;
use crate::model::field_error::FieldError;
use crate::model::proxy as model;

/// The proxy that a spec asks for, in a file or in a cluster: there it is of the pods of its namespace, and names nothing of the node's.
///
/// # Errors
/// All that is wrong with it. Nothing of it is served then.
pub fn proxy(source: Source, name: String, spec: &EgressProxySpec) -> Result<model::Proxy, Vec<FieldError>> {
    let mut faults = Faults::default();
    let address = take(&mut faults, "spec.listen.address", "0.0.0.0", values::listen_address(&spec.listen.address));
    let port = take(&mut faults, "spec.listen.port", "8000", values::port(spec.listen.port));
    let at = address.zip(port).map(|(address, port)| SocketAddr::new(address, port));
    let namespace = name.split('/').next().unwrap_or_default();
    let Places { listen, containers, pods } = match source {
        Source::Api => in_cluster(spec, namespace, at, &mut faults),
        Source::File | Source::Label | Source::Exec => on_host(spec, at, &mut faults),
    };
    let dial = dial(source, namespace, spec, &mut faults);
    let trusted = trusted(spec, &mut faults);
    let (Some(dial), true) = (dial, faults.is_empty()) else {
        return Err(faults.finish());
    };
    let own = listen.iter().find(|endpoint| dial.namespace.as_ref() == Some(&endpoint.namespace) && is_own(endpoint.address, dial.address));
    let own = own.map(ToString::to_string);
    let own_of_pods = pods.as_ref().filter(|ports| is_own(ports.address, dial.address)).map(|ports| ports.address.to_string());
    if let Some(own) = own.or(own_of_pods) {
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
    Ok(model::Proxy { name, listen, containers, pods, dial, limits, trusted })
}

/// Where a proxy listens.
#[derive(Default)]
struct Places {
    listen: Vec<model::Endpoint>,
    containers: Option<model::InContainers>,
    pods: Option<model::InPods>,
}

fn transport(protocol: Protocol) -> model::Transport {
    match protocol {
        Protocol::Tcp => model::Transport::Tcp,
        Protocol::Udp => model::Transport::Udp,
        Protocol::Sctp => model::Transport::Sctp,
    }
}

/// In pods of the object's own namespace. The definition refuses all else; an older one may not.
fn in_cluster(spec: &EgressProxySpec, namespace: &str, at: Option<SocketAddr>, faults: &mut Faults) -> Places {
    let Listen { network_namespaces, container_selector, pod_selector, protocol, .. } = &spec.listen;
    let foreign = [("networkNamespaces", network_namespaces.is_some()), ("containerSelector", container_selector.is_some())];
    for (field, _) in foreign.into_iter().filter(|(_, given)| *given) {
        faults.push(&format!("spec.listen.{field}"), || "is for manifest files on a node; in a cluster give `podSelector`".to_owned());
    }
    let Some(selector) = pod_selector else {
        faults.push("spec.listen.podSelector", || "is missing; write for instance `{matchLabels: {app: crawler}}`".to_owned());
        return Places::default();
    };
    let labels = spec::labels(selector);
    let ports = |address| model::InPods { namespace: namespace.to_owned(), labels, transport: transport(*protocol), address };
    Places { pods: at.map(ports), ..Places::default() }
}

fn on_host(spec: &EgressProxySpec, at: Option<SocketAddr>, faults: &mut Faults) -> Places {
    let Listen { network_namespaces, container_selector, pod_selector, protocol, .. } = &spec.listen;
    let transport = transport(*protocol);
    if pod_selector.is_some() {
        faults.push("spec.listen.podSelector", || {
            "is for a cluster, where `egressd proxy --kubernetes` serves it; in a file give `networkNamespaces` or `containerSelector`"
                .to_owned()
        });
    }
    if network_namespaces.is_none() && container_selector.is_none() && pod_selector.is_none() {
        faults.push("spec.listen", || {
            "does not say where; give `networkNamespaces`, for instance `[\"\", blue]`, where `\"\"` is the host, or `containerSelector`"
                .to_owned()
        });
    }
    if network_namespaces.as_ref().is_some_and(Vec::is_empty) {
        faults.push("spec.listen.networkNamespaces", || "is empty; write for instance `[\"\", blue]`, where `\"\"` is the host".to_owned());
    }
    let containers = container_selector.as_ref().and_then(|given| spec::containers("spec.listen.containerSelector", given, faults));
    let containers = containers.zip(at).map(|(selector, address)| model::InContainers { selector, transport, address });
    let mut endpoints = Vec::new();
    for (i, name) in network_namespaces.iter().flatten().enumerate() {
        let field = format!("spec.listen.networkNamespaces[{i}]");
        let namespace = take(faults, &field, "blue", namespace(name));
        let Some((namespace, address)) = namespace.zip(at) else { continue };
        let endpoint = model::Endpoint { namespace, transport, address };
        if endpoints.contains(&endpoint) {
            faults.push(&field, || format!("{} is given twice; keep one", values::shown(name)));
        } else {
            endpoints.push(endpoint);
        }
    }
    Places { listen: endpoints, containers, pods: None }
}

fn dial(origin: Source, own: &str, spec: &EgressProxySpec, faults: &mut Faults) -> Option<model::Dial> {
    let Dial { network_namespace, address, port, source, binding, proxy_protocol } = &spec.dial;
    let of_host = [("networkNamespace", !network_namespace.is_empty()), ("source", source.is_some())];
    let against = if origin == Source::Api {
        "is for manifest files on a node: in a cluster the pod that was called dials; leave it out"
    } else {
        "is given beside `binding`, which dials from the host by its own exit; keep one of them"
    };
    if origin == Source::Api || binding.is_some() {
        for (field, _) in of_host.into_iter().filter(|(_, given)| *given) {
            faults.push(&format!("spec.dial.{field}"), || against.to_owned());
        }
    }
    let binding = binding.as_deref().and_then(|name| take(faults, "spec.dial.binding", "crawler", values::object_name(name, 253)));
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
        faults.push("spec.dial.proxyProtocol", || "is for TCP only; write `None`, or serve TCP".to_owned());
    }
    if let (Some(address), Some(Some(source))) = (address, source)
        && address.is_ipv4() != source.is_ipv4()
    {
        let (source, address) = (values::family(source), values::family(address));
        faults.push("spec.dial.source", || format!("is {source}, but the server's address is {address}; write an {address} address"));
    }
    Some(model::Dial {
        namespace: if origin == Source::Api { None } else { Some(namespace?) },
        address: SocketAddr::new(address?, port?),
        source: source.flatten(),
        binding: binding.map(|name| format!("{own}/{name}")),
        proxy_protocol,
    })
}

fn trusted(spec: &EgressProxySpec, faults: &mut Faults) -> Vec<ipnet::IpNet> {
    if spec.listen.protocol != Protocol::Tcp && !spec.trusted_sources.is_empty() {
        faults.push("spec.trustedSources", || "is for TCP only; remove it, or serve TCP".to_owned());
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
fn is_own(own: SocketAddr, to: SocketAddr) -> bool {
    let covers = |own: IpAddr, to: IpAddr| own == to || (own.is_unspecified() && own.is_ipv4() == to.is_ipv4() && to.is_loopback());
    own.port() == to.port() && covers(own.ip(), to.ip())
}

fn take<T>(faults: &mut Faults, field: &str, example: &str, value: Result<T, Fault>) -> Option<T> {
    value.map_err(|fault| faults.push(field, || fault.message(example))).ok()
}
