//! What a pool asks of a cloud.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use serde::{Deserialize, Serialize};

/// An `EgressPool` with `cloud`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloudPool {
    pub name: String,
    /// In order, each once.
    pub addresses: Vec<Ipv4Addr>,
    pub aws: Aws,
    /// Whose network interface is meant; `None`: that of the machine that `egressd-cloud` runs on.
    pub host: Option<Host>,
}

/// A node of a cluster, as a cloud knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Host {
    /// Its name in the cluster.
    pub node: String,
    /// Its id in the cloud.
    pub instance: String,
    /// Addresses of its NIC that the pool's `interface` names; none when the pool names none.
    pub holds: BTreeSet<Ipv4Addr>,
}

/// What is known of a node of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// `spec.providerID`.
    pub provider: Option<String>,
    /// By its label `topology.kubernetes.io/region`.
    pub region: Option<String>,
    /// The addresses of its NICs by their names, as its agent reports them.
    pub nics: BTreeMap<String, BTreeSet<IpAddr>>,
}

impl Machine {
    /// Its id in Amazon EC2, `i-0123456789abcdef0`, by `aws:///ZONE/ID`.
    pub fn instance(&self) -> Option<&str> {
        let path = self.provider.as_deref()?.strip_prefix("aws://")?;
        path.rsplit('/').next().filter(|id| id.starts_with("i-"))
    }
}

/// `spec.cloud.aws` of an `EgressPool`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Aws {
    /// That of `egressd-cloud` when there is none.
    pub region: Option<String>,
    pub interface: Interface,
    /// `None`: the addresses get no public ones.
    pub elastic: Option<ElasticAddresses>,
    /// The NIC passes on other servers' packets: its source/destination check is off.
    pub forwards: bool,
    /// Route tables whose default route leads to the NIC.
    pub route_tables: Vec<String>,
}

/// Which network interface holds the addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Interface {
    Id(String),
    /// Of the instance, by its device index.
    Device(u32),
    /// Of the instance, the first in the addresses' subnet.
    InSubnet,
}

/// What the cloud shows of an address, as `egressd-cloud` writes it down.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AddressReport {
    /// The cloud shows it as the pool asks: it may be used.
    pub ready: bool,
    /// What others see it as.
    pub public_address: Option<Ipv4Addr>,
    /// The elastic address's id.
    pub elastic_address: Option<String>,
    /// Why it is not ready.
    pub message: String,
}

/// What is known of the addresses of all pools.
pub type AddressReports = BTreeMap<IpAddr, AddressReport>;

/// Where public addresses come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ElasticAddresses {
    Allocate,
    /// Free ones of the account that bear this tag.
    Tagged {
        key: String,
        value: String,
    },
}
