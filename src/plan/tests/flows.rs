//! Which flows a change ends: those that a binding is not for any more, those of who was unbound by an earlier run, and not those that wait.

use super::*;

const ADDRESS: &str = "172.19.0.1/32";
const EXIT: (&str, &str) = ("egress.ip", "172.31.0.14");

/// The cuts of a source's flows when what its container asks for changes.
fn changed(before: &[(&str, &str)], after: &[(&str, &str)]) -> Vec<Cut> {
    let (mut facts, mut past) = (host(), Past::default());
    start(&mut facts, 1, before);
    let there = plan(&facts, &mut past, &Ruleset::default());
    start(&mut facts, 1, after);
    plan(&facts, &mut past, tables_of(&there)).cuts
}

#[test]
fn what_a_binding_is_not_for_any_more_ends_though_it_bears_the_exit() {
    let kept = |cuts: Vec<Cut>| cuts.into_iter().map(|cut| (cut.source.to_string(), cut.keep)).collect::<Vec<_>>();
    let all = || [(ADDRESS.to_owned(), Vec::new())].to_vec();
    assert_eq!(kept(changed(&[EXIT], &[EXIT, ("egress.except", "198.51.100.0/24")])), all());
    assert_eq!(kept(changed(&[EXIT], &[EXIT, ("egress.ports", "tcp/443")])), all());
    assert_eq!(kept(changed(&[EXIT, ("egress.ports", "tcp/443")], &[EXIT, ("egress.ports", "tcp/80")])), all());
    let other: IpAddr = [172, 31, 0, 8].into();
    assert_eq!(kept(changed(&[EXIT], &[("egress.ip", "172.31.0.8")])), [(ADDRESS.to_owned(), vec![other])], "the new exit's stay");
}

/// The exit's NIC is away for a moment.
fn without_the_nic(asks: &[(&str, &str)]) -> Vec<Cut> {
    let (mut facts, mut past) = (host(), Past::default());
    start(&mut facts, 1, asks);
    let there = plan(&facts, &mut past, &Ruleset::default());
    facts.kernel.apply(KernelChange::Link(Link { up: false, carrier: false, ..link(ETH1, "eth1", LinkKind::Other(String::new())) }));
    plan(&facts, &mut past, tables_of(&there)).cuts
}

#[test]
fn a_connection_waits_for_its_exit_when_others_fall_back() {
    let fallback = [EXIT, ("egress.unavailable", "fallback")];
    let cuts = without_the_nic(&fallback);
    assert!(!cuts.is_empty() && cuts.iter().all(|cut| cut.keeps_open), "{cuts:?}");
    let reset = without_the_nic(&[fallback[0], fallback[1], ("egress.existing", "reset")]);
    assert!(!reset.is_empty() && reset.iter().all(|cut| !cut.keeps_open), "{reset:?}");
}

#[test]
fn what_a_routed_subnet_began_ends_when_it_is_held_though_nobody_knows_its_interface() {
    let (mut facts, mut past) = (host(), Past::default());
    start(&mut facts, 1, &[EXIT]);
    let before = plan(&facts, &mut past, &Ruleset::default());
    let bind = |facts: &mut Facts, more: &str| {
        let yaml = format!(
            "apiVersion: egressd.dev/v1alpha1\nkind: EgressBinding\nmetadata: {{name: deep}}\nspec:\n  addresses: [10.5.0.0/24]\n  exits: [{{address: 172.31.0.14}}]\n{more}"
        );
        facts.manifests = Index::new(manifest::parse([("deep.yaml", yaml.as_bytes())]));
    };
    for (more, keeps_open) in [("", true), ("  existingFlows: Reset\n", false)] {
        bind(&mut facts, more);
        let held = plan(&facts, &mut past, tables_of(&before));
        assert_eq!(held.cuts, [Cut { keeps_open, ..Cut::all("10.5.0.0/24".parse().unwrap()) }], "{held:?}");
        assert_eq!(plan(&facts, &mut past, tables_of(&held)).cuts, [], "once is enough");
    }
    bind(&mut facts, "  whenUnavailable: Fallback\n");
    assert_eq!(plan(&facts, &mut past, tables_of(&before)).cuts, [], "it goes on as ever");
}

#[test]
fn a_connection_of_who_fell_back_goes_on_when_its_exit_is_back() {
    let fallback = [EXIT, ("egress.unavailable", "fallback")];
    let nic = |up| KernelChange::Link(Link { up, carrier: up, ..link(ETH1, "eth1", LinkKind::Other(String::new())) });
    for (asks, reset) in [(&fallback[..], false), (&[fallback[0], fallback[1], ("egress.existing", "reset")], true), (&[EXIT], true)] {
        let (mut facts, mut past) = (host(), Past::default());
        start(&mut facts, 1, asks);
        facts.kernel.apply(nic(false));
        let mut there = plan(&facts, &mut past, &Ruleset::default());
        let fell_back = tables_of(&there).tables.get(&Table::Ip).is_some_and(|table| table.sets["fell_back"].elements.len() == 1);
        assert_eq!(fell_back, !reset, "{asks:?}");
        if asks.len() == 1 {
            // What a container without the right to fall back has sent by then has leaked.
            there.target = Some(Ruleset::default());
        }
        facts.kernel.apply(nic(true));
        let cuts = plan(&facts, &mut past, tables_of(&there)).cuts;
        assert!(!cuts.is_empty() && cuts.iter().all(|cut| cut.keeps_open != reset), "{asks:?}: {cuts:?}");
    }
}

#[test]
fn flows_of_who_was_unbound_end_before_the_tables_go_whoever_ends_them() {
    let (mut facts, mut past) = (host(), Past::default());
    start(&mut facts, 1, &[EXIT]);
    let there = plan(&facts, &mut past, &Ruleset::default());
    facts.apply(EngineChange::ContainerGone(container(1, &[]).id));
    let gone = plan(&facts, &mut past, tables_of(&there));
    assert!(tables_of(&gone).tables.is_empty() && !gone.cuts.is_empty());
    // It is killed between taking the sources out of the tables and ending their flows.
    assert!(!gone.disarm.is_empty());
    let left = tables::unbound(tables_of(&there), &gone.departed);
    let mut next = Past::default();
    read_back(&left, &facts.kernel, &mut next);
    let finished = plan(&facts, &mut next, &left);
    assert!(tables_of(&finished).tables.is_empty(), "{finished:?}");
    assert!(finished.cuts.iter().any(|cut| cut.source.to_string() == ADDRESS && cut.keep.is_empty()), "{finished:?}");
}

#[test]
fn a_link_s_own_forwarding_is_put_back_where_bound_packets_come_in() {
    let mut facts = host();
    start(&mut facts, 1, &[EXIT]);
    let outcome = resolve(&facts, &mut Past::default());
    let keys = sysctls::keys(&outcome, &facts.kernel);
    let of = |link: &str| format!("net/ipv4/conf/{link}/forwarding");
    assert!(["eth1", "eip_bridge"].iter().all(|link| keys.contains(&of(link))), "{keys:?}");
    let wanted = |whole: &str, link: &str| {
        let now = BTreeMap::from([("net/ipv4/ip_forward".to_owned(), whole.to_owned()), (of(link), "0".to_owned())]);
        sysctls::wanted(&outcome, &facts.kernel, &now).into_iter().any(|set| set == (of(link), "1".to_owned()))
    };
    assert!(wanted("1", "eth1") && wanted("1", "eip_bridge"));
    assert!(!wanted("1", "eth0"), "no bound packet comes in by it");
    assert!(!wanted("0", "eth1"), "the setting for all sets it, too");
}
