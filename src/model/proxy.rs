//! Ports that are served inside network namespaces, and where their connections are dialled from. Pure.

// A length of time; no clock.
use core::time::Duration;
use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ipnet::IpNet;

use super::binding::Selector;
use super::facts::Container;
use super::field_error::{FieldError, ManifestError};
use super::fits::fits;

/// Kind of the objects that say which ports are served.
pub const KIND: &str = "EgressProxy";

/// Where named network namespaces are, and the other name of that folder.
const NAMED: [&str; 2] = ["/run/netns", "/var/run/netns"];

/// A network namespace, as a manifest names it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Namespace {
    /// The one that `egressd proxy` runs in.
    Host,
    /// A file: of `/run/netns` for a name, any other for an absolute path.
    File(PathBuf),
    /// Of one run of a container: the file that its engine keeps for it.
    Container { name: String, file: PathBuf },
}

impl Namespace {
    /// The namespace that `ip netns` knows by this name.
    pub fn named(name: &str) -> Self {
        Self::File(Path::new(NAMED[0]).join(name))
    }

    /// The namespace behind an absolute path. Both names of the folder of named ones are the same.
    pub fn path(path: &str) -> Self {
        match NAMED.iter().find_map(|folder| path.strip_prefix(folder)?.strip_prefix('/')) {
            Some(name) if !name.contains('/') => Self::named(name),
            _ => Self::File(path.into()),
        }
    }

    /// The file, unless it is the host's own.
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::Host => None,
            Self::File(path) | Self::Container { file: path, .. } => Some(path),
        }
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host => f.write_str("host"),
            Self::Container { name, .. } => write!(f, "container {name}"),
            Self::File(path) => match path.strip_prefix(NAMED[0]) {
                Ok(name) if name.components().count() == 1 => name.display().fmt(f),
                _ => path.display().fmt(f),
            },
        }
    }
}

/// What a port is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    Tcp,
    Udp,
    Sctp,
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        })
    }
}

/// One port of one namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    pub namespace: Namespace,
    pub transport: Transport,
    pub address: SocketAddr,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{} in {}", self.address, self.transport, self.namespace)
    }
}

/// Whether a connection begins with a PROXY protocol header that tells the client's address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProxyProtocol {
    #[default]
    None,
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

/// Where connections go to, and from where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dial {
    pub namespace: Namespace,
    pub address: SocketAddr,
    /// The address that sockets are bound to before they connect.
    pub source: Option<IpAddr>,
    pub proxy_protocol: ProxyProtocol,
}

/// Bounds of each port that a proxy serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// TCP connections, SCTP associations, or UDP sessions, at a time.
    pub open: usize,
    /// How long nothing may be sent in either direction.
    pub idle: Duration,
    /// The same once one side has ended its direction. SCTP has no half-closed state: how long the other side may take to end, too.
    pub half_closed: Duration,
}

/// A port that is opened in containers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InContainers {
    /// Which ones.
    pub selector: Selector,
    pub transport: Transport,
    pub address: SocketAddr,
}

impl InContainers {
    /// Whether it is opened in this one. The host's network is no container's.
    pub fn fits(&self, container: &Container) -> bool {
        container.network_mode != "host" && fits(&self.selector, container)
    }
}

/// A container that runs, with the file of its network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Running {
    pub container: Arc<Container>,
    pub file: PathBuf,
}

/// One `EgressProxy`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxy {
    /// `namespace/name`
    pub name: String,
    /// In namespaces that it names.
    pub listen: Vec<Endpoint>,
    pub containers: Option<InContainers>,
    pub dial: Dial,
    pub limits: Limits,
    /// Clients whose PROXY protocol header is believed, and demanded.
    pub trusted: Vec<IpNet>,
}

impl Proxy {
    /// As errors name it.
    pub fn object(&self) -> String {
        format!("{KIND} {}", self.name)
    }

    /// Whether a connection of this client has to begin with a PROXY protocol header.
    pub fn trusts(&self, client: IpAddr) -> bool {
        self.trusted.iter().any(|net| net.contains(&client))
    }

    /// Each port of it, while these containers run.
    fn endpoints<'a>(&'a self, running: &'a [Running]) -> impl Iterator<Item = Endpoint> + 'a {
        let in_containers = self.containers.iter().flat_map(move |ports| {
            running.iter().filter(|running| ports.fits(&running.container)).map(|Running { container, file }| Endpoint {
                namespace: Namespace::Container { name: container.name.clone(), file: file.clone() },
                transport: ports.transport,
                address: ports.address,
            })
        });
        self.listen.iter().cloned().chain(in_containers)
    }
}

/// Which proxy serves which port, while these containers run. A port that two proxies ask for belongs to the first one; the other one is told.
pub fn assign<'a>(
    proxies: impl Iterator<Item = &'a Arc<Proxy>>,
    running: &[Running],
) -> (BTreeMap<Endpoint, Arc<Proxy>>, Vec<ManifestError>) {
    let mut served: BTreeMap<Endpoint, Arc<Proxy>> = BTreeMap::new();
    let mut errors = Vec::new();
    for proxy in proxies {
        for endpoint in proxy.endpoints(running) {
            if let Some(first) = served.get(&endpoint).filter(|first| first.name != proxy.name) {
                let message =
                    format!("{endpoint} is served by {} already; take another port or address, or keep one of them", first.object());
                errors.push(ManifestError { object: proxy.object(), error: FieldError { field: "spec.listen".to_owned(), message } });
            } else {
                served.insert(endpoint, Arc::clone(proxy));
            }
        }
    }
    (served, errors)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxy(name: &str, namespaces: &[&str]) -> Arc<Proxy> {
        let address = "0.0.0.0:8000".parse().unwrap();
        let listen = namespaces.iter().map(|name| Endpoint { namespace: Namespace::named(name), transport: Transport::Tcp, address });
        Arc::new(Proxy {
            name: name.to_owned(),
            listen: listen.collect(),
            containers: None,
            dial: Dial { namespace: Namespace::Host, address, source: None, proxy_protocol: ProxyProtocol::None },
            limits: Limits { open: 1, idle: Duration::from_secs(1), half_closed: Duration::from_secs(1) },
            trusted: Vec::new(),
        })
    }

    #[test]
    fn a_port_that_two_proxies_ask_for_belongs_to_the_first() {
        let (served, errors) = assign([proxy("default/a", &["x", "y"]), proxy("default/b", &["y", "z"])].iter(), &[]);
        assert_eq!(served.values().map(|proxy| proxy.name.as_str()).collect::<Vec<_>>(), ["default/a", "default/a", "default/b"]);
        assert_eq!(errors.len(), 1);
        assert_eq!(errors[0].object, "EgressProxy default/b");
        assert!(errors[0].error.message.contains("0.0.0.0:8000/tcp in y") && errors[0].error.message.contains("default/a"), "{errors:?}");
    }

    #[test]
    fn each_run_of_a_container_has_a_port_of_its_own() {
        let names = vec!["web-1".to_owned()];
        let selector = Selector::Containers { names, match_labels: BTreeMap::new(), compose: None };
        let address = "127.0.0.1:80".parse().unwrap();
        let containers = Some(InContainers { selector, transport: Transport::Sctp, address });
        let proxy = Arc::new(Proxy { containers, ..Proxy::clone(&proxy("default/a", &[])) });
        let running = |name: &str, file: &str| {
            let container = Container { name: name.to_owned(), ..Container::default() };
            Running { container: Arc::new(container), file: file.into() }
        };
        let served = |running: &[Running]| assign([&proxy].into_iter(), running).0.into_keys().collect::<Vec<_>>();
        let first = served(&[running("web-1", "/run/docker/netns/a"), running("web-2", "/run/docker/netns/b")]);
        assert_eq!(first.iter().map(ToString::to_string).collect::<Vec<_>>(), ["127.0.0.1:80/sctp in container web-1"]);
        assert_ne!(first, served(&[running("web-1", "/run/docker/netns/c")]));
        assert_eq!(served(&[]), []);
    }

    #[test]
    fn a_path_into_the_folder_of_names_is_that_name() {
        for path in ["/run/netns/blue", "/var/run/netns/blue"] {
            assert_eq!(Namespace::path(path), Namespace::named("blue"));
        }
        assert_eq!(Namespace::path("/proc/1/ns/net").to_string(), "/proc/1/ns/net");
        assert_eq!(Namespace::path("/run/netnsx/blue").to_string(), "/run/netnsx/blue");
        assert_eq!(Namespace::named("blue").to_string(), "blue");
        assert_eq!(Namespace::path("/run/netns").to_string(), "/run/netns");
        assert_eq!(Namespace::path("/run/netns/../blue").to_string(), "/run/netns/../blue");
    }
}
