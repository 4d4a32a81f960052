//! What the source says of a real kernel, in namespaces of the test's own.

mod links;
mod routes;

use std::net::IpAddr;
use std::time::{Duration, Instant};

use tokio::time::timeout;

use super::*;
use crate::model::facts::{Address, KernelFacts, Link, LinkKind, RouteKind};
use crate::netlink::testing::{alone_async, run};

/// The source, and all that it has said so far.
struct Heard {
    source: Source,
    facts: KernelFacts,
}

impl Heard {
    async fn start() -> Self {
        let mut source = Source::open().unwrap();
        let changes = source.next().await.unwrap();
        assert_eq!(changes[0], KernelChange::Restart);
        let mut facts = KernelFacts::default();
        for change in changes {
            facts.apply(change);
        }
        Self { source, facts }
    }

    /// Listens until the facts are so.
    async fn until(&mut self, what: &str, so: impl Fn(&KernelFacts) -> bool) {
        let end = Instant::now() + Duration::from_secs(5);
        while !so(&self.facts) {
            let left = end.saturating_duration_since(Instant::now());
            let Ok(changes) = timeout(left, self.source.next()).await else {
                panic!("not heard: {what}: {:#?}", self.facts);
            };
            for change in changes.unwrap() {
                self.facts.apply(change);
            }
        }
    }

    /// Listens until all that has happened so far is told: a link made now is heard last.
    async fn all(&mut self) {
        run("ip link add last type bridge");
        self.until("the last link", |facts| named(facts, "last").is_some()).await;
        run("ip link del last");
        self.until("the last link's end", |facts| named(facts, "last").is_none()).await;
    }

    fn far_addresses(&self, near: &str) -> Vec<IpAddr> {
        far_addresses(&self.facts, near)
    }
}

fn named<'a>(facts: &'a KernelFacts, name: &str) -> Option<&'a Link> {
    facts.link(name)
}

fn far_addresses(facts: &KernelFacts, near: &str) -> Vec<IpAddr> {
    let far = named(facts, near).and_then(Link::far_end);
    far.map(|far| facts.addresses_at(far).map(|address| address.net.addr()).collect()).unwrap_or_default()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A namespace with a veth, in the order in which a container engine does it: the far end is moved in later.
fn container(name: &str) {
    run(&format!(
        "ip netns add {name}
         ip link add near-{name} type veth peer name far-{name}
         ip link set far-{name} netns {name}"
    ));
}

#[test]
fn a_container_s_address_is_told_before_its_link_is_up() {
    alone_async(async || {
        let mut heard = Heard::start().await;
        container("blue");
        run("ip -n blue address add 10.9.0.2/24 dev far-blue");
        heard.until("the address", |facts| far_addresses(facts, "near-blue") == [ip("10.9.0.2")]).await;
        heard.until("the name", |facts| facts.namespaces.contains_key("blue")).await;
        let near = named(&heard.facts, "near-blue").unwrap();
        assert!(!near.up && !near.carrier);
        assert_eq!(near.peer_nsid, Some(heard.facts.namespaces["blue"]));
        run("ip -n blue address add 10.9.1.3/24 dev far-blue
             ip -n blue address add fd00:9::2/64 nodad dev far-blue");
        heard.until("two more", |facts| far_addresses(facts, "near-blue").len() == 3).await;
        run("ip -n blue address del 10.9.0.2/24 dev far-blue");
        let left = [ip("10.9.1.3"), ip("fd00:9::2")];
        heard.until("one less", |facts| far_addresses(facts, "near-blue") == left).await;
    });
}

#[test]
fn addresses_that_a_container_has_already_are_in_the_snapshot() {
    alone_async(async || {
        container("blue");
        run("ip -n blue address add 10.9.0.2/24 dev far-blue
             ip -n blue link set lo up");
        let heard = Heard::start().await;
        assert_eq!(heard.far_addresses("near-blue"), [ip("10.9.0.2")]);
        let foreign = heard.facts.addresses.keys().filter(|place| place.nsid.is_some());
        assert_eq!(foreign.count(), 1, "the container's loopback is nobody's far end");
    });
}

#[test]
fn a_container_that_is_gone_takes_its_address_with_it() {
    alone_async(async || {
        let mut heard = Heard::start().await;
        container("blue");
        run("ip -n blue address add 10.9.0.2/24 dev far-blue");
        heard.until("the address", |facts| !far_addresses(facts, "near-blue").is_empty()).await;
        run("ip netns del blue");
        heard.until("the link's end", |facts| named(facts, "near-blue").is_none()).await;
        heard.all().await;
        assert!(heard.facts.addresses.keys().all(|place| place.nsid.is_none()));
        assert!(heard.facts.namespaces.is_empty());
    });
}

#[test]
fn a_successor_with_the_same_number_does_not_inherit() {
    alone_async(async || {
        let mut heard = Heard::start().await;
        for round in 1..=5 {
            run(&format!(
                "ip netns add blue
                 ip link add near{round} type veth peer name eth0 netns blue
                 ip -n blue address add 10.9.0.{round}/24 dev eth0"
            ));
            let near = format!("near{round}");
            let right = [ip(&format!("10.9.0.{round}"))];
            heard.until("its own address", |facts| far_addresses(facts, &near) == right).await;
            run("ip netns del blue");
        }
        heard.until("all links' end", |facts| facts.links.len() == 1).await;
        assert!(heard.facts.addresses.keys().all(|place| place.nsid.is_none()));
    });
}

#[test]
fn a_port_that_joins_and_leaves_a_bridge_stays_a_link() {
    alone_async(async || {
        let mut heard = Heard::start().await;
        container("blue");
        run("ip link add br9 type bridge
             ip link set near-blue master br9");
        let master = |facts: &KernelFacts| named(facts, "near-blue").and_then(|link| link.master);
        heard.until("the port", |facts| master(facts).is_some()).await;
        assert_eq!(named(&heard.facts, "br9").unwrap().kind, LinkKind::Bridge);
        run("ip link set near-blue nomaster");
        heard.until("no port", |facts| master(facts).is_none()).await;
        heard.all().await;
        assert!(named(&heard.facts, "near-blue").is_some());
    });
}

#[test]
fn routes_and_rules_that_ip_changes_are_told() {
    alone_async(async || {
        let mut heard = Heard::start().await;
        container("blue");
        run("ip address add 10.9.0.1/24 dev near-blue
             ip link set near-blue up
             ip -n blue link set far-blue up
             ip route add 10.8.0.0/16 via 10.9.0.7 table 15601 metric 7 mtu 1400
             ip -6 route add unreachable default table 15601 metric 4294967295
             ip rule add fwmark 0x1001/0x107f lookup 15601 pref 1561
             ip -6 rule add from fd00::5 lookup 15601 pref 1564 protocol 156");
        heard.until("the last rule", |facts| facts.rules.iter().any(|r| r.preference == 1564)).await;
        let facts = &heard.facts;
        let added = facts.routes.iter().find(|r| r.table == 15601 && r.metric == 7).unwrap();
        assert_eq!((added.gateway, added.mtu()), (Some(ip("10.9.0.7")), Some(1400)));
        assert_eq!(added.interface, Some(named(facts, "near-blue").unwrap().index));
        let last = facts.routes.iter().find(|r| r.metric == u32::MAX).unwrap();
        assert_eq!((last.kind, last.interface), (RouteKind::Unreachable, None));
        let rule = facts.rules.iter().find(|r| r.preference == 1561).unwrap();
        assert_eq!((rule.mark, rule.mask, rule.table), (Some(0x1001), Some(0x107f), 15601));
        assert!(facts.routes.iter().all(|r| r.table != 255 && !is_link_local(r)));

        run("ip rule del pref 1561");
        heard.until("the rule's end", |f| f.rules.iter().all(|r| r.preference != 1561)).await;
        run("ip link set near-blue down");
        heard.until("what IPv4 takes silently", |f| f.routes.iter().all(|r| r.metric != 7)).await;
    });
}

fn is_link_local(route: &crate::model::facts::Route) -> bool {
    matches!(route.destination.addr(), IpAddr::V6(a) if a.is_unicast_link_local())
}

#[test]
fn an_address_is_usable_once_it_is_proven() {
    alone_async(async || {
        let mut heard = Heard::start().await;
        container("blue");
        run("ip link set near-blue up
             ip -n blue link set far-blue up
             ip address add fd00:9::1/64 dev near-blue");
        let states = |facts: &KernelFacts| -> Vec<bool> {
            let all = facts.addresses.values().flatten();
            all.filter(|a: &&Address| a.net.addr() == ip("fd00:9::1")).map(|a| a.usable).collect()
        };
        heard.until("the tentative address", |facts| states(facts) == [false]).await;
        heard.until("the proven address", |facts| states(facts) == [true]).await;
        run("ip address del fd00:9::1/64 dev near-blue");
        heard.until("its end", |facts| states(facts).is_empty()).await;
    });
}

#[test]
fn named_namespaces_come_and_go_and_come_again() {
    alone_async(async || {
        run("ip netns add old");
        let mut heard = Heard::start().await;
        assert!(heard.facts.namespaces.contains_key("old"));
        run("ip netns add blue");
        heard.until("a name", |facts| facts.namespaces.contains_key("blue")).await;
        run("ip netns del blue");
        heard.until("its end", |facts| !facts.namespaces.contains_key("blue")).await;
        run("ip netns add blue");
        heard.until("the name again", |facts| facts.namespaces.contains_key("blue")).await;
    });
}

#[test]
fn the_first_named_namespace_of_a_host_is_found() {
    alone_async(async || {
        let mut heard = Heard::start().await;
        assert!(heard.facts.namespaces.is_empty());
        run("ip netns add first");
        heard.until("the name", |facts| facts.namespaces.contains_key("first")).await;
        run("ip netns add second");
        heard.until("another", |facts| facts.namespaces.contains_key("second")).await;
    });
}

#[test]
fn a_namespace_that_numbers_itself_is_still_heard_as_this_one() {
    alone_async(async || {
        let mut heard = Heard::start().await;
        run("mkdir -p /run/netns
             touch /run/netns/self
             mount --bind /proc/thread-self/ns/net /run/netns/self
             ip netns set self 77
             ip link add br9 type bridge
             ip address add 10.9.0.1/24 dev br9");
        let held = |facts: &KernelFacts| {
            let own = facts.addresses.iter().filter(|(place, _)| place.nsid.is_none());
            own.flat_map(|(_, all)| all).any(|a| a.net.addr() == ip("10.9.0.1"))
        };
        heard.until("the address as an own one", held).await;
    });
}

#[test]
fn events_that_did_not_fit_the_queue_are_made_up_for_by_a_snapshot() {
    alone_async(async || {
        let mut heard = Heard::start().await;
        container("blue");
        // Each flip is an event of more than a kilobyte; nobody reads meanwhile.
        let flips = "link set near-blue mtu 1400\nlink set near-blue mtu 1401\n".repeat(8000);
        std::fs::write("/run/flips", flips).unwrap();
        run("ip -batch /run/flips
             ip -n blue address add 10.9.0.2/24 dev far-blue");
        heard.facts = KernelFacts::default();
        heard.until("a snapshot", |facts| !facts.links.is_empty()).await;
        assert!(named(&heard.facts, "lo").is_some(), "only a snapshot tells of what did not change");
        assert_eq!(heard.far_addresses("near-blue"), [ip("10.9.0.2")]);
    });
}
