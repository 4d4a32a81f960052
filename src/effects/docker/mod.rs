//! Docker as an effect: networks that are made before their containers, and containers that are put where their labels say.

mod network;
mod place;

use std::path::Path;
use std::time::Duration;

use bollard::{API_DEFAULT_VERSION, Docker};

use crate::facts::docker::{AskError, Client};
use crate::model::field_error::FieldError;

pub use place::Placed;

/// A container that is just being started holds the engine's answer back until it runs.
const PATIENCE: Duration = Duration::from_secs(60);

/// Why a step was not done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The engine is away or refused.
    #[error("failed to {step}: {source}")]
    Engine { step: String, source: bollard::errors::Error },
    /// The engine is away, or says what cannot be read.
    #[error("failed to {step}: {source}")]
    Ask { step: String, source: AskError },
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
    /// For what is changed.
    docker: Docker,
    /// For what is only asked.
    client: Client,
}

impl Engine {
    /// # Errors
    /// When the socket is not there.
    pub fn connect(socket: &Path) -> Result<Self, Error> {
        let docker = Docker::connect_with_unix(&socket.to_string_lossy(), PATIENCE.as_secs(), API_DEFAULT_VERSION);
        let docker = docker.map_err(|source| Error::Engine { step: format!("connect to the engine at {}", socket.display()), source })?;
        Ok(Self { docker, client: Client::new(socket, PATIENCE) })
    }
}
