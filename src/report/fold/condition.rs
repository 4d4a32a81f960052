//! Conditions, as Kubernetes' API conventions have them.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;

use crate::model::field_error::FieldError;
use crate::model::reason::Reason;

/// All other conditions of the object are True. What waits for objects of any kind asks for this: kstatus, `kubectl wait`.
pub const READY: &str = "Ready";

/// The reason of what is not in order with the object itself.
pub(super) const INVALID: &str = "Invalid";
/// So many errors of an object are told.
const MAX_ERRORS: usize = 3;

/// What a condition says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::report) struct Verdict {
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

/// The conditions of an object, of which the last given says that all is done, and [`READY`] behind them: with the reason of the first that is
/// False, else of the first that is Unknown, else of the last.
pub(in crate::report) fn conditions<'a>(
    verdicts: impl IntoIterator<Item = (&'a str, Verdict)>,
    generation: i64,
    before: &[Condition],
    now: Timestamp,
) -> Vec<Condition> {
    let verdicts: Vec<(&str, Verdict)> = verdicts.into_iter().collect();
    // One that is Unknown because of another says less than that one.
    let first = |status| verdicts.iter().find(|(_, verdict)| verdict.status == status);
    let ready = first("False").or_else(|| first("Unknown")).or(verdicts.last()).map(|(_, verdict)| (READY, verdict.clone()));
    verdicts.into_iter().chain(ready).map(|(kind, verdict)| verdict.condition(kind, generation, before, now)).collect()
}

/// As the API server's own types have it.
fn whole_seconds(now: Timestamp) -> Timestamp {
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}

/// A condition by its type.
pub(super) fn find<'a>(conditions: &'a [Condition], kind: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_is_what_the_others_come_to_and_keeps_the_time_of_its_own_transition() {
        let yes = || Verdict::yes("Done", "all is done".to_owned());
        let no = |reason: &str| Verdict::no(reason, "it is not".to_owned());
        let of = |verdicts: [Verdict; 3], before: &[Condition], second| {
            let [first, second_one, last] = verdicts;
            let now = Timestamp::from_second(second).expect("a time");
            let all = conditions([("A", first), ("B", second_one), ("C", last)], 7, before, now);
            assert!(all.iter().all(|condition| condition.observed_generation == Some(7)), "{all:?}");
            all
        };
        let ready = |all: &[Condition]| {
            let ready = all.last().expect("four of them");
            (ready.type_.clone(), ready.status.clone(), ready.reason.clone(), ready.last_transition_time.0.as_second())
        };
        let said = |status: &str, reason: &str, at| (READY.to_owned(), status.to_owned(), reason.to_owned(), at);
        let done = of([yes(), yes(), Verdict::yes("Last", String::new())], &[], 1);
        assert_eq!(ready(&done), said("True", "Last", 1));
        let refused = of([no("Bad"), Verdict::pending(String::new()), no("Bad")], &done, 2);
        assert_eq!(ready(&refused), said("False", "Bad", 2));
        let behind = of([yes(), Verdict::pending(String::new()), no("Down")], &refused, 3);
        assert_eq!(ready(&behind), said("False", "Down", 2), "what is False is worth more than what is not known");
        let waits = of([yes(), Verdict::pending(String::new()), Verdict::unknown("Silent", String::new())], &behind, 4);
        assert_eq!(ready(&waits), said("Unknown", "Pending", 4));
    }
}
