//! Programs of the host: from manifests and what the host has of users and control groups to marks, exits and cuts.

use super::*;
use crate::model::programs::ProgramFacts;
use crate::model::workload::Row;

const EXIT: [u8; 4] = [172, 31, 0, 14];

/// A binding of the files.
fn binding(name: &str, who: &str, more: &str) -> String {
    format!(
        "apiVersion: egressd.dev/v1alpha1\nkind: EgressBinding\nmetadata: {{name: {name}}}\nspec: {{hostSelector: {{{who}}}, {more}}}\n---\n"
    )
}

fn with(mut facts: Facts, bindings: &[String]) -> Facts {
    facts.manifests = Index::new(manifest::parse([("programs.yaml", bindings.concat().as_bytes())]));
    let errors: Vec<_> = facts.manifests.bindings.iter().flat_map(|b| &b.errors).collect();
    assert!(errors.is_empty() && facts.manifests.errors.is_empty(), "{errors:?} {:?}", facts.manifests.errors);
    facts.programs = ProgramFacts {
        users: [("crawler".to_owned(), 998)].into(),
        cgroups: [("/jobs", 10), ("/jobs/batch", 11), ("/jobs/batch/big", 12), ("/jobs/other", 13), ("/egressd", 20)]
            .map(|(path, id)| (path.to_owned(), id))
            .into(),
        units: [("crawler.service".to_owned(), ["/system.slice/crawler.service".to_owned()].into())].into(),
        ..ProgramFacts::default()
    };
    facts.programs.cgroups.insert("/system.slice/crawler.service".to_owned(), 30);
    facts
}

fn by(address: &str) -> String {
    format!("exits: [{{address: {address}}}]")
}

/// What the tables give to a socket, in the order in which the rules look: a program's user, and its control groups from the root on.
fn said(plan: &Plan, uid: u32, groups: &[u64]) -> Said {
    let table = &tables_of(plan).tables[&Table::Ip];
    let value = |data: &Data| match data {
        Data::Value(value) => u32::from_ne_bytes(value.as_slice().try_into().expect("a number or an IPv4 address")),
        other => panic!("{other:?}"),
    };
    let found = |set: &str, key: Bytes| table.sets.get(set).and_then(|set| set.elements.get(&Key::one(key))).map(value);
    let policy = (0..9).find_map(|tier| {
        let by_group = groups.iter().enumerate().rev();
        let mut by_group = by_group.filter_map(|(at, id)| found(&format!("programs-{tier}-cgroups-{}", at + 1), Bytes::of_cgroup(*id)));
        by_group.next().or_else(|| found(&format!("programs-{tier}-users"), Bytes::of_number(uid)))
    });
    match policy {
        None => Said::Nothing,
        Some(0) => Said::Free,
        Some(policy) => match found(names::PROGRAM_MARKS, Bytes::of_number(policy)) {
            None => Said::NoExit,
            Some(mark) => {
                let mut exits = [ETH0, ETH1].into_iter().filter_map(|nic| found(names::PROGRAM_EXITS, Bytes::of_number(nic).number(mark)));
                Said::Exit(IpAddr::from(exits.next().expect("a mark has its exit").to_ne_bytes()))
            }
        },
    }
}

fn planned(facts: &Facts) -> Plan {
    plan(facts, &mut Past::default(), &Ruleset::default())
}

#[test]
fn a_user_a_group_with_all_below_it_and_a_unit_have_their_exit_and_others_have_none() {
    let facts =
        with(host(), &[binding("all", "users: [crawler], cgroups: [/jobs/batch], systemdUnits: [crawler.service]", &by("172.31.0.14"))]);
    let plan = planned(&facts);
    let exit = Said::Exit(EXIT.into());
    for (uid, groups) in [(998, vec![]), (0, vec![10, 11]), (0, vec![10, 11, 12]), (0, vec![1, 30])] {
        // The slice above the unit has a number that nobody asks for.
        assert_eq!(said(&plan, uid, &groups), exit, "{uid} {groups:?}");
    }
    assert_eq!((said(&plan, 0, &[10]), said(&plan, 0, &[10, 13])), (Said::Nothing, Said::Nothing));
}

#[test]
fn who_names_some_programs_has_them_whatever_the_priority_of_who_names_all() {
    let all = binding("all", "all: true", &format!("{}, priority: 9", by("172.31.0.14")));
    let facts = with(host(), &[all, binding("crawler", "users: [crawler]", &format!("{}, priority: -9", by("172.31.0.8")))]);
    let plan = planned(&facts);
    assert_eq!((said(&plan, 998, &[]), said(&plan, 0, &[])), (Said::Exit([172, 31, 0, 8].into()), Said::Nothing));
    let table = &tables_of(&plan).tables[&Table::Ip];
    let Data::Value(policy) = &table.sets["programs-all"].elements[&Key::one(Bytes::of_number(0))] else { panic!("{table:?}") };
    assert_eq!(table.sets[names::PROGRAM_MARKS].elements.len(), 2);
    assert!(table.sets[names::PROGRAM_MARKS].elements.keys().any(|key| key.first.as_slice() == policy.as_slice()));
    assert_eq!(table.sets["programs-all-picked"].elements.len(), 1, "the default route's NIC and its address");
    let last = table.chains["programs"].rules.last().map(|rule| format!("{rule:?}"));
    assert!(last.as_ref().is_some_and(|last| last.contains("every_program")), "{last:?}");
}

#[test]
fn all_programs_fall_back_with_their_marks() {
    let gone = format!("{}, whenUnavailable: Fallback", by("172.31.0.99"));
    let plan = planned(&with(host(), &[binding("all", "all: true", &gone)]));
    let table = &tables_of(&plan).tables[&Table::Ip];
    assert!(table.sets["programs-all"].elements.is_empty());
}

#[test]
fn an_exit_has_a_mark_of_its_own_whose_rule_leads_to_its_way() {
    let mut facts = with(host(), &[binding("crawler", "users: [crawler]", &by("172.31.0.14"))]);
    facts.kernel.apply(address(ETH1, "172.31.0.15/20"));
    let other = binding("batch", "cgroups: [/jobs/batch]", &by("172.31.0.15"));
    let facts = with(facts, &[binding("crawler", "users: [crawler]", &by("172.31.0.14")), other]);
    let plan = planned(&facts);
    assert_eq!(said(&plan, 998, &[]), Said::Exit(EXIT.into()));
    assert_eq!(said(&plan, 0, &[10, 11]), Said::Exit([172, 31, 0, 15].into()));
    let mut rules: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for step in &plan.before {
        if let RouteStep::AddRule(Rule { mark: Some(mark), table, family: Family::V4, .. }) = step {
            rules.entry(*table).or_default().push(*mark);
        }
    }
    assert!(rules.values().any(|marks| marks.len() == 3), "eth1's way has its own mark and one for each of its exits: {rules:?}");
}

#[test]
fn the_binding_that_takes_precedence_has_a_program_whatever_it_is_known_by() {
    let user = |priority| binding("user", "users: [crawler]", &format!("priority: {priority}, {}", by("172.31.0.8")));
    let group = |name: &str, path: &str, priority: i32, exit: &str| {
        binding(name, &format!("cgroups: [{path}]"), &format!("priority: {priority}, {}", by(exit)))
    };
    let of = |bindings: &[String]| said(&planned(&with(host(), bindings)), 998, &[10, 11, 12]);
    let (first, second) = (Said::Exit([172, 31, 0, 8].into()), Said::Exit(EXIT.into()));
    assert_eq!(of(&[user(2), group("batch", "/jobs/batch", 1, "172.31.0.14")]), first);
    assert_eq!(of(&[user(1), group("batch", "/jobs/batch", 2, "172.31.0.14")]), second);
    let between = [group("big", "/jobs/batch/big", 3, "172.31.0.14"), user(2), group("batch", "/jobs/batch", 1, "172.31.0.8")];
    assert_eq!(of(&between), second);
    assert_eq!(of(&[group("big", "/jobs/batch/big", 1, "172.31.0.8"), group("batch", "/jobs/batch", 3, "172.31.0.14")]), second);
}

#[test]
fn a_fallback_ends_the_look_at_what_comes_after_it() {
    let gone = binding("big", "cgroups: [/jobs/batch/big]", &format!("priority: 1, whenUnavailable: Fallback, {}", by("172.31.0.77")));
    let plan = planned(&with(host(), &[gone, binding("batch", "cgroups: [/jobs/batch]", &by("172.31.0.14"))]));
    assert_eq!((said(&plan, 0, &[10, 11, 12]), said(&plan, 0, &[10, 11])), (Said::Free, Said::Exit(EXIT.into())));
}

#[test]
fn without_its_nic_a_program_is_held_and_its_datagrams_begin_anew() {
    let mut facts = with(host(), &[binding("crawler", "users: [crawler]", &by("172.31.0.14"))]);
    let mut past = Past::default();
    let first = plan(&facts, &mut past, &Ruleset::default());
    let eth1 = facts.kernel.links[&ETH1].clone();
    facts.kernel.apply(KernelChange::Link(Link { up: false, carrier: false, ..eth1 }));
    let held = plan(&facts, &mut past, tables_of(&first));
    assert_eq!(said(&held, 998, &[]), Said::NoExit);
    let of_exit = |plan: &Plan| {
        let translated = plan.cuts.iter().filter(|cut| cut.only == Some(EXIT.into()) && cut.source != IpNet::from(IpAddr::from(EXIT)));
        translated.cloned().collect::<Vec<_>>()
    };
    assert!(of_exit(&held).iter().any(|cut| cut.keeps_open && cut.source == "172.31.0.8/32".parse().unwrap()), "{:?}", held.cuts);
    let freed =
        plan(&with(host(), &[binding("other", "cgroups: [/jobs/batch]", &by("172.31.0.8"))]), &mut Past::default(), tables_of(&first));
    assert!(of_exit(&freed).iter().all(|cut| !cut.keeps_open) && !of_exit(&freed).is_empty(), "who is bound no more: {:?}", freed.cuts);
}

#[test]
fn connections_end_with_their_own_binding_alone() {
    let (eth0, eth1) = (by("172.31.0.8"), by("172.31.0.14"));
    let crawler = |exits: &str, more: &str| binding("crawler", "users: [crawler]", &format!("{exits}{more}"));
    let batch = |more: &str| binding("batch", "cgroups: [/jobs/batch]", &format!("{}{more}", by("172.31.0.8")));
    let first = [crawler(&eth1, ""), batch("")];
    let spread = [crawler("spread: RoundRobin, exits: [{address: 172.31.0.8}, {address: 172.31.0.14}]", ""), batch("")];
    let keeps = |first: &[String], then: &[String]| {
        let before = planned(&with(host(), first));
        let after = plan(&with(host(), then), &mut Past::default(), tables_of(&before));
        let cuts: Vec<bool> = after.cuts.iter().filter(|cut| cut.only == Some(EXIT.into())).map(|cut| cut.keeps_open).collect();
        assert!(!cuts.is_empty(), "datagrams begin anew");
        cuts.into_iter().all(|keeps_open| keeps_open)
    };
    for first in [&first, &spread] {
        assert!(keeps(first, &[crawler(&eth0, ""), batch("")]), "it has another exit");
        assert!(keeps(first, &[crawler(&eth0, "")]), "another binding is gone at the same time");
        assert!(keeps(first, &[crawler(&eth0, ""), batch(", existingFlows: Reset")]), "another binding resets");
        assert!(!keeps(first, &[crawler(&eth0, ", existingFlows: Reset"), batch("")]), "its own resets");
        assert!(!keeps(first, &[batch("")]), "its own is gone");
    }
}

#[test]
fn connections_end_that_have_another_address_than_the_exits_of_a_binding_that_resets() {
    let eth1 = by("172.31.0.14");
    let batch = |more: &str| binding("batch", "cgroups: [/jobs/batch]", &format!("{eth1}, priority: 2, {more}"));
    let of = |bindings: &[String]| planned(&with(host(), bindings)).resets;
    let ends = |resets: &Resets, (user, groups): (u32, &[u64]), to: &str, translated: &str| {
        let (source, destination) = ("172.31.0.8:5000".parse().unwrap(), to.parse().unwrap());
        resets.ends(&resets::Connection { source, destination, user, mark: 0, groups }, translated.parse().unwrap())
    };
    let (outside, as_before) = ("198.51.100.10:443", "172.31.0.8");
    assert_eq!(of(&[batch("existingFlows: Keep")]), None);
    let user = binding("crawler", "users: [crawler]", &format!("{eth1}, priority: 1"));
    let big = binding("big", "cgroups: [/jobs/batch/big]", &format!("{eth1}, priority: 3"));
    let resets = of(&[batch("existingFlows: Reset"), user.clone(), big]).expect("one resets");
    assert!(ends(&resets, (0, &[11, 10]), outside, as_before));
    assert!(ends(&resets, (998, &[11, 10]), outside, as_before), "its group comes before its user");
    assert!(!ends(&resets, (0, &[11, 10]), outside, "172.31.0.14"), "it has the exit");
    for (who, why) in
        [((998, &[13, 10][..]), "the user's binding keeps"), ((0, &[12, 11, 10]), "the group below has another"), ((0, &[10]), "nobody's")]
    {
        assert!(!ends(&resets, who, outside, as_before), "{why}");
    }
    for inside in ["172.19.0.5:80", "127.0.0.1:80", "169.254.169.254:80", "172.31.0.14:80"] {
        assert!(!ends(&resets, (0, &[11, 10]), inside, as_before), "{inside}");
    }
    let some = of(&[batch("existingFlows: Reset, to: [{cidr: 198.51.100.0/24}], ports: [{protocol: TCP, port: 443}]")]).expect("it resets");
    let to = |to: &str| ends(&some, (0, &[11]), to, as_before);
    assert_eq!([outside, "198.51.100.10:80", "203.0.113.1:443"].map(to), [true, false, false], "what the binding is for");
    let all = of(&[binding("all", "all: true", &format!("{eth1}, existingFlows: Reset")), user]).expect("one resets");
    assert!(ends(&all, (0, &[]), outside, as_before) && !ends(&all, (998, &[]), outside, as_before));
    // Once it is so, a round changes nothing, and asks no socket.
    let facts = with(host(), &[batch("existingFlows: Reset")]);
    let first = planned(&facts);
    assert_eq!(plan(&facts, &mut Past::default(), tables_of(&first)).resets, None);
    let more = with(host(), &[batch("existingFlows: Reset, spread: Random")]);
    assert!(plan(&more, &mut Past::default(), tables_of(&first)).resets.is_some());
}

#[test]
fn what_has_no_connection_begins_anew_where_programs_are_bound_anew_alone() {
    let own = |plan: &Plan| {
        let untranslated = plan.cuts.iter().filter(|cut| cut.only.is_some_and(|only| cut.source == IpNet::from(only)));
        untranslated.map(|cut| (cut.source.to_string(), cut.keeps_open)).collect::<Vec<_>>()
    };
    for who in ["users: [crawler]", "all: true"] {
        let facts = with(host(), &[binding("one", who, &by("172.31.0.14"))]);
        let first = planned(&facts);
        assert_eq!(own(&first), ["172.31.0.8/32", "172.31.0.14/32"].map(|source| (source.to_owned(), true)), "{who}");
        let again = plan(&facts, &mut Past::default(), tables_of(&first));
        assert_eq!((own(&again), first.follows, again.follows), (Vec::new(), true, false), "{who}");
    }
}

#[test]
fn a_group_that_is_made_anew_is_held_below_a_guarded_one_alone() {
    let plan = planned(&with(host(), &[binding("batch", "cgroups: [/jobs/batch], systemdUnits: [crawler.service]", &by("172.31.0.14"))]));
    let table = &tables_of(&plan).tables[&Table::Ip];
    let ids = |set: &str| -> Vec<u64> {
        let id = |key: &Key| u64::from_ne_bytes(key.first.as_slice().try_into().expect("a number"));
        table.sets[set].elements.keys().map(id).collect()
    };
    assert_eq!(ids("programs-guarded-1"), [10, 20], "/jobs and /egressd, and not the slice of all services");
    assert_eq!(ids("programs-known-2"), [11, 13]);
}

#[test]
fn a_group_of_exec_has_the_exit_that_it_is_called_after() {
    let mut facts = with(host(), &[]);
    facts.programs.cgroups.insert("/egressd/172.31.0.14".to_owned(), 21);
    facts.programs = facts.programs.with_bindings();
    let plan = planned(&facts);
    assert_eq!(said(&plan, 0, &[20, 21]), Said::Exit(EXIT.into()));
}

#[test]
fn datagrams_have_a_zone_where_the_kernel_has_zones() {
    let mut facts = with(host(), &[binding("crawler", "users: [crawler]", &by("172.31.0.14"))]);
    let zones = |facts: &Facts| tables_of(&planned(facts)).tables[&Table::Ip].chains.get("zones").map(|chain| chain.rules.len());
    assert_eq!(zones(&facts), Some(1));
    let plan = planned(&facts);
    let table = &tables_of(&plan).tables[&Table::Ip];
    let [policy] = table.sets["programs-0-users"].elements.values().collect::<Vec<_>>()[..] else { panic!("{table:?}") };
    let policy = elements::number_in(policy).expect("a number");
    let leads: Vec<_> = table.sets["programs-0-users-zones"].elements.values().collect();
    assert_eq!(leads, [&Data::Verdict(crate::nft::Verdict::Goto(format!("zone-{policy:08x}")))]);
    assert_eq!(table.chains[&format!("zone-{policy:08x}")].rules.len(), 1);
    assert_ne!(policy as u16, 0, "0 is everybody's zone");
    facts.programs.no_zones = true;
    assert_eq!(zones(&facts), None);
}

#[test]
fn what_exec_started_leaves_by_that_whoever_else_is_asked_for() {
    let (exec, other) = (Said::Exit(EXIT.into()), Said::Exit([172, 31, 0, 8].into()));
    let others = |who: &str| binding("other", who, &format!("priority: 7, {}", by("172.31.0.8")));
    let named = |exits: &str| binding("asked", "cgroups: [/jobs/other]", exits);
    let of = |group: &str, bindings: &[String], groups: &[u64]| {
        let mut facts = with(host(), bindings);
        facts.programs.cgroups.extend([(format!("/egressd/{group}"), 21), (format!("/egressd/{group}/below"), 22)]);
        facts.programs = facts.programs.with_bindings();
        said(&planned(&facts), 998, groups)
    };
    for who in ["users: [crawler]", "cgroups: [/egressd]", "cgroups: [/egressd/172.31.0.14]", "cgroups: [/egressd/172.31.0.14/below]"] {
        assert_eq!(of("172.31.0.14", &[others(who)], &[20, 21, 22]), exec, "as an address, {who}");
    }
    for who in ["users: [crawler]", "cgroups: [/egressd/default_asked]", "cgroups: [/egressd/default_asked/below]"] {
        let bound = [others(who), named(&by("172.31.0.14"))];
        assert_eq!(of("default_asked", &bound, &[20, 21, 22]), exec, "by a binding, {who}");
        let gone = [others(who), named(&by("172.31.0.77"))];
        assert_eq!(of("default_asked", &gone, &[20, 21, 22]), Said::NoExit, "its exit is gone, {who}");
    }
    assert_eq!(of("172.31.0.14", &[others("users: [crawler]")], &[]), other, "who is not in such a group");
}

#[test]
fn what_exec_started_for_a_binding_that_is_gone_is_held_though_another_names_its_group() {
    let mut facts = with(host(), &[binding("other", "cgroups: [/egressd/default_gone]", &by("172.31.0.8"))]);
    facts.programs.cgroups.insert("/egressd/default_gone".to_owned(), 21);
    let plan = planned(&facts);
    let known = &tables_of(&plan).tables[&Table::Ip].sets["programs-known-2"];
    assert!(!known.elements.contains_key(&Key::one(Bytes::of_cgroup(21))), "{known:?}");
}

#[test]
fn a_restart_plans_nothing_and_gives_the_same_marks() {
    let mut facts = with(host(), &[binding("crawler", "users: [crawler]", &by("172.31.0.14"))]);
    start(&mut facts, 1, &[("egress.ip", "172.31.0.8")]);
    let first = planned(&facts);
    apply(&mut facts, &first.before);
    let mut past = Past::default();
    read_back(tables_of(&first), &facts.kernel, &mut past);
    let again = plan(&facts, &mut past, tables_of(&first));
    assert!(again.ruleset.is_empty() && again.before.is_empty() && again.after.is_empty(), "{again:?}");
}

#[test]
fn what_is_not_there_yet_waits_and_says_so() {
    let facts = with(host(), &[binding("absent", "users: [ghost], cgroups: [/none], systemdUnits: [none.service]", &by("172.31.0.14"))]);
    let rows = resolve(&facts, &mut Past::default()).programs.rows;
    let words: BTreeSet<&str> = rows.iter().filter_map(|row| row.state.reason()).map(crate::model::reason::Reason::word).collect();
    assert_eq!(words, ["NoSuchCgroup", "NoSuchUser", "UnitNotRunning"].into());
}

#[test]
fn without_control_groups_users_are_bound_and_the_rest_is_told_what_needs_none() {
    let mut facts =
        with(host(), &[binding("all", "users: [crawler], cgroups: [/jobs/batch], systemdUnits: [crawler.service]", &by("172.31.0.14"))]);
    facts.programs = facts.programs.without_cgroups("none is mounted".to_owned());
    let outcome = resolve(&facts, &mut Past::default());
    let told = |row: &Row| row.state.reason().map(ToString::to_string).unwrap_or_default();
    let told: Vec<(String, String)> = outcome.programs.rows.iter().map(|row| (row.subject.to_string(), told(row))).collect();
    let [(user, bound), rest @ ..] = told.as_slice() else { panic!("{told:?}") };
    assert!(user == "user/crawler" && bound.is_empty() && rest.len() == 2, "{told:?}");
    for (_, why) in rest {
        assert!(why.contains("none is mounted") && why.contains("hostSelector.users") && why.contains("egressd exec --namespace"), "{why}");
    }
    assert_eq!(said(&planned(&facts), 998, &[]), Said::Exit(EXIT.into()));
}

#[test]
fn exec_by_an_address_leaves_by_the_gateway_that_a_binding_names_for_it() {
    let exit = "exits: [{address: 172.31.0.14, gateway: 172.31.0.77, publicAddress: 203.0.113.7, sourcePorts: 20000-20999}]";
    let mut facts = with(host(), &[binding("crawler", "users: [crawler]", exit)]);
    facts.programs.cgroups.insert("/egressd/172.31.0.14".to_owned(), 21);
    facts.programs = facts.programs.with_bindings();
    let outcome = resolve(&facts, &mut Past::default());
    let exits: Vec<_> =
        outcome.programs.rows.iter().filter_map(|row| if let State::Bound(exit) = row.state { Some((row, exit)) } else { None }).collect();
    let [(exec, other), (_, one)] = exits.as_slice() else { panic!("{exits:?}") };
    assert_eq!((one.way, one.address, other.ports), (other.way, other.address, None));
    let gateway = outcome.uplinks.gateway(other).and_then(|gateway| gateway.address);
    assert_eq!(gateway, Some([172, 31, 0, 77].into()));
    assert_eq!(outcome.public_of(exec, other), Some([203, 0, 113, 7].into()));
}
