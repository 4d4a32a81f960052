//! The objects of a scripted API server, and what is usually answered about them.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::wire::Request;

/// Marks the bookmark behind the last object of a list that is streamed as a watch.
const LIST_ENDS: &str = "k8s.io/initial-events-end";

#[derive(Default)]
pub(super) struct Store {
    version: u64,
    /// By resource, and `namespace/name` or a name.
    objects: BTreeMap<(String, String), Value>,
    /// What happened: version, resource, and the event.
    log: Vec<(u64, String, Value)>,
}

/// What a refusal says.
pub(super) fn refusal(code: u16, request: &Request) -> Value {
    let reason = match code {
        404 => "NotFound",
        409 => "Conflict",
        _ => "Said",
    };
    json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": "as the test has it",
        "details": { "name": request.name, "kind": request.resource },
    })
}

fn key(namespace: &str, name: &str) -> String {
    if namespace.is_empty() { name.to_owned() } else { format!("{namespace}/{name}") }
}

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

impl Store {
    pub fn get(&self, resource: &str, key: &str) -> Option<&Value> {
        self.objects.get(&(resource.to_owned(), key.to_owned()))
    }

    pub fn put(&mut self, resource: &str, mut object: Value) -> Value {
        let key = key(text(&object, "/metadata/namespace"), text(&object, "/metadata/name"));
        let before = self.get(resource, &key).cloned();
        self.version += 1;
        let uid = before.as_ref().map_or_else(|| format!("uid-{}", self.version), |before| text(before, "/metadata/uid").to_owned());
        let metadata = &mut object["metadata"];
        metadata["resourceVersion"] = json!(self.version.to_string());
        metadata["uid"] = json!(uid);
        if metadata.get("creationTimestamp").is_none() {
            metadata["creationTimestamp"] = json!("2026-01-01T00:00:00Z");
        }
        if metadata.get("generation").is_none() {
            metadata["generation"] = json!(1);
        }
        let kind = if before.is_some() { "MODIFIED" } else { "ADDED" };
        self.log.push((self.version, resource.to_owned(), json!({ "type": kind, "object": object })));
        self.objects.insert((resource.to_owned(), key), object.clone());
        object
    }

    pub fn delete(&mut self, resource: &str, key: &str) {
        let Some(mut object) = self.objects.remove(&(resource.to_owned(), key.to_owned())) else { return };
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.log.push((self.version, resource.to_owned(), json!({ "type": "DELETED", "object": object })));
    }

    /// Code and body.
    pub fn answer(&mut self, request: &Request) -> (u16, Value) {
        if !request.is_of_one() {
            let items: Vec<&Value> = self.matching(request).collect();
            return (
                200,
                json!({ "kind": "List", "apiVersion": "v1", "metadata": { "resourceVersion": self.version.to_string() }, "items": items }),
            );
        }
        let name = if request.name.is_empty() { text(&request.body, "/metadata/name") } else { &request.name };
        let before = self.get(&request.resource, &key(&request.namespace, name)).cloned();
        match (request.method.as_str(), before) {
            ("GET", Some(object)) => (200, object),
            ("POST", Some(_)) => (409, refusal(409, request)),
            ("POST", None) => (201, self.put(&request.resource, self.named(request, name, request.body.clone()))),
            ("PUT" | "PATCH", Some(before)) if is_stale(&request.body, &before) => (409, refusal(409, request)),
            ("PUT", Some(_)) => (200, self.put(&request.resource, self.named(request, name, request.body.clone()))),
            ("PATCH", None) if request.sub.is_empty() => {
                (201, self.put(&request.resource, self.named(request, name, request.body.clone())))
            }
            ("PATCH", Some(before)) => {
                let mut after = before.clone();
                for (field, value) in request.body.as_object().into_iter().flatten().filter(|(field, _)| *field != "metadata") {
                    after[field] = value.clone();
                }
                if after == before { (200, before) } else { (200, self.put(&request.resource, after)) }
            }
            ("DELETE", Some(object)) => {
                self.delete(&request.resource, &key(&request.namespace, name));
                (200, object)
            }
            _ => (404, refusal(404, request)),
        }
    }

    fn named(&self, request: &Request, name: &str, mut object: Value) -> Value {
        object["metadata"]["name"] = json!(name);
        if !request.namespace.is_empty() {
            object["metadata"]["namespace"] = json!(request.namespace);
        }
        object
    }

    fn matching<'a>(&'a self, request: &'a Request) -> impl Iterator<Item = &'a Value> {
        let of = self.objects.iter().filter(|((resource, _), _)| *resource == request.resource);
        of.map(|(_, object)| object).filter(|object| is_meant(request, object))
    }

    /// A list as a watch begins with it, and the version that it is of.
    pub fn listed(&self, request: &Request) -> (Vec<Value>, u64) {
        let mut lines: Vec<Value> = self.matching(request).map(|object| json!({ "type": "ADDED", "object": object })).collect();
        let metadata = json!({ "resourceVersion": self.version.to_string(), "annotations": { LIST_ENDS: "true" } });
        lines.push(json!({ "type": "BOOKMARK", "object": { "kind": "Said", "apiVersion": "v1", "metadata": metadata } }));
        (lines, self.version)
    }

    /// What a watch has to say since a version.
    pub fn since(&self, request: &Request, version: u64) -> Vec<(u64, Value)> {
        let of = |(at, resource, event): &&(u64, String, Value)| {
            *at > version && *resource == request.resource && is_meant(request, &event["object"])
        };
        self.log.iter().filter(of).map(|(at, _, event)| (*at, event.clone())).collect()
    }
}

fn is_meant(request: &Request, object: &Value) -> bool {
    (request.name.is_empty() || text(object, "/metadata/name") == request.name)
        && (request.namespace.is_empty() || text(object, "/metadata/namespace") == request.namespace)
}

/// It is for another object, or for an earlier state of it.
fn is_stale(wanted: &Value, before: &Value) -> bool {
    ["/metadata/uid", "/metadata/resourceVersion"]
        .iter()
        .any(|field| !text(wanted, field).is_empty() && text(wanted, field) != text(before, field))
}
