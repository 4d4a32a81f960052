//! Which sources answer: for status, for the metric, and for whether the agent is ready.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use k8s_openapi::jiff::Timestamp;

/// How long a source may be away before the agent is not ready any more: a restart of Docker takes less.
const PATIENCE: Duration = Duration::from_secs(30);

/// A source that may be away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Name {
    /// In metrics.
    label: &'static str,
    /// In sentences.
    called: &'static str,
    /// What its absence means.
    meanwhile: &'static str,
    /// Where to look.
    cure: &'static str,
}

const KEPT: &str = "known containers keep their exits, new ones get none";

pub(super) const DOCKER: Name =
    Name { label: "docker", called: "docker", meanwhile: KEPT, cure: "see --docker-socket, and --no-docker where there is none" };
pub(super) const CONTAINERD: Name = Name { label: "containerd", called: "containerd", meanwhile: KEPT, cure: "see --containerd-socket" };
pub(super) const KUBERNETES: Name = Name {
    label: "kubernetes",
    called: "the API server",
    meanwhile: "the last known objects stay in force, and changes take effect once it answers again",
    cure: "check that this node can reach it",
};

/// The sources, and how they are.
#[derive(Default)]
pub(super) struct Sources(BTreeMap<Name, Source>);

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
    pub fn expect(&mut self, name: Name) {
        self.0.insert(name, Source::default());
    }

    /// It has told all that it knows.
    pub fn told(&mut self, name: Name) {
        self.0.entry(name).or_default().told = true;
    }

    /// It answers.
    pub fn found(&mut self, name: Name) {
        self.0.entry(name).or_default().away = None;
    }

    /// It is away, or away for another reason.
    pub fn lost(&mut self, name: Name, why: String) {
        let source = self.0.entry(name).or_default();
        match &mut source.away {
            Some(away) => away.why = why,
            None => source.away = Some(Away { since: Instant::now(), at: Timestamp::now(), why }),
        }
    }

    /// Each source, and whether it answers.
    pub fn up(&self) -> impl Iterator<Item = (&'static str, bool)> + '_ {
        self.0.iter().map(|(name, source)| (name.label, source.told && source.away.is_none()))
    }

    /// Whether what is known of all of them is recent.
    pub fn are_fresh(&self) -> bool {
        self.0.values().all(|source| source.away.as_ref().is_none_or(|away| away.since.elapsed() < PATIENCE))
    }

    /// One line for each source that is away, or has not told all yet, but for one.
    pub fn problems(&self, but: Option<Name>) -> impl Iterator<Item = String> + '_ {
        self.0.iter().filter(move |(name, _)| Some(**name) != but).filter_map(|(name, Source { told, away })| {
            let Name { called, meanwhile, cure, .. } = name;
            match away {
                Some(Away { at, why, .. }) if *told => {
                    Some(format!("{called} has been unreachable since {at:.0}: {why}; {meanwhile} ({cure})"))
                }
                Some(Away { at, why, .. }) => Some(format!(
                    "{called} has not sent its first full list (trying since {at:.0}: {why}); until then nothing is removed ({cure})"
                )),
                None if !told => Some(format!("{called} has not sent its first full list yet; until then nothing is removed ({cure})")),
                None => None,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(sources: &Sources) -> Vec<String> {
        sources.problems(None).collect()
    }

    #[test]
    fn a_source_that_was_lost_says_since_when_and_why_until_it_is_back() {
        let mut sources = Sources::default();
        sources.expect(DOCKER);
        assert!(said(&sources)[0].contains("docker has not sent its first full list yet; until then nothing"), "{:?}", said(&sources));
        sources.lost(DOCKER, "closed".to_owned());
        assert!(said(&sources)[0].contains("docker has not sent its first full list (trying since 20"), "{:?}", said(&sources));
        sources.found(DOCKER);
        assert_eq!((said(&sources).len(), sources.up().collect::<Vec<_>>()), (1, vec![("docker", false)]), "it answers, and that is all");
        sources.told(DOCKER);
        assert_eq!((said(&sources), sources.up().collect::<Vec<_>>()), (vec![], vec![("docker", true)]));
        sources.lost(DOCKER, "closed".to_owned());
        let first = said(&sources);
        assert!(first[0].starts_with("docker has been unreachable since 20") && first[0].contains("closed"), "{first:?}");
        sources.lost(DOCKER, "refused".to_owned());
        assert_eq!(said(&sources)[0], first[0].replace("closed", "refused"), "it is away since the same moment");
        assert_eq!(sources.up().collect::<Vec<_>>(), [("docker", false)]);
        assert_eq!(sources.problems(Some(DOCKER)).count(), 0, "whoever cannot be told of it is not");
        sources.found(DOCKER);
        assert!(said(&sources).is_empty());
    }

    #[test]
    fn a_short_absence_leaves_the_agent_ready_and_a_long_one_does_not() {
        let mut sources = Sources::default();
        sources.lost(CONTAINERD, "closed".to_owned());
        assert!(sources.are_fresh());
        let away = sources.0.get_mut(&CONTAINERD).and_then(|source| source.away.as_mut()).unwrap();
        away.since = away.since.checked_sub(PATIENCE).unwrap();
        assert!(!sources.are_fresh());
    }
}
