//! What is counted, in the form of OpenMetrics.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use super::report::{Report, State};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByState {
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByPort {
    proxy: String,
    namespace: String,
    protocol: String,
    address: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByDirection {
    proxy: String,
    namespace: String,
    protocol: String,
    address: String,
    direction: &'static str,
}

/// The text of OpenMetrics.
pub fn text(report: &Report) -> String {
    let ports = Family::<ByState, Gauge>::default();
    let open = Family::<ByPort, Gauge>::default();
    let [accepted, refused, without_exit, unreached] = [(); 4].map(|()| Family::<ByPort, Counter>::default());
    let bytes = Family::<ByDirection, Counter>::default();
    let (problems, descriptors) = (Gauge::<i64>::default(), Gauge::<i64>::default());
    problems.set(report.problems.len().try_into().unwrap_or(i64::MAX));
    descriptors.set(report.free_descriptors.try_into().unwrap_or(i64::MAX));
    for state in State::ALL {
        ports.get_or_create(&ByState { state: state.word() }).set(0);
    }
    for port in &report.ports {
        ports.get_or_create(&ByState { state: port.state.word() }).inc();
        let (proxy, namespace) = (port.proxy.clone(), port.network_namespace.clone());
        let (protocol, address) = (port.protocol.clone(), port.address.clone());
        let by = ByPort { proxy, namespace, protocol, address };
        open.get_or_create(&by).set(port.open.try_into().unwrap_or(i64::MAX));
        accepted.get_or_create(&by).inc_by(port.accepted);
        refused.get_or_create(&by).inc_by(port.refused);
        without_exit.get_or_create(&by).inc_by(port.without_exit);
        unreached.get_or_create(&by).inc_by(port.unreached);
        for (direction, count) in [("up", port.bytes_up), ("down", port.bytes_down)] {
            let ByPort { proxy, namespace, protocol, address } = by.clone();
            bytes.get_or_create(&ByDirection { proxy, namespace, protocol, address, direction }).inc_by(count);
        }
    }
    let mut registry = Registry::with_prefix("egressd_proxy");
    registry.register("build", "The program", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
    registry.register("ports", "Ports that manifests ask for, by state", ports);
    registry.register("open", "TCP connections, SCTP associations and UDP sessions that are open", open);
    registry.register("accepted", "TCP connections, SCTP associations and UDP sessions that were accepted", accepted);
    registry.register(
        "refused",
        "New TCP connections and SCTP associations, and datagrams of new UDP clients, that a limit refused",
        refused,
    );
    registry.register(
        "without_exit",
        "New TCP connections and SCTP associations, and datagrams of new UDP clients, refused because their binding had no exit",
        without_exit,
    );
    registry.register("unreached", "TCP connections, SCTP associations and UDP sessions whose server could not be reached", unreached);
    registry.register("bytes", "Bytes carried: up to the server, or down to the client", bytes);
    registry.register("problems", "Problems in manifests", problems);
    registry.register("free_descriptors", "File descriptors that may still be opened", descriptors);
    let mut text = String::new();
    // Writing into a String cannot fail.
    let _ = encode(&mut text, &registry);
    text
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::daemon::metrics::lint::lint;
    use crate::proxy::report::PortReport;

    fn port(state: State) -> PortReport {
        let text = |text: &str| text.to_owned();
        let (proxy, network_namespace, protocol, address) = (text("shop/web"), text("blue"), text("tcp"), text("127.0.0.1:80"));
        let (reason, unreachable, open, accepted, refused, unreached) = (None, None, 1, 2, 3, 4);
        let (source, binding, exits, no_exit, warning) = Default::default();
        PortReport {
            server: text("10.0.0.2:80"),
            dialled_from: text("host"),
            source,
            binding,
            exits,
            no_exit,
            warning,
            without_exit: 7,
            proxy,
            network_namespace,
            protocol,
            address,
            state,
            reason,
            unreachable,
            open,
            accepted,
            refused,
            unreached,
            bytes_up: 5,
            bytes_down: 6,
        }
    }

    /// The text of a process that has one port, which waits.
    pub(crate) fn with_a_port() -> String {
        text(&Report { ready: true, problems: Vec::new(), ports: vec![port(State::Waiting)], free_descriptors: 9 })
    }

    #[test]
    fn every_state_is_told_and_names_and_help_are_as_prometheus_advises() {
        let nothing = text(&Report { ready: true, problems: Vec::new(), ports: Vec::new(), free_descriptors: 9 });
        for state in State::ALL {
            assert!(nothing.contains(&format!("egressd_proxy_ports{{state=\"{}\"}} 0\n", state.word())), "{nothing}");
        }
        let one = with_a_port();
        assert!(one.contains("egressd_proxy_ports{state=\"Waiting\"} 1\n"), "{one}");
        assert_eq!(lint(&one), Vec::<String>::new());
    }
}
