//! The engine's answers, as far as they are read. A field that is missing, null or new harms nobody; an entry that cannot be read harms
//! only itself.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// A container in a list.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Container {
    pub id: String,
    #[serde(default, deserialize_with = "or_default")]
    pub names: Vec<String>,
    #[serde(default, deserialize_with = "or_default")]
    pub labels: BTreeMap<String, String>,
    #[serde(default, deserialize_with = "or_default")]
    pub host_config: HostConfig,
    #[serde(default, deserialize_with = "if_readable")]
    pub created: i64,
    /// A word; each release may have new ones.
    #[serde(default, deserialize_with = "or_default")]
    pub state: String,
    #[serde(default, deserialize_with = "or_default")]
    pub network_settings: NetworkSettings,
    #[serde(default, deserialize_with = "readable_entries")]
    pub ports: Vec<Port>,
}

/// A port of a container; one that is not published has no `PublicPort`.
#[derive(Debug, Deserialize)]
pub struct Port {
    /// The host's address.
    #[serde(rename = "IP", default, deserialize_with = "or_default")]
    pub address: String,
    #[serde(rename = "PublicPort", default, deserialize_with = "if_readable")]
    pub public: Option<u16>,
    #[serde(rename = "Type", default, deserialize_with = "or_default")]
    pub protocol: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct HostConfig {
    #[serde(default, deserialize_with = "or_default")]
    pub network_mode: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct NetworkSettings {
    #[serde(default, deserialize_with = "or_default")]
    pub networks: BTreeMap<String, Option<Endpoint>>,
}

/// A container that was asked for by itself, as far as its network namespace goes.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Inspected {
    #[serde(default, deserialize_with = "or_default")]
    pub host_config: HostConfig,
    #[serde(default, deserialize_with = "or_default")]
    pub network_settings: Sandbox,
}

/// Where a container's network namespace is.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Sandbox {
    /// The file that stands for it; empty while there is none, and for one that has another container's.
    #[serde(default, deserialize_with = "or_default")]
    pub sandbox_key: String,
}

/// A container's place on a network, as the list shows it.
#[derive(Debug, Default, Deserialize)]
pub struct Endpoint {
    #[serde(rename = "NetworkID", default, deserialize_with = "or_default")]
    pub network_id: String,
    #[serde(rename = "IPAddress", default, deserialize_with = "or_default")]
    pub address: String,
    #[serde(rename = "GlobalIPv6Address", default, deserialize_with = "or_default")]
    pub address6: String,
    /// API 1.48.
    #[serde(rename = "GwPriority", default, deserialize_with = "if_readable")]
    pub gateway_priority: i64,
    /// What was asked for with `--ip` and `--ip6`.
    #[serde(rename = "IPAMConfig", default, deserialize_with = "or_default")]
    pub asked: AskedAddresses,
}

#[derive(Debug, Default, Deserialize)]
pub struct AskedAddresses {
    #[serde(rename = "IPv4Address", default, deserialize_with = "or_default")]
    pub address: String,
    #[serde(rename = "IPv6Address", default, deserialize_with = "or_default")]
    pub address6: String,
}

/// A network, in a list or by itself.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Network {
    pub id: String,
    #[serde(default, deserialize_with = "or_default")]
    pub name: String,
    #[serde(default, deserialize_with = "or_default")]
    pub driver: String,
    #[serde(default, deserialize_with = "or_default")]
    pub internal: bool,
    #[serde(default, deserialize_with = "or_default")]
    pub options: NetworkOptions,
    #[serde(default, deserialize_with = "or_default")]
    pub labels: BTreeMap<String, String>,
    #[serde(rename = "IPAM", default, deserialize_with = "or_default")]
    pub ipam: Ipam,
    /// By id; only in the answer about one network.
    #[serde(default, deserialize_with = "readable_ones")]
    pub containers: BTreeMap<String, Attached>,
}

#[derive(Debug, Default, Deserialize)]
pub struct NetworkOptions {
    #[serde(rename = "com.docker.network.bridge.name", default, deserialize_with = "or_default")]
    pub bridge: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Ipam {
    #[serde(default, deserialize_with = "or_default")]
    pub config: Vec<Pool>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Pool {
    #[serde(default, deserialize_with = "or_default")]
    pub subnet: String,
    #[serde(default, deserialize_with = "or_default")]
    pub gateway: String,
}

/// A container as its network shows it.
#[derive(Debug, Default, Deserialize)]
pub struct Attached {
    #[serde(rename = "Name", default, deserialize_with = "or_default")]
    pub name: String,
    #[serde(rename = "IPv4Address", default, deserialize_with = "or_default")]
    pub address: String,
    #[serde(rename = "IPv6Address", default, deserialize_with = "or_default")]
    pub address6: String,
}

/// A network in Podman's own list, which names the bridge's device.
#[derive(Debug, Deserialize)]
pub struct LibpodNetwork {
    pub id: String,
    #[serde(default, deserialize_with = "or_default")]
    pub network_interface: String,
}

/// An event.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Event {
    #[serde(default, deserialize_with = "or_default")]
    pub r#type: String,
    #[serde(default, deserialize_with = "or_default")]
    pub action: String,
    #[serde(default, deserialize_with = "or_default")]
    pub actor: Actor,
}

#[derive(Debug, Default, Deserialize)]
pub struct Actor {
    #[serde(rename = "ID", default, deserialize_with = "or_default")]
    pub id: String,
    #[serde(rename = "Attributes", default, deserialize_with = "or_default")]
    pub attributes: BTreeMap<String, String>,
}

/// Which engine it is.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Version {
    #[serde(default, deserialize_with = "or_default")]
    pub version: String,
}

/// Why the engine did not do as asked.
#[derive(Debug, Deserialize)]
pub struct Refusal {
    pub message: String,
}

/// A list that was read, and what of it could not be.
#[derive(Debug)]
pub struct List<T> {
    pub entries: Vec<T>,
    pub broken: Vec<Broken>,
}

/// An entry that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// Empty when the entry does not tell.
    pub id: String,
    pub name: String,
    pub error: String,
}

/// Reads a list, entry by entry when it cannot be read at once.
///
/// # Errors
/// When it is no list.
pub fn list<T: DeserializeOwned>(body: &[u8]) -> Result<List<T>, serde_json::Error> {
    if let Ok(entries) = serde_json::from_slice::<Option<Vec<T>>>(body) {
        return Ok(List { entries: entries.unwrap_or_default(), broken: Vec::new() });
    }
    let values: Vec<Value> = serde_json::from_slice(body)?;
    let mut list = List { entries: Vec::new(), broken: Vec::new() };
    for value in values {
        match T::deserialize(&value) {
            Ok(entry) => list.entries.push(entry),
            Err(error) => list.broken.push(broken(&value, &error)),
        }
    }
    Ok(list)
}

fn broken(value: &Value, error: &serde_json::Error) -> Broken {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let id = text(&value["Id"]);
    let names = [text(&value["Names"][0]).trim_start_matches('/').to_owned(), text(&value["Name"]), id.clone()];
    let name = names.into_iter().find(|name| !name.is_empty()).unwrap_or_else(|| "without a name".to_owned());
    Broken { id, name, error: error.to_string() }
}

fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(from: D) -> Result<T, D::Error> {
    Option::<T>::deserialize(from).map(Option::unwrap_or_default)
}

/// For what is of little weight: anything of another kind counts as missing.
fn if_readable<'de, D: Deserializer<'de>, T: DeserializeOwned + Default>(from: D) -> Result<T, D::Error> {
    Value::deserialize(from).map(|value| T::deserialize(value).unwrap_or_default())
}

/// What is of another kind is left out of the list.
fn readable_entries<'de, D: Deserializer<'de>, T: DeserializeOwned>(from: D) -> Result<Vec<T>, D::Error> {
    let all = Value::deserialize(from)?;
    Ok(all.as_array().into_iter().flatten().filter_map(|value| T::deserialize(value).ok()).collect())
}

/// What is of another kind is left out of the map.
fn readable_ones<'de, D: Deserializer<'de>, T: DeserializeOwned>(from: D) -> Result<BTreeMap<String, T>, D::Error> {
    let all = Option::<BTreeMap<String, Value>>::deserialize(from)?.unwrap_or_default();
    Ok(all.into_iter().filter_map(|(key, value)| Some((key, T::deserialize(value).ok()?))).collect())
}

#[cfg(test)]
mod tests;
