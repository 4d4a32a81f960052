//! What `kubectl egress` shows: the cluster's bindings, what becomes of a pod, and a node's view. All of it is what the API server has.

mod explain;
mod node;
mod status;

pub use explain::explain;
pub use node::node;
pub use status::{listed, status};

/// Values in a cell.
fn cell<T: ToString>(values: impl IntoIterator<Item = T>) -> String {
    let all: Vec<String> = values.into_iter().map(|value| value.to_string()).collect();
    if all.is_empty() { "-".to_owned() } else { all.join(",") }
}

#[cfg(test)]
mod tests;
