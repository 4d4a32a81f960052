//! Puts a container on the network, and at the address, that its labels ask for as it is made.
//!
//! `docker run` starts a container a round trip after it is made, and says nothing before. An engine carries out the calls about one container
//! in the order in which they come, so what is sent at once, with no question before, mostly comes ahead of that start: 83 to 91 of 100
//! times (20.10 and 29, two cores, load 3 to 16). Otherwise the calls wait until the start is over, and the engine then moves interface,
//! default route and published ports of the running container.

use std::collections::HashMap;
use std::net::IpAddr;

use bollard::models;
use ipnet::IpNet;

use super::network::asked;
use super::{Engine, Error};
use crate::facts::docker::{self as facts, wire};
use crate::model::binding::Placement;
use crate::model::facts::Network;
use crate::plan::engine::Made;

const NETWORK: &str = "egress.network";
const ADDRESS: &str = "egress.container-ip";
/// The network of a container that names none.
const DEFAULT: &str = "bridge";

/// What became of a container that is to be placed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placed {
    /// It starts where its labels say.
    Done,
    /// It was there already.
    Already,
    /// It has started a while ago and stays where it is: to move a container would cut its connections.
    Running,
    /// It was removed meanwhile.
    Gone,
}

/// Where a container that has not started is going to be.
struct Seen {
    running: bool,
    name: String,
    mode: String,
    /// Networks by name, with the address that was asked for.
    networks: HashMap<String, Vec<IpAddr>>,
}

impl Engine {
    /// Attaches a container to the network of `placement`, with its address, and takes it off all others, so that this is the only way it
    /// has. A container that runs, or ran before, is not moved unless it is made just [`Now`](Made::Now).
    /// Without a network in `placement` the address is for the only one it has.
    ///
    /// # Errors
    /// [`Error::Refused`] with the label and the cure; nothing was changed then.
    pub async fn place(&self, container: &str, placement: &Placement, made: &Made) -> Result<Placed, Error> {
        let known = if let Made::Now(network) = made { network.as_deref().filter(|n| n.name != DEFAULT) } else { None };
        let hurried = match known {
            Some(network) => self.hurry(container, network, placement.address).await,
            None => Ok(false),
        };
        let Some(seen) = self.seen(container).await? else {
            return Ok(Placed::Gone);
        };
        let hurried = hurried?;
        if seen.running && *made == Made::Before {
            return Ok(Placed::Running);
        }
        let name = target(&seen, placement)?;
        let Some(found) = self.find_network(name).await? else {
            return Err(Error::refused(NETWORK, format!("there is no network {name}; make it with `docker network create {name}`")));
        };
        let checked = placement.address.map_or(Ok(()), |address| check(&found, address, &seen.name));
        let network = facts::network(found);
        if let Err(error) = checked {
            if hurried {
                self.put_back(container, &network).await?;
            }
            return Err(error);
        }
        let wanted: Vec<_> = placement.address.into_iter().collect();
        let others: Vec<_> = seen.networks.keys().filter(|other| **other != network.name).collect();
        let attached = seen.networks.get(&network.name).is_some_and(|addresses| wanted.iter().all(|one| addresses.contains(one)));
        if attached && others.is_empty() {
            return Ok(if hurried { Placed::Done } else { Placed::Already });
        }

        if !attached {
            let joined = seen.networks.contains_key(&network.name);
            if joined {
                // The engine takes no address for a network that the container has already.
                self.detach(container, &network.name).await?;
            }
            if let Err(error) = self.attach(container, &network.id, &network.name, placement.address).await {
                if joined {
                    self.attach(container, &network.id, &network.name, None).await?;
                }
                return Err(error);
            }
        }
        for other in others {
            self.detach(container, other).await?;
        }
        tracing::info!(container, network = network.name, address = ?placement.address, "container placed");
        Ok(Placed::Done)
    }

    /// Moves a container from the default network, where it most likely is, to another one: with nothing asked before, both calls at once.
    /// Gives whether that was so; one that is elsewhere needs a second look.
    async fn hurry(&self, container: &str, network: &Network, address: Option<IpAddr>) -> Result<bool, Error> {
        let (left, joined) = futures::join!(self.detach(container, DEFAULT), self.attach(container, &network.id, &network.name, address));
        match (left, joined) {
            (Ok(()), Ok(())) => Ok(true),
            (Ok(()), Err(error)) => {
                self.put_back(container, network).await?;
                Err(error)
            }
            (Err(_), _) => Ok(false),
        }
    }

    async fn put_back(&self, container: &str, network: &Network) -> Result<(), Error> {
        // Of a network that was refused the engine may say that the container never had it.
        let _ = self.detach(container, &network.id).await;
        self.attach(container, DEFAULT, DEFAULT, None).await
    }

    /// By the list, which is never held back by a start.
    async fn seen(&self, container: &str) -> Result<Option<Seen>, Error> {
        let listed = self.client.some_containers(&[container]).await.map_err(asked(format!("list container {container}")))?;
        if let Some(broken) = listed.broken.into_iter().next() {
            return Err(Error::refused(
                NETWORK,
                format!("the engine's answer about container {} cannot be read: {}", broken.name, broken.error),
            ));
        }
        Ok(listed.entries.into_iter().find(|one| one.id == container).map(|one| Seen {
            running: one.state != "created",
            name: facts::own_name(one.names),
            mode: one.host_config.network_mode,
            networks: one.network_settings.networks.into_iter().map(|(name, endpoint)| (name, asked_addresses(endpoint))).collect(),
        }))
    }

    async fn attach(&self, container: &str, network: &str, name: &str, address: Option<IpAddr>) -> Result<(), Error> {
        let ipam = address.map(|address| models::EndpointIpamConfig {
            ipv4_address: address.is_ipv4().then(|| address.to_string()),
            ipv6_address: address.is_ipv6().then(|| address.to_string()),
            ..Default::default()
        });
        let endpoint = models::EndpointSettings { ipam_config: ipam, ..Default::default() };
        let request = models::NetworkConnectRequest { container: container.to_owned(), endpoint_config: Some(endpoint) };
        match self.docker.connect_network(network, request).await {
            Ok(()) => Ok(()),
            Err(bollard::errors::Error::DockerResponseServerError { message, .. }) => {
                let field = if address.is_some() && message.to_lowercase().contains("address") { ADDRESS } else { NETWORK };
                Err(Error::refused(field, format!("the engine refuses network {name}: {}", message.trim_end_matches('.'))))
            }
            Err(source) => Err(Error::Engine { step: format!("connect container {container} to network {name}"), source }),
        }
    }

    async fn detach(&self, container: &str, network: &str) -> Result<(), Error> {
        let request = models::NetworkDisconnectRequest { container: container.to_owned(), force: None };
        match self.docker.disconnect_network(network, request).await {
            Ok(()) | Err(bollard::errors::Error::DockerResponseServerError { status_code: 404, .. }) => Ok(()),
            Err(source) => Err(Error::Engine { step: format!("disconnect container {container} from network {network}"), source }),
        }
    }
}

/// The engine would say these only when the container starts, and to nobody who reads the labels.
fn check(network: &wire::Network, address: IpAddr, own: &str) -> Result<(), Error> {
    let name = &network.name;
    if matches!(name.as_str(), "bridge" | "host" | "none") {
        let message = format!("network {name} gives no chosen addresses; make one with a subnet and name it in {NETWORK}");
        return Err(Error::refused(ADDRESS, message));
    }
    let pools = &network.ipam.config;
    let subnets: Vec<IpNet> = pools.iter().filter_map(|pool| pool.subnet.parse().ok()).collect();
    let Some(subnet) = subnets.iter().find(|subnet| subnet.contains(&address)) else {
        let subnets = subnets.iter().map(IpNet::to_string).collect::<Vec<_>>().join(", ");
        return Err(Error::refused(ADDRESS, format!("{address} is not in network {name}; choose one in {subnets}")));
    };
    if pools.iter().filter_map(gateway).any(|gateway| gateway == address) {
        return Err(Error::refused(ADDRESS, format!("{address} is the gateway of network {name}; choose another one in {subnet}")));
    }
    // By name: while a container is being started, the engine lists it by an id of its endpoint.
    for other in network.containers.values().filter(|one| one.name != own) {
        if [&other.address, &other.address6].into_iter().any(|text| facts::address(text) == Some(address)) {
            let owner = &other.name;
            let message = format!("{address} is taken by container {owner}; choose another one in {subnet}, or remove {owner}");
            return Err(Error::refused(ADDRESS, message));
        }
    }
    Ok(())
}

/// Engine 20.10 shows only a gateway that was asked for; when none was, the bridge has the subnet's first address.
fn gateway(pool: &wire::Pool) -> Option<IpAddr> {
    facts::address(&pool.gateway).or_else(|| {
        let subnet: IpNet = pool.subnet.parse().ok()?;
        subnet.hosts().find(|address| *address != subnet.network())
    })
}

fn asked_addresses(endpoint: Option<wire::Endpoint>) -> Vec<IpAddr> {
    let asked = endpoint.unwrap_or_default().asked;
    [&asked.address, &asked.address6].into_iter().filter_map(|text| text.parse().ok()).collect()
}

/// Which network it is to be on.
fn target<'a>(seen: &'a Seen, placement: &'a Placement) -> Result<&'a str, Error> {
    if matches!(seen.mode.as_str(), "host" | "none") || seen.mode.starts_with("container:") {
        let message = format!("the container was made with --network {}; leave that out", seen.mode);
        return Err(Error::refused(if placement.network.is_some() { NETWORK } else { ADDRESS }, message));
    }
    let mut own = seen.networks.keys();
    match (&placement.network, own.next(), own.next()) {
        (Some(network), ..) => Ok(network),
        (None, Some(only), None) => Ok(only),
        (None, ..) => Err(Error::refused(
            ADDRESS,
            format!("the container has {} networks; say with {NETWORK} which one it is for", seen.networks.len()),
        )),
    }
}
