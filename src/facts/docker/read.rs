//! The engine's words to ours: what its answers and events mean, with nothing asked and nothing kept.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::json;

use super::wire;
use crate::api::labels;
use crate::model::facts::{Attachment, Network, Published};
use crate::model::ports::Protocol;

/// Option of a bridge network that names its device.
pub const BRIDGE_NAME: &str = "com.docker.network.bridge.name";

/// Label of the networks that egressd made, with the value `true`: only these are ever removed.
pub const MANAGED: &str = "egressd.dev/managed";

/// Something that happened to a container or a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Created { id: String, name: String, labels: BTreeMap<String, String> },
    Started(String),
    Died(String),
    Renamed(String),
    Destroyed(String),
    Connected { container: String, network: String, name: String, driver: String },
    Disconnected { container: String, network: String },
    NetworkCreated(String),
    NetworkDestroyed(String),
}

impl Event {
    /// The id of what it changes.
    pub fn object(&self) -> &str {
        match self {
            Self::Created { id, .. } | Self::Started(id) | Self::Died(id) | Self::Renamed(id) | Self::Destroyed(id) => id,
            Self::Connected { container, .. } | Self::Disconnected { container, .. } => container,
            Self::NetworkCreated(id) | Self::NetworkDestroyed(id) => id,
        }
    }
}

/// The event filters that go with [`event`].
pub fn event_filters() -> String {
    json!({ "type": ["container", "network"], "event": ["create", "start", "die", "rename", "destroy", "connect", "disconnect"] })
        .to_string()
}

/// What an event of the engine says; `None` for one that does not matter here.
pub fn event(wire::Event { r#type, action, actor }: wire::Event) -> Option<Event> {
    let wire::Actor { id, mut attributes } = actor;
    let mut attribute = |name: &str| attributes.remove(name).unwrap_or_default();
    Some(match (r#type.as_str(), action.as_str()) {
        ("container", "create") => {
            let name = attribute("name");
            Event::Created { id, name, labels: attributes }
        }
        ("container", "start") => Event::Started(id),
        ("container", "die") => Event::Died(id),
        ("container", "rename") => Event::Renamed(id),
        ("container", "destroy") => Event::Destroyed(id),
        ("network", "create") => Event::NetworkCreated(id),
        ("network", "destroy") => Event::NetworkDestroyed(id),
        ("network", "connect") => {
            Event::Connected { container: attribute("container"), name: attribute("name"), driver: attribute("type"), network: id }
        }
        ("network", "disconnect") => Event::Disconnected { container: attribute("container"), network: id },
        _ => return None,
    })
}

/// A container as the list shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    pub id: String,
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub network_mode: String,
    pub created: u64,
    /// The engine's state says that its processes are there.
    pub running: bool,
    /// Without addresses unless it runs: an engine may show those of the last run.
    pub attachments: Vec<Attachment>,
    /// The same of published ports.
    pub published: Vec<Published>,
}

/// A state that is not known here counts as one in which nothing runs: whether its addresses are in use, its networks are asked.
pub fn container(summary: wire::Container) -> Listed {
    let running = matches!(summary.state.as_str(), "running" | "paused" | "stopping");
    let networks = summary.network_settings.networks;
    Listed {
        id: summary.id,
        name: own_name(summary.names),
        labels: summary.labels,
        network_mode: summary.host_config.network_mode,
        created: summary.created.try_into().unwrap_or_default(),
        running,
        published: summary.ports.into_iter().filter(|_| running).filter_map(published).collect(),
        attachments: networks.into_iter().map(|(name, endpoint)| attachment(name, endpoint.unwrap_or_default(), running)).collect(),
    }
}

/// A link (`--link`) adds names of the form `/other/alias`.
pub fn own_name(names: Vec<String>) -> String {
    names.iter().filter_map(|name| name.strip_prefix('/')).find(|name| !name.contains('/')).unwrap_or_default().to_owned()
}

fn attachment(network: String, endpoint: wire::Endpoint, running: bool) -> Attachment {
    let addresses = [endpoint.address, endpoint.address6];
    Attachment {
        network_id: endpoint.network_id,
        network,
        addresses: addresses.iter().filter(|_| running).filter_map(|text| text.parse().ok()).collect(),
        gateway_priority: endpoint.gateway_priority,
    }
}

/// A port that is published, by a protocol that is served here.
fn published(port: wire::Port) -> Option<Published> {
    let protocol = Protocol::named(&port.protocol)?;
    Some(Published { protocol, port: port.public?, address: port.address.parse().ok()? })
}

/// The addresses of a container in the answer about one network; `None` when the container is not there.
pub fn addresses(network: &wire::Network, container: &str) -> Option<Vec<IpAddr>> {
    let endpoint = network.containers.get(container)?;
    Some([&endpoint.address, &endpoint.address6].into_iter().filter_map(|text| address(text)).collect())
}

/// `10.1.0.2/24`, as a network inspect writes addresses.
pub fn address(text: &str) -> Option<IpAddr> {
    text.split('/').next()?.parse().ok()
}

/// A network, with its bridge as Docker names it.
pub fn network(network: wire::Network) -> Network {
    let wire::Network { id, name, driver, internal, options, labels, ipam, .. } = network;
    let named = Some(options.bridge).filter(|name| !name.is_empty());
    let asked = labels::parse_network(&labels);
    let problems = asked.errors.iter().map(ToString::to_string).chain(asked.warnings);
    Network {
        bridge: (driver == "bridge").then(|| named.unwrap_or_else(|| default_bridge(&id, &name))),
        subnets: ipam.config.into_iter().filter_map(|pool| pool.subnet.parse::<IpNet>().ok()).collect(),
        internal,
        managed: labels.get(MANAGED).is_some_and(|value| value == "true"),
        guard: asked.guard,
        problems: problems.map(|problem| format!("network {name}: {problem}")).collect(),
        id,
        name,
        driver,
    }
}

fn default_bridge(id: &str, name: &str) -> String {
    if name == "bridge" { "docker0".to_owned() } else { format!("br-{}", id.get(..12).unwrap_or(id)) }
}
