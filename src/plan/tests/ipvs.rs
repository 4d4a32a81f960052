//! Ports that IPVS serves: when they are, whose its services are, and the firewalls on their way.

use super::*;
use crate::model::ipvs::{KernelIpvs, Scheduler};
use crate::model::ports::{Called, Ports, Protocol};
use crate::model::services::Services;
use crate::nft::decode::AnyChain;
use crate::nft::gates::{FILTER, Gate, GateRule, GateStep};
use crate::nft::{Base, ChainKind, Family as Table, Hook};
use crate::plan::gates::{self, Wanted, Whose};
use crate::plan::{inbound, ipvs};

const LABELS: [(&str, &str); 4] =
    [("egress.ip", "172.31.0.14"), ("egress.publish", "80:8080"), ("egress.engine", "ipvs"), ("egress.scheduler", "sed")];

fn web() -> Called {
    ([172, 31, 0, 14].into(), Ports { protocol: Protocol::Tcp, first: 80, last: 80 })
}

fn services(facts: &Facts) -> Services {
    resolve(facts, &mut Past::default()).inbound
}

#[test]
fn a_port_waits_until_ipvs_was_looked_at_and_is_refused_by_what_is_in_the_way() {
    let mut facts = host();
    start(&mut facts, 4, &LABELS);
    let first = services(&facts);
    assert!(first.ipvs && first.pending && first.all.is_empty(), "nobody has looked yet");
    let mut with = |ipvs: KernelIpvs| {
        facts.ipvs = Some(ipvs);
        services(&facts)
    };
    let served = with(KernelIpvs::default());
    assert_eq!((served.all.len(), served.pending, served.problems.len()), (1, false, 0));
    for (ipvs, words) in [
        (
            KernelIpvs { missing: Some("there is none".to_owned()), ..KernelIpvs::default() },
            "egress.engine: tcp/172.31.0.14:80 is not served: there is none",
        ),
        (
            KernelIpvs { unknown: [Scheduler::Sed].into(), ..KernelIpvs::default() },
            "egress.scheduler: tcp/172.31.0.14:80 is not served: the kernel has no IPVS scheduler `sed`",
        ),
        (
            KernelIpvs { foreign: [web()].into(), ..KernelIpvs::default() },
            "egress.publish: tcp/172.31.0.14:80 is a virtual service of another program",
        ),
    ] {
        let refused = with(ipvs);
        assert_eq!(refused.all, []);
        assert!(refused.problems[0].to_string().starts_with(&format!("label/web-4: {words}")), "{:?}", refused.problems);
    }
}

#[test]
fn the_tables_say_which_virtual_services_are_ours() {
    let mut facts = host();
    facts.ipvs = Some(KernelIpvs::default());
    start(&mut facts, 4, &LABELS);
    let mut past = Past::default();
    let first = plan(&facts, &mut past, &Ruleset::default());
    assert_eq!(inbound::virtual_services(tables_of(&first)), [web()].into());
    let desired = ipvs::desired(&services(&facts));
    let servers: Vec<_> =
        desired[&web()].servers.iter().map(|((address, port), server)| (address.to_string(), *port, server.weight)).collect();
    assert_eq!((desired[&web()].settings.scheduler.as_str(), servers), ("sed", vec![("172.19.0.4".to_owned(), 8080, 1)]));
    // No rule of destination NAT is in its way.
    let table = &tables_of(&first).tables[&Table::Ip];
    assert!(table.sets["services"].elements.is_empty() && table.chains.contains_key("ipvs_before_output"));
    let id = facts.containers.values().next().expect("it runs").container.id.clone();
    facts.apply(EngineChange::ContainerGone(id));
    assert_eq!(inbound::virtual_services(tables_of(&plan(&facts, &mut past, tables_of(&first)))), [].into());
}

#[test]
fn calls_by_ipvs_pass_the_filters_of_input_and_output_too() {
    let rule = |ours| GateRule { handle: 7, ours, asks: ours, decides: None };
    let gate = |table: &str, chain: &str, hook, rules| {
        let base = Some(Base { kind: ChainKind::Filter, hook, priority: 0 });
        let chain = AnyChain { family: "ip", table: table.to_owned(), chain: chain.to_owned(), base, drops: true, uses: 0 };
        Gate { chain, rules, trusts_programs: false }
    };
    let of = |rules: Vec<GateRule>| [gate(FILTER, "INPUT", Hook::Input, rules.clone()), gate(FILTER, "OUTPUT", Hook::Output, rules)];
    let nat = Wanted::from([(Whose::Ports, Table::Ip)]);
    let by_ipvs = Wanted::from([(Whose::Ports, Table::Ip), (Whose::IpvsPorts, Table::Ip)]);
    let chains = ["INPUT", "OUTPUT"];
    assert_eq!(gates::steps(&of(vec![rule(false)]), &by_ipvs), chains.map(|chain| GateStep::Insert(Table::Ip, chain.to_owned())));
    assert_eq!(gates::steps(&of(vec![rule(false)]), &nat), [], "it is destination NAT that others have");
    assert_eq!(gates::steps(&of(vec![rule(true)]), &nat), chains.map(|chain| GateStep::Delete(Table::Ip, chain.to_owned(), 7)));
    let told = |hook, wanted: &Wanted| gates::problems(&[gate("strict", "filter", hook, vec![rule(false)])], wanted).concat();
    for (hook, word) in [(Hook::Input, "input"), (Hook::Output, "output")] {
        assert!(told(hook, &by_ipvs).contains(&format!("{word} chain ip strict filter drops calls to published ports")), "{word}");
        assert_eq!(told(hook, &nat), "");
    }
}
