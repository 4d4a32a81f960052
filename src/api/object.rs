//! Objects of the API server to the model's types. A newer definition may let in what this version cannot read: that is an error of the object's
//! own, and spoils neither its other fields nor a list that it is in.

use std::net::IpAddr;

use kube::ResourceExt;
use kube::core::DynamicObject;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::binding::EgressBinding;
use super::cloud::CloudAddress;
use super::places;
use super::pool::EgressPool;
use super::proxy::{self, EgressProxySpec};
use super::schema;
use super::spec;
use super::status::EgressBindingStatus;
use super::values::Faults;
use crate::model::binding::{Binding, BindingName, Source};
use crate::model::cloud::{AddressReport, Interface};
use crate::model::field_error::FieldError;
use crate::model::objects::ApiBinding;
use crate::model::pool::{Places, Pool};
use crate::model::proxy::Proxy;

/// Annotation of a pool by which its administrator takes back what is in use: `true`.
pub const FORCE: &str = "egressd.dev/force";

/// An object, and what of its spec this version cannot read.
#[derive(Clone, Debug, PartialEq)]
pub struct Lenient<K> {
    pub object: K,
    pub unread: Vec<FieldError>,
}

/// A binding as far as it can be read.
pub fn egress_binding(object: DynamicObject) -> Lenient<EgressBinding> {
    let (spec, unread) = spec::lenient(object.data.get("spec").unwrap_or(&Value::Null));
    let status = status(&object).or_else(|| exits(&object));
    let object = EgressBinding { status, metadata: object.metadata, spec };
    Lenient { object, unread }
}

/// A pool as far as it can be read.
pub fn egress_pool(object: DynamicObject) -> Lenient<EgressPool> {
    let (spec, unread) = spec::lenient(object.data.get("spec").unwrap_or(&Value::Null));
    let object = EgressPool { status: status(&object), metadata: object.metadata, spec };
    Lenient { object, unread }
}

/// One that cannot be read counts as none: it is written anew.
fn status<S: DeserializeOwned>(object: &DynamicObject) -> Option<S> {
    S::deserialize(object.data.get("status")?).ok()
}

/// What has to outlive a status that cannot be read: who has which address.
fn exits(object: &DynamicObject) -> Option<EgressBindingStatus> {
    let exits = object.data.pointer("/status/exits")?.as_array()?;
    let exits = exits.iter().filter_map(|exit| exit.as_str().map(str::to_owned)).collect();
    let pool = object.data.pointer("/status/pool").and_then(Value::as_str).map(str::to_owned);
    Some(EgressBindingStatus { exits, pool, ..EgressBindingStatus::default() })
}

/// The binding that an object asks for, with what is wrong in its `errors`.
///
/// # Errors
/// What is wrong, when it does not say who is meant, so that no workload can be held by it.
pub fn binding(read: &Lenient<EgressBinding>) -> Result<ApiBinding, Vec<FieldError>> {
    let Lenient { object, unread } = read;
    let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
    let full = BindingName { source: Source::Api, name: format!("{namespace}/{name}") };
    let created = object.metadata.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second());
    let binding = spec::binding(full, &object.spec, created.try_into().unwrap_or_default()).map_err(|errors| merge(unread, errors))?;
    let binding = Binding { errors: merge(unread, binding.errors), ..binding };
    // What another pool lent it goes back to that pool.
    let pool = binding.pool.as_ref().map(|request| &request.pool);
    let lent = object.status.iter().filter(|status| pool.is_some() && (status.pool.is_none() || status.pool.as_ref() == pool));
    let allocated = lent.flat_map(|status| &status.exits).filter_map(|exit| exit.parse().ok()).collect();
    Ok(ApiBinding {
        namespace,
        name,
        uid: object.uid().unwrap_or_default(),
        generation: object.metadata.generation.unwrap_or_default(),
        allocated,
        binding: binding.into(),
    })
}

/// The proxy that an object asks for. What this version cannot read spoils the whole object: it is served as it is written, or not at all.
///
/// # Errors
/// All that is wrong with it.
pub fn proxy(object: &DynamicObject) -> Result<Proxy, Vec<FieldError>> {
    let name = format!("{}/{}", object.namespace().unwrap_or_default(), object.name_any());
    let mut spec = object.data.get("spec").cloned().unwrap_or_default();
    let mut faults = Faults::default();
    let readable = schema::check(&schema::PROXY, &mut spec, "spec", &mut faults) && faults.is_empty();
    match readable.then(|| serde_json::from_value::<EgressProxySpec>(spec).ok()).flatten() {
        Some(spec) => proxy::proxy(Source::Api, name, &spec),
        None => Err(faults.finish()),
    }
}

/// The pool that an object describes, with what is wrong in its `errors`.
pub fn pool(read: &Lenient<EgressPool>) -> Pool {
    let Lenient { object, unread } = read;
    let pool = spec::egress_pool(&object.name_any(), object.metadata.generation.unwrap_or_default(), &object.spec);
    let forced = object.annotations().get(FORCE).is_some_and(|value| value == "true");
    let places = object.status.as_ref().map(|status| places::read(&status.nodes)).unwrap_or_default();
    let cloud = object.status.as_ref().and_then(|status| status.cloud.as_ref());
    let shown = cloud.iter().flat_map(|cloud| &cloud.addresses).filter_map(|shown| report(shown, &places)).collect();
    let errors = pool.errors.iter().cloned().chain(without_node(&pool)).collect();
    Pool { forced, places, shown, errors: merge(unread, errors), ..pool }
}

/// What the cloud shows of an address. On the network interface of a node that has it no longer it cannot be used.
fn report(shown: &CloudAddress, places: &Places) -> Option<(IpAddr, AddressReport)> {
    let address = shown.address.parse().ok()?;
    let moves = shown.node.as_ref().filter(|node| places.get(&address).is_some_and(|place| place != *node));
    let message = moves.map_or_else(|| shown.message.clone(), |node| format!("is still the network interface's of node {node}"));
    let report = AddressReport {
        ready: shown.ready && moves.is_none(),
        public_address: shown.public_address.as_deref().and_then(|public| public.parse().ok()),
        elastic_address: shown.elastic_address.clone(),
        message,
    };
    Some((address, report))
}

/// Of which network interface a cloud is to be asked for says the address's node, or the pool.
fn without_node(pool: &Pool) -> Option<FieldError> {
    let nic = pool.aws.as_ref().map(|aws| &aws.interface).filter(|_| !pool.is_placed())?;
    let message =
        "does not say which node's; write `spec.assignment: Managed`, so that each address has a node, or name the network interface";
    let error = FieldError { field: "spec.cloud.aws.networkInterface".to_owned(), message: message.to_owned() };
    (!matches!(nic, Interface::Id(_))).then_some(error)
}

/// A field that cannot be read is not missing: that would be a second error about the same thing.
fn merge(unread: &[FieldError], said: Vec<FieldError>) -> Vec<FieldError> {
    let said = said.into_iter().filter(|error| unread.iter().all(|other| other.field != error.field));
    unread.iter().cloned().chain(said).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(spec: &Value, status: &Value) -> Pool {
        let object = json!({ "metadata": { "name": "web" }, "spec": spec, "status": status });
        pool(&egress_pool(serde_json::from_value(object).expect("an object")))
    }

    #[test]
    fn a_cluster_s_pool_with_cloud_says_whose_network_interface_is_meant() {
        let of = |fields: &str| {
            let blocks = r#""blocks": [{ "cidr": "10.0.1.94/31" }]"#;
            read(&serde_json::from_str(&format!("{{ {blocks}, {fields} }}")).expect("JSON"), &Value::Null)
        };
        assert_eq!(of(r#""assignment": "Managed", "cloud": { "aws": {} }"#).errors, []);
        assert_eq!(of(r#""cloud": { "aws": { "networkInterface": "eni-1" } }"#).errors, []);
        for vague in [r#""cloud": { "aws": {} }"#, r#""cloud": { "aws": { "deviceIndex": 1 } }"#] {
            let error = of(vague).errors.first().map(ToString::to_string).unwrap_or_default();
            assert!(
                error.starts_with("spec.cloud.aws.networkInterface: does not say which node's; write `spec.assignment: Managed`"),
                "{error}"
            );
        }
    }

    #[test]
    fn more_addresses_than_a_status_can_name_are_refused() {
        let spec = |cloud: &Value| json!({ "blocks": [{ "cidr": "10.0.0.0/19" }], "assignment": "Routed", "cloud": cloud });
        for (cloud, most) in [(Value::Null, "4096"), (json!({ "aws": {} }), "1000")] {
            let errors: Vec<String> = read(&spec(&cloud), &Value::Null).errors.iter().map(ToString::to_string).collect();
            assert!(errors.iter().any(|error| error.starts_with("spec.blocks: have 8192 addresses") && error.contains(most)), "{errors:?}");
        }
    }

    #[test]
    fn what_the_cloud_shows_on_a_node_that_has_the_address_no_longer_is_not_ready() {
        let shown = |node: &str| {
            let nodes = json!([{ "name": "n1", "addresses": ["10.0.1.94"] }]);
            let address = json!({ "address": "10.0.1.94", "node": node, "publicAddress": "203.0.113.41", "ready": true });
            let spec = json!({ "blocks": [{ "cidr": "10.0.1.94/31" }], "assignment": "Managed", "cloud": { "aws": {} } });
            read(&spec, &json!({ "nodes": nodes, "cloud": { "addresses": [address] } })).shown.into_values().next().expect("it is shown")
        };
        assert!(shown("n1").ready && shown("n1").public_address.is_some());
        let moves = shown("n2");
        assert_eq!((moves.ready, moves.message.as_str()), (false, "is still the network interface's of node n2"));
    }
}
