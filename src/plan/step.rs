//! Steps that change routes, policy rules and links, as plain data and in `ip`'s words.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::model::facts::{Family, IfIndex, KernelFacts, Route, RouteKind, Rule, RuleAction};

/// A change of routes, policy rules or links. Each says how things shall be: doing it twice is no error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteStep {
    /// Takes the place of the route with the same table, destination and metric, if there is one, in one go; so no
    /// [`RouteStep::DeleteRoute`] for that one may follow (IPv6 would delete the new one: it tells routes apart by
    /// gateway, interface and metric only).
    AddRoute(Route),
    DeleteRoute(Route),
    AddRule(Rule),
    DeleteRule(Rule),
    /// Puts an address on a NIC that is nothing but an exit there: it has no subnet, and the host's own calls do not get it.
    AddAddress {
        index: IfIndex,
        address: IpAddr,
    },
    DeleteAddress {
        index: IfIndex,
        net: IpNet,
    },
    /// Puts a link into a group (`suppress_ifgroup` of policy rules looks at it).
    SetGroup {
        index: IfIndex,
        group: u32,
    },
    /// Lets frames leave by the port of a bridge that they came in by, or not.
    SetHairpin {
        index: IfIndex,
        on: bool,
    },
}

impl RouteStep {
    /// The step as a command.
    pub fn words<'a>(&'a self, names: &'a InterfaceNames) -> impl fmt::Display + 'a {
        fmt::from_fn(move |f| match self {
            Self::AddRoute(route) => write!(f, "ip route replace {}", route_words(route, names)),
            Self::DeleteRoute(route) => write!(f, "ip route delete {}", route_words(route, names)),
            Self::AddRule(rule) => write!(f, "ip {}rule add preference {} {}", option(rule.family), rule.preference, rule_words(rule)),
            Self::DeleteRule(rule) => {
                write!(f, "ip {}rule delete preference {} {}", option(rule.family), rule.preference, rule_words(rule))
            }
            Self::AddAddress { index, address } => {
                write!(f, "ip address add {} dev {} scope host preferred_lft 0 noprefixroute", IpNet::from(*address), names.of(*index))
            }
            Self::DeleteAddress { index, net } => write!(f, "ip address delete {net} dev {}", names.of(*index)),
            Self::SetGroup { index, group } => write!(f, "ip link set {} group {group}", names.of(*index)),
            Self::SetHairpin { index, on } => {
                write!(f, "ip link set {} type bridge_slave hairpin {}", names.of(*index), if *on { "on" } else { "off" })
            }
        })
    }

    /// The route table that needs it to be of use.
    pub fn needed_by(&self) -> Option<u32> {
        match self {
            Self::AddRoute(route) => Some(route.table),
            Self::AddRule(rule) => Some(rule.table),
            Self::AddAddress { .. } | Self::DeleteAddress { .. } => None,
            Self::DeleteRoute(_) | Self::DeleteRule(_) | Self::SetGroup { .. } | Self::SetHairpin { .. } => None,
        }
    }

    fn interfaces(&self) -> Vec<IfIndex> {
        match self {
            Self::AddRoute(route) | Self::DeleteRoute(route) => route.interfaces().collect(),
            Self::AddRule(_) | Self::DeleteRule(_) => Vec::new(),
            Self::AddAddress { index, .. } | Self::DeleteAddress { index, .. } => vec![*index],
            Self::SetGroup { index, .. } | Self::SetHairpin { index, .. } => vec![*index],
        }
    }
}

/// Names of the interfaces that steps are about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InterfaceNames(BTreeMap<IfIndex, String>);

impl InterfaceNames {
    /// Those that are known.
    pub fn in_steps<'a>(steps: impl IntoIterator<Item = &'a RouteStep>, kernel: &KernelFacts) -> Self {
        let indexes = steps.into_iter().flat_map(RouteStep::interfaces);
        Self(indexes.filter_map(|index| Some((index, kernel.links.get(&index)?.name.clone()))).collect())
    }

    fn of(&self, index: IfIndex) -> Cow<'_, str> {
        self.0.get(&index).map_or_else(|| format!("(interface {index})").into(), |name| name.as_str().into())
    }
}

/// A route as an argument of `ip route`.
fn route_words(route: &Route, names: &InterfaceNames) -> String {
    let mut words = match route.kind {
        RouteKind::Unicast => String::new(),
        RouteKind::Unreachable => "unreachable ".to_owned(),
        RouteKind::Blackhole => "blackhole ".to_owned(),
        RouteKind::Prohibit => "prohibit ".to_owned(),
        RouteKind::Throw => "throw ".to_owned(),
        RouteKind::Other(kind) => format!("type {kind} "),
    };
    words += &route.destination.to_string();
    if let Some(from) = route.from {
        words += &format!(" from {from}");
    }
    if route.tos != 0 {
        words += &format!(" tos {:#x}", route.tos);
    }
    let several = !route.next_hops.is_empty();
    let weights = route.next_hops.iter().map(|hop| Some(hop.weight)).chain(std::iter::repeat(None));
    for ((gateway, interface, onlink), weight) in route.hops().zip(weights) {
        if several {
            words += " nexthop";
        }
        if let Some(gateway) = gateway {
            let family = if gateway.is_ipv6() && route.destination.addr().is_ipv4() { "inet6 " } else { "" };
            words += &format!(" via {family}{gateway}");
        }
        if let Some(interface) = interface {
            words += &format!(" dev {}", names.of(interface));
        }
        if let Some(weight) = weight {
            words += &format!(" weight {weight}");
        }
        if onlink {
            words += " onlink";
        }
    }
    words += &format!(" table {} metric {}", route.table, route.metric);
    if let Some(source) = route.source {
        words += &format!(" src {source}");
    }
    if let Some(mtu) = route.mtu() {
        words += &format!(" mtu {mtu}");
    }
    words
}

/// What a rule selects and what it does, as `ip rule` shows it.
pub fn rule_words(rule: &Rule) -> String {
    let mut words = String::from(if rule.not { "not from" } else { "from" });
    words += &rule.from.map_or_else(|| " all".to_owned(), |net| format!(" {net}"));
    if let Some(to) = rule.to {
        words += &format!(" to {to}");
    }
    match rule.selected_mark() {
        (_, 0) => {}
        (mark, u32::MAX) => words += &format!(" fwmark {mark:#x}"),
        (mark, mask) => words += &format!(" fwmark {mark:#x}/{mask:#x}"),
    }
    for (word, name) in [("iif", &rule.iif), ("oif", &rule.oif)] {
        if let Some(name) = name {
            words += &format!(" {word} {name}");
        }
    }
    if rule.other {
        words += " and more";
    }
    // Of rules that were read this is part of the rest.
    if let (false, Some(number), Some((first, last))) = (rule.other, rule.ip_protocol, rule.source_ports) {
        words += &format!(" ipproto {number} sport {first}-{last}");
    }
    words += &match rule.action {
        RuleAction::Table if rule.l3mdev => " lookup [l3mdev-table]".to_owned(),
        RuleAction::Table => format!(" lookup {}", table_name(rule.table)),
        RuleAction::Goto(preference) => format!(" goto {preference}"),
        RuleAction::Nop => " nop".to_owned(),
        RuleAction::Blackhole => " blackhole".to_owned(),
        RuleAction::Unreachable => " unreachable".to_owned(),
        RuleAction::Prohibit => " prohibit".to_owned(),
        RuleAction::Other(action) => format!(" action {action}"),
    };
    if let Some(length) = rule.suppress_prefix_length {
        words += &format!(" suppress_prefixlength {length}");
    }
    if let Some(group) = rule.suppress_group {
        words += &format!(" suppress_ifgroup {group}");
    }
    words
}

/// A table by its name, if it has one everywhere.
pub fn table_name(table: u32) -> Cow<'static, str> {
    match table {
        253 => "default".into(),
        254 => "main".into(),
        255 => "local".into(),
        other => other.to_string().into(),
    }
}

/// What `ip` needs to be told of a rule's family.
fn option(family: Family) -> &'static str {
    match family {
        Family::V4 => "",
        Family::V6 => "-6 ",
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::model::facts::{KernelChange, Link, LinkKind, NextHop};

    fn words(step: &RouteStep) -> String {
        let mut kernel = KernelFacts::default();
        for (index, name) in [(2, "eth0"), (3, "eth1")] {
            kernel.apply(KernelChange::Link(Link::new(index, name, LinkKind::Other(String::new()))));
        }
        step.words(&InterfaceNames::in_steps([step], &kernel)).to_string()
    }

    fn ip(text: &str) -> Option<IpAddr> {
        text.parse().ok()
    }

    #[test]
    fn a_route_is_said_with_all_that_it_has() {
        let plain = Route::new(15601, "0.0.0.0/0".parse().unwrap());
        let via =
            Route { gateway: ip("10.1.0.1"), interface: Some(3), onlink: true, metrics: Route::mtu_only(Some(1400)), ..plain.clone() };
        assert_eq!(
            words(&RouteStep::AddRoute(via)),
            "ip route replace 0.0.0.0/0 via 10.1.0.1 dev eth1 onlink table 15601 metric 0 mtu 1400"
        );
        let hop = |gateway, interface, weight| NextHop { gateway: ip(gateway), interface: Some(interface), weight, onlink: false };
        let several = Route { next_hops: vec![hop("10.1.0.1", 2, 1), hop("fe80::1", 7, 3)], ..plain.clone() };
        assert_eq!(
            words(&RouteStep::DeleteRoute(several)),
            "ip route delete 0.0.0.0/0 nexthop via 10.1.0.1 dev eth0 weight 1 nexthop via inet6 fe80::1 dev (interface 7) weight 3 table 15601 metric 0"
        );
        let last = Route { kind: RouteKind::Unreachable, metric: u32::MAX, ..plain };
        assert_eq!(words(&RouteStep::AddRoute(last)), "ip route replace unreachable 0.0.0.0/0 table 15601 metric 4294967295");
    }

    #[test]
    fn a_rule_is_said_with_all_that_it_selects_by() {
        let plain = Rule::new(Family::V4, 1560, 254);
        let inside =
            Rule { mark: Some(0x1000), mask: Some(0x1000), suppress_prefix_length: Some(0), suppress_group: Some(7), ..plain.clone() };
        assert_eq!(
            words(&RouteStep::AddRule(inside)),
            "ip rule add preference 1560 from all fwmark 0x1000/0x1000 lookup main suppress_prefixlength 0 suppress_ifgroup 7"
        );
        let much = Rule {
            family: Family::V6,
            not: true,
            from: "fd00::/64".parse().ok(),
            to: "fd01::/64".parse().ok(),
            iif: Some("eth0".to_owned()),
            oif: Some("eth1".to_owned()),
            other: true,
            action: RuleAction::Goto(2000),
            ..plain
        };
        assert_eq!(
            words(&RouteStep::DeleteRule(much)),
            "ip -6 rule delete preference 1560 not from fd00::/64 to fd01::/64 iif eth0 oif eth1 and more goto 2000"
        );
        assert_eq!(words(&RouteStep::SetGroup { index: 3, group: 7 }), "ip link set eth1 group 7");
    }
}
