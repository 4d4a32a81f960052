//! `egressd proxy`: ports in many network namespaces, served by one process.

mod bounds;
mod cluster;
mod exits;
mod life;
mod load;
mod support;
mod tcp;
mod udp;

use std::{process::ExitCode, time::Duration};

use world::Scenario;

fn main() -> ExitCode {
    let scenarios = vec![
        Scenario::new("a port in the host and in two namespaces, each answered by one server", tcp::three_namespaces),
        Scenario::new("bytes arrive as they were sent, both ways, with the end of each direction", tcp::byte_exact),
        Scenario::new("resets are passed on, and who says nothing is given up", tcp::resets_and_limits),
        Scenario::new("the PROXY protocol, to the server and from trusted balancers", tcp::proxy_protocol),
        Scenario::new("throughput beside a direct connection", tcp::throughput).shown().alone(),
        Scenario::new("UDP: each client has its own answers, in every namespace, from the address that it called", udp::answers),
        Scenario::new("UDP: sessions are bounded, and forgotten when nothing is sent", udp::sessions),
        Scenario::new("500 namespaces come and go, and nothing of them is left", life::come_and_go).shown(),
        Scenario::new("open connections do not hold a namespace that is gone", life::open_connections_do_not_hold_a_namespace),
        Scenario::new("the namespace of a process, by its path, for as long as the process lives", life::a_process),
        Scenario::new("a namespace with two names is one, and one of another kind is none", life::two_names),
        Scenario::new("namespaces may be named before there are any", life::a_folder_of_names_that_comes_later),
        Scenario::new("manifests change and the process is killed: what is unchanged goes on", life::manifests_change),
        Scenario::new("a new process takes over and no call is refused", life::handed_over),
        Scenario::new("told to end, it keeps what is open for a while", life::ends_in_time),
        Scenario::new("connections have a bound, in each namespace", bounds::connections),
        Scenario::new("without file descriptors new connections are refused and old ones go on", bounds::descriptors),
        Scenario::new("a bad manifest is named with its cure, and the good one goes on", bounds::bad_manifests),
        Scenario::new("it needs two capabilities, and says so", bounds::rights),
        Scenario::new("a kernel without SCTP is named with its cure, and other ports are served", bounds::no_sctp),
        Scenario::new("a port that another program has is opened once it is free", bounds::a_taken_port),
        Scenario::new("2,000 ports in 200 namespaces are all served, by a few threads", load::thousands_of_ports).shown(),
        Scenario::new("a thousand idle connections go on, and keep no new one waiting", load::idle_connections).shown(),
        Scenario::new("UDP: of a stream of datagrams each is answered to its client", load::datagrams).shown(),
        Scenario::new("what is dialled from an exit's address leaves by that exit's NIC", exits::by_source),
        Scenario::new("what is dialled by a binding leaves by the exit that it has just now, or is refused", exits::by_binding),
        Scenario::new("in a cluster a tenant's ports are in its own pods alone, and leave by their binding", cluster::two_tenants)
            .within(Duration::from_secs(300))
            .with_cluster(),
    ];
    world::harness::main_of_waiting(scenarios)
}
