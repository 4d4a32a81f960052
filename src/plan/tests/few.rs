//! A round for a few comes to what a round for everybody comes to, and so does one whose policies are changed ahead.

use proptest::prelude::*;

use super::*;
use crate::model::resolve::RowInputs;
use crate::model::resolve::census::Census;
use crate::model::resolve::few::resolve_few;
use crate::plan::ahead::plan_ahead;
use crate::plan::few::plan_few;

const HOSTS: u8 = 6;
const ELSEWHERE: IfIndex = 10;

/// Something that happens to a host, or to one container and its port.
#[derive(Clone, Debug)]
enum Event {
    /// The engine tells of a container: what it asks for, whether it runs, and which host of the bridge it has.
    Told(u8, usize, bool, u8),
    Gone(u8),
    /// A port comes, moves to another namespace, or leaves the bridge.
    Port(u8, Port),
    PortGone(u8),
    /// A namespace's address.
    Address(u8, u8, bool),
    Nic(IfIndex, bool),
    /// All flows of some who departed have ended.
    Ended,
}

#[derive(Clone, Copy, Debug)]
enum Port {
    Up,
    Loose,
    Down,
    /// On a bridge that no engine knows.
    Elsewhere,
}

/// Labels that containers bear.
const ASKS: [&[(&str, &str)]; 10] = [
    &[],
    &[],
    &[("egress.ip", "172.31.0.14")],
    &[("egress.ip", "172.31.0.14")],
    &[("egress.ip", "172.31.0.14")],
    &[("egress.ip", "172.31.0.8")],
    &[("egress.ip", "172.31.0.99"), ("egress.unavailable", "fallback")],
    &[("egress.ip", "slip")],
    &[("egress.ip", "172.31.0.14,172.31.0.8"), ("egress.to", "10.0.0.0/8")],
    &[("egress.ip", "172.31.0.14"), ("egress.publish", "80:8080/tcp")],
];

fn an_event() -> impl Strategy<Value = Event> {
    let port = prop_oneof![4 => Just(Port::Up), 1 => Just(Port::Loose), 1 => Just(Port::Down), 1 => Just(Port::Elsewhere)];
    prop_oneof![
        6 => (1..=HOSTS, 0..ASKS.len(), prop::bool::weighted(0.8), 1..=HOSTS).prop_map(|(n, asks, runs, host)| Event::Told(n, asks, runs, host)),
        2 => (1..=HOSTS).prop_map(Event::Gone),
        5 => (1..=HOSTS, port).prop_map(|(n, port)| Event::Port(n, port)),
        2 => (1..=HOSTS).prop_map(Event::PortGone),
        6 => (1..=HOSTS, 1..=HOSTS, prop::bool::weighted(0.7)).prop_map(|(n, host, there)| Event::Address(n, host, there)),
        1 => (ETH0..=ETH1, any::<bool>()).prop_map(|(nic, up)| Event::Nic(nic, up)),
        2 => Just(Event::Ended),
    ]
}

fn happen(facts: &mut Facts, past: [&mut Past; 2], event: &Event) {
    let far = |n: u8| Place { nsid: Some(n.into()), index: 2 };
    let port = |n: u8| IfIndex::from(n) + 100;
    let net = |host: u8| IpNet::new(IpAddr::from([172, 19, 0, host]), 16).expect("a prefix");
    match event {
        Event::Told(n, asks, runs, host) => {
            let mut container = container(*n, ASKS[*asks]);
            container.running = *runs;
            let addresses = if *runs { vec![net(*host).addr()] } else { Vec::new() };
            container.attachments.iter_mut().for_each(|attachment| attachment.addresses.clone_from(&addresses));
            facts.apply(EngineChange::Container(Box::new(container)));
        }
        Event::Gone(n) => facts.apply(EngineChange::ContainerGone(format!("{n:064}"))),
        Event::Port(n, how) => {
            let (far, mut link) = (far(*n), Link::new(port(*n), format!("veth{n}"), LinkKind::Veth));
            (link.peer_nsid, link.peer_index) = (far.nsid, Some(far.index));
            link.master = match how {
                Port::Loose => None,
                Port::Elsewhere => Some(ELSEWHERE),
                Port::Up | Port::Down => Some(BRIDGE),
            };
            (link.up, link.carrier) = (!matches!(how, Port::Down), !matches!(how, Port::Down));
            facts.apply_kernel(KernelChange::Link(link));
        }
        Event::PortGone(n) => _ = facts.apply_kernel(KernelChange::LinkGone(port(*n))),
        Event::Address(n, host, true) => _ = facts.apply_kernel(KernelChange::Address(far(*n), Address::new(net(*host)))),
        Event::Address(n, host, false) => _ = facts.apply_kernel(KernelChange::AddressGone(far(*n), net(*host))),
        Event::Nic(nic, up) => {
            let link = facts.kernel.links[nic].clone();
            facts.apply_kernel(KernelChange::Link(Link { up: *up, carrier: *up, ..link }));
        }
        Event::Ended => past.into_iter().for_each(|past| past.departed.clear()),
    }
}

/// A daemon that decides for a few where it can, and how often it could.
#[derive(Default)]
struct Daemon {
    past: Past,
    outcome: Outcome,
    tables: Ruleset,
    census: Option<Census>,
    few: u32,
}

impl Daemon {
    fn round(&mut self, facts: &Facts) -> Plan {
        let touched = &facts.touched;
        let mut census = self.census.take().unwrap_or_else(|| Census::of(facts, touched, &self.outcome));
        if let Some(changed) = resolve_few(facts, &mut self.past, &mut self.outcome, &mut census, touched) {
            self.few += 1;
            self.census = Some(census);
            return plan_few(&self.outcome, &facts.kernel, &mut self.tables, &changed, &self.past.departed);
        }
        let inputs = RowInputs::discover(facts, &mut self.past);
        let ahead = plan_ahead(&self.outcome, &inputs.uplinks, &mut self.tables).ruleset;
        self.outcome = inputs.resolve(facts, &mut self.past);
        let plan = planned(facts, &self.outcome, &self.past, (&self.tables, &ahead));
        self.tables = tables_of(&plan).clone();
        plan
    }
}

fn whole(facts: &Facts, past: &mut Past, observed: &Ruleset) -> (Outcome, Plan) {
    let outcome = resolve(facts, past);
    let plan = planned(facts, &outcome, past, (observed, &[]));
    (outcome, plan)
}

fn planned(facts: &Facts, outcome: &Outcome, past: &Past, (ruleset, ahead): (&Ruleset, &[Change])) -> Plan {
    let observed = Observed { kernel: &facts.kernel, ruleset, sysctls: &BTreeMap::new(), ahead };
    Planner::default().plan(outcome, &observed, &past.departed, true)
}

/// The share of rounds that were for a few.
fn agree(events: &[Event]) -> Result<u32, TestCaseError> {
    let mut facts = host();
    facts.kernel.apply(KernelChange::Link(link(ELSEWHERE, "elsewhere", LinkKind::Bridge)));
    facts.touched.all = true;
    let (mut daemon, mut past, mut tables) = (Daemon::default(), Past::default(), Ruleset::default());
    for event in events {
        happen(&mut facts, [&mut daemon.past, &mut past], event);
        let plan = daemon.round(&facts);
        let (outcome, from_nothing) = whole(&facts, &mut past, &tables);
        facts.touched = Default::default();
        prop_assert_eq!(&daemon.outcome.rows, &outcome.rows, "after {:?}", event);
        prop_assert_eq!(&daemon.outcome, &outcome, "after {:?}", event);
        prop_assert_eq!(&daemon.past.port_owners, &past.port_owners, "after {:?}", event);
        prop_assert_eq!(&daemon.tables, tables_of(&from_nothing), "after {:?}", event);
        prop_assert_eq!(&plan.departed, &from_nothing.departed, "after {:?}", event);
        let sorted = |plan: &Plan| {
            let mut cuts: Vec<String> = plan.cuts.iter().map(ToString::to_string).collect();
            cuts.sort();
            cuts
        };
        prop_assert_eq!(sorted(&plan), sorted(&from_nothing), "after {:?}", event);
        daemon.past.departed.clone_from(&plan.departed);
        past.departed.clone_from(&from_nothing.departed);
        tables = tables_of(&from_nothing).clone();
    }
    Ok(daemon.few)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, max_shrink_iters: 300, ..ProptestConfig::default() })]

    #[test]
    fn what_is_decided_step_by_step_is_what_is_decided_from_nothing(events in prop::collection::vec(an_event(), 1..250)) {
        agree(&events)?;
    }
}

/// One that starts and stops beside others like it is nobody else's matter.
#[test]
fn a_container_like_others_is_decided_by_itself() {
    let start = |n| [Event::Port(n, Port::Up), Event::Address(n, n, true), Event::Told(n, 2, true, n)];
    let stop = |n| [Event::PortGone(n), Event::Told(n, 2, false, n), Event::Gone(n), Event::Ended];
    let first: Vec<Event> = start(1).into_iter().chain(start(2)).collect();
    let then: Vec<Event> = start(3).into_iter().chain(stop(3)).chain(stop(2)).collect();
    let few = |events: &[Event]| agree(events).expect("they agree");
    let all = [first.clone(), then.clone()].concat();
    assert_eq!(few(&all) - few(&first), then.len() as u32, "all of them");
}

/// Whoever has it, a policy is one element; and the flows that have to end are those that would have ended without it.
#[test]
fn policies_of_a_lost_exit_change_ahead_of_everything_else() {
    let mut facts = host();
    (1..=3).for_each(|n| start(&mut facts, n, &[("egress.ip", "172.31.0.14")]));
    start(&mut facts, 4, &[("egress.ip", "172.31.0.14,172.31.0.8")]);
    start(&mut facts, 5, &[("egress.ip", "172.31.0.8")]);
    let mut past = Past::default();
    let (up, plan) = whole(&facts, &mut past, &Ruleset::default());
    let tables = tables_of(&plan).clone();
    // What nobody names any more is nobody's loss: who names another exit goes there in one step.
    let mut fewer = facts.clone();
    (1..=4).for_each(|n| fewer.apply(EngineChange::ContainerGone(format!("{n:064}"))));
    let survey = RowInputs::discover(&fewer, &mut past.clone()).uplinks;
    assert!(survey.exits().count() == 1 && plan_ahead(&up, &survey, &mut tables.clone()).is_empty());
    let eth1 = facts.kernel.links[&ETH1].clone();
    facts.kernel.apply(KernelChange::Link(Link { up: false, carrier: false, ..eth1.clone() }));
    let inputs = RowInputs::discover(&facts, &mut past);
    let mut moved = tables.clone();
    let ahead = plan_ahead(&up, &inputs.uplinks, &mut moved).ruleset;
    let of = |change: &Change| match change {
        Change::DeleteElements(Table::Ip, set, keys) => (set.clone(), false, keys.len()),
        Change::AddElements(Table::Ip, set, elements) => (set.clone(), true, elements.len()),
        other => panic!("{other}"),
    };
    let ways = names::POLICY_WAYS.to_owned();
    assert_eq!(ahead.iter().map(of).collect::<Vec<_>>(), [(ways.clone(), false, 2), (ways, true, 1)]);
    assert_eq!(moved.tables[&Table::Ip].sets[names::POLICY_WAYS].elements.len(), 2, "one goes by the other NIC, and one was there already");
    let down = inputs.resolve(&facts, &mut past);
    let whole_plan = |ruleset, ahead| planned(&facts, &down, &past, (ruleset, ahead));
    let (after, from_nothing) = (whole_plan(&moved, &ahead), whole_plan(&tables, &[]));
    assert_eq!(tables_of(&after), tables_of(&from_nothing));
    assert!(!after.cuts.is_empty(), "flows of what was moved end");
    assert_eq!(after.cuts, from_nothing.cuts);
    // What is back is for the round to decide: its routes may be gone.
    facts.kernel.apply(KernelChange::Link(eth1));
    assert!(plan_ahead(&down, &RowInputs::discover(&facts, &mut past).uplinks, &mut moved).is_empty());
}
