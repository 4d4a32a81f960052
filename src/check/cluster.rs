//! Kubernetes' network programs that egressd lives with on a node.

use super::facts::Facts;
use super::finding::Finding;
use crate::model::facts::LinkKind;

pub fn findings(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(bypassed(facts));
    findings.extend(kube_proxy(facts));
    findings
}

/// Links that a network program makes when it moves packets by eBPF, with how it is told to leave them to the kernel.
/// (Cilium: `pkg/defaults`; Calico: `felix/dataplane/linux/dataplanedefs`.)
const EBPF: [(&str, &str, &str); 2] = [
    (
        "cilium_host",
        "Cilium",
        "`helm upgrade cilium --set bpf.hostLegacyRouting=true --set bpf.masquerade=false`, with the values that it has",
    ),
    ("bpfin.cali", "Calico's eBPF dataplane", "set `bpfEnabled: false` in FelixConfiguration"),
];

/// A packet that eBPF takes from a pod's interface to the NIC is seen by no chain and no policy rule.
fn bypassed(facts: &Facts) -> Option<Finding> {
    let there = |name: &str| facts.links.iter().any(|link| link.name == name);
    let (link, program, cure) = EBPF.into_iter().find(|(link, ..)| there(link))?;
    let message =
        format!("{link} is here, so {program} may send pods' packets past netfilter and the routing tables: those pods cannot be bound");
    Some(Finding::warn("pods", message, cure))
}

/// All of its modes do destination NAT ahead of us, and leave marks that stay.
fn kube_proxy(facts: &Facts) -> Option<Finding> {
    let chain = |table: &str, chain: &str| facts.chains.iter().any(|c| c.table == table && (chain.is_empty() || c.chain == chain));
    let ipvs = facts.links.iter().any(|link| link.name == "kube-ipvs0" && link.kind == LinkKind::Dummy);
    let mode = match () {
        () if ipvs => "IPVS",
        () if chain("kube-proxy", "") => "nftables",
        () if chain("nat", "KUBE-SERVICES") => "iptables",
        () => return None,
    };
    Some(Finding::ok("kube-proxy", format!("it runs in {mode} mode: services work as before, and its marks stay")))
}
