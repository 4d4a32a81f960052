//! What files said that could be read as a whole, for the next start: a file that is broken by then, or a folder that is not mounted yet, must not
//! unbind who is bound in the kernel. It is kept where the daemon's state is, and goes with it at a reboot, as the kernel's tables do.

use std::collections::BTreeMap;
use std::fs;
use std::hash::Hasher;
use std::io;
use std::path::{Path, PathBuf};

use tracing::warn;

use crate::facts::whole;
use crate::fnv::Fnv;

/// The folder, among the copies, of what single bindings said that their files do not say any more.
const NEEDED: &str = "bindings";

/// Bytes that a file's name may have without its ending (`NAME_MAX`), and of a longer one what stands ahead of its hash.
const LONGEST: usize = 250;
const CUT: usize = 200;

/// A folder of copies.
pub struct Memory {
    folder: Option<PathBuf>,
    /// The hash of each copy that is there, by its path in the folder.
    kept: BTreeMap<String, u64>,
    /// Why it does not hold what it should.
    behind: Option<String>,
}

/// What the run before has kept.
#[derive(Default)]
pub struct Recalled {
    /// Files, by name.
    pub files: Vec<(String, Vec<u8>)>,
    /// Of single bindings what their files did not say any more.
    pub needed: Vec<String>,
}

impl Memory {
    /// Reads what is kept; `None`: nothing is.
    pub fn open(folder: Option<PathBuf>) -> (Self, Recalled) {
        let mut memory = Self { folder, kept: BTreeMap::new(), behind: None };
        let Some(folder) = memory.folder.clone() else {
            return (memory, Recalled::default());
        };
        let files = memory.load(&folder, "");
        let needed = memory.load(&folder.join(NEEDED), &place(""));
        let needed = needed.into_iter().filter_map(|(_, bytes)| String::from_utf8(bytes).ok()).collect();
        (memory, Recalled { files, needed })
    }

    /// The files of a folder, which are kept from now on as `place` and their names.
    fn load(&mut self, folder: &Path, place: &str) -> Vec<(String, Vec<u8>)> {
        let names = super::names(folder).unwrap_or_default().readable.into_iter();
        let read = names.filter_map(|name| super::load(&folder.join(&name)).ok()?.map(|bytes| (name, bytes)));
        let files: Vec<(String, Vec<u8>)> = read.collect();
        self.kept.extend(files.iter().map(|(name, bytes)| (format!("{place}{name}"), hash(bytes))));
        files
    }

    /// Keeps these files, these words of single bindings by name, and nothing else. What fails is tried again by the next call.
    pub fn keep<'a>(&mut self, files: impl Iterator<Item = (&'a str, &'a [u8])>, needed: impl Iterator<Item = (&'a str, String)>) {
        let Some(folder) = self.folder.clone() else { return };
        let needed: BTreeMap<String, String> = needed.map(|(name, text)| (place(&file(name)), text)).collect();
        let mut all: BTreeMap<&str, &[u8]> = files.collect();
        all.extend(needed.iter().map(|(name, text)| (name.as_str(), text.as_bytes())));
        let gone: Vec<String> = self.kept.keys().filter(|name| !all.contains_key(name.as_str())).cloned().collect();
        let mut failed = None;
        for name in gone {
            match fs::remove_file(folder.join(&name)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => failed = Some(error),
                _ => drop(self.kept.remove(&name)),
            }
        }
        for (name, bytes) in all {
            let hash = hash(bytes);
            if self.kept.get(name) != Some(&hash) {
                match write(&folder.join(name), bytes) {
                    Ok(()) => drop(self.kept.insert(name.to_owned(), hash)),
                    Err(error) => failed = Some(error),
                }
            }
        }
        let behind = failed.map(|error| error.to_string());
        if let Some(error) = behind.as_ref().filter(|_| behind != self.behind) {
            warn!(folder = %folder.display(), error, "failed to save the manifests for the next start");
        }
        self.behind = behind;
    }

    /// The folder, and why it does not hold what it should, if that is so. The daemon works on; it is the next start that may miss it.
    pub fn behind(&self) -> Option<(&Path, &str)> {
        self.folder.as_deref().zip(self.behind.as_deref())
    }
}

/// A file for a binding: names of objects have no underscore. Namespace and name together may be longer than a file's name.
fn file(binding: &str) -> String {
    let name = binding.replacen('/', "_", 1);
    match name.get(..CUT).filter(|_| name.len() > LONGEST) {
        Some(cut) => format!("{cut}_{:016x}.yaml", hash(name.as_bytes())),
        None => format!("{name}.yaml"),
    }
}

fn place(file: &str) -> String {
    format!("{NEEDED}/{file}")
}

fn hash(bytes: &[u8]) -> u64 {
    let mut hash = Fnv::default();
    hash.write(bytes);
    hash.finish()
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    path.parent().map_or(Ok(()), fs::create_dir_all)?;
    whole::write(path, bytes, |_| Ok(()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_binding_with_the_longest_name_said_is_kept_for_the_next_start() {
        let state = tempfile::tempdir().unwrap();
        let long = |end: char| format!("shop/{}{end}", "x".repeat(252));
        let names = ["shop/web".to_owned(), long('a'), long('b')];
        let (mut memory, _) = Memory::open(Some(state.path().join("manifests")));
        memory.keep(std::iter::empty(), names.iter().map(|name| (name.as_str(), format!("of {name}"))));
        assert_eq!(memory.behind(), None);
        let (_, mut recalled) = Memory::open(Some(state.path().join("manifests")));
        recalled.needed.sort_unstable();
        let mut expected = names.map(|name| format!("of {name}"));
        expected.sort_unstable();
        assert_eq!(recalled.needed, expected);
    }
}
