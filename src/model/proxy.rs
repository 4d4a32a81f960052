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
use super::labels::LabelSelector;
use super::leave::Asked;
use super::pod::Pod;
use super::ports::Protocol;

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
    /// Of a pod, `NAMESPACE/NAME`: the file that its runtime keeps for it.
    Pod { name: String, file: PathBuf },
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
            Self::File(path) | Self::Container { file: path, .. } | Self::Pod { file: path, .. } => Some(path),
        }
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host => f.write_str("host"),
            Self::Container { name, .. } => write!(f, "container {name}"),
            Self::Pod { name, .. } => write!(f, "pod {name}"),
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

impl From<Transport> for Protocol {
    fn from(transport: Transport) -> Self {
        match transport {
            Transport::Tcp => Self::Tcp,
            Transport::Udp => Self::Udp,
            Transport::Sctp => Self::Sctp,
        }
    }
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

impl Endpoint {
    /// The same of whichever run of a container or a pod.
    #[must_use]
    pub fn of_any_run(mut self) -> Self {
        match &mut self.namespace {
            Namespace::Container { file, .. } | Namespace::Pod { file, .. } => *file = PathBuf::new(),
            Namespace::Host | Namespace::File(_) => {}
        }
        self
    }
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
    /// `None`: the one of the port that was called.
    pub namespace: Option<Namespace>,
    pub address: SocketAddr,
    /// The address that sockets are bound to before they connect.
    pub source: Option<IpAddr>,
    /// The binding by whose exit connections leave, `NAMESPACE/NAME`.
    pub binding: Option<String>,
    pub proxy_protocol: ProxyProtocol,
}

impl Dial {
    /// The namespace that is dialled from when a port of the namespace `called` is.
    pub fn from<'a>(&'a self, called: &'a Namespace) -> &'a Namespace {
        self.namespace.as_ref().unwrap_or(called)
    }

    /// What the agent is asked about the exit of the binding, for calls of this port.
    pub fn asked(&self, called: &Endpoint) -> Option<Asked> {
        let (binding, to, protocol) = (self.binding.clone()?, self.address, called.transport.into());
        Some(match self.from(&called.namespace) {
            Namespace::Pod { name, .. } => Asked::Pod { pod: name.clone(), binding, to, protocol },
            _ => Asked::Binding { binding, ipv6: to.is_ipv6() },
        })
    }

    /// The same about a source of the host's.
    pub fn asked_source(&self, called: &Endpoint) -> Option<Asked> {
        self.source.filter(|_| *self.from(&called.namespace) == Namespace::Host).map(Asked::Source)
    }
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

/// A port that is opened in pods of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InPods {
    /// The namespace of the pods.
    pub namespace: String,
    pub labels: LabelSelector,
    pub transport: Transport,
    pub address: SocketAddr,
}

impl InPods {
    /// Whether it is opened in this one. The node's network is no pod's.
    pub fn fits(&self, pod: &Pod) -> bool {
        !pod.host_network && pod.namespace == self.namespace && self.labels.selects(&pod.labels)
    }
}

/// A pod of this node, with the file of its network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunningPod {
    pub pod: Arc<Pod>,
    pub file: PathBuf,
}

/// What runs on this host, as far as ports may be opened in it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Runs<'a> {
    pub containers: &'a [Running],
    pub pods: &'a [RunningPod],
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
    pub pods: Option<InPods>,
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

    /// Each port of it, while these run.
    fn endpoints<'a>(&'a self, runs: Runs<'a>) -> impl Iterator<Item = Endpoint> + 'a {
        let in_containers = self.containers.iter().flat_map(move |ports| {
            runs.containers.iter().filter(|running| ports.fits(&running.container)).map(|Running { container, file }| Endpoint {
                namespace: Namespace::Container { name: container.name.clone(), file: file.clone() },
                transport: ports.transport,
                address: ports.address,
            })
        });
        let in_pods = self.pods.iter().flat_map(move |ports| {
            runs.pods.iter().filter(|running| ports.fits(&running.pod)).map(|RunningPod { pod, file }| Endpoint {
                namespace: Namespace::Pod { name: format!("{}/{}", pod.namespace, pod.name), file: file.clone() },
                transport: ports.transport,
                address: ports.address,
            })
        });
        self.listen.iter().cloned().chain(in_containers).chain(in_pods)
    }
}

/// Which proxy serves which port, while these run. A port that two proxies ask for belongs to the one that `had` it, or else to
/// the first one; the other one is told.
pub fn assign<'a>(
    proxies: impl Iterator<Item = &'a Arc<Proxy>> + Clone,
    runs: Runs<'_>,
    had: impl Fn(&Proxy, &Endpoint) -> bool,
) -> (BTreeMap<Endpoint, Arc<Proxy>>, Vec<ManifestError>) {
    let mut served: BTreeMap<Endpoint, Arc<Proxy>> = BTreeMap::new();
    let mut errors = Vec::new();
    for proxy in proxies.clone() {
        let held = proxy.endpoints(runs).filter(|endpoint| had(proxy, endpoint));
        served.extend(held.map(|endpoint| (endpoint, Arc::clone(proxy))));
    }
    for proxy in proxies {
        for endpoint in proxy.endpoints(runs) {
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
            pods: None,
            dial: Dial { namespace: Some(Namespace::Host), address, source: None, binding: None, proxy_protocol: ProxyProtocol::None },
            limits: Limits { open: 1, idle: Duration::from_secs(1), half_closed: Duration::from_secs(1) },
            trusted: Vec::new(),
        })
    }

    #[test]
    fn a_port_that_two_proxies_ask_for_belongs_to_the_first_or_to_who_had_it() {
        let both = [proxy("default/a", &["x", "y"]), proxy("default/b", &["y", "z"])];
        let (served, errors) = assign(both.iter(), Runs::default(), |_, _| false);
        assert_eq!(served.values().map(|proxy| proxy.name.as_str()).collect::<Vec<_>>(), ["default/a", "default/a", "default/b"]);
        assert_eq!(errors.len(), 1);
        assert_eq!(errors[0].object, "EgressProxy default/b");
        assert!(errors[0].error.message.contains("0.0.0.0:8000/tcp in y") && errors[0].error.message.contains("default/a"), "{errors:?}");
        let (served, errors) = assign(both.iter(), Runs::default(), |proxy, _| proxy.name == "default/b");
        assert_eq!(served.values().map(|proxy| proxy.name.as_str()).collect::<Vec<_>>(), ["default/a", "default/b", "default/b"]);
        assert_eq!(errors[0].object, "EgressProxy default/a", "its name comes first, and it came later");
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
        let served = |running: &[Running]| {
            assign([&proxy].into_iter(), Runs { containers: running, pods: &[] }, |_, _| false).0.into_keys().collect::<Vec<_>>()
        };
        let first = served(&[running("web-1", "/run/docker/netns/a"), running("web-2", "/run/docker/netns/b")]);
        assert_eq!(first.iter().map(ToString::to_string).collect::<Vec<_>>(), ["127.0.0.1:80/sctp in container web-1"]);
        assert_ne!(first, served(&[running("web-1", "/run/docker/netns/c")]));
        assert_eq!(served(&[]), []);
    }

    #[test]
    fn a_port_is_opened_in_pods_of_its_own_namespace_alone_and_dials_from_there() {
        let address = "127.0.0.1:80".parse().unwrap();
        let pods = Some(InPods { namespace: "shop".to_owned(), labels: LabelSelector::default(), transport: Transport::Tcp, address });
        let mut proxy = Proxy { pods, ..Proxy::clone(&proxy("shop/a", &[])) };
        proxy.dial.namespace = None;
        proxy.dial.binding = Some("shop/crawler".to_owned());
        let running = |namespace: &str, host_network| {
            let pod = Pod { namespace: namespace.to_owned(), name: "web".to_owned(), host_network, ..Pod::default() };
            RunningPod { pod: Arc::new(pod), file: format!("/run/netns/{namespace}").into() }
        };
        let (own, another, of_node) = (running("shop", false), running("mail", false), running("shop", true));
        let pods = [own, another, of_node];
        let served: Vec<Endpoint> =
            assign([&Arc::new(proxy.clone())].into_iter(), Runs { containers: &[], pods: &pods }, |_, _| false).0.into_keys().collect();
        assert_eq!(served.iter().map(ToString::to_string).collect::<Vec<_>>(), ["127.0.0.1:80/tcp in pod shop/web"]);
        assert_eq!(proxy.dial.from(&served[0].namespace), &served[0].namespace);
        let (to, protocol) = (proxy.dial.address, Protocol::Tcp);
        let asked = Asked::Pod { pod: "shop/web".to_owned(), binding: "shop/crawler".to_owned(), to, protocol };
        assert_eq!(proxy.dial.asked(&served[0]), Some(asked));
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
