//! By what connections of `egressd proxy` leave: a pod's exit, if it is the named binding's.

use super::*;
use crate::model::leave::Asked;
use crate::model::leaving::leaving;
use crate::model::ports::Protocol;

#[test]
fn a_pods_connections_leave_by_the_binding_that_it_has_and_no_other() {
    let mut facts = node();
    plug(&mut facts, 11, 1, "10.244.0.5/24");
    plug(&mut facts, 12, 2, "10.244.0.6/24");
    facts
        .cluster
        .apply(ClusterChange::Pods(Update::All(vec![pod("web-1", "crawler", &["10.244.0.5"]), pod("web-2", "other", &["10.244.0.6"])])));
    let outcome = outcome(&mut facts, &mut Past::default());
    let asked = |pod: &str, binding: &str, ipv6| {
        let to = if ipv6 { "[2001:db8::1]:80" } else { "198.51.100.1:80" }.parse().unwrap();
        Asked::Pod { pod: pod.to_owned(), binding: binding.to_owned(), to, protocol: Protocol::Tcp }
    };
    let of = |asked: &Asked| leaving(asked, &facts, &outcome);
    let bound = of(&asked("shop/web-1", "shop/crawler", false));
    assert_eq!((bound.exits, bound.reason), (vec!["172.31.0.14".parse().unwrap()], None));
    for (pod, binding, ipv6, why) in [
        ("shop/web-1", "shop/other", false, "the pod has binding shop/crawler"),
        ("shop/web-1", "shop/crawler", true, "the pod is not bound by shop/crawler"),
        ("shop/web-2", "shop/crawler", false, "the pod is not bound by shop/crawler"),
        ("mail/web-1", "shop/crawler", false, "the pod is not bound by shop/crawler"),
    ] {
        let refused = of(&asked(pod, binding, ipv6));
        assert!(refused.exits.is_empty() && refused.reason.as_ref().is_some_and(|reason| reason.starts_with(why)), "{refused:?}");
    }
}

#[test]
fn an_address_is_an_exit_when_a_binding_names_it() {
    let mut facts = node();
    let outcome = outcome(&mut facts, &mut Past::default());
    let of = |address: &str| leaving(&Asked::Source(address.parse().unwrap()), &facts, &outcome);
    assert_eq!(of("172.31.0.14").reason, None);
    let reason = of("172.31.0.15").reason.unwrap_or_default();
    assert!(reason.contains("172.31.0.15 is no exit") && reason.contains("use the host's routes"), "{reason}");
}

#[test]
fn a_binding_that_no_file_has_is_named() {
    let mut facts = node();
    let outcome = outcome(&mut facts, &mut Past::default());
    let asked = Asked::Binding { binding: "shop/crawler".to_owned(), ipv6: false };
    let leaving = leaving(&asked, &facts, &outcome);
    assert!(leaving.exits.is_empty(), "a binding of the cluster is no file's: a tenant is not to dial from the node");
    assert!(leaving.reason.is_some_and(|reason| reason.contains("no file has a binding shop/crawler")));
}
