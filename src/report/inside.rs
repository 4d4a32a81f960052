//! Which subnets are inside a cluster: what its nodes, services and API server have.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::ServiceCIDR;

/// The pods' subnets and the addresses of a node.
pub fn of_node(node: &Node) -> BTreeSet<IpNet> {
    let spec = node.spec.iter();
    let pods = spec.flat_map(|spec| spec.pod_cidrs.iter().flatten().chain(&spec.pod_cidr)).filter_map(|cidr| subnet(cidr));
    let addresses = node.status.iter().flat_map(|status| status.addresses.iter().flatten());
    // The other kinds are names.
    let addresses = addresses.filter(|address| matches!(address.type_.as_str(), "InternalIP" | "ExternalIP"));
    pods.chain(addresses.filter_map(|address| host(&address.address))).collect()
}

/// The subnets that services get their addresses from.
pub fn of_services(cidr: &ServiceCIDR) -> BTreeSet<IpNet> {
    cidr.spec.iter().flat_map(|spec| spec.cidrs.iter().flatten()).filter_map(|cidr| subnet(cidr)).collect()
}

/// The addresses of endpoints.
pub fn of_endpoints(slice: &EndpointSlice) -> BTreeSet<IpNet> {
    slice.endpoints.iter().flatten().flat_map(|endpoint| &endpoint.addresses).filter_map(|address| host(address)).collect()
}

/// The fewest subnets that say the same, one a line.
pub fn text<'a>(all: impl IntoIterator<Item = &'a BTreeSet<IpNet>>) -> String {
    let all: BTreeSet<IpNet> = all.into_iter().flatten().copied().collect();
    let mut least = IpNet::aggregate(&all.into_iter().collect());
    least.sort_unstable();
    least.into_iter().map(|net| format!("{net}\n")).collect()
}

fn subnet(text: &str) -> Option<IpNet> {
    text.parse().ok().map(|net: IpNet| net.trunc())
}

fn host(text: &str) -> Option<IpNet> {
    text.parse::<IpAddr>().ok().map(IpNet::from)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn node(value: serde_json::Value) -> BTreeSet<IpNet> {
        of_node(&serde_json::from_value(value).expect("a node"))
    }

    #[test]
    fn a_node_s_pods_and_addresses_are_inside_and_its_names_are_no_addresses() {
        let found = node(json!({
            "metadata": { "name": "n1" },
            "spec": { "podCIDR": "10.244.1.0/24", "podCIDRs": ["10.244.1.0/24", "fd00:1::/64"] },
            "status": { "addresses": [
                { "type": "InternalIP", "address": "192.0.2.4" },
                { "type": "ExternalIP", "address": "198.51.100.4" },
                { "type": "Hostname", "address": "192.0.2.9" },
            ] },
        }));
        assert_eq!(text([&found]), "10.244.1.0/24\n192.0.2.4/32\n198.51.100.4/32\nfd00:1::/64\n");
    }

    #[test]
    fn services_and_the_api_server_s_endpoints_are_inside() {
        let cidr = json!({ "metadata": {}, "spec": { "cidrs": ["10.96.0.0/16"] } });
        let slice = json!({ "metadata": {}, "addressType": "IPv4", "endpoints": [{ "addresses": ["192.0.2.1"] }] });
        let services = of_services(&serde_json::from_value(cidr).expect("a ServiceCIDR"));
        let endpoints = of_endpoints(&serde_json::from_value(slice).expect("an EndpointSlice"));
        assert_eq!(text([&services, &endpoints]), "10.96.0.0/16\n192.0.2.1/32\n");
    }

    #[test]
    fn the_list_is_as_short_as_it_can_be_and_says_no_more() {
        let nets = |all: &[&str]| all.iter().filter_map(|net| subnet(net)).collect::<BTreeSet<_>>();
        let (one, two) = (nets(&["10.244.0.0/24", "10.244.1.0/24"]), nets(&["10.244.1.7/32", "10.244.3.0/24"]));
        assert_eq!(text([&one, &two]), "10.244.0.0/23\n10.244.3.0/24\n");
    }

    #[test]
    fn what_is_no_subnet_is_left_out_and_the_rest_stays() {
        let found = node(json!({ "metadata": {}, "spec": { "podCIDRs": ["nonsense", "10.244.1.0/24"] } }));
        assert_eq!(text([&found]), "10.244.1.0/24\n");
    }
}
