//! Which containers can be served at all: those on bridge networks.

use super::binding::FieldError;

/// Why a container of this network mode (`HostConfig.NetworkMode`) cannot be bound; `None` when it can.
pub fn refuse_mode(mode: &str) -> Option<FieldError> {
    let message = match mode {
        "host" => "it shares the host's network and has no address of its own; put it on a bridge network".to_owned(),
        "none" => "it has no network; put it on a bridge network".to_owned(),
        _ => {
            let other = mode.strip_prefix("container:")?;
            format!("it shares the network of container {other}; bind that one")
        }
    };
    Some(FieldError { field: format!("network mode {mode}"), message })
}

/// Why a container on a network of this driver cannot be bound there; `None` when it can.
pub fn refuse_driver(driver: &str) -> Option<FieldError> {
    let message = match driver {
        "bridge" => return None,
        "host" | "null" => "it gives the container no address of its own; use a bridge network",
        "macvlan" | "ipvlan" => "its packets leave by the parent NIC without passing this host's routing; use a bridge network",
        "overlay" => "its packets leave through a bridge and an address that are not the container's; use a bridge network",
        _ => "how its packets travel is not known; use a bridge network",
    };
    Some(FieldError { field: format!("network driver {driver}"), message: message.to_owned() })
}
