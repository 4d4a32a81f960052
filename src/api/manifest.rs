//! Manifest files to what they say. Anything can be in a file; what is wrong is reported by name and the rest goes on.
//!
//! A document that says who is meant becomes a binding whatever else is wrong with it, so that its workloads are held and not masqueraded.

mod assembly;

use std::sync::Arc;

use serde_json::{Map, Value};

pub use assembly::{LastRight, assemble};

use super::binding::EgressBindingSpec;
pub use super::document::MAX_FILE;
use super::document::{Documents, text_of};
use super::nearest::nearest;
use super::network::{self, EgressNetworkSpec};
use super::pool::{self, EgressPoolSpec};
use super::proxy::{self, EgressProxySpec};
use super::values::{self, Faults};
use super::{schema, spec};
use crate::model::binding::{Binding, BindingName, Source};
use crate::model::cloud::CloudPool;
use crate::model::field_error::FieldError;
use crate::model::manifests::{ManagedNetwork, Manifests};
use crate::model::pool::Pool;
use crate::model::proxy::Proxy;

pub const API_VERSION: &str = "egressd.dev/v1alpha1";
const BINDING: &str = "EgressBinding";

/// What a file says, whatever others say.
#[derive(Debug, Default)]
pub struct Content {
    /// Each document with its number in the file, from 1.
    documents: Vec<(usize, Result<Document, FieldError>)>,
    /// What could not be read. `None` is the file as a whole.
    faults: Vec<(Option<usize>, FieldError)>,
}

impl Content {
    /// Reads a file.
    pub fn read(bytes: &[u8]) -> Self {
        let Documents { good, faults } = Documents::read(bytes);
        Self { documents: good.iter().map(|(number, document)| (*number, Document::read(document))).collect(), faults }
    }

    /// A file that could not be opened or read: `message` says why.
    pub fn unread(message: String) -> Self {
        let fault = FieldError { field: "file".to_owned(), message };
        Self { documents: Vec::new(), faults: vec![(None, fault)] }
    }

    /// Whether all of the file could be read as documents (which may still be wrong in themselves).
    pub fn is_whole(&self) -> bool {
        self.faults.is_empty()
    }
}

/// A document that says its kind and name.
#[derive(Debug)]
struct Document {
    /// `EgressBinding shop/crawler`
    object: String,
    said: Result<Said, Vec<FieldError>>,
}

#[derive(Debug)]
enum Said {
    /// With its words, as JSON, when nothing is wrong with it.
    Binding {
        binding: Arc<Binding>,
        text: Option<Arc<str>>,
    },
    Network(ManagedNetwork),
    /// `None`: it asks nothing of a cloud, and files lend no addresses.
    Pool(Option<Arc<CloudPool>>),
    Proxy(Arc<Proxy>),
}

impl Document {
    fn read(document: &Value) -> Result<Self, FieldError> {
        let head = Head::read(document)?;
        let object = format!("{} {}", head.kind, head.name);
        let said = match head.kind {
            BINDING => binding(head).map(|binding| {
                let text = binding.errors.is_empty().then(|| document.to_string().into());
                Said::Binding { binding: Arc::new(binding), text }
            }),
            pool::KIND => egress_pool(head).map(|pool| Said::Pool(pool.cloud().map(Arc::new))),
            proxy::KIND => egress_proxy(head).map(|proxy| Said::Proxy(Arc::new(proxy))),
            _ => network(head).map(Said::Network),
        };
        Ok(Self { object, said })
    }

    /// A binding with which nothing is wrong, and its words.
    fn right(&self) -> Option<(&Arc<Binding>, &Arc<str>)> {
        match &self.said {
            Ok(Said::Binding { binding, text: Some(text) }) => Some((binding, text)),
            _ => None,
        }
    }
}

/// One file of the folder.
#[derive(Clone, Copy, Debug)]
pub struct File<'a> {
    /// Its name within the folder.
    pub name: &'a str,
    pub content: &'a Content,
    /// A newer content that could not be read whole, so that `content` stays in force.
    pub unread: Option<&'a Content>,
}

/// Reads and assembles files that are at hand: name and bytes of each.
pub fn parse<'a>(files: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Manifests {
    let read: Vec<_> = files.into_iter().map(|(name, bytes)| (name, Content::read(bytes))).collect();
    assemble(read.iter().map(|(name, content)| File { name, content, unread: None }), &LastRight::default()).0
}

/// What every document of ours begins with.
struct Head<'a> {
    kind: &'static str,
    /// `namespace/name`; of a network and a pool `name`.
    name: String,
    spec: Value,
    top: &'a Map<String, Value>,
}

impl<'a> Head<'a> {
    fn read(document: &'a Value) -> Result<Self, FieldError> {
        let refused = |field: &str, message: String| FieldError { field: field.to_owned(), message };
        let Some(top) = document.as_object() else {
            return Err(refused("document", "is not a manifest; begin it with `apiVersion`, `kind`, `metadata` and `spec`".to_owned()));
        };
        let given = top.get("kind").unwrap_or(&Value::Null);
        let kinds = [BINDING, network::KIND, pool::KIND, proxy::KIND];
        let kind = kinds.into_iter().find(|kind| given == kind).ok_or_else(|| {
            let all = schema::listed(kinds.into_iter());
            let message = match (given, given.as_str().and_then(|kind| nearest(kind, kinds))) {
                (Value::Null, _) => format!("is missing; write one of {all}"),
                (_, Some(kind)) => format!("{} is not read here; did you mean `{kind}`?", text_of(given)),
                (_, None) => {
                    format!("{} is not read here; write one of {all}, and keep other manifests out of this folder", text_of(given))
                }
            };
            refused("kind", message)
        })?;
        let metadata = top.get("metadata").unwrap_or(&Value::Null);
        let text = |field: &str| match &metadata[field] {
            Value::Null => Ok(None),
            Value::String(text) => Ok(Some(text.as_str())),
            other => Err(refused(&format!("metadata.{field}"), format!("{} is not text; put it into quotes", text_of(other)))),
        };
        let bad = |field: &str, fault: values::Fault, example: &str| refused(field, fault.message(example));
        let name = text("name")?.ok_or_else(|| refused("metadata.name", "is missing; write for instance `name: crawler`".to_owned()))?;
        let name = if kind == network::KIND {
            values::docker_name(name).map_err(|f| bad("metadata.name", f, "eip_bridge"))?
        } else {
            let name = values::object_name(name, 253).map_err(|f| bad("metadata.name", f, "crawler"))?;
            let namespace = text("namespace")?.unwrap_or("default");
            let namespace = values::object_name(namespace, 63).map_err(|f| bad("metadata.namespace", f, "shop"))?;
            // A pool is of no namespace.
            if kind == pool::KIND { name } else { format!("{namespace}/{name}") }
        };
        let spec = top.get("spec").cloned().unwrap_or_else(|| Value::Object(Map::new()));
        Ok(Self { kind, name, spec, top })
    }

    /// Checks what surrounds the `spec`, and the `spec` itself against its schema.
    fn check(&mut self, spec: &Value, faults: &mut Faults) -> bool {
        let version = self.top.get("apiVersion").unwrap_or(&Value::Null);
        if version != API_VERSION {
            faults.push("apiVersion", || match version {
                Value::Null => format!("is missing; write `{API_VERSION}`"),
                _ => format!("{} is not read here; write `{API_VERSION}`", text_of(version)),
            });
        }
        foreign(self.top, &TOP, "document", "indent it below `spec:`", faults);
        if let Some(metadata) = self.top.get("metadata").and_then(Value::as_object) {
            foreign(metadata, &METADATA, "metadata", "remove it", faults);
        }
        schema::check(spec, &mut self.spec, "spec", faults)
    }
}

/// A status comes with what `kubectl get -o yaml` printed, and says nothing here; so does most of the metadata.
const TOP: [&str; 5] = ["apiVersion", "kind", "metadata", "spec", "status"];
const METADATA: [&str; 15] = [
    "name",
    "namespace",
    "labels",
    "annotations",
    "uid",
    "generation",
    "resourceVersion",
    "creationTimestamp",
    "managedFields",
    "finalizers",
    "ownerReferences",
    "generateName",
    "selfLink",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
];

fn foreign(map: &Map<String, Value>, known: &[&str], field: &str, cure: &str, faults: &mut Faults) {
    for key in map.keys().filter(|key| !known.contains(&key.as_str())) {
        faults.push(field, || match nearest(key, known.iter().copied()) {
            Some(name) => format!("unknown field {}; did you mean `{name}`?", values::shown(key)),
            None => format!("unknown field {}; {cure}", values::shown(key)),
        });
    }
}

/// `Err` when nobody can be held by it.
fn binding(mut head: Head<'_>) -> Result<Binding, Vec<FieldError>> {
    plain_addresses(&mut head.spec);
    let narrowed = selector_fields(&head.spec);
    let mut faults = Faults::default();
    let readable = head.check(&schema::BINDING, &mut faults);
    let name = BindingName { source: Source::File, name: head.name.clone() };
    let spec = readable.then(|| serde_json::from_value::<EgressBindingSpec>(head.spec.clone()).ok()).flatten();
    let Some(spec) = spec else {
        return Err(faults.finish());
    };
    // A file has no age: it is written again by an editor, and its clock may step.
    let said = spec::binding(name, &spec, 0);
    if faults.is_empty() {
        return said;
    }
    // List indices have moved, and what was taken out may be missed: only the schema's errors are true to the document.
    let errors = faults.finish();
    match said {
        Ok(binding) if narrowed == selector_fields(&head.spec) || names_stand(&spec) => Ok(Binding { errors, ..binding }),
        _ => Err(errors),
    }
}

/// What a container selector demands. When a demand is unreadable, what is left of the selector could bind too many.
fn selector_fields(spec: &Value) -> Option<Value> {
    spec.get("containerSelector").cloned()
}

/// Names are clear in themselves: with them, no more than those containers can be held.
fn names_stand(spec: &EgressBindingSpec) -> bool {
    spec.container_selector.as_ref().is_some_and(|selector| !selector.names.is_empty())
}

/// In files an address may be a plain text.
fn plain_addresses(spec: &mut Value) {
    for entry in spec.get_mut("addresses").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Value::String(cidr) = entry {
            *entry = Value::Object(Map::from_iter([("cidr".to_owned(), Value::String(std::mem::take(cidr)))]));
        }
    }
}

fn network(mut head: Head<'_>) -> Result<ManagedNetwork, Vec<FieldError>> {
    let mut faults = Faults::default();
    let readable = head.check(&schema::NETWORK, &mut faults);
    let spec = (readable && faults.is_empty()).then(|| serde_json::from_value::<EgressNetworkSpec>(head.spec).ok()).flatten();
    let Some(spec) = spec else {
        return Err(faults.finish());
    };
    let mut good = ManagedNetwork { name: head.name, subnets: Vec::new(), gateways: Vec::new(), bridge: None, guard: spec.guard };
    if spec.subnets.is_empty() {
        faults.push("spec.subnets", || "is empty; write for instance `[172.19.0.0/16]`".to_owned());
    }
    for (i, text) in spec.subnets.iter().enumerate() {
        match values::cidr(text).and_then(|net| values::subnet(net, &good.subnets)) {
            Ok(net) => good.subnets.push(net),
            Err(fault) => faults.push(&format!("spec.subnets[{i}]"), || fault.message("172.19.0.0/16")),
        }
    }
    for (i, text) in spec.gateways.iter().enumerate() {
        match values::host_address(text).and_then(|gateway| values::bridge_address(gateway, &good.subnets, &good.gateways)) {
            Ok(gateway) => good.gateways.push(gateway),
            Err(fault) => faults.push(&format!("spec.gateways[{i}]"), || fault.message("172.19.0.1")),
        }
    }
    match spec.bridge_name.as_deref().map(values::interface) {
        Some(Err(fault)) => faults.push("spec.bridgeName", || fault.message("eip_bridge")),
        Some(Ok(name)) => good.bridge = Some(name),
        None => {}
    }
    if faults.is_empty() { Ok(good) } else { Err(faults.finish()) }
}

/// `Err` with all that is wrong: of a pool that is half understood nothing is asked of a cloud.
fn egress_pool(mut head: Head<'_>) -> Result<Pool, Vec<FieldError>> {
    let mut faults = Faults::default();
    let readable = head.check(&schema::POOL, &mut faults);
    let spec = (readable && faults.is_empty()).then(|| serde_json::from_value::<EgressPoolSpec>(head.spec).ok()).flatten();
    let Some(spec) = spec else { return Err(faults.finish()) };
    let mut pool = spec::egress_pool(&head.name, 0, &spec);
    if pool.is_placed() {
        let message = "is for pools of a cluster; leave it out here, and write it at the exits of the bindings".to_owned();
        pool.errors.push(FieldError { field: "spec.assignment".to_owned(), message });
    }
    if pool.errors.is_empty() { Ok(pool) } else { Err(pool.errors) }
}

/// `Err` with all that is wrong: a proxy is served as it is written, or not at all.
fn egress_proxy(mut head: Head<'_>) -> Result<Proxy, Vec<FieldError>> {
    let mut faults = Faults::default();
    let readable = head.check(&schema::PROXY, &mut faults);
    let spec = (readable && faults.is_empty()).then(|| serde_json::from_value::<EgressProxySpec>(head.spec).ok()).flatten();
    match spec {
        Some(spec) => proxy::proxy(Source::File, head.name, &spec),
        None => Err(faults.finish()),
    }
}

#[cfg(test)]
mod tests;
