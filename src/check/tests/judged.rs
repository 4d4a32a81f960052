//! One fact at a time on a host that is else without fault.

use std::collections::BTreeSet;

use crate::check::facts::{CAP_NET_ADMIN, CAP_NET_BROADCAST, CAP_NET_RAW, Docker, Facts, Feature, Networkd};
use crate::check::finding::{Finding, Level};
use crate::check::findings::all;
use crate::contract::{PROTOCOL, TABLE_BASE, UPLINK_GROUP};
use crate::model::facts::{Family, Link, LinkKind, Network, Route, Rule, RuleAction};
use crate::nft::decode::AnyChain;
use crate::nft::{Base, ChainKind, Hook};

const NO_FEATURE: Feature = Feature { name: "SNAT", module: "nft_nat" };

fn link(index: u32, name: &str, kind: LinkKind) -> Link {
    Link { up: true, carrier: true, ..Link::new(index, name, kind) }
}

/// A current kernel, root, one NIC, nobody else.
fn host() -> Facts {
    let sysctls = [
        ("net/ipv4/ip_forward", "1"),
        ("net/ipv6/conf/all/disable_ipv6", "0"),
        ("net/ipv6/conf/all/forwarding", "0"),
        ("net/ipv4/conf/eth0/rp_filter", "2"),
        ("net/ipv4/conf/eth0/arp_ignore", "1"),
        ("net/ipv4/conf/eth0/arp_announce", "2"),
        ("net/netfilter/nf_conntrack_count", "10"),
        ("net/netfilter/nf_conntrack_max", "1000"),
    ];
    Facts {
        kernel: "6.18.44".to_owned(),
        capabilities: CAP_NET_ADMIN | CAP_NET_BROADCAST | CAP_NET_RAW,
        sysctls_writable: true,
        sysctls: sysctls.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
        features: vec![(NO_FEATURE, None)],
        links: vec![link(2, "eth0", LinkKind::Other(String::new()))],
        addressed: BTreeSet::from([2]),
        routes: vec![route("10.0.0.0/8", 254, 2), route("0.0.0.0/0", 100, 3)],
        ..Facts::default()
    }
}

fn route(destination: &str, table: u32, protocol: u8) -> Route {
    Route { interface: Some(2), protocol, ..Route::new(table, destination.parse().unwrap()) }
}

/// `from all lookup 100`, where 100 has a default route.
fn policy(preference: u32) -> Rule {
    Rule { protocol: 3, ..Rule::new(Family::V4, preference, 100) }
}

fn marked(preference: u32, mark: u32, mask: u32) -> Rule {
    let mut rule = policy(preference);
    (rule.mark, rule.mask) = (Some(mark), Some(mask));
    rule
}

fn chain(name: &str, kind: ChainKind, hook: Hook, priority: i32) -> AnyChain {
    AnyChain {
        family: "ip",
        table: "filter".to_owned(),
        chain: name.to_owned(),
        base: Some(Base { kind, hook, priority }),
        drops: false,
        uses: 1,
    }
}

fn bad(facts: &Facts) -> Vec<Finding> {
    all(facts).into_iter().filter(|finding| finding.level != Level::Ok).collect()
}

/// The one thing that is wrong, as it is printed.
fn only(change: impl FnOnce(&mut Facts)) -> String {
    let mut facts = host();
    change(&mut facts);
    let bad = bad(&facts);
    assert_eq!(bad.len(), 1, "{bad:#?}");
    assert!(bad[0].cure.is_some());
    bad[0].to_string()
}

fn fine(change: impl FnOnce(&mut Facts)) {
    let mut facts = host();
    change(&mut facts);
    assert_eq!(bad(&facts), []);
}

fn of_rule(rule: Rule) -> Option<(Level, String)> {
    let mut facts = host();
    facts.rules = vec![rule];
    bad(&facts).pop().map(|finding| (finding.level, finding.to_string()))
}

fn level(rule: Rule) -> Option<Level> {
    of_rule(rule).map(|(level, _)| level)
}

#[test]
fn a_host_without_fault_has_none() {
    fine(|_| {});
}

#[test]
fn a_kernel_below_5_15_fails_and_one_below_6_9_is_told_what_a_flush_does() {
    assert!(only(|f| f.kernel = "5.10.0-30-amd64".to_owned()).starts_with("FAIL  kernel: Linux 5.10.0-30-amd64 is too old"));
    assert!(only(|f| f.kernel = "rubbish".to_owned()).starts_with("warn  kernel"));
    fine(|f| f.kernel = "5.15.0".to_owned());
    let mut facts = host();
    for (kernel, told) in [("6.1.0-37-amd64", true), ("6.9.0", false), ("10.0-rc1", false)] {
        facts.kernel = kernel.to_owned();
        assert_eq!(all(&facts)[0].message.contains("flush ruleset"), told, "{kernel}");
    }
}

#[test]
fn a_kernel_without_zones_is_warned_of() {
    let said = only(|f| f.no_zones = Some("Operation not supported".to_owned()));
    assert!(said.starts_with("warn  conntrack zones: the kernel refuses them: Operation not supported"), "{said}");
    assert!(said.contains("CONFIG_NF_CONNTRACK_ZONES"), "{said}");
}

#[test]
fn a_part_that_the_kernel_refuses_fails_with_its_module() {
    let said = only(|f| f.features[0].1 = Some("No such file or directory".to_owned()));
    assert_eq!(
        said,
        "FAIL  SNAT: the kernel refuses it: No such file or directory. Cure: `modprobe nft_nat`; if there is no such module, use a kernel that has it"
    );
}

#[test]
fn each_missing_privilege_is_named_with_what_it_is_for() {
    assert!(
        only(|f| f.capabilities &= !CAP_NET_BROADCAST)
            .contains("FAIL  CAP_NET_BROADCAST: this process lacks it; it is needed to see the addresses")
    );
    assert!(only(|f| f.capabilities &= !CAP_NET_ADMIN).contains("FAIL  CAP_NET_ADMIN"));
    let raw = only(|f| f.capabilities &= !CAP_NET_RAW);
    assert!(raw.starts_with("warn  CAP_NET_RAW: this process lacks it: gateways and neighbours cannot be probed"), "{raw}");
}

#[test]
fn settings_that_cannot_be_written_fail_only_where_forwarding_is_off() {
    assert!(only(|f| f.sysctls_writable = false).starts_with("warn  /proc/sys: read-only"));
    let said = only(|f| {
        f.sysctls_writable = false;
        f.sysctls.insert("net/ipv4/ip_forward".to_owned(), "0".to_owned());
    });
    assert!(said.starts_with("FAIL  /proc/sys"), "{said}");
}

#[test]
fn a_nic_s_settings_are_told_with_what_egressd_makes_of_them() {
    let mut facts = host();
    facts.sysctls.insert("net/ipv4/conf/all/rp_filter".to_owned(), "1".to_owned());
    facts.sysctls.insert("net/ipv4/conf/eth0/rp_filter".to_owned(), "0".to_owned());
    let told = |facts: &Facts| all(facts).into_iter().find(|finding| finding.subject == "settings of eth0").unwrap();
    assert!(told(&facts).message.starts_with("while a workload leaves through eth0, egressd sets, where needed, rp_filter to 2"));
    facts.sysctls_writable = false;
    assert_eq!(told(&facts).level, Level::Warn);
    assert_eq!(told(&host()).message, "as egressd needs them");
}

#[test]
fn advertisements_that_forwarding_makes_the_kernel_ignore_are_told() {
    let said = only(|f| {
        f.sysctls.insert("net/ipv6/conf/all/forwarding".to_owned(), "1".to_owned());
        f.sysctls.insert("net/ipv6/conf/eth0/accept_ra".to_owned(), "1".to_owned());
    });
    assert!(said.contains("`sysctl -w net/ipv6/conf/eth0/accept_ra=2`"), "{said}");
}

#[test]
fn a_conntrack_table_is_told_before_it_is_full() {
    let with = |count: &str| {
        let mut facts = host();
        facts.sysctls.insert("net/netfilter/nf_conntrack_count".to_owned(), count.to_owned());
        bad(&facts).pop().map(|finding| finding.level)
    };
    assert_eq!([with("799"), with("800"), with("1000")], [None, Some(Level::Warn), Some(Level::Fail)]);
}

#[test]
fn a_nat_chain_ahead_of_ours_fails_and_an_empty_one_warns() {
    let nat = |priority| chain("early", ChainKind::Nat, Hook::Postrouting, priority);
    let said = only(|f| f.chains = vec![nat(95)]);
    assert!(said.starts_with("FAIL  NAT chain ip filter early: its priority 95 is before egressd's 95"), "{said}");
    assert!(only(|f| f.chains = vec![AnyChain { uses: 0, ..nat(50) }]).starts_with("warn  NAT chain"));
    fine(|f| f.chains = vec![nat(100)]);
    fine(|f| f.chains = vec![chain("early", ChainKind::Nat, Hook::Prerouting, -200)]);
    fine(|f| f.chains = vec![AnyChain { table: "egressd".to_owned(), ..nat(95) }]);
}

#[test]
fn a_dropping_forward_chain_warns_for_bridges_that_are_not_docker_s() {
    let forward = || AnyChain { drops: true, ..chain("FORWARD", ChainKind::Filter, Hook::Forward, 0) };
    let user = || AnyChain { base: None, ..chain("DOCKER-USER", ChainKind::Filter, Hook::Forward, 0) };
    let said = only(|f| f.chains = vec![forward()]);
    assert!(said.contains("machines that route through this host reach nothing") && said.contains("-i eth0 -j ACCEPT"), "{said}");
    let said = only(|f| {
        f.chains = vec![AnyChain { family: "inet", table: "mine".to_owned(), ..forward() }];
        f.links.push(link(3, "docker0", LinkKind::Bridge));
    });
    assert!(said.contains("`nft insert rule inet mine FORWARD iifname docker0 accept`"), "Docker's rules are not in there: {said}");
    fine(|f| {
        f.chains = vec![forward()];
        f.links.push(link(3, "docker0", LinkKind::Bridge));
    });
    let said = only(|f| {
        f.chains = vec![forward(), user()];
        f.links.push(link(3, "virbr0", LinkKind::Bridge));
    });
    assert!(said.contains("workloads on virbr0 reach nothing"), "{said}");
    assert!(said.contains("`iptables -I DOCKER-USER -i virbr0 -j ACCEPT`"), "{said}");
    let said = only(|f| {
        f.chains = vec![AnyChain { family: "inet", table: "mine".to_owned(), ..forward() }];
        f.links.push(link(3, "virbr0", LinkKind::Bridge));
    });
    assert!(said.contains("`nft insert rule inet mine FORWARD iifname virbr0 accept`"), "{said}");
}

#[test]
fn a_forward_chain_is_opened_by_the_program_that_it_belongs_to() {
    let bridge = |f: &mut Facts| f.links.push(link(3, "virbr0", LinkKind::Bridge));
    let said = only(|f| {
        bridge(f);
        let named = |name: &str| AnyChain { base: None, ..chain(name, ChainKind::Filter, Hook::Forward, 0) };
        f.chains = vec![AnyChain { drops: true, ..chain("FORWARD", ChainKind::Filter, Hook::Forward, 0) }, named("ufw-user-forward")];
    });
    assert!(said.contains("`ufw route allow in on virbr0`") && !said.contains("iptables -I"), "{said}");
    // It accepts by policy, and rejects by its last rule.
    let firewalld =
        || AnyChain { family: "inet", table: "firewalld".to_owned(), ..chain("filter_FORWARD", ChainKind::Filter, Hook::Forward, 10) };
    let said = only(|f| {
        bridge(f);
        f.chains = vec![firewalld()];
    });
    assert!(said.contains("firewall-cmd --permanent --zone=trusted --add-interface=virbr0") && !said.contains("nft insert"), "{said}");
    fine(|f| {
        f.chains = vec![firewalld()];
        f.links.push(link(3, "docker0", LinkKind::Bridge));
    });
}

#[test]
fn a_rule_that_leaves_ours_no_place_ahead_of_it_fails() {
    let (level, said) = of_rule(policy(1)).unwrap();
    assert_eq!(level, Level::Fail);
    assert!(said.starts_with("FAIL  policy rule 1: from all lookup 100: it leaves no place before it for egressd's rules"), "{said}");
}

#[test]
fn a_rule_that_ours_go_ahead_of_is_fine() {
    let some = [
        Rule { to: Some("8.8.8.8/32".parse().unwrap()), ..policy(100) },
        Rule { iif: Some("docker0".to_owned()), ..policy(100) },
        Rule { not: true, ..marked(100, 0xca6c, u32::MAX) },
        Rule { other: true, action: RuleAction::Unreachable, ..policy(100) },
        Rule { action: RuleAction::Goto(200), ..policy(100) },
        policy(100),
    ];
    for rule in some {
        assert_eq!(level(rule.clone()), None, "{rule:?}");
    }
}

#[test]
fn a_rule_ahead_of_ours_that_cannot_take_our_packets_is_fine() {
    let in_table = |table, rule: Rule| Rule { table, ..rule };
    let mut suppressed = in_table(254, policy(100));
    suppressed.suppress_prefix_length = Some(0);
    let harmless = [
        in_table(255, policy(0)),
        in_table(77, policy(100)),
        suppressed,
        in_table(254, Rule { to: Some("10.1.2.3/32".parse().unwrap()), ..policy(512) }),
        // Amazon's and Tailscale's.
        marked(1024, 0x80, 0x80),
        marked(1100, 0x80000, 0xff0000),
        Rule { oif: Some("eth0".to_owned()), ..policy(100) },
        Rule { iif: Some("lo".to_owned()), ..policy(100) },
        Rule { l3mdev: true, ..in_table(0, policy(1000)) },
        Rule { action: RuleAction::Nop, ..policy(100) },
    ];
    for rule in harmless {
        assert_eq!(of_rule(rule.clone()), None, "{rule:?}");
    }
}

#[test]
fn a_rule_behind_ours_is_fine_unless_it_reads_our_marks() {
    assert_eq!(level(policy(2000)), None);
    assert_eq!(level(marked(5210, 0x80000, 0xff0000)), None);
    // wg-quick's.
    assert_eq!(level(Rule { not: true, ..marked(32764, 0xca6c, u32::MAX) }), None);
    assert_eq!(level(marked(2000, 0x1, u32::MAX)), Some(Level::Warn));
    let (level, said) = of_rule(marked(2000, 0x1000, 0x1000)).unwrap();
    assert_eq!(level, Level::Fail);
    assert!(said.contains("policy rule 2000: from all fwmark 0x1000/0x1000 lookup 100: its mark has egressd's flag"), "{said}");
}

#[test]
fn our_own_rules_are_fine_and_others_with_our_protocol_are_told() {
    let of_protocol = |preference| Rule { protocol: PROTOCOL, ..policy(preference) };
    assert_eq!(level(of_protocol(1561)), None);
    assert!(of_rule(of_protocol(3000)).unwrap().1.contains("deletes it"));
}

#[test]
fn a_foreign_route_in_a_table_of_ours_fails() {
    assert!(only(|f| f.routes.push(route("0.0.0.0/0", TABLE_BASE + 1, 3))).starts_with("FAIL  route 0.0.0.0/0 in table 15601"));
    assert!(only(|f| f.routes.push(route("0.0.0.0/0", 254, PROTOCOL))).starts_with("warn  route 0.0.0.0/0 in table main"));
    fine(|f| f.routes.push(route("0.0.0.0/0", TABLE_BASE + 127, PROTOCOL)));
    fine(|f| f.routes.push(route("10.244.2.0/24", TABLE_BASE + 128, PROTOCOL)));
    fine(|f| f.routes.push(route("0.0.0.0/0", TABLE_BASE + 129, 3)));
}

#[test]
fn link_groups_of_others_on_nics_and_ours_on_bridges_are_told() {
    assert!(only(|f| f.links[0].group = 7).starts_with("warn  eth0: it is in link group 7"));
    fine(|f| f.links[0].group = UPLINK_GROUP);
    let said = only(|f| f.links.push(Link { group: UPLINK_GROUP, ..link(3, "br0", LinkKind::Bridge) }));
    assert!(said.contains("`ip link set br0 group default`"), "{said}");
}

#[test]
fn networkd_is_told_by_the_drop_in_that_it_lacks() {
    let said = only(|f| f.networkd = Some(Networkd { removes_rules: true, removes_routes: false }));
    assert!(said.contains("other programs' policy rules when"), "{said}");
    assert!(said.contains(r"printf '[Network]\nManageForeignRoutingPolicyRules=no\n' >"), "{said}");
    assert!(said.contains("systemctl try-restart"), "nothing is started that does not run: {said}");
    fine(|f| f.networkd = Some(Networkd { removes_rules: false, removes_routes: false }));
}

#[test]
fn network_manager_is_told_for_the_nics_that_it_manages() {
    let said = only(|f| f.network_manager = BTreeSet::from([2]));
    assert!(said.contains("`nmcli connection modify") && !said.contains("managed no"), "{said}");
    fine(|f| f.network_manager = BTreeSet::from([99]));
}

#[test]
fn docker_away_warns_and_networks_that_cannot_be_served_are_told() {
    assert!(only(|f| f.docker = Some(Docker::Away("no such file".to_owned()))).starts_with("warn  Docker: its engine does not answer"));
    let network = |name: &str, driver: &str, bridge: Option<&str>| Network {
        id: name.to_owned(),
        name: name.to_owned(),
        driver: driver.to_owned(),
        bridge: bridge.map(str::to_owned),
        subnets: Vec::new(),
        internal: false,
        managed: false,
        guard: None,
        problems: Vec::new(),
    };
    let mut facts = host();
    let networks = vec![network("bridge", "bridge", Some("docker0")), network("host", "host", None), network("lan", "macvlan", None)];
    facts.docker = Some(Docker::There { version: "28.0".to_owned(), networks });
    let lines: Vec<_> = all(&facts).iter().map(ToString::to_string).filter(|line| line.contains("Docker")).collect();
    assert_eq!(lines.len(), 3, "{lines:#?}");
    assert_eq!(lines[0], "ok    Docker: Engine 28.0, 3 networks");
    assert!(lines[1].starts_with("ok    Docker network lan: containers on it cannot be bound: driver macvlan:"));
    assert!(lines[2].contains("has made no NAT rules"));
    facts.chains = vec![AnyChain { table: "nat".to_owned(), base: None, ..chain("DOCKER", ChainKind::Nat, Hook::Prerouting, 0) }];
    assert!(!all(&facts).iter().any(|finding| finding.message.contains("NAT rules")));
}

#[test]
fn programs_that_take_packets_past_netfilter_are_told_with_what_keeps_them_from_it() {
    let said = only(|f| f.links.push(link(20, "cilium_host", LinkKind::Veth)));
    assert!(said.contains("Cilium may send pods' packets past netfilter") && said.contains("bpf.hostLegacyRouting=true"), "{said}");
    let said = only(|f| f.links.push(link(20, "bpfin.cali", LinkKind::Veth)));
    assert!(said.contains("Calico's eBPF dataplane"), "{said}");
}

#[test]
fn kube_proxy_is_fine_in_each_of_its_modes() {
    let mode = |change: &dyn Fn(&mut Facts)| {
        let mut facts = host();
        change(&mut facts);
        let found: Vec<String> = all(&facts).iter().map(ToString::to_string).filter(|line| line.contains("kube-proxy")).collect();
        found.join(" ")
    };
    assert!(mode(&|f| f.links.push(link(20, "kube-ipvs0", LinkKind::Dummy))).contains("IPVS mode"));
    let named =
        |table: &str, name: &str| AnyChain { table: table.to_owned(), base: None, ..chain(name, ChainKind::Nat, Hook::Prerouting, 0) };
    assert!(mode(&|f| f.chains.push(named("nat", "KUBE-SERVICES"))).contains("iptables mode"));
    assert!(mode(&|f| f.chains.push(named("kube-proxy", "services"))).contains("nftables mode"));
    assert_eq!(mode(&|_| {}), "");
}
