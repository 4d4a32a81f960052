//! Which containers can be served at all: those on bridge networks.

use super::facts::Network;
use super::field_error::FieldError;

/// Why a container of this network mode (`HostConfig.NetworkMode`) cannot be bound; `None` when it can.
pub fn refuse_mode(mode: &str) -> Option<FieldError> {
    let message = match mode {
        "host" => {
            "`host` gives the container the host's own addresses, so its packets cannot be told from the host's; run it on a bridge network"
                .to_owned()
        }
        "none" => "`none` gives the container no network; run it on a bridge network".to_owned(),
        _ => {
            let other = mode.strip_prefix("container:")?;
            let short: String = other.chars().filter(char::is_ascii_graphic).take(12).collect();
            format!(
                "the container uses the network of container {short}, so its packets cannot be told from that one's; put the labels on that container"
            )
        }
    };
    Some(FieldError { field: "network mode".to_owned(), message })
}

/// Why a pod with `hostNetwork` cannot be bound.
pub fn refuse_host_network() -> FieldError {
    let message =
        "is true: the pod has the node's own addresses, so its packets cannot be told from the node's; remove it from the pod's spec";
    FieldError { field: "spec.hostNetwork".to_owned(), message: message.to_owned() }
}

/// Why a container cannot be bound on a network; `None` when it can.
pub fn refuse_network(network: &Network) -> Option<FieldError> {
    let internal = || FieldError {
        field: "network".to_owned(),
        message: format!(
            "{} is internal: the engine forwards nothing out of it, and a container may be its gateway; connect the container to another network as well",
            network.name
        ),
    };
    refuse_driver(&network.driver).or_else(|| network.internal.then(internal))
}

/// Why a container on a network of this driver cannot be bound there; `None` when it can.
pub fn refuse_driver(driver: &str) -> Option<FieldError> {
    let message = match driver {
        "bridge" => return None,
        "host" | "null" => "gives the container no address of its own",
        "macvlan" | "ipvlan" => "sends the container's packets over the NIC past the host's netfilter and routing",
        "overlay" => "carries packets between hosts and sends the rest out over a bridge of its own",
        _ => "is not one whose packets are known to pass this host's routing",
    };
    let message = format!("driver {driver} {message}; put the container on a bridge network");
    Some(FieldError { field: "network driver".to_owned(), message })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_without_packets_of_their_own_are_refused() {
        for mode in ["host", "none", "container:4f1c"] {
            assert!(refuse_mode(mode).is_some(), "{mode}");
        }
        for mode in ["default", "bridge", "eip_bridge", "hostile"] {
            assert_eq!(refuse_mode(mode), None);
        }
    }

    #[test]
    fn drivers_past_netfilter_are_refused_with_the_reason() {
        assert_eq!(refuse_driver("bridge"), None);
        for driver in ["macvlan", "ipvlan", "overlay", "some-plugin"] {
            let error = refuse_driver(driver).expect("refused");
            assert!(error.message.contains(driver) && error.message.ends_with("put the container on a bridge network"), "{error}");
        }
    }
}
