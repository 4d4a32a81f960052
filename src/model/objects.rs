//! Objects of the API server that pools and bindings are decided from.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::binding::Binding;
use super::labels::Labels;

/// An `EgressBinding` of the API server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiBinding {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    /// `metadata.generation`.
    pub generation: i64,
    /// As written: `exits` is empty when it names a pool.
    pub binding: Arc<Binding>,
    /// `status.exits`: which addresses its pool lends it already.
    pub allocated: Vec<IpAddr>,
}

/// A namespace: only its labels matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Namespace {
    pub name: String,
    pub labels: Labels,
}

/// A node of the cluster, as an agent knows the one that it runs on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    pub name: String,
    pub uid: String,
    pub labels: Labels,
}

/// Objects of one kind, by key.
pub type Known<T> = BTreeMap<String, Arc<T>>;
