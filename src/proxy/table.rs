//! The report as a table for a terminal.

use super::report::{PortReport, Report};
use crate::report::columns::{columns, or_dash};

/// `egressd proxies` without `-o json`. `wide`: with what was counted.
pub fn render(report: &Report, wide: bool) -> String {
    let table = match (report.ports.as_slice(), wide) {
        ([], _) => "No port is asked for.\n".to_owned(),
        (ports, false) => columns(["PROXY", "WHERE", "PORT", "SERVER", "FROM", "EXIT", "STATE", "OPEN", "REASON"], ports.iter().map(row)),
        (ports, true) => columns(
            ["PROXY", "WHERE", "PORT", "SERVER", "FROM", "EXIT", "STATE", "OPEN", "ACCEPTED", "REFUSED", "UNREACHED", "REASON"],
            ports.iter().map(|port| {
                let [proxy, place, address, server, from, exit, state, open, reason] = row(port);
                let counts = [port.accepted, port.refused + port.without_exit, port.unreached].map(|count| count.to_string());
                let [accepted, refused, unreached] = counts;
                [proxy, place, address, server, from, exit, state, open, accepted, refused, unreached, reason]
            }),
        ),
    };
    if report.problems.is_empty() { table } else { format!("{table}\n{}\n", report.problems.join("\n")) }
}

fn row(port: &PortReport) -> [String; 9] {
    let unreachable = port.unreachable.as_ref().map(|unreachable| format!("{} (since {})", unreachable.reason, unreachable.since));
    [
        port.proxy.clone(),
        port.network_namespace.clone(),
        format!("{}/{}", port.address, port.protocol),
        port.server.clone(),
        port.dialled_from.clone(),
        or_dash(exit(port)),
        port.state.word().to_owned(),
        port.open.to_string(),
        or_dash(port.reason.clone().or_else(|| port.no_exit.clone()).or(unreachable).or_else(|| port.warning.clone())),
    ]
}

/// The addresses that new connections leave as, and the binding that they are of.
fn exit(port: &PortReport) -> Option<String> {
    let Some(binding) = &port.binding else { return port.source.map(|source| source.to_string()) };
    let exits: Vec<String> = port.exits.iter().map(ToString::to_string).collect();
    let exits = if exits.is_empty() { "none".to_owned() } else { exits.join(",") };
    Some(format!("{exits} ({binding})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        serde_json::from_value(serde_json::json!({
            "ready": true, "problems": ["EgressProxy shop/mail: spec.listen.port: `0` is not in 1 to 65535"], "freeDescriptors": 9,
            "ports": [
                {
                    "proxy": "shop/web", "networkNamespace": "blue", "protocol": "tcp", "address": "127.0.0.1:80", "server": "10.0.0.2:80",
                    "dialledFrom": "host", "binding": "shop/crawler", "exits": ["172.31.0.14"], "state": "Listening", "open": 1, "accepted": 2,
                    "refused": 3, "withoutExit": 4, "unreached": 5, "bytesUp": 6, "bytesDown": 7,
                },
                {
                    "proxy": "shop/api", "networkNamespace": "red", "protocol": "tcp", "address": "127.0.0.1:81", "server": "10.0.0.2:80",
                    "dialledFrom": "host", "binding": "shop/crawler", "noExit": "its NIC is down", "state": "Listening", "open": 0, "accepted": 0,
                    "refused": 0, "withoutExit": 0, "unreached": 0, "bytesUp": 0, "bytesDown": 0,
                },
            ],
        }))
        .unwrap()
    }

    #[test]
    fn each_port_has_a_line_with_its_exit_or_why_it_has_none() {
        let table = render(&report(), false);
        let words: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(
            words[1],
            "shop/web blue 127.0.0.1:80/tcp 10.0.0.2:80 host 172.31.0.14 (shop/crawler) Listening 1 -".split(' ').collect::<Vec<_>>()
        );
        assert!(table.contains("none (shop/crawler)") && table.contains("its NIC is down"), "{table}");
        assert!(table.ends_with("\nEgressProxy shop/mail: spec.listen.port: `0` is not in 1 to 65535\n"), "{table}");
        let wide = render(&report(), true);
        assert!(wide.contains("REFUSED") && wide.lines().nth(1).unwrap().split_whitespace().any(|word| word == "7"), "{wide}");
    }

    #[test]
    fn nothing_is_said_as_such() {
        let none = Report { ready: true, problems: Vec::new(), ports: Vec::new(), free_descriptors: 9 };
        assert_eq!(render(&none, false), "No port is asked for.\n");
    }
}
