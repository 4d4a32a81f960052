//! Objects of the API server to the model's types.

use kube::ResourceExt;

use super::binding::EgressBinding;
use super::pool::EgressPool;
use super::spec;
use crate::model::binding::{BindingName, FieldError, Source};
use crate::model::cluster::ApiBinding;
use crate::model::pool::Pool;

/// The binding that an object asks for, with what is wrong in its `errors`.
///
/// # Errors
/// What is wrong, when it does not say who is meant, so that no workload can be held by it.
pub fn binding(object: &EgressBinding) -> Result<ApiBinding, Vec<FieldError>> {
    let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
    let full = BindingName { source: Source::Api, name: format!("{namespace}/{name}") };
    let created = object.creation_timestamp().map_or(0, |time| time.0.as_second());
    let binding = spec::binding(full, &object.spec, created.try_into().unwrap_or_default())?;
    let exits = object.status.iter().flat_map(|status| &status.exits);
    Ok(ApiBinding {
        namespace,
        name,
        uid: object.uid().unwrap_or_default(),
        generation: object.metadata.generation.unwrap_or_default(),
        binding: binding.into(),
        allocated: exits.filter_map(|exit| exit.parse().ok()).collect(),
    })
}

/// The pool that an object describes, with what is wrong in its `errors`.
pub fn pool(object: &EgressPool) -> Pool {
    spec::egress_pool(&object.name_any(), object.metadata.generation.unwrap_or_default(), &object.spec)
}
