//! Others' firewalls: where the rule of ours stands, who asks for it, and what is told.

use super::*;
use crate::model::isolated::Isolated;
use crate::model::started::Started;
use crate::nft::decode::AnyChain;
use crate::nft::gates::{Decision, Gate, GateRule, GateStep};
use crate::nft::{Base, ChainKind, Family as Table, Hook};
use crate::plan::gates::{self, Wanted, Whose};

const EGX: IfIndex = 21;

fn gate(chain: &str, drops: bool, jumps: u32, rules: Vec<GateRule>) -> Gate {
    let base = (chain != "DOCKER-USER").then_some(Base { kind: ChainKind::Filter, hook: Hook::Forward, priority: 0 });
    let uses = jumps + rules.len() as u32;
    Gate {
        chain: AnyChain { family: "ip", table: "filter".to_owned(), chain: chain.to_owned(), base, drops, uses },
        rules,
        trusts_programs: false,
    }
}

const OTHER: GateRule = GateRule { handle: 7, ours: false, asks: false, decides: None };
const RETURN: GateRule = GateRule { handle: 8, decides: Some(Decision::Returns), ..OTHER };
const OURS: GateRule = GateRule { handle: 9, ours: true, asks: true, decides: None };

#[test]
fn one_rule_lets_flows_to_published_ports_through_where_they_are_wanted() {
    let wanted = Wanted::from([(Whose::Ports, Table::Ip)]);
    let steps = |gates: &[Gate]| gates::steps(gates, &wanted);
    let forward = || "FORWARD".to_owned();
    let users = || "DOCKER-USER".to_owned();
    assert_eq!(steps(&[gate("FORWARD", false, 0, vec![])]), [], "it drops nothing");
    assert_eq!(steps(&[gate("FORWARD", true, 0, vec![])]), [GateStep::Insert(Table::Ip, forward())]);
    assert_eq!(steps(&[gate("FORWARD", false, 0, vec![OTHER])]), [GateStep::Insert(Table::Ip, forward())]);
    assert_eq!(steps(&[gate("FORWARD", true, 0, vec![OURS, OTHER])]), []);
    let docker = |rules| [gate("FORWARD", true, 0, vec![OTHER]), gate("DOCKER-USER", false, 1, rules)];
    assert_eq!(steps(&docker(vec![])), [GateStep::Append(Table::Ip, users())]);
    assert_eq!(steps(&docker(vec![OTHER])), [GateStep::Append(Table::Ip, users())], "what users drop stays dropped");
    assert_eq!(steps(&docker(vec![OTHER, RETURN])), [GateStep::InsertBefore(Table::Ip, users(), 8)]);
    assert_eq!(steps(&docker(vec![OURS, RETURN])), []);
    // Docker came, and left.
    let came = [gate("FORWARD", true, 0, vec![OURS]), gate("DOCKER-USER", false, 1, vec![])];
    assert_eq!(steps(&came), [GateStep::Delete(Table::Ip, forward(), 9), GateStep::Append(Table::Ip, users())]);
    let left = [gate("FORWARD", true, 0, vec![]), gate("DOCKER-USER", false, 0, vec![OURS])];
    assert_eq!(steps(&left), [GateStep::Delete(Table::Ip, users(), 9), GateStep::Insert(Table::Ip, forward())]);
    let none = gates::steps(&docker(vec![OURS, OURS]), &Wanted::default());
    assert_eq!(none, [GateStep::Delete(Table::Ip, users(), 9), GateStep::Delete(Table::Ip, users(), 9)]);
}

#[test]
fn a_chain_that_drops_elsewhere_is_told_until_a_rule_asks_for_the_mark() {
    let wanted = Wanted::from([(Whose::Ports, Table::Ip), (Whose::ContainersPorts, Table::Ip)]);
    let of = |family: &'static str, table: &str, chain: &str, rules| {
        let mut gate = gate(chain, true, 0, rules);
        (gate.chain.family, gate.chain.table) = (family, table.to_owned());
        gate
    };
    let told = |gate: Gate| gates::problems(&[gate], &wanted).concat();
    assert!(
        told(of("inet", "strict", "forward", vec![OTHER]))
            .contains("`nft insert rule inet strict forward meta mark and 0xffff0f80 == 0x280 accept`")
    );
    let open = |rules| {
        let mut gate = of("inet", "fw", "f", rules);
        gate.chain.drops = false;
        gate
    };
    let last = GateRule { decides: Some(Decision::Refuses), ..OTHER };
    assert!(told(open(vec![OTHER, last])).contains("`nft insert rule inet fw f meta mark"), "it accepts, but for its last rule");
    assert_eq!(told(open(vec![last, OTHER, RETURN])), "", "it may be a rule for some packets only");
    assert_eq!(told(of("inet", "strict", "forward", vec![GateRule { asks: true, ..OTHER }])), "");
    assert!(told(of("ip", "docker-bridges", "filter-FORWARD", vec![OTHER])).contains("\"bridge-accept-fwmark\": \"0x280/0xffff0f80\""));
    assert_eq!(told(of("inet", "firewalld", "filter_FORWARD", vec![OTHER])), "");
    assert_eq!(told(of("ip6", "strict", "forward", vec![OTHER])), "", "nobody serves an IPv6 address");
    assert_eq!(told(of("ip", "filter", "FORWARD", vec![OTHER])), "", "there is a rule of ours");
}

#[test]
fn what_programs_in_namespaces_send_asks_for_the_same_rule() {
    let wanted = Wanted::from([(Whose::Programs, Table::Ip)]);
    let forward = |family| {
        let mut gate = gate("FORWARD", true, 0, vec![]);
        gate.chain.family = family;
        gate
    };
    let both = [forward("ip"), forward("ip6")];
    assert_eq!(gates::steps(&both, &wanted), [GateStep::Insert(Table::Ip, "FORWARD".to_owned())], "in its family alone");
    let of = |table: &str, trusts_programs| {
        let mut gate = Gate { trusts_programs, ..gate("filter_FORWARD", true, 0, vec![OTHER]) };
        (gate.chain.family, gate.chain.table) = ("inet", table.to_owned());
        gates::problems(&[gate], &wanted).concat()
    };
    let strict = of("strict", false);
    assert!(strict.contains("drops what programs of `egressd exec --namespace` send: `nft insert rule inet strict"), "{strict}");
    let cure = of("firewalld", false);
    assert!(cure.contains("`firewall-cmd --zone=trusted --add-interface=egx+ && firewall-cmd --permanent"), "{cure}");
    assert_eq!(of("firewalld", true), "", "it has rules for their links");
    assert!(of("strict", true).contains("nft insert rule"), "others' rules for links say nothing of the rest");
}

/// A program behind a link of its own.
fn isolated() -> KernelChange {
    let addresses = vec!["10.213.0.1".parse().expect("an address")];
    let program = Isolated { started: Started::As([172, 31, 0, 14].into()), addresses, inbound: Vec::new() };
    KernelChange::Link(Link { isolated: Some(Arc::new(program)), ..link(EGX, "egx0", LinkKind::Veth) })
}

#[test]
fn the_mark_is_for_programs_in_namespaces_as_long_as_they_run() {
    let (mut facts, mut past) = (host(), Past::default());
    facts.kernel.apply(isolated());
    facts.kernel.apply(address(EGX, "10.213.0.0/31"));
    facts.isolate();
    let first = plan(&facts, &mut past, &Ruleset::default());
    let own = Key::one(Bytes::default().number(EGX).address([10, 213, 0, 1].into()));
    let table = &tables_of(&first).tables[&Table::Ip];
    assert_eq!(table.sets[names::ISOLATED].elements.keys().collect::<Vec<_>>(), [&own]);
    assert_eq!((table.chains["before_forward"].rules.len(), table.chains["behind_forward"].rules.len()), (2, 1));
    let wanted = |facts: &Facts| Wanted::of(&resolve(facts, &mut Past::default()), &facts.kernel);
    assert_eq!(wanted(&facts), Wanted::from([(Whose::Programs, Table::Ip)]));
    let six = &tables_of(&first).tables[&Table::Ip6];
    assert!(!six.chains.contains_key("before_forward") && !six.sets.contains_key(names::ISOLATED), "it has no address there");
    start(&mut facts, 4, &[("egress.ip", "172.31.0.14")]);
    facts.kernel.apply(KernelChange::LinkGone(EGX));
    facts.isolate();
    let last = plan(&facts, &mut past, tables_of(&first));
    let table = &tables_of(&last).tables[&Table::Ip];
    assert!(!table.chains.contains_key("before_forward") && !table.sets.contains_key(names::ISOLATED));
    assert!(wanted(&facts).is_empty());
}

/// A program behind a link of its own, by a binding of the files.
fn isolated_by(index: IfIndex, address: &str, binding: &str) -> KernelChange {
    let program =
        Isolated { started: Started::By(binding.to_owned()), addresses: vec![address.parse().expect("an address")], inbound: Vec::new() };
    KernelChange::Link(Link { isolated: Some(Arc::new(program)), ..link(index, &format!("egx{index}"), LinkKind::Veth) })
}

fn with_programs(spec: &str) -> Facts {
    let mut facts = host();
    let binding = format!(
        "apiVersion: egressd.dev/v1alpha1\nkind: EgressBinding\nmetadata: {{name: crawler}}\nspec: {{networkNamespaces: [blue], {spec}}}\n"
    );
    facts.manifests = Index::new(manifest::parse([("programs.yaml", binding.as_bytes())]));
    for (index, net) in [(EGX, "10.213.0.0/31"), (EGX + 1, "10.213.0.2/31")] {
        let program = net.parse::<ipnet::Ipv4Net>().expect("a net").broadcast().to_string();
        facts.kernel.apply(isolated_by(index, &program, "default/crawler"));
        facts.kernel.apply(address(index, net));
    }
    facts.isolate();
    facts
}

#[test]
fn behind_a_programs_link_nothing_but_its_own_addresses_is_known() {
    let of = |spec: &str| {
        let facts = with_programs(spec);
        let first = plan(&facts, &mut Past::default(), &Ruleset::default());
        let guards = |table| tables_of(&first).tables[&table].sets[names::GUARDS].elements.len();
        assert_eq!((guards(Table::Ip), guards(Table::Ip6)), (2, 2), "in a family that it has no address of, too");
        let mut past = Past::default();
        read_back(tables_of(&first), &facts.kernel, &mut past);
        assert!(past.pod_bridges.is_empty(), "a link is no bridge of pods");
        tables_of(&first).tables[&Table::Ip].sets[names::KNOWN].elements.keys().copied().collect::<Vec<_>>()
    };
    assert_eq!(of("exits: [{address: 172.31.0.77}]"), [], "who has no usable exit is held");
    let own = |index: IfIndex, last| Key::one(Bytes::default().number(index).address([10, 213, 0, last].into()));
    assert_eq!(of("whenUnavailable: Fallback, exits: [{address: 172.31.0.77}]"), [own(EGX, 1), own(EGX + 1, 3)], "who falls back goes on");
}

#[test]
fn programs_of_one_binding_have_one_turn_and_one_rate() {
    let facts = with_programs("spread: RoundRobin, rate: 8Mbit, exits: [{address: 172.31.0.8}, {address: 172.31.0.14}]");
    let first = plan(&facts, &mut Past::default(), &Ruleset::default());
    let policies: BTreeSet<String> =
        tables_of(&first).tables[&Table::Ip].sets[names::POLICIES].elements.values().map(|policy| format!("{policy:?}")).collect();
    assert_eq!(policies.len(), 1, "{policies:?}");
    let limits: Vec<&String> = tables_of(&first).tables[&Table::Inet].chains.keys().filter(|name| name.starts_with("rate-")).collect();
    assert_eq!(limits, ["rate-file/default/crawler"]);
    // The next one takes the next turn, though nobody is there in between.
    let turn = |facts: &Facts, past: &mut Past, observed: &Ruleset| {
        let plan = plan(facts, past, observed);
        let table = &tables_of(&plan).tables[&Table::Ip];
        (table.chains.keys().filter(|name| name.starts_with("exit-")).cloned().collect::<Vec<_>>(), tables_of(&plan).clone())
    };
    let mut facts = facts;
    let mut past = Past::default();
    let (before, there) = turn(&facts, &mut past, &Ruleset::default());
    [EGX, EGX + 1].into_iter().for_each(|link| _ = facts.kernel.apply(KernelChange::LinkGone(link)));
    facts.isolate();
    let (after, _) = turn(&facts, &mut past, &there);
    assert!(before.len() == 1 && before == after, "{before:?} {after:?}");
}
