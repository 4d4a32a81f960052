//! All checks in their order. Pure: what was gathered goes in, findings come out.

use super::facts::Facts;
use super::finding::Finding;
use super::{cluster, firewall, kernel, others, routing};

/// All that there is to say about a host.
pub fn all(facts: &Facts) -> Vec<Finding> {
    let mut findings = kernel::findings(facts);
    findings.extend(firewall::findings(facts));
    findings.extend(routing::findings(facts));
    findings.extend(others::findings(facts));
    findings.extend(cluster::findings(facts));
    let cure = "run `egressd check` as root in the network namespace of the host";
    findings.extend(facts.unseen.iter().map(|unseen| Finding::warn(unseen.what, format!("not looked at: {}", unseen.why), cure)));
    findings
}
