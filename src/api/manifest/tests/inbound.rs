//! Ports that a binding's workloads serve.

use super::*;
use crate::model::binding::{Balance, ClientSource, Inbound, Ports, Protocol};

const WHO: &str = "exits: [{ address: 172.31.0.14 }]\n";

fn read_spec(spec: &str) -> Manifests {
    read(&with(&format!("{WHO}{spec}")))
}

/// All that is wrong with it, said of the file or of the binding.
fn wrong(spec: &str) -> String {
    let read = read_spec(spec);
    let of_bindings = read.bindings.iter().flat_map(|binding| binding.errors.iter().map(ToString::to_string));
    errors(&read).into_iter().chain(of_bindings).collect::<Vec<_>>().join("\n")
}

#[test]
fn ports_are_served_by_addresses_containers_and_namespaces() {
    let inbound = "inbound: [{ protocol: TCP, port: 27017, targetPort: 1234, balance: BySource, clientSource: Masquerade }, { protocol: UDP, port: 5000, endPort: 5010 }]";
    for who in ["addresses: [10.0.0.2/32, 10.0.0.3/32]", "containerSelector: { names: [a] }", "networkNamespaces: [a]"] {
        let spec = format!("{who}\n{inbound}");
        assert_eq!(wrong(&spec), "");
        let tcp = Inbound {
            address: None,
            ports: Ports { protocol: Protocol::Tcp, first: 27017, last: 27017 },
            target: Some(1234),
            balance: Balance::BySource,
            client_source: ClientSource::Masquerade,
            weight: 1,
        };
        let udp = Inbound {
            ports: Ports { protocol: Protocol::Udp, first: 5000, last: 5010 },
            target: None,
            balance: Balance::RoundRobin,
            client_source: ClientSource::Preserve,
            ..tcp
        };
        assert_eq!(read_spec(&spec).bindings[0].inbound, [tcp, udp]);
    }
}

#[test]
fn what_is_wrong_with_a_port_is_told_with_field_and_cure() {
    for (spec, parts) in [
        ("inbound: [{ protocol: TCP, port: 0 }]", ["spec.inbound[0].port", "0"]),
        ("inbound: [{ protocol: TCP, port: 65536 }]", ["spec.inbound[0].port", "65536"]),
        ("inbound: [{ protocol: TCP, port: 90, endPort: 80 }]", ["spec.inbound[0].endPort", "reversed"]),
        ("inbound: [{ protocol: TCP, port: 80, targetPort: 0 }]", ["spec.inbound[0].targetPort", "0"]),
        ("inbound: [{ protocol: TCP, port: 80, endPort: 81, targetPort: 80 }]", ["spec.inbound[0].targetPort", "endPort"]),
        ("inbound: [{ protocol: TCP, port: 80 }, { protocol: TCP, port: 79, endPort: 81 }]", ["spec.inbound[1].endPort", "given twice"]),
        ("inbound: [{ protocol: SCTP, port: 80 }]", ["spec.inbound[0].protocol", "UDP"]),
        ("inbound: [{ port: 80 }]", ["spec.inbound[0]", "protocol"]),
        ("inbound: [{ protocol: TCP, port: 80, balance: Sideways }]", ["spec.inbound[0].balance", "BySource"]),
        ("inbound: [{ protocol: TCP, port: 80, clientSource: Hide }]", ["spec.inbound[0].clientSource", "Masquerade"]),
        ("inbound: [{ protocol: TCP, port: 80, prot: 80 }]", ["spec.inbound[0].prot", "port"]),
    ] {
        let said = wrong(&format!("networkNamespaces: [a]\n{spec}"));
        assert!(parts.iter().all(|part| said.contains(part)), "{spec}: {said}");
    }
}

#[test]
fn a_subnet_is_no_server() {
    let said = wrong("addresses: [10.0.0.2/32, 10.0.1.0/24]\ninbound: [{ protocol: TCP, port: 80 }]");
    assert!(said.contains("spec.addresses[1].cidr: is a subnet"), "{said}");
}
