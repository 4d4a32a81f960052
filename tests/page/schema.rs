//! Whether an answer is what the API's document says: no field that it does not have, none of another type, and all that are required.

use serde_json::Value;

/// What of a value does not fit its schema, each with its path.
pub fn misfits(document: &Value, schema: &Value, value: &Value, path: &str) -> Vec<String> {
    if let Some(name) = schema["$ref"].as_str() {
        let target = name.strip_prefix('#').and_then(|pointer| document.pointer(pointer));
        return misfits(document, target.unwrap_or_else(|| panic!("{name} is nowhere")), value, path);
    }
    if let Some(options) = schema["anyOf"].as_array() {
        let all: Vec<_> = options.iter().map(|option| misfits(document, option, value, path)).collect();
        return if all.iter().any(Vec::is_empty) { Vec::new() } else { all.concat() };
    }
    let kinds = match &schema["type"] {
        Value::Array(kinds) => kinds.clone(),
        kind => vec![kind.clone()],
    };
    let is = |kind: &Value| match kind.as_str() {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("boolean") => value.is_boolean(),
        Some("integer") => value.is_u64() || value.is_i64(),
        Some("number") => value.is_number(),
        Some("null") => value.is_null(),
        _ => schema["const"] == *value || schema["oneOf"].is_array() || schema["enum"].is_array(),
    };
    let mut found = Vec::new();
    if !kinds.iter().any(is) {
        found.push(format!("{path} is {value}, and has to be {}", schema["type"]));
    }
    for (name, field) in value.as_object().into_iter().flatten() {
        match schema["properties"].get(name) {
            Some(schema) => found.extend(misfits(document, schema, field, &format!("{path}.{name}"))),
            None => found.push(format!("{path}.{name} is not in the document")),
        }
    }
    let missing = schema["required"].as_array().into_iter().flatten().filter(|name| value.get(name.as_str().unwrap_or("")).is_none());
    found.extend(missing.map(|name| format!("{path}.{name} is missing")));
    for item in value.as_array().into_iter().flatten() {
        found.extend(misfits(document, &schema["items"], item, &format!("{path}[]")));
    }
    found
}
