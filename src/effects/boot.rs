//! The file that outlives a reboot: see [`crate::plan::boot`].

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use crate::facts::whole;
use crate::plan::boot::Remembered;

/// Why the file could not be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("failed to read {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("failed to understand {path}; the daemon writes it again when it runs, so it may be deleted")]
    Parse { path: PathBuf, source: serde_json::Error },
    #[error("failed to write {path}")]
    Write { path: PathBuf, source: io::Error },
}

/// What was remembered; nothing when there is no file.
///
/// # Errors
/// When the file is there and cannot be read.
pub fn read(path: &Path) -> Result<Remembered, Error> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Remembered::default()),
        Err(source) => return Err(Error::Read { path: path.to_owned(), source }),
    };
    serde_json::from_slice(&text).map_err(|source| Error::Parse { path: path.to_owned(), source })
}

/// Writes the file: whole or not at all, also when the machine stops meanwhile.
///
/// # Errors
/// When the folder or the file cannot be written.
pub fn write(path: &Path, remembered: &Remembered) -> Result<(), Error> {
    let text = serde_json::to_vec_pretty(remembered).expect("names and prefixes can be written as JSON");
    let made = path.parent().map_or(Ok(()), fs::create_dir_all);
    let written = made.and_then(|()| whole::write(path, &text, File::sync_all));
    written.map_err(|source| Error::Write { path: path.to_owned(), source })
}

/// Removes the file, if there is one.
///
/// # Errors
/// When it is there and cannot be removed.
pub fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(Error::Write { path: path.to_owned(), source }),
        _ => Ok(()),
    }
}
