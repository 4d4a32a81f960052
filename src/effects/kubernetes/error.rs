//! What the API server refused, in a sentence with the cure.

use kube::core::Status;

use crate::facts::cause::root;
use crate::facts::kubernetes::request::{LIMIT, within};

/// Why a request came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("failed to {verb} {resource}: {}; its role needs the verb {verb} on {resource}", .status.message)]
    Forbidden { verb: &'static str, resource: String, status: Box<Status> },
    #[error(
        "failed to {verb} {resource}: the API server does not know it; apply the CustomResourceDefinitions (egressd crd | kubectl apply -f -)"
    )]
    Unknown { verb: &'static str, resource: String },
    #[error("failed to {verb} {resource}: {}", .status.message)]
    Refused { verb: &'static str, resource: String, status: Box<Status> },
    #[error("failed to {verb} {resource}: the API server rejected our credentials ({}); check the token or the kubeconfig", .status.message)]
    Unauthorized { verb: &'static str, resource: String, status: Box<Status> },
    /// What is said on the way to the last cause names only layers.
    #[error("failed to {verb} {resource}: {}", root(.source))]
    Request { verb: &'static str, resource: String, source: Box<kube::Error> },
}

impl Error {
    /// What `verb` on `resource` came to.
    pub fn of(verb: &'static str, resource: impl Into<String>, source: kube::Error) -> Self {
        let resource = resource.into();
        match source {
            // Who authorizes says that the user "cannot". No right would help against what admission refuses: a policy, a quota, a namespace
            // that ends. What would is in its message.
            kube::Error::Api(status) if status.code == 403 && status.message.contains("cannot") => {
                Self::Forbidden { verb, resource, status }
            }
            kube::Error::Api(status) if status.code == 403 => Self::Refused { verb, resource, status },
            kube::Error::Api(status) if status.code == 401 => Self::Unauthorized { verb, resource, status },
            // A missing object is named in the details; of a missing kind nothing is known.
            kube::Error::Api(status) if status.code == 404 && !names_an_object(&status) => Self::Unknown { verb, resource },
            other => Self::Request { verb, resource, source: Box::new(other) },
        }
    }

    /// The object is not there.
    pub fn is_gone(&self) -> bool {
        matches!(self, Self::Request { source, .. } if matches!(&**source, kube::Error::Api(status) if status.code == 404))
    }

    /// The object's namespace is being deleted: nothing new is let in.
    pub fn is_of_an_ending_namespace(&self) -> bool {
        let Self::Refused { status, .. } = self else { return false };
        status.details.iter().flat_map(|details| &details.causes).any(|cause| cause.reason == "NamespaceTerminating")
    }

    /// Somebody else was faster, or the object is another one by now.
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Request { source, .. } if matches!(&**source, kube::Error::Api(status) if status.code == 409))
    }
}

/// Asks the API server. Whatever it does, there is an answer within `LIMIT`.
pub async fn ask<T>(verb: &'static str, resource: impl Into<String>, request: impl Future<Output = kube::Result<T>>) -> Result<T, Error> {
    within(LIMIT, request).await.map_err(|source| Error::of(verb, resource, source))
}

fn names_an_object(status: &Status) -> bool {
    status.details.as_ref().is_some_and(|details| !details.name.is_empty())
}

#[cfg(test)]
mod tests {
    use kube::core::response::{StatusCause, StatusDetails};

    use super::*;

    fn refused(code: u16, message: &str, name: &str) -> kube::Error {
        let name = name.to_owned();
        let details = StatusDetails {
            name,
            group: String::new(),
            kind: String::new(),
            uid: String::new(),
            causes: Vec::new(),
            retry_after_seconds: 0,
        };
        let status = Status::failure(message, "").with_code(code).with_details(details);
        kube::Error::Api(status.boxed())
    }

    #[test]
    fn a_refusal_says_which_verb_on_which_resource_to_grant() {
        let error = Error::of("patch", "egressnodes.egressd.dev", refused(403, "n1 cannot patch", "n1"));
        let text = "failed to patch egressnodes.egressd.dev: n1 cannot patch; its role needs the verb patch on egressnodes.egressd.dev";
        assert_eq!(error.to_string(), text);
    }

    #[test]
    fn what_admission_refuses_no_role_would_help() {
        let ending = "events \"web.1\" is forbidden: unable to create new content in namespace shop because it is being terminated";
        for text in ["ValidatingAdmissionPolicy 'egressd-status' denied request: only the leader", "exceeded quota: few", ending] {
            let error = Error::of("create", "events.events.k8s.io", refused(403, text, "web.1"));
            assert_eq!(error.to_string(), format!("failed to create events.events.k8s.io: {text}"));
            assert!(!error.is_of_an_ending_namespace());
        }
        let kube::Error::Api(mut status) = refused(403, ending, "web.1") else { unreachable!("it was made so") };
        let cause =
            StatusCause { reason: "NamespaceTerminating".to_owned(), message: String::new(), field: "metadata.namespace".to_owned() };
        status.details.as_mut().expect("it was made so").causes.push(cause);
        assert!(Error::of("create", "events.events.k8s.io", kube::Error::Api(status)).is_of_an_ending_namespace());
    }

    #[test]
    fn a_token_that_is_refused_and_a_server_that_is_away_are_told() {
        let error = Error::of("get", "leases", refused(401, "Unauthorized", ""));
        assert!(error.to_string().ends_with("rejected our credentials (Unauthorized); check the token or the kubeconfig"), "{error}");
        let away = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        let error = Error::of("get", "leases", kube::Error::Service(Box::new(away)));
        assert_eq!(error.to_string(), "failed to get leases: connection refused");
    }

    #[test]
    fn a_missing_definition_is_told_from_a_missing_object() {
        let resource = "egressnodes.egressd.dev";
        assert!(matches!(
            Error::of("patch", resource, refused(404, "the server could not find the requested resource", "")),
            Error::Unknown { .. }
        ));
        assert!(Error::of("patch", resource, refused(404, "n1 not found", "n1")).is_gone());
    }
}
