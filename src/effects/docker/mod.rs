//! Docker as an effect: networks that are made before their containers, and containers that are put where their labels say.

mod network;
mod place;

use std::path::Path;

use bollard::{API_DEFAULT_VERSION, Docker};

use crate::model::binding::FieldError;

pub use place::Placed;

/// A container that is just being started holds the engine's answer back until it runs.
const TIMEOUT_SECONDS: u64 = 60;

/// Why a step was not done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The engine is away or refused.
    #[error("failed to {step}: {source}")]
    Engine { step: String, source: bollard::errors::Error },
    /// What was asked for cannot be: the field, what is wrong and the cure.
    #[error("{0}")]
    Refused(FieldError),
}

impl Error {
    fn refused(field: &str, message: String) -> Self {
        Self::Refused(FieldError { field: field.to_owned(), message })
    }
}

/// An engine to change. Cheap to make; each step has a connection of its own.
pub struct Engine {
    docker: Docker,
}

impl Engine {
    /// # Errors
    /// When the socket is not there.
    pub fn connect(socket: &Path) -> Result<Self, Error> {
        let docker = Docker::connect_with_unix(&socket.to_string_lossy(), TIMEOUT_SECONDS, API_DEFAULT_VERSION);
        let docker = docker.map_err(|source| Error::Engine { step: format!("connect to the engine at {}", socket.display()), source })?;
        Ok(Self { docker })
    }
}
