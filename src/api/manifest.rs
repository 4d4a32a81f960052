//! Manifest files to what they say. Anything can be in a file; what is wrong is reported by name and the rest goes on.
//!
//! A document that says who is meant becomes a binding whatever else is wrong with it, so that its workloads are held and not masqueraded.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value};

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
use crate::model::field_error::{FieldError, ManifestError};
use crate::model::manifests::{ManagedNetwork, Manifests};
use crate::model::pool::Pool;
use crate::model::proxy::Proxy;

pub const API_VERSION: &str = "egressd.dev/v1alpha1";
const BINDING: &str = "EgressBinding";
/// Errors that one file reports; the rest is counted.
const MAX_FILE_ERRORS: usize = 100;

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
    Binding(Arc<Binding>),
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
            BINDING => binding(head).map(|binding| Said::Binding(Arc::new(binding))),
            pool::KIND => egress_pool(head).map(|pool| Said::Pool(pool.cloud().map(Arc::new))),
            proxy::KIND => egress_proxy(head).map(|proxy| Said::Proxy(Arc::new(proxy))),
            _ => network(head).map(Said::Network),
        };
        Ok(Self { object, said })
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

/// What all files say, in the order of their names: of two documents of one name the later is refused.
pub fn assemble<'a>(files: impl IntoIterator<Item = File<'a>>) -> Manifests {
    let mut all = Assembly::default();
    for file in files {
        let before = all.manifests.errors.len();
        for (number, fault) in &file.unread.unwrap_or(file.content).faults {
            let mut error = fault.clone();
            if file.unread.is_some() {
                error.message.push_str(" (what the file said before stays in force)");
            }
            all.refuse(place(file.name, *number), error);
        }
        let many = file.content.documents.len() > 1;
        for (number, document) in &file.content.documents {
            all.document(place(file.name, many.then_some(*number)), document);
        }
        let more = all.manifests.errors.len().saturating_sub(before + MAX_FILE_ERRORS);
        if more > 0 {
            all.manifests.errors.truncate(before + MAX_FILE_ERRORS);
            let message = format!("has {more} more errors; cure those that are listed first");
            all.refuse(place(file.name, None), FieldError { field: "file".to_owned(), message });
        }
    }
    all.manifests
}

/// Reads and assembles files that are at hand: name and bytes of each.
pub fn parse<'a>(files: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Manifests {
    let read: Vec<_> = files.into_iter().map(|(name, bytes)| (name, Content::read(bytes))).collect();
    assemble(read.iter().map(|(name, content)| File { name, content, unread: None }))
}

/// `crawler.yaml`, `crawler.yaml#2`. A file's name is a user's text as well.
fn place(file: &str, number: Option<usize>) -> String {
    let file = values::printable(file, 255);
    match number {
        Some(number) => format!("{file}#{number}"),
        None => file,
    }
}

#[derive(Default)]
struct Assembly {
    manifests: Manifests,
    /// Where each object was first written.
    seen: BTreeMap<String, String>,
}

impl Assembly {
    fn document(&mut self, place: String, document: &Result<Document, FieldError>) {
        let Document { object, said } = match document {
            Ok(document) => document,
            Err(error) => return self.refuse(place, error.clone()),
        };
        if let Some(first) = self.seen.get(object) {
            let message = format!("the name is taken by the document in {first}, so the one in {place} is not used; rename it");
            return self.refuse(object.clone(), FieldError { field: "metadata.name".to_owned(), message });
        }
        self.seen.insert(object.clone(), place);
        match said {
            Ok(Said::Binding(binding)) => self.manifests.bindings.push(Arc::clone(binding)),
            Ok(Said::Network(network)) => self.manifests.networks.push(network.clone()),
            Ok(Said::Pool(pool)) => self.manifests.pools.extend(pool.clone()),
            Ok(Said::Proxy(proxy)) => self.manifests.proxies.push(Arc::clone(proxy)),
            Err(errors) => errors.iter().for_each(|error| self.refuse(object.clone(), error.clone())),
        }
    }

    fn refuse(&mut self, object: String, error: FieldError) {
        self.manifests.errors.push(ManifestError { object, error });
    }
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
            let cure = match given.as_str().and_then(|kind| nearest(kind, kinds)) {
                Some(kind) => format!("did you mean `{kind}`?"),
                None => format!("write one of {}, and keep other manifests out of this folder", schema::listed(kinds.into_iter())),
            };
            refused("kind", format!("{} is not read here; {cure}", text_of(given)))
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
            faults.push("apiVersion", || format!("{} is not read here; write `{API_VERSION}`", text_of(version)));
        }
        foreign(self.top, &TOP, "document", "indent it below `spec:`", faults);
        if let Some(metadata) = self.top.get("metadata").and_then(Value::as_object) {
            foreign(metadata, &METADATA, "metadata", "take it out", faults);
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
    let pool = spec::egress_pool(&head.name, 0, &spec);
    if pool.errors.is_empty() { Ok(pool) } else { Err(pool.errors) }
}

/// `Err` with all that is wrong: a proxy is served as it is written, or not at all.
fn egress_proxy(mut head: Head<'_>) -> Result<Proxy, Vec<FieldError>> {
    let mut faults = Faults::default();
    let readable = head.check(&schema::PROXY, &mut faults);
    let spec = (readable && faults.is_empty()).then(|| serde_json::from_value::<EgressProxySpec>(head.spec).ok()).flatten();
    match spec {
        Some(spec) => proxy::proxy(head.name, &spec),
        None => Err(faults.finish()),
    }
}

#[cfg(test)]
mod tests;
