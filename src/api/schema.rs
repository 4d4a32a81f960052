//! Checks a document against the schema of its Rust type, so that every slip is named with its path, not only the first one.
//!
//! What is complained about is taken out of the document: the rest can still be read, and says who was meant.

use std::sync::LazyLock;

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use schemars::transform::AddNullable;
use serde_json::{Map, Value};

use super::nearest::nearest;
use super::values::{Faults, shown};

/// The schema of an `EgressBinding`'s `spec`.
pub static BINDING: LazyLock<Value> = LazyLock::new(schema_of::<super::binding::EgressBindingSpec>);
/// The schema of an `EgressNetwork`'s `spec`.
pub static NETWORK: LazyLock<Value> = LazyLock::new(schema_of::<super::network::EgressNetworkSpec>);
/// The schema of an `EgressPool`'s `spec`.
pub static POOL: LazyLock<Value> = LazyLock::new(schema_of::<super::pool::EgressPoolSpec>);
/// The schema of an `EgressProxy`'s `spec`.
pub static PROXY: LazyLock<Value> = LazyLock::new(schema_of::<super::proxy::EgressProxySpec>);

/// The same rewriting that `kube` does for the custom resource definition.
fn schema_of<T: JsonSchema>() -> Value {
    SchemaSettings::openapi3()
        .with(|settings| {
            settings.inline_subschemas = true;
            settings.meta_schema = None;
        })
        .with_transform(AddNullable::default())
        .with_transform(kube::core::schema::StructuralSchemaRewriter)
        .with_transform(kube::core::schema::OptionalEnum)
        .into_generator()
        .into_root_schema_for::<T>()
        .to_value()
}

/// Takes out of `value` what does not fit `schema`, each with an error. False when nothing of it is left to be used.
pub fn check(schema: &Value, value: &mut Value, path: &str, faults: &mut Faults) -> bool {
    Walk { path: path.to_owned(), faults }.value(schema, value)
}

struct Walk<'a> {
    path: String,
    faults: &'a mut Faults,
}

impl Walk<'_> {
    fn value(&mut self, schema: &Value, value: &mut Value) -> bool {
        if value.is_null() && schema["nullable"] == true {
            return true;
        }
        if schema["x-kubernetes-preserve-unknown-fields"] == true {
            return true;
        }
        match (schema["type"].as_str(), value) {
            (Some("object"), Value::Object(map)) => self.object(schema, map),
            (Some("array"), Value::Array(items)) => self.array(schema, items),
            (Some("string"), Value::String(text)) => self.string(schema, text),
            (Some("integer"), Value::Number(number)) => match number.as_i64() {
                Some(number) => self.integer(schema, number),
                None => self.refuse(|| format!("`{number}` is not a whole number that fits")),
            },
            (Some("boolean"), Value::Bool(_)) => true,
            (expected, found) => {
                let text = mismatch(expected.unwrap_or("value"), found);
                self.refuse(|| text)
            }
        }
    }

    fn object(&mut self, schema: &Value, map: &mut Map<String, Value>) -> bool {
        let known = schema["properties"].as_object();
        map.retain(|key, value| {
            let property = match known {
                Some(known) => known.get(key),
                None => Some(&schema["additionalProperties"]).filter(|s| s.is_object()),
            };
            self.at(&field(key), |walk| match property {
                Some(property) => walk.value(property, value),
                None => walk.refuse(|| unknown(key, known)),
            })
        });
        let mut whole = true;
        for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            // One that was there but unfit has its error already; so has a whole list item that lacks it.
            if !map.contains_key(name) {
                whole = self.at(&field(name), |walk| walk.missing(name));
            }
        }
        whole
    }

    fn array(&mut self, schema: &Value, items: &mut Vec<Value>) -> bool {
        let most = schema["maxItems"].as_u64().and_then(|n| usize::try_from(n).ok()).unwrap_or(usize::MAX);
        if items.len() > most {
            let count = items.len();
            self.refuse(|| format!("has {count} entries; at most {most} are allowed, so split it"));
            items.truncate(most);
        }
        let mut index = 0;
        items.retain_mut(|item| {
            let kept = self.at(&format!("[{index}]"), |walk| walk.value(&schema["items"], item));
            index += 1;
            kept
        });
        true
    }

    fn string(&mut self, schema: &Value, text: &str) -> bool {
        if let Some(values) = schema["enum"].as_array() {
            let allowed = || values.iter().filter_map(Value::as_str);
            return allowed().any(|v| v == text) || self.refuse(|| not_one_of(text, allowed()));
        }
        let length = text.chars().count() as u64;
        if schema["minLength"].as_u64().is_some_and(|least| length < least) {
            return self.refuse(|| "is empty; write a value or leave the field out".to_owned());
        }
        match schema["maxLength"].as_u64() {
            Some(most) if length > most => self.refuse(|| format!("{} is longer than {most} characters", shown(text))),
            _ => true,
        }
    }

    fn integer(&mut self, schema: &Value, number: i64) -> bool {
        // The generator writes bounds as floats in some versions of the schema.
        let bound = |name: &str| schema[name].as_f64().map(|b| b as i64);
        let least = bound("minimum").unwrap_or(i64::from(i32::MIN));
        let most = bound("maximum").unwrap_or(i64::from(i32::MAX));
        (least..=most).contains(&number) || self.refuse(|| format!("`{number}` is not in {least} to {most}"))
    }

    fn missing(&mut self, name: &str) -> bool {
        if self.faults.concern(&self.path) {
            return false;
        }
        self.refuse(|| format!("is missing; write `{name}:` and its value"))
    }

    fn refuse(&mut self, message: impl FnOnce() -> String) -> bool {
        self.faults.push(&self.path, message);
        false
    }

    fn at(&mut self, step: &str, then: impl FnOnce(&mut Self) -> bool) -> bool {
        let length = self.path.len();
        self.path.push_str(step);
        let kept = then(self);
        self.path.truncate(length);
        kept
    }
}

/// A step of a path; keys that are no names of ours are quoted and cut.
fn field(key: &str) -> String {
    let plain = key.len() <= 64 && !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric());
    if plain { format!(".{key}") } else { format!("[{}]", shown(key).replace('`', "\"")) }
}

fn unknown(key: &str, known: Option<&Map<String, Value>>) -> String {
    let names = || known.into_iter().flat_map(Map::keys).map(String::as_str);
    match nearest(key, names()) {
        Some(name) => format!("unknown field; did you mean `{name}`?"),
        None => format!("unknown field; known here are {}", listed(names())),
    }
}

fn not_one_of<'a>(text: &str, allowed: impl Iterator<Item = &'a str> + Clone) -> String {
    match nearest(text, allowed.clone()) {
        Some(name) => format!("{} is unknown; did you mean `{name}`?", shown(text)),
        None => format!("{} is unknown; write one of {}", shown(text), listed(allowed)),
    }
}

/// `` `a`, `b` ``
pub fn listed<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

fn mismatch(expected: &str, found: &Value) -> String {
    let scalar = matches!(found, Value::Bool(_) | Value::Number(_) | Value::String(_));
    let found = match found {
        Value::Null => return "has no value; write one, or leave the field out".to_owned(),
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a mapping",
    };
    let (kind, cure) = match expected {
        "object" => ("a mapping", "write `name: value` lines below it"),
        "array" => ("a list", "write it as `[a, b]`, or as lines that begin with `-`"),
        "string" if scalar => ("text", "put the value into quotes"),
        "string" => ("text", "write one value"),
        "integer" => ("a whole number", "write it without quotes"),
        "boolean" => ("true or false", "write `true` or `false`, without quotes"),
        other => (other, "see the reference"),
    };
    format!("must be {kind}, but is {found}; {cure}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn errors(mut spec: Value) -> Vec<String> {
        let mut faults = Faults::default();
        check(&BINDING, &mut spec, "spec", &mut faults);
        faults.finish().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_slip_is_named_with_its_path() {
        let found = errors(json!({
            "exit": [],
            "exits": [{"address": "172.31.0.14", "gatewy": "x"}, {"interface": "eth1"}, {"address": 5}],
            "ports": [{"protocol": "TPC", "port": 443}, {"protocol": "UDP", "port": 70000}],
            "priority": "high",
            "addresses": {},
        }));
        assert_eq!(
            found,
            [
                "spec.addresses: must be a list, but is a mapping; write it as `[a, b]`, or as lines that begin with `-`",
                "spec.exit: unknown field; did you mean `exits`?",
                "spec.exits[0].gatewy: unknown field; did you mean `gateway`?",
                "spec.exits[2].address: must be text, but is a number; put the value into quotes",
                "spec.ports[0].protocol: `TPC` is unknown; did you mean `TCP`?",
                "spec.ports[1].port: `70000` is not in 1 to 65535",
                "spec.priority: must be a whole number, but is text; write it without quotes",
            ]
        );
    }

    #[test]
    fn what_is_left_can_be_read() {
        let mut spec = json!({
            "containerSelector": {"names": ["crawler"]},
            "exits": [{"address": "172.31.0.14"}, {"address": 1.5}, "eth0", null],
            "whenUnavailable": "Perhaps",
            "priority": 1e300,
        });
        check(&BINDING, &mut spec, "spec", &mut Faults::default());
        let read: crate::api::binding::EgressBindingSpec = serde_json::from_value(spec).expect("cleaned");
        assert_eq!(read.exits.iter().filter(|exit| exit.address.is_some()).count(), 1);
        assert_eq!(read.container_selector.expect("kept").names, ["crawler"]);
    }

    #[test]
    fn ten_thousand_unknown_fields_are_reported_as_twenty_and_a_number() {
        let spec: Map<String, Value> = (0..10_000).map(|i| (format!("field{i}"), Value::Null)).collect();
        let found = errors(Value::Object(spec));
        assert_eq!(found.len(), 20);
        assert!(found[19].ends_with("(and 9980 more errors)"), "{}", found[19]);
    }
}
