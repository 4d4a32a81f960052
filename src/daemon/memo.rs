//! What a run of the daemon writes into the state directory for the next one. Without it the daemon works on; it is the next start that may miss it.

use std::fs;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tracing::warn;

use crate::facts::whole;

/// Reads what the run before wrote. A file that cannot be read says nothing.
pub(super) fn read<T: DeserializeOwned + Default>(file: &Path) -> T {
    fs::read(file).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
}

/// Writes plain data; `what` is said of it in the log where that fails.
pub(super) fn write(file: &Path, what: &str, data: &impl Serialize) {
    let bytes = serde_json::to_vec(data).expect("it is plain data");
    if let Err(error) = whole::write(file, &bytes, |_| Ok(())) {
        warn!(file = %file.display(), %error, "failed to save {what} for the next start");
    }
}
