//! What nerdctl's labels say of a container's networks, before there is one. No I/O.

use std::collections::BTreeMap;
use std::fmt::Write;

use ring::digest::{SHA256, digest};

/// A JSON list of what was given with `--network`.
const NETWORKS: &str = "nerdctl/networks";

/// The names of a container's networks, `host` and `none` among them; none where another client made it.
pub fn networks(labels: &BTreeMap<String, String>) -> Vec<String> {
    labels.get(NETWORKS).and_then(|list| serde_json::from_str(list).ok()).unwrap_or_default()
}

/// The bridge device of the network of that name, if it is a bridge network (nerdctl's `pkg/netutil/netutil_unix.go`, 2.2).
pub fn bridge(network: &str) -> String {
    if network == "bridge" {
        return "nerdctl0".to_owned();
    }
    let mut name = "br-".to_owned();
    for byte in &digest(&SHA256, network.as_bytes()).as_ref()[..6] {
        write!(name, "{byte:02x}").expect("writing to a string does not fail");
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_s_networks_are_those_of_its_label() {
        let labels = |value: &str| BTreeMap::from([(NETWORKS.to_owned(), value.to_owned())]);
        assert_eq!(networks(&labels(r#"["bridge","shop_default"]"#)), ["bridge", "shop_default"]);
        assert_eq!(networks(&labels("null")), [""; 0]);
        assert_eq!(networks(&BTreeMap::new()), [""; 0]);
    }

    #[test]
    fn a_network_s_bridge_has_the_name_that_nerdctl_gives_it() {
        assert_eq!(bridge("bridge"), "nerdctl0");
        assert_eq!(bridge("shop"), "br-8d9001d32c6a");
    }
}
