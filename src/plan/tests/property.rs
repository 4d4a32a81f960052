//! What every plan has to keep, whatever happens to a host.

use proptest::prelude::*;

use super::*;

/// Something that happens to a host.
#[derive(Clone, Debug)]
enum Event {
    Start(u8, Option<&'static str>),
    Remove(u8),
    Nic(IfIndex, bool),
    Default(IfIndex),
    Rules,
}

fn an_event() -> impl Strategy<Value = Event> {
    let asks = prop_oneof![Just(None), Just(Some("172.31.0.14")), Just(Some("172.31.0.8")), Just(Some("172.31.0.99")), Just(Some("slip"))];
    prop_oneof![
        4 => (1..6u8, asks).prop_map(|(n, asks)| Event::Start(n, asks)),
        2 => (1..6u8).prop_map(Event::Remove),
        1 => (ETH0..=ETH1, any::<bool>()).prop_map(|(nic, up)| Event::Nic(nic, up)),
        1 => (ETH0..=ETH1).prop_map(Event::Default),
        1 => Just(Event::Rules),
    ]
}

fn happen(facts: &mut Facts, event: &Event) {
    match event {
        Event::Start(n, asks) => start(facts, *n, &asks.map(|ip| ("egress.ip", ip)).into_iter().collect::<Vec<_>>()),
        Event::Remove(n) => {
            facts.kernel.apply(KernelChange::LinkGone(IfIndex::from(*n) + 100));
            facts.apply(EngineChange::ContainerGone(format!("{n:064}")));
        }
        Event::Nic(nic, up) => {
            let link = facts.kernel.links[nic].clone();
            facts.kernel.apply(KernelChange::Link(Link { up: *up, carrier: *up, ..link }));
            if !up {
                facts.kernel.routes.retain(|r| r.interface != Some(*nic));
            }
        }
        Event::Default(nic) => {
            facts.kernel.routes.retain(|r| r.table != MAIN || r.destination.prefix_len() > 0);
            facts.kernel.routes.push(route("0.0.0.0/0", Some("172.31.0.1"), *nic));
        }
        // Another tool took our policy rules.
        Event::Rules => facts.kernel.rules.clear(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn after_a_plan_is_carried_out_nothing_is_left_to_plan(events in prop::collection::vec(an_event(), 1..30)) {
        let (mut facts, mut past, mut observed) = (host(), Past::default(), Ruleset::default());
        for event in &events {
            happen(&mut facts, event);
            let done = plan(&facts, &mut past, &observed);
            apply(&mut facts, &done.before);
            observed = tables_of(&done).clone();
            apply(&mut facts, &done.after);
            let rest = plan(&facts, &mut past, &observed);
            prop_assert!(rest.is_empty(), "after {event:?}: {rest:?}");
        }
    }

    #[test]
    fn a_plan_that_was_cut_short_is_made_up_for_by_the_next(events in prop::collection::vec((an_event(), 0..40usize, any::<bool>()), 1..20)) {
        let (mut facts, mut past, mut observed) = (host(), Past::default(), Ruleset::default());
        for (event, steps, batch) in &events {
            happen(&mut facts, event);
            let half = plan(&facts, &mut past, &observed);
            apply(&mut facts, &half.before[..half.before.len().min(*steps)]);
            if *batch {
                observed = tables_of(&half).clone();
            }
        }
        let whole = plan(&facts, &mut past, &observed);
        apply(&mut facts, &whole.before);
        apply(&mut facts, &whole.after);
        let rest = plan(&facts, &mut past, tables_of(&whole));
        prop_assert!(rest.is_empty(), "{rest:?}");
    }

    #[test]
    fn no_container_ever_gets_the_exit_of_another_label(events in prop::collection::vec(an_event(), 1..30)) {
        let (mut facts, mut past, mut observed) = (host(), Past::default(), Ruleset::default());
        for event in &events {
            happen(&mut facts, event);
            let done = plan(&facts, &mut past, &observed);
            for container in facts.containers() {
                let n = container.created as u8;
                let Said::Exit(exit) = said(&done, n) else { continue };
                let asked: Option<IpAddr> = container.labels.get("egress.ip").and_then(|ip| ip.parse().ok());
                prop_assert_eq!(Some(exit), asked);
            }
            apply(&mut facts, &done.before);
            observed = tables_of(&done).clone();
            apply(&mut facts, &done.after);
        }
    }
}
