//! Which sources answer: for status, for the metric, and for whether the agent is ready.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use k8s_openapi::jiff::Timestamp;

/// How long a source may be away before the agent is not ready any more: a restart of Docker takes less.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) const DOCKER: &str = "docker";
pub(super) const CONTAINERD: &str = "containerd";

/// The sources behind sockets, by name.
#[derive(Default)]
pub(super) struct Sources(BTreeMap<&'static str, Source>);

#[derive(Default)]
struct Source {
    /// It has told all that it knows at least once.
    told: bool,
    away: Option<Away>,
}

struct Away {
    since: Instant,
    /// The same moment, for people.
    at: Timestamp,
    why: String,
}

impl Sources {
    pub fn expect(&mut self, name: &'static str) {
        self.0.insert(name, Source::default());
    }

    /// It answers.
    pub fn found(&mut self, name: &'static str) {
        self.0.insert(name, Source { told: true, away: None });
    }

    /// It is away, or away for another reason.
    pub fn lost(&mut self, name: &'static str, why: String) {
        let source = self.0.entry(name).or_default();
        match &mut source.away {
            Some(away) => away.why = why,
            None => source.away = Some(Away { since: Instant::now(), at: Timestamp::now(), why }),
        }
    }

    /// Each source, and whether it answers.
    pub fn up(&self) -> impl Iterator<Item = (&'static str, bool)> + '_ {
        self.0.iter().map(|(name, source)| (*name, source.told && source.away.is_none()))
    }

    /// Whether what is known of all of them is recent.
    pub fn are_fresh(&self) -> bool {
        self.0.values().all(|source| source.away.as_ref().is_none_or(|away| away.since.elapsed() < PATIENCE))
    }

    /// One line for each source that is away, or has not answered yet.
    pub fn problems(&self) -> impl Iterator<Item = String> + '_ {
        self.0.iter().filter_map(|(name, Source { told, away })| {
            let flag = format!("--{name}-socket");
            match away {
                Some(Away { at, why, .. }) if *told => {
                    Some(format!("{name} is away since {at:.0}: {why}; what is known of it stays, new containers get no exit (see {flag})"))
                }
                Some(Away { at, why, .. }) => Some(format!(
                    "{name} has not answered yet, tried since {at:.0}: {why}; nothing is taken away until it has (see {flag})"
                )),
                None if !told => Some(format!("{name} has not answered yet: nothing is taken away until it has (see {flag})")),
                None => None,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(sources: &Sources) -> Vec<String> {
        sources.problems().collect()
    }

    #[test]
    fn a_source_that_was_lost_says_since_when_and_why_until_it_is_back() {
        let mut sources = Sources::default();
        sources.expect(DOCKER);
        assert!(said(&sources)[0].contains("docker has not answered yet"), "{:?}", said(&sources));
        sources.found(DOCKER);
        assert_eq!((said(&sources), sources.up().collect::<Vec<_>>()), (vec![], vec![(DOCKER, true)]));
        sources.lost(DOCKER, "closed".to_owned());
        let first = said(&sources);
        assert!(first[0].starts_with("docker is away since 20") && first[0].contains("closed"), "{first:?}");
        sources.lost(DOCKER, "refused".to_owned());
        assert_eq!(said(&sources)[0], first[0].replace("closed", "refused"), "it is away since the same moment");
        assert_eq!(sources.up().collect::<Vec<_>>(), [(DOCKER, false)]);
        sources.found(DOCKER);
        assert!(said(&sources).is_empty());
    }

    #[test]
    fn a_short_absence_leaves_the_agent_ready_and_a_long_one_does_not() {
        let mut sources = Sources::default();
        sources.found(CONTAINERD);
        sources.lost(CONTAINERD, "closed".to_owned());
        assert!(sources.are_fresh());
        let away = sources.0.get_mut(CONTAINERD).and_then(|source| source.away.as_mut()).unwrap();
        away.since = away.since.checked_sub(PATIENCE).unwrap();
        assert!(!sources.are_fresh());
    }
}
