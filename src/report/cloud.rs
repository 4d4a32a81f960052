//! What became of a pool in its cloud, as its status in the cluster says.

use k8s_openapi::jiff::Timestamp;

use super::fold::condition::{Verdict, conditions};
use crate::api::cloud::{CloudAddress, PoolCloudStatus};

/// How one of the things that a pool asks for stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The condition's type.
    pub kind: String,
    /// `None`: it is on its way.
    pub ready: Option<bool>,
    /// A word.
    pub reason: String,
    /// A sentence, with the cure where something is wrong.
    pub message: String,
}

/// All that is known of a pool's cloud.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shown {
    pub findings: Vec<Finding>,
    pub addresses: Vec<CloudAddress>,
    pub surplus: Vec<String>,
}

/// The part of the pool's status. `before` keeps the times of transitions.
pub fn status(shown: Shown, generation: i64, before: Option<&PoolCloudStatus>, now: Timestamp) -> PoolCloudStatus {
    let verdict = |finding: &Finding| {
        let (reason, message) = (finding.reason.as_str(), finding.message.clone());
        match finding.ready {
            Some(true) => Verdict::yes(reason, message),
            Some(false) => Verdict::no(reason, message),
            None => Verdict::unknown(reason, message),
        }
    };
    let verdicts = shown.findings.iter().map(|finding| (finding.kind.as_str(), verdict(finding)));
    let known = before.map_or(&[][..], |before| &before.conditions);
    PoolCloudStatus {
        observed_generation: Some(generation),
        conditions: conditions(verdicts, generation, known, now),
        addresses: shown.addresses,
        surplus: shown.surplus,
    }
}
