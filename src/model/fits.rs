//! Whether a container fits what a selector names.

use super::binding::Selector;
use super::facts::Container;

/// The label that Compose puts on each container of a project.
pub const COMPOSE_PROJECT: &str = "com.docker.compose.project";
/// The label that names the service.
const COMPOSE_SERVICE: &str = "com.docker.compose.service";

/// Whether a container fits all that a selector names.
pub fn fits(selector: &Selector, container: &Container) -> bool {
    let Selector::Containers { names, match_labels, compose } = selector else { return false };
    let label = |key: &str| container.labels.get(key).map(String::as_str);
    (names.is_empty() || names.contains(&container.name))
        && match_labels.iter().all(|(k, v)| label(k) == Some(v))
        && compose.as_ref().is_none_or(|c| {
            label(COMPOSE_PROJECT) == Some(&c.project) && c.service.as_deref().is_none_or(|s| label(COMPOSE_SERVICE) == Some(s))
        })
}
