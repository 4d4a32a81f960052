//! The last changes of workloads: who became what, and when.

use std::net::IpAddr;

use k8s_openapi::jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::status::{shown, time, word};
use crate::model::resolve::Outcome;
use crate::model::workload::{Row, State};

/// How many changes are kept.
pub const KEPT: usize = 200;

/// The newest changes, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Changes {
    /// At most 200.
    pub changes: Vec<Change>,
}

/// What became of one address of a workload that a binding asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Change {
    /// When it was in the kernel, as RFC 3339.
    #[schemars(extend("format" = "date-time"))]
    pub at: String,
    pub workload: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// The binding that has it; of one that was freed, that had it.
    pub binding: String,
    /// What it was; absent when it is new.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// What it is: a state as status has it, or `Freed` when no binding has it any more.
    pub to: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nic: Option<String>,
    /// One word, and a sentence with the cure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

impl Change {
    /// The change that led to a row of an outcome, which has the binding.
    pub fn to_row(row: &Row, outcome: &Outcome, binding: String, from: Option<String>, at: Timestamp) -> Self {
        let exit = match &row.state {
            State::Bound(exit) => Some(exit),
            _ => None,
        };
        Self {
            at: time(at),
            workload: row.subject.to_string(),
            address: row.address.map(shown),
            binding,
            from,
            to: word(row).to_owned(),
            exit: exit.map(|exit| exit.address),
            nic: exit.map(|exit| outcome.uplinks.name(exit.interface).to_owned()),
            reason: row.reason().map(|reason| reason.word().to_owned()),
            message: row.reason().map(ToString::to_string),
        }
    }
}
