//! What all connections share: who enters namespaces, who serves, what is left of descriptors and pipes, and which namespaces are there.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, PoisonError, RwLock};

use tokio_util::sync::CancellationToken;

use super::chains::Chains;
use super::exits::{Exits, Way};
use super::limits::Descriptors;
use super::opener::Opener;
use super::pipe::Pipes;
use super::port::{OpenConnection, Port};
use super::scope::Scope;
use super::workers::Workers;
use crate::effects::enter::NamespaceId;
use crate::model::proxy::{Dial, Endpoint, Namespace, Proxy};

/// The namespaces that manifests name and that are there.
#[derive(Default)]
pub struct Scopes(RwLock<BTreeMap<Namespace, Arc<Scope>>>);

impl Scopes {
    pub fn get(&self, namespace: &Namespace) -> Option<Arc<Scope>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(namespace).cloned()
    }

    /// Those that a socket of ours is in.
    pub fn in_use(&self) -> Vec<Namespace> {
        let scopes = self.0.read().unwrap_or_else(PoisonError::into_inner);
        scopes.iter().filter(|(_, scope)| Arc::strong_count(scope) > 1).map(|(namespace, _)| namespace.clone()).collect()
    }

    /// The other names of a namespace, of which `scope` is one life under this name. `home`: the host's own.
    pub fn other_names(&self, namespace: &Namespace, scope: &Scope, home: NamespaceId) -> Vec<Namespace> {
        let scopes = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let id = |scope: &Scope| scope.id.unwrap_or(home);
        let same = scopes.iter().filter(|(name, other)| *name != namespace && id(other) == id(scope));
        same.map(|(name, _)| name.clone()).collect()
    }

    /// Takes what is there now. Whatever is in a namespace that is not is told to end.
    pub fn set(&self, now: &BTreeMap<Namespace, Option<NamespaceId>>) {
        let mut scopes = self.0.write().unwrap_or_else(PoisonError::into_inner);
        scopes.retain(|namespace, scope| {
            let same = now.get(namespace) == Some(&scope.id);
            if !same {
                scope.gone.cancel();
            }
            same
        });
        for (namespace, id) in now {
            scopes.entry(namespace.clone()).or_insert_with(|| Arc::new(Scope { id: *id, gone: CancellationToken::new() }));
        }
    }
}

/// All of it.
pub struct Context {
    pub opener: Opener,
    /// The namespace that the process runs in.
    pub home: NamespaceId,
    pub workers: Workers,
    pub scopes: Scopes,
    pub descriptors: Descriptors,
    pub pipes: Pipes,
    pub exits: Exits,
    pub chains: Chains,
}

impl Context {
    /// A place for a new connection that needs so many descriptors; `None` without an exit of its binding, or at a bound: both are counted.
    pub fn admit(&self, port: &Arc<Port>, proxy: &Proxy, descriptors: usize) -> Option<OpenConnection> {
        if let Some(asked) = proxy.dial.asked(&port.endpoint)
            && self.exits.refusal(&asked).is_some()
        {
            port.without_exit();
            return None;
        }
        port.admit(proxy.limits.open, &self.descriptors, descriptors)
    }

    /// A socket to dial with, made by `make` in the namespace that is dialled from, and that namespace.
    ///
    /// # Errors
    /// When the namespace is not there, its binding has no exit, or the socket cannot be made or bound to its source.
    pub async fn dial<T: Send + 'static>(
        &self,
        dial: &Dial,
        called: &Endpoint,
        make: impl FnOnce(&Dial) -> io::Result<T> + Send + 'static,
    ) -> io::Result<(T, Arc<Scope>)> {
        let namespace = dial.from(&called.namespace);
        let gone = || io::Error::new(io::ErrorKind::NotFound, format!("there is no network namespace {namespace}"));
        let scope = self.scopes.get(namespace).ok_or_else(gone)?;
        let Way { source, scope } = match dial.asked(called) {
            Some(asked) => self.exits.leave(&asked, &scope).map_err(io::Error::other)?,
            None => Way { source: dial.source, scope },
        };
        let dial = Dial { source, ..dial.clone() };
        let socket = match (namespace.file(), scope.id) {
            (Some(path), Some(id)) => self.opener.enter(path.to_owned(), id, move || make(&dial)).await?,
            _ => make(&dial)?,
        };
        Ok((socket, scope))
    }
}
