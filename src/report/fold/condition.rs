//! Conditions, as Kubernetes' API conventions have them.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;

use crate::model::field_error::FieldError;
use crate::model::reason::Reason;

/// The reason of what is not in order with the object itself.
pub(super) const INVALID: &str = "Invalid";
/// So many errors of an object are told.
const MAX_ERRORS: usize = 3;

/// What a condition says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    pub status: &'static str,
    pub reason: String,
    pub message: String,
}

impl Verdict {
    pub fn yes(reason: &str, message: String) -> Self {
        Self { status: "True", reason: reason.to_owned(), message }
    }

    pub fn no(reason: &str, message: String) -> Self {
        Self { status: "False", reason: reason.to_owned(), message }
    }

    /// It is not known yet.
    pub fn pending(message: String) -> Self {
        Self::unknown("Pending", message)
    }

    pub fn unknown(reason: &str, message: String) -> Self {
        Self { status: "Unknown", reason: reason.to_owned(), message }
    }

    pub fn because(reason: &Reason) -> Self {
        Self::no(reason.word(), reason.to_string())
    }

    pub fn invalid(errors: &[FieldError]) -> Self {
        let told: Vec<String> = errors.iter().take(MAX_ERRORS).map(ToString::to_string).collect();
        Self::no(INVALID, told.join("; "))
    }

    /// As a condition of an object, which keeps the time of its last transition as long as its status stays what it was.
    pub fn condition(self, kind: &str, generation: i64, before: &[Condition], now: Timestamp) -> Condition {
        let same = before.iter().find(|condition| condition.type_ == kind && condition.status == self.status);
        Condition {
            type_: kind.to_owned(),
            status: self.status.to_owned(),
            reason: self.reason,
            message: self.message,
            observed_generation: Some(generation),
            last_transition_time: same.map_or_else(|| Time(whole_seconds(now)), |condition| condition.last_transition_time.clone()),
        }
    }
}

/// As the API server's own types have it.
fn whole_seconds(now: Timestamp) -> Timestamp {
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}

/// A condition by its type.
pub(super) fn find<'a>(conditions: &'a [Condition], kind: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == kind)
}
