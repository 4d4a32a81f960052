//! Other programs' nftables chains: NAT ahead of ours, forwarding that is dropped, marks.

use std::collections::BTreeSet;

use crate::contract::{PRIORITY_SNAT, TABLE};
use crate::model::facts::LinkKind;
use crate::nft::decode::AnyChain;
use crate::nft::{ChainKind, Hook};
use crate::plan::gates::{FIREWALLD, trust};

use super::facts::Facts;
use super::finding::Finding;

/// Name of the chain that Docker leaves to users (iptables backend).
const DOCKER_USER: &str = "DOCKER-USER";

pub fn findings(facts: &Facts) -> Vec<Finding> {
    let mut findings: Vec<_> = facts.chains.iter().filter_map(nat_ahead).collect();
    if findings.is_empty() && !facts.unseen.iter().any(|unseen| unseen.what == "nftables") {
        findings.push(Finding::ok("NAT chains", "none translates a flow before egressd does"));
    }
    findings.extend(forward(facts));
    findings
}

fn nat_ahead(chain: &AnyChain) -> Option<Finding> {
    let priority = chain.base.filter(|_| chain.is_nat_ahead_of_ours())?.priority;
    let subject = format!("NAT chain {chain}");
    let cure = format!("give it a priority above {PRIORITY_SNAT} (`srcnat` is 100), or let it accept what comes from bound workloads");
    Some(match chain.uses {
        0 => Finding::warn(subject, format!("its priority {priority} is before egressd's {PRIORITY_SNAT}; it has no rules yet"), cure),
        _ => {
            let message =
                format!("its priority {priority} is before egressd's {PRIORITY_SNAT}, so flows that it translates do not get their exit");
            Finding::fail(subject, message, cure)
        }
    })
}

/// A dropping policy lets through only what some rule of its own accepts: no chain of ours can replace that. Docker puts such rules into iptables'
/// chain and into firewalld, for its bridges, and into nobody else's.
fn forward(facts: &Facts) -> Vec<Finding> {
    let drops = |chain: &&AnyChain| {
        let forwards = chain.base.is_some_and(|base| base.hook == Hook::Forward && base.kind == ChainKind::Filter);
        forwards && chain.table != TABLE && (chain.drops || is_firewalld(chain))
    };
    let mut findings = Vec::new();
    for chain in facts.chains.iter().filter(drops).filter(|chain| matches!(chain.family, "ip" | "ip6" | "inet")) {
        let subject = format!("forward chain {chain}");
        let knows_docker = is_iptables(chain) || is_firewalld(chain);
        let dockers: BTreeSet<&str> = dockers(facts).filter(|_| knows_docker).collect();
        let bridges = facts.links.iter().filter(|link| link.kind == LinkKind::Bridge).map(|link| link.name.as_str());
        let others: Vec<&str> = bridges.filter(|name| !dockers.contains(name)).collect();
        let (whose, link) = match (others.first(), facts.nics().next()) {
            (Some(first), _) => (format!("workloads on {}", others.join(", ")), *first),
            (None, _) if !dockers.is_empty() => {
                findings.push(Finding::ok(subject, "drops packets that no rule accepts; Docker's rules accept its own bridges"));
                continue;
            }
            (None, nic) => ("machines that route through this host".to_owned(), nic.map_or("NIC", |nic| nic.name.as_str())),
        };
        let message = format!(
            "drops packets that no rule accepts: {whose} reach nothing unless rules accept them, and a chain of egressd's cannot overrule that"
        );
        findings.push(Finding::warn(subject, message, format!("unless there is such a rule: {}", accept(facts, chain, link))));
    }
    if facts.legacy_tables.iter().any(|table| table == "filter") {
        let message = "iptables-legacy has a filter table, which is not looked at here";
        findings.push(Finding::ok("iptables-legacy", format!("{message}; `iptables-legacy -S FORWARD` shows whether it drops")));
    }
    findings
}

/// The bridges of Docker's networks.
fn dockers(facts: &Facts) -> impl Iterator<Item = &str> {
    let named = facts.networks().iter().filter_map(|network| network.bridge.as_deref());
    named.chain(facts.links.iter().map(|link| link.name.as_str()).filter(|name| *name == "docker0"))
}

/// iptables' own.
fn is_iptables(chain: &AnyChain) -> bool {
    matches!(chain.family, "ip" | "ip6") && chain.table == "filter" && chain.chain == "FORWARD"
}

/// Its chain accepts by policy; its last rule rejects what no zone accepts.
fn is_firewalld(chain: &AnyChain) -> bool {
    chain.table == FIREWALLD && chain.chain == "filter_FORWARD"
}

/// Rules that a firewall does not know of itself are gone, or refused, when it next loads its own.
fn accept(facts: &Facts, chain: &AnyChain, bridge: &str) -> String {
    if is_firewalld(chain) {
        return format!("{}, or a policy of its own for {bridge}", trust(bridge));
    }
    if facts.chains.iter().any(|c| c.family == chain.family && matches!(c.chain.as_str(), "ufw-user-forward" | "ufw6-user-forward")) {
        return format!("`ufw route allow in on {bridge}`");
    }
    if !is_iptables(chain) {
        let insert = format!("nft insert rule {chain}");
        return format!("`{insert} iifname {bridge} accept` and `{insert} oifname {bridge} ct state established,related accept`");
    }
    let program = if chain.family == "ip6" { "ip6tables" } else { "iptables" };
    let users = facts.chains.iter().any(|c| c.family == chain.family && c.table == "filter" && c.chain == DOCKER_USER);
    let insert = format!("{program} -I {}", if users { DOCKER_USER } else { "FORWARD" });
    format!("`{insert} -i {bridge} -j ACCEPT` and `{insert} -o {bridge} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT`")
}
