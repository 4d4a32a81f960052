//! What keeps a kind of object from being read, in words that end with the cure.

use std::collections::BTreeMap;

use kube::core::Status;

use crate::facts::cause::root;
use crate::model::cluster::ClusterChange;

/// Why a request failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// The API server does not know the resource.
    Unknown,
    /// We may not do that (`list`, `watch`).
    Forbidden { verb: &'static str },
    /// It does not know who we are.
    Unauthorized { message: String },
    /// It does not answer, or is not able to.
    Away { cause: String },
    /// What it says is no such object at all.
    Unreadable { message: String },
    /// Anything else that it says.
    Refused { verb: &'static str, message: String },
}

impl Problem {
    /// What a failed request comes to.
    pub fn of(verb: &'static str, error: &kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self::of_status(verb, status),
            kube::Error::Auth(error) => Self::Unauthorized { message: root(error) },
            kube::Error::SerdeError(error) => Self::Unreadable { message: error.to_string() },
            error => Self::Away { cause: root(error) },
        }
    }

    /// What an answer that is no success comes to.
    pub fn of_status(verb: &'static str, status: &Status) -> Self {
        let message = || if status.message.is_empty() { status.reason.clone() } else { status.message.clone() };
        match status.code {
            401 => Self::Unauthorized { message: message() },
            403 => Self::Forbidden { verb },
            404 => Self::Unknown,
            429 | 500..=599 => Self::Away { cause: message() },
            _ => Self::Refused { verb, message: message() },
        }
    }

    /// What it is about, and a sentence.
    pub fn told(&self, resource: &str) -> (About, String) {
        let sentence = match self {
            Self::Unknown if !resource.ends_with(".egressd.dev") => {
                format!("the API server does not know {resource}; this egressd needs Kubernetes 1.31 or newer")
            }
            Self::Unknown => {
                format!("the API server does not know {resource}; apply the CustomResourceDefinitions: egressd crd | kubectl apply -f -")
            }
            Self::Forbidden { verb } => {
                format!("not allowed to {verb} {resource}; give the agent's ServiceAccount `list` and `watch` on {resource}")
            }
            Self::Unreadable { message } => {
                format!("failed to read {resource}: {message}; this version of egressd may not fit the API server's, look for another")
            }
            Self::Refused { verb, message } => format!("failed to {verb} {resource}: the API server answered: {message}"),
            Self::Unauthorized { message } => {
                return (About::Server, format!("the API server rejected our credentials ({message}); check the token or the kubeconfig"));
            }
            Self::Away { cause } => return (About::Server, cause.clone()),
        };
        (About::Resource, sentence)
    }
}

/// What a problem is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum About {
    /// The API server, whatever it is asked for.
    Server,
    Resource,
}

/// The troubles of all kinds. What is wrong with the API server itself is told once, and not for each kind.
#[derive(Debug, Default)]
pub struct Troubles {
    problems: BTreeMap<&'static str, Problem>,
}

impl Troubles {
    /// Takes in what is the matter with a resource now, and gives what is to be told.
    pub fn set(&mut self, resource: &'static str, problem: Option<Problem>) -> Vec<ClusterChange> {
        let before = self.told(resource);
        match problem {
            Some(problem) => drop(self.problems.insert(resource, problem)),
            None => drop(self.problems.remove(resource)),
        }
        let now = self.told(resource);
        let away = (before.0 != now.0).then(|| now.0.map_or(ClusterChange::Found, ClusterChange::Lost));
        let trouble = (before.1 != now.1).then(|| ClusterChange::Trouble { about: resource.to_owned(), problem: now.1 });
        away.into_iter().chain(trouble).collect()
    }

    /// Why the API server is away, and what is wrong with the resource alone.
    fn told(&self, resource: &str) -> (Option<String>, Option<String>) {
        let about = |wanted, (name, problem): (&&str, &Problem)| {
            let (about, sentence) = problem.told(name);
            (about == wanted).then_some(sentence)
        };
        // Of several the first stays, so that their words do not take turns.
        let away = self.problems.iter().find_map(|one| about(About::Server, one));
        (away, self.problems.get_key_value(resource).and_then(|one| about(About::Resource, one)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(code: u16, message: &str) -> Status {
        Status { code, message: message.to_owned(), ..Status::default() }
    }

    fn told(about: &str, contains: &str, changes: &[ClusterChange]) {
        let [ClusterChange::Trouble { about: found, problem: Some(problem) }] = changes else { panic!("{changes:?}") };
        assert_eq!(found, about);
        assert!(problem.contains(contains), "{problem}");
    }

    fn well(about: &str) -> ClusterChange {
        ClusterChange::Trouble { about: about.to_owned(), problem: None }
    }

    fn lost(why: &str) -> ClusterChange {
        ClusterChange::Lost(why.to_owned())
    }

    #[test]
    fn each_answer_becomes_a_sentence_with_the_cure() {
        for (code, cure) in [
            (403, "not allowed to watch egresspools.egressd.dev; give the agent's ServiceAccount `list` and `watch`"),
            (404, "egressd crd | kubectl apply -f -"),
            (422, "failed to watch egresspools.egressd.dev: the API server answered: so"),
        ] {
            let mut troubles = Troubles::default();
            let problem = Problem::of_status("watch", &status(code, "so"));
            told("egresspools.egressd.dev", cure, &troubles.set("egresspools.egressd.dev", Some(problem)));
            assert_eq!(troubles.set("egresspools.egressd.dev", None), [well("egresspools.egressd.dev")]);
        }
        for (code, why) in
            [(401, "the API server rejected our credentials (so); check the token or the kubeconfig"), (429, "so"), (503, "so")]
        {
            let mut troubles = Troubles::default();
            let problem = Problem::of_status("watch", &status(code, "so"));
            assert_eq!(troubles.set("egresspools.egressd.dev", Some(problem)), [lost(why)]);
            assert_eq!(troubles.set("egresspools.egressd.dev", None), [ClusterChange::Found]);
        }
    }

    #[test]
    fn what_is_not_egressds_own_is_not_to_be_had_by_its_definitions() {
        let (_, sentence) = Problem::Unknown.told("servicecidrs.networking.k8s.io");
        assert_eq!(sentence, "the API server does not know servicecidrs.networking.k8s.io; this egressd needs Kubernetes 1.31 or newer");
    }

    #[test]
    fn a_server_that_is_away_is_told_once_for_all_kinds_until_the_last_is_read_again() {
        let away = |cause: &str| Some(Problem::Away { cause: cause.to_owned() });
        let mut troubles = Troubles::default();
        assert_eq!(troubles.set("nodes", away("refused")), [lost("refused")]);
        assert_eq!(troubles.set("pods", away("timed out")), []);
        assert_eq!(troubles.set("pods", away("refused")), []);
        assert_eq!(troubles.set("nodes", None), []);
        assert_eq!(troubles.set("pods", None), [ClusterChange::Found]);
        assert_eq!(troubles.set("pods", None), []);
    }

    #[test]
    fn a_trouble_that_turns_into_another_is_told_as_what_it_is_now() {
        let mut troubles = Troubles::default();
        troubles.set("pods", Some(Problem::Away { cause: "refused".to_owned() }));
        let changes = troubles.set("pods", Some(Problem::Forbidden { verb: "list" }));
        assert_eq!(changes[..1], [ClusterChange::Found]);
        told("pods", "not allowed to list pods", &changes[1..]);
        let changes = troubles.set("pods", Some(Problem::Away { cause: "refused".to_owned() }));
        assert_eq!(changes, [lost("refused"), well("pods")]);
    }
}
