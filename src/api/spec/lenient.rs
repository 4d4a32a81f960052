//! Specs of the API server's objects as far as this version understands them: a newer definition may let in what an older agent cannot read.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::api::values::{self, Faults};
use crate::model::field_error::FieldError;

/// Characters of a decoder's message that an error repeats.
const MAX_MESSAGE: usize = 300;

/// The spec, and an error for each of its fields that cannot be read; those have their defaults.
///
/// Each field has to have a default in `S::default()`, so that it can be read by itself.
pub fn lenient<S: Default + Serialize + DeserializeOwned>(spec: &Value) -> (S, Vec<FieldError>) {
    let mut faults = Faults::default();
    let whole = match S::deserialize(spec) {
        Ok(spec) => return (spec, Vec::new()),
        Err(error) => error,
    };
    let mut fault = |field: &str, error: &serde_json::Error| {
        faults.push(field, || {
            let error = values::printable(&error.to_string(), MAX_MESSAGE);
            format!("this version of egressd cannot read it ({error}); write it as its CustomResourceDefinition says, or upgrade egressd")
        });
    };
    let (Value::Object(given), Ok(Value::Object(mut good))) = (spec, serde_json::to_value(S::default())) else {
        fault("spec", &whole);
        return (S::default(), faults.finish());
    };
    for (field, value) in given {
        let before = good.insert(field.clone(), value.clone());
        if let Err(error) = S::deserialize(&Value::Object(good.clone())) {
            fault(&format!("spec.{field}"), &error);
            match before {
                Some(before) => drop(good.insert(field.clone(), before)),
                None => drop(good.remove(field)),
            }
        }
    }
    (S::deserialize(&Value::Object(good)).unwrap_or_default(), faults.finish())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::binding::{EgressBindingSpec, WhenUnavailable};
    use crate::api::pool::EgressPoolSpec;

    #[test]
    fn what_is_understood_of_a_newer_spec_is_read_and_the_rest_is_named() {
        let spec = json!({
            "podSelector": {"matchLabels": {"app": "crawler"}},
            "exits": [{"address": "172.31.0.14"}],
            "whenUnavailable": "Queue",
            "priority": "high",
            "colour": "red",
        });
        let (read, errors) = lenient::<EgressBindingSpec>(&spec);
        assert_eq!(read.exits.len(), 1);
        assert_eq!(read.when_unavailable, WhenUnavailable::Drop);
        assert!(read.pod_selector.is_some_and(|selector| selector.match_labels.contains_key("app")));
        let fields: Vec<&str> = errors.iter().map(|error| error.field.as_str()).collect();
        assert_eq!(fields, ["spec.priority", "spec.whenUnavailable"]);
        assert!(errors[1].message.contains("unknown variant `Queue`") && errors[1].message.contains("upgrade egressd"), "{errors:?}");
    }

    #[test]
    fn a_pool_whose_blocks_cannot_be_read_keeps_its_other_fields() {
        let (pool, errors) = lenient::<EgressPoolSpec>(&json!({"blocks": "all", "interface": "eth1"}));
        assert_eq!(pool.interface.as_deref(), Some("eth1"));
        assert_eq!(errors.iter().map(|error| error.field.as_str()).collect::<Vec<_>>(), ["spec.blocks"]);
    }

    #[test]
    fn what_is_no_object_at_all_is_one_error() {
        let (spec, errors) = lenient::<EgressBindingSpec>(&json!("spec"));
        assert_eq!(spec, EgressBindingSpec::default());
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert_eq!(errors[0].field, "spec");
    }
}
