//! How long what is in a namespace may live.

use tokio_util::sync::CancellationToken;

use crate::effects::enter::NamespaceId;

/// One life of a namespace under its name.
#[derive(Debug)]
pub struct Scope {
    /// Which one it is; `None` for the host's own.
    pub id: Option<NamespaceId>,
    /// Cancelled when the name is gone, or means another namespace. Nothing of ours keeps the namespace after that.
    pub gone: CancellationToken,
}

impl Scope {
    /// A part of it, which may end ahead of it.
    pub fn within(&self) -> Self {
        Self { id: self.id, gone: self.gone.child_token() }
    }
}
