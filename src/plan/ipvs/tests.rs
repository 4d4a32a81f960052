//! Which steps lead from what there is to what is wanted.

use super::*;
use crate::model::ipvs::Thresholds;
use crate::model::ipvs::table::Forwarding;
use crate::model::ports::Ports;

const TCP: &str = "172.31.0.14";

fn called(protocol: Protocol, port: u16) -> Called {
    (TCP.parse().unwrap(), Ports { protocol, first: port, last: port })
}

fn endpoint(last: u8) -> Endpoint {
    (IpAddr::from([10, 0, 0, last]), 1234)
}

fn server(weight: u32, connections: u32) -> RealServer {
    RealServer { weight, connections, ..RealServer::default() }
}

fn table<const N: usize>(of: Called, scheduler: &str, servers: [(u8, RealServer); N]) -> Table {
    let settings = Settings { scheduler: scheduler.to_owned(), ..Settings::default() };
    let servers = servers.into_iter().map(|(last, server)| (endpoint(last), server)).collect();
    Table::from([(of, Virtual { settings, servers })])
}

fn commands(desired: &Table, observed: &Table, ours: &[Called], ends: &Ends) -> Vec<String> {
    steps(desired, observed, &ours.iter().copied().collect(), ends).iter().map(ToString::to_string).collect()
}

#[test]
fn a_service_is_made_with_those_of_its_servers_that_take_calls() {
    let tcp = called(Protocol::Tcp, 80);
    let mut desired = table(tcp, "wlc", [(1, server(2, 0)), (2, server(0, 0))]);
    desired.get_mut(&tcp).unwrap().settings.persistence = Some(Persistent { seconds: 60, prefix_length: 24 });
    assert_eq!(
        commands(&desired, &Table::new(), &[tcp], &Ends::default()),
        ["ipvsadm -A -t 172.31.0.14:80 -s wlc -p 60 -M 24", "ipvsadm -a -t 172.31.0.14:80 -r 10.0.0.1:1234 -m -w 2 -x 0 -y 0",]
    );
    assert_eq!(commands(&desired, &Table::new(), &[], &Ends::default()), [""; 0], "it is not ours yet");
    let nobody = table(tcp, "wlc", []);
    assert_eq!(commands(&nobody, &Table::new(), &[tcp], &Ends::default()), [""; 0]);
}

#[test]
fn what_is_as_it_should_be_is_left_alone_whatever_goes_on() {
    let tcp = called(Protocol::Tcp, 80);
    let desired = table(tcp, "rr", [(1, server(1, 0)), (2, server(0, 0))]);
    let observed = table(tcp, "rr", [(1, server(1, 7)), (2, server(0, 3))]);
    assert_eq!(commands(&desired, &observed, &[tcp], &Ends::default()), [""; 0]);
    let empty = table(tcp, "rr", [(1, server(1, 7))]);
    assert_eq!(commands(&desired, &empty, &[tcp], &Ends::default()), [""; 0], "who drains and has gone is not added");
}

#[test]
fn a_service_of_sctp_is_one_of_its_own_option() {
    let sctp = called(Protocol::Sctp, 3868);
    let desired = table(sctp, "rr", [(1, server(1, 0))]);
    assert_eq!(
        commands(&desired, &Table::new(), &[sctp], &Ends::default()),
        [
            "ipvsadm -A --sctp-service 172.31.0.14:3868 -s rr",
            "ipvsadm -a --sctp-service 172.31.0.14:3868 -r 10.0.0.1:1234 -m -w 1 -x 0 -y 0",
        ]
    );
}

#[test]
fn what_another_program_changed_is_put_back() {
    let tcp = called(Protocol::Tcp, 80);
    let desired = table(tcp, "rr", [(1, server(1, 0)), (2, server(1, 0))]);
    let mut observed = table(tcp, "sh", [(1, RealServer { forwarding: Forwarding::Other, ..server(1, 0) }), (3, server(1, 0))]);
    let edited = "ipvsadm -e -t 172.31.0.14:80 -r 10.0.0.1:1234 -m -w 1 -x 0 -y 0";
    let added = "ipvsadm -a -t 172.31.0.14:80 -r 10.0.0.2:1234 -m -w 1 -x 0 -y 0";
    let deleted = "ipvsadm -d -t 172.31.0.14:80 -r 10.0.0.3:1234";
    assert_eq!(commands(&desired, &observed, &[tcp], &Ends::default()), ["ipvsadm -E -t 172.31.0.14:80 -s rr", edited, added, deleted]);
    // Whoever else is served, by whatever name, is nobody's concern here.
    observed.extend(table(called(Protocol::Tcp, 81), "rr", [(9, server(1, 0))]));
    assert_eq!(commands(&desired, &observed, &[tcp], &Ends::default()).len(), 4);
}

#[test]
fn a_server_drains_as_long_as_it_has_connections_lives_and_may() {
    let tcp = called(Protocol::Tcp, 80);
    let desired = table(tcp, "rr", [(1, server(1, 0))]);
    let observed = |weight, connections| table(tcp, "rr", [(1, server(1, 0)), (2, server(weight, connections))]);
    let deleted = ["ipvsadm -d -t 172.31.0.14:80 -r 10.0.0.2:1234"];
    let drained = ["ipvsadm -e -t 172.31.0.14:80 -r 10.0.0.2:1234 -m -w 0 -x 0 -y 0"];
    assert_eq!(commands(&desired, &observed(1, 4), &[tcp], &Ends::default()), drained);
    assert_eq!(commands(&desired, &observed(0, 4), &[tcp], &Ends::default()), [""; 0]);
    assert_eq!(commands(&desired, &observed(0, 0), &[tcp], &Ends::default()), deleted);
    let gone = Ends { gone: BTreeSet::from([endpoint(2).0]), ..Ends::default() };
    assert_eq!(commands(&desired, &observed(1, 4), &[tcp], &gone), deleted);
    let over = Ends { drained: BTreeSet::from([(tcp, endpoint(2).0)]), ..Ends::default() };
    assert_eq!(commands(&desired, &observed(0, 4), &[tcp], &over), deleted);
    // The same of one that has weight 0.
    let drains = table(tcp, "rr", [(1, server(1, 0)), (2, server(0, 0))]);
    assert_eq!(commands(&drains, &observed(0, 4), &[tcp], &over), deleted);
    // The last one takes its service along.
    assert_eq!(
        commands(&table(tcp, "rr", []), &table(tcp, "rr", [(2, server(0, 0))]), &[tcp], &Ends::default()),
        ["ipvsadm -D -t 172.31.0.14:80"]
    );
}

#[test]
fn datagrams_do_not_drain() {
    let udp = called(Protocol::Udp, 53);
    let observed = table(udp, "rr", [(1, server(1, 0)), (2, server(1, 5)), (3, server(1, 5))]);
    let desired = table(udp, "rr", [(1, server(1, 0)), (2, server(0, 0))]);
    assert_eq!(
        commands(&desired, &observed, &[udp], &Ends::default()),
        ["ipvsadm -d -u 172.31.0.14:53 -r 10.0.0.2:1234", "ipvsadm -d -u 172.31.0.14:53 -r 10.0.0.3:1234"]
    );
    let new = steps(&desired, &Table::new(), &BTreeSet::from([udp]), &Ends::default());
    assert_eq!(begun_before(&new).len(), 1, "what the host answered itself until now has to end");
}

#[test]
fn what_is_not_wanted_any_more_goes_and_thresholds_are_said() {
    let tcp = called(Protocol::Tcp, 80);
    let observed = table(tcp, "rr", [(1, server(1, 9))]);
    assert_eq!(commands(&Table::new(), &observed, &[tcp], &Ends::default()), ["ipvsadm -D -t 172.31.0.14:80"]);
    let limited = RealServer { thresholds: Thresholds { upper: 9, lower: 4 }, ..server(1, 0) };
    assert_eq!(
        commands(&table(tcp, "rr", [(1, limited)]), &observed, &[tcp], &Ends::default()),
        ["ipvsadm -e -t 172.31.0.14:80 -r 10.0.0.1:1234 -m -w 1 -x 9 -y 4"]
    );
}
