//! What is wrong with what users write.

use std::fmt;

/// What is wrong with one field, and what would be right.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FieldError {
    /// `spec.exits[0].address`, `egress.ip`.
    pub field: String,
    /// What is wrong, then the cure; lower-case, no full stop.
    pub message: String,
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}

/// A file or document that is not one of ours, or cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ManifestError {
    /// `crawler.yaml`, `crawler.yaml#2`, or `EgressBinding shop/crawler` once it has a name.
    pub object: String,
    pub error: FieldError,
}
