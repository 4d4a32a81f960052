//! The engine's words to ours: what its answers and events mean, with nothing asked and nothing kept.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use bollard::models;
use ipnet::IpNet;

use crate::api::labels;
use crate::model::facts::{Attachment, Network};

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

/// The event filters that go with [`event`].
pub fn event_filters() -> HashMap<String, Vec<String>> {
    let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    HashMap::from([
        ("type".to_owned(), owned(&["container", "network"])),
        ("event".to_owned(), owned(&["create", "start", "die", "rename", "destroy", "connect", "disconnect"])),
    ])
}

/// What an event of the engine says; `None` for one that does not matter here.
pub fn event(message: models::EventMessage) -> Option<Event> {
    use models::EventMessageTypeEnum::{CONTAINER, NETWORK};
    let actor = message.actor?;
    let id = actor.id?;
    let mut attributes = actor.attributes.unwrap_or_default();
    let mut attribute = |name: &str| attributes.remove(name).unwrap_or_default();
    Some(match (message.typ?, message.action?.as_str()) {
        (CONTAINER, "create") => {
            let name = attribute("name");
            Event::Created { id, name, labels: attributes.into_iter().collect() }
        }
        (CONTAINER, "start") => Event::Started(id),
        (CONTAINER, "die") => Event::Died(id),
        (CONTAINER, "rename") => Event::Renamed(id),
        (CONTAINER, "destroy") => Event::Destroyed(id),
        (NETWORK, "create") => Event::NetworkCreated(id),
        (NETWORK, "destroy") => Event::NetworkDestroyed(id),
        (NETWORK, "connect") => {
            Event::Connected { container: attribute("container"), name: attribute("name"), driver: attribute("type"), network: id }
        }
        (NETWORK, "disconnect") => Event::Disconnected { container: attribute("container"), network: id },
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
}

/// `None` for an answer without an id.
pub fn container(summary: models::ContainerSummary) -> Option<Listed> {
    use models::ContainerSummaryStateEnum::{PAUSED, RUNNING, STOPPING};
    let running = matches!(summary.state, Some(RUNNING | PAUSED | STOPPING));
    let networks = summary.network_settings.and_then(|settings| settings.networks).unwrap_or_default();
    let mut attachments: Vec<_> = networks.into_iter().map(|(name, endpoint)| attachment(name, endpoint, running)).collect();
    attachments.sort_by(|a, b| a.network.cmp(&b.network));
    Some(Listed {
        id: summary.id?,
        name: own_name(summary.names.unwrap_or_default()),
        labels: summary.labels.unwrap_or_default().into_iter().collect(),
        network_mode: summary.host_config.and_then(|config| config.network_mode).unwrap_or_default(),
        created: summary.created.and_then(|seconds| seconds.try_into().ok()).unwrap_or_default(),
        running,
        attachments,
    })
}

/// A link (`--link`) adds names of the form `/other/alias`.
pub fn own_name(names: Vec<String>) -> String {
    names.iter().filter_map(|name| name.strip_prefix('/')).find(|name| !name.contains('/')).unwrap_or_default().to_owned()
}

fn attachment(network: String, endpoint: models::EndpointSettings, running: bool) -> Attachment {
    let addresses = [endpoint.ip_address, endpoint.global_ipv6_address];
    Attachment {
        network_id: endpoint.network_id.unwrap_or_default(),
        network,
        addresses: addresses.iter().flatten().filter(|_| running).filter_map(|text| text.parse().ok()).collect(),
        gateway_priority: endpoint.gw_priority.unwrap_or_default(),
    }
}

/// The addresses of a container in the answer of a network inspect; `None` when the container is not there.
pub fn addresses(network: &models::NetworkInspect, container: &str) -> Option<Vec<IpAddr>> {
    let endpoint = network.containers.as_ref()?.get(container)?;
    let texts = [endpoint.ipv4_address.as_deref(), endpoint.ipv6_address.as_deref()];
    Some(texts.into_iter().flatten().filter_map(address).collect())
}

/// `10.1.0.2/24`, as a network inspect writes addresses.
pub fn address(text: &str) -> Option<IpAddr> {
    text.split('/').next()?.parse().ok()
}

/// `None` for an answer without an id.
pub fn network(network: models::Network) -> Option<Network> {
    let id = network.id?;
    let name = network.name.unwrap_or_default();
    let driver = network.driver.unwrap_or_default();
    let named = network.options.and_then(|mut options| options.remove(BRIDGE_NAME)).filter(|name| !name.is_empty());
    let subnets = network.ipam.and_then(|ipam| ipam.config).unwrap_or_default();
    let labels = network.labels.unwrap_or_default().into_iter().collect();
    let asked = labels::parse_network(&labels);
    let problems = asked.errors.iter().map(ToString::to_string).chain(asked.warnings);
    Some(Network {
        bridge: (driver == "bridge").then(|| named.unwrap_or_else(|| default_bridge(&id, &name))),
        subnets: subnets.into_iter().filter_map(|one| one.subnet?.parse::<IpNet>().ok()).collect(),
        internal: network.internal.unwrap_or_default(),
        managed: labels.get(MANAGED).is_some_and(|value| value == "true"),
        guard: asked.guard,
        problems: problems.map(|problem| format!("network {name}: {problem}")).collect(),
        id,
        name,
        driver,
    })
}

fn default_bridge(id: &str, name: &str) -> String {
    if name == "bridge" { "docker0".to_owned() } else { format!("br-{}", id.get(..12).unwrap_or(id)) }
}
