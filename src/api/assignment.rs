//! `spec.exits[].assignment`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::binding;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum Assignment {
    #[default]
    Existing,
    Managed,
    Routed,
}

impl Assignment {
    /// Not said, or said to be as usual.
    pub(super) fn is_existing(&self) -> bool {
        *self == Self::Existing
    }
}

impl From<Assignment> for binding::Assignment {
    fn from(assignment: Assignment) -> Self {
        match assignment {
            Assignment::Existing => Self::Existing,
            Assignment::Managed => Self::Managed,
            Assignment::Routed => Self::Routed,
        }
    }
}
