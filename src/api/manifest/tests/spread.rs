//! Several exits of one binding.

use super::*;

const WHO: &str = "containerSelector: { names: [crawler] }\n";

fn binding(spec: &str) -> Binding {
    let read = read(&with(&format!("{WHO}{spec}")));
    assert_eq!(errors(&read), Vec::<String>::new(), "{spec}");
    Binding::clone(&read.bindings[0])
}

/// All that is wrong with it, said of the file or of the binding.
fn wrong(spec: &str) -> String {
    let read = read(&with(&format!("{WHO}{spec}")));
    let of_bindings = read.bindings.iter().flat_map(|binding| binding.errors.iter().map(ToString::to_string));
    errors(&read).into_iter().chain(of_bindings).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_range_is_an_exit_for_each_address() {
    let spec = "exits: [{ addresses: 10.0.1.94-10.0.1.95, interface: ens5, weight: 2 }, { address: 10.0.1.98, draining: true }]\nspread: RoundRobin";
    let of_range = |address: &str| ExitSpec { interface: Some("ens5".to_owned()), weight: 2, ..ExitSpec::new(ip(address)) };
    let binding = binding(spec);
    assert_eq!(binding.spread, Spread::RoundRobin);
    let drains = ExitSpec { draining: true, ..ExitSpec::new(ip("10.0.1.98")) };
    assert_eq!(binding.exits, [of_range("10.0.1.94"), of_range("10.0.1.95"), drains]);
    assert_eq!(binding.warnings, Vec::<String>::new());
}

#[test]
fn weights_without_a_spread_are_told() {
    let binding = binding("exits: [{ address: 10.0.1.94, weight: 2 }]");
    assert_eq!(binding.spread, Spread::FirstUsable);
    assert!(binding.warnings[0].starts_with("weights have no effect"), "{:?}", binding.warnings);
}

#[test]
fn what_is_wrong_with_several_exits_is_told_with_field_and_cure() {
    for (spec, parts) in [
        ("exits: [{ addresses: 10.0.0.0/8 }]", ["spec.exits[0].addresses", "more than 4096 addresses"]),
        ("exits: [{ addresses: 10.0.1.9-10.0.1.3 }]", ["spec.exits[0].addresses", "reversed"]),
        ("exits: [{ addresses: '10.0.1.9-2001:db8::1' }]", ["spec.exits[0].addresses", "one family"]),
        ("exits: [{ addresses: '' }]", ["spec.exits[0].addresses", "write for instance"]),
        ("exits: [{ address: 10.0.1.9, addresses: 10.0.1.0/30 }]", ["spec.exits[0].addresses", "keep one of them"]),
        ("exits: [{ addresses: 10.0.1.0/30 }, { address: 10.0.1.2 }]", ["spec.exits[1].address", "given twice"]),
        ("exits: [{ addresses: 10.0.0.0/20 }, { addresses: 10.1.0.0/20 }]", ["spec.exits[1].addresses", "in total"]),
        ("exits: [{ address: 10.0.1.2, weight: 0 }]", ["spec.exits[0].weight", "0"]),
        ("exits: [{ address: 10.0.1.2, weight: -3 }]", ["spec.exits[0].weight", "-3"]),
        ("exits: [{ address: 10.0.1.2, weight: 101 }]", ["spec.exits[0].weight", "101"]),
        ("exits: [{ address: 10.0.1.2 }]\nspread: Sideways", ["spec.spread", "RoundRobin"]),
        ("exits: [{ interface: eth1, assignment: Managed }]", ["spec.exits[0].assignment", "add `address`"]),
        ("exits: [{ address: 10.0.1.2, assignment: Mine }]", ["spec.exits[0].assignment", "Routed"]),
        ("exits: [{ address: 10.0.1.2, publicAddress: here }]", ["spec.exits[0].publicAddress", "109.25.48.65"]),
        ("exits: [{ address: 10.0.1.2, publicAddress: '2001:db8::1' }]", ["spec.exits[0].publicAddress", "family"]),
        ("exits: [{ addresses: 10.0.1.0/30, publicAddress: 109.25.48.65 }]", ["spec.exits[0].publicAddress", "an exit for each"]),
        ("exits: [{ address: 10.0.1.2, sourcePorts: '4000' }]", ["spec.exits[0].sourcePorts", "40000-49999"]),
        ("exits: [{ address: 10.0.1.2, sourcePorts: 40000-40001 }]", ["spec.exits[0].sourcePorts", "64 or more"]),
        ("exits: [{ address: 10.0.1.2, probe: { tcp: example.com } }]", ["spec.exits[0].probe.tcp", "198.51.100.10:443"]),
        ("exits: [{ address: 10.0.1.2, probe: { tcp: '[2001:db8::1]:443' } }]", ["spec.exits[0].probe.tcp", "family"]),
        ("exits: [{ address: 10.0.1.2, assignment: Routed, probe: { tcp: '198.51.100.1:443' } }]", ["spec.exits[0].probe.tcp", "Routed"]),
        ("exits: [{ address: 10.0.1.2, probe: { tcp: '198.51.100.1:443', failures: 0 } }]", ["spec.exits[0].probe.failures", "0"]),
        ("exits: [{ address: 10.0.1.2 }]\nrate: '20'", ["spec.rate", "20Mbit"]),
        ("exits: [{ address: 10.0.1.2 }]\nrate: 1Mbit\nburst: 5Mbit", ["spec.burst", "256kB"]),
        ("exits: [{ address: 10.0.1.2 }]\nburst: 5kB", ["spec.burst", "without `rate`"]),
        ("exits: [{ addresses: 10.0.1.0/30, gateway: '2001:db8::1' }]", ["spec.exits[0].gateway", "IPv6"]),
    ] {
        let said = wrong(spec);
        assert!(parts.iter().all(|part| said.contains(part)), "{spec}: {said}");
    }
}
