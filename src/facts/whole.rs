//! Files that are written as a whole: who reads one sees what it said before or what it says now, also when the writer is killed meanwhile.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

/// Replaces a file, or makes it in a folder that is there. Until then the new one has the same name with the ending `new`. `finish` sees it
/// before it takes the old one's place: [`File::sync_all`] makes it outlive a machine that stops, too.
///
/// # Errors
/// When the file cannot be written, or `finish` fails.
pub fn write(path: &Path, bytes: &[u8], finish: impl FnOnce(&File) -> io::Result<()>) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = File::create(&new)?;
    file.write_all(bytes)?;
    finish(&file)?;
    fs::rename(&new, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_finished_leaves_the_file_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        write(&path, b"one", |_| Ok(())).unwrap();
        write(&path, b"two", |_| Err(io::ErrorKind::StorageFull.into())).unwrap_err();
        assert_eq!(fs::read(&path).unwrap(), b"one");
        write(&path, b"three", File::sync_all).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"three");
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "nothing else is left");
    }
}
