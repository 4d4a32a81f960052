//! Kernel settings under `/proc/sys`, and a ledger of what they were before.
//!
//! The ledger is written before the setting is, so a crash between the two leaves nothing that could not be put back.
//! A setting is put back only while it still holds a value of ours: whoever changed it since knows better.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::facts::whole;

#[cfg(test)]
mod tests;

const LEDGER: &str = "sysctl.json";
const FORWARD_V6: &str = "net/ipv6/conf/all/forwarding";

/// Why a setting could not be read, remembered or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("failed to read the setting {key}")]
    Read {
        key: String,
        #[source]
        source: io::Error,
    },
    #[error("failed to set {key} to {value}")]
    Write {
        key: String,
        value: String,
        #[source]
        source: io::Error,
    },
    #[error("{key} does not name a setting")]
    Key { key: String },
    #[error("failed to read the ledger of settings {path}")]
    ReadLedger {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("failed to understand the ledger of settings {path}")]
    ParseLedger {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    #[error("failed to write the ledger of settings {path}")]
    WriteLedger {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// What a setting was, and what it has been set to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    before: String,
    /// Every value of ours, so that a crash between the ledger's change and the setting's leaves none unknown.
    ours: BTreeSet<String>,
}

/// What came of putting settings back.
#[derive(Debug, Default)]
pub struct Restored {
    pub left: Vec<LeftAlone>,
    /// Those that could not be put back, and stay in the ledger.
    pub failed: Vec<Error>,
}

/// A setting that was not put back, and need not be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftAlone {
    /// In slash form.
    pub key: String,
    /// What it holds.
    pub value: String,
    pub why: Why,
}

/// Why a setting was not put back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Somebody else has changed it since.
    ChangedSince,
    /// It is forwarding, and others on this host need it by now.
    ForwardingNeeded,
    /// It lets the kernel learn routes from routers though the host forwards IPv6, which it still does.
    StillForwards,
}

impl fmt::Display for LeftAlone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let why = match self.why {
            Why::ChangedSince => "somebody else has set it since",
            Why::ForwardingNeeded => "others on this host forward too",
            Why::StillForwards => {
                "IPv6 forwarding stays on, and with 1 the kernel would not renew a default route that a router advertises"
            }
        };
        write!(f, "{} = {}: {why}", self.key, self.value)
    }
}

/// The settings, and the ledger of those that were changed.
pub struct Sysctls {
    root: PathBuf,
    file: PathBuf,
    ledger: BTreeMap<String, Entry>,
}

/// Reads a setting below `/proc/sys` or a mount of it, without the white space around it. Keys are as for [`Sysctls::set`].
///
/// # Errors
/// When there is none of this name (so also when its NIC is gone).
pub fn read(root: &Path, key: &str) -> Result<String, Error> {
    read_at(root, &slashed(key)?)
}

impl Sysctls {
    /// Opens the ledger in the state directory; without one, nothing has been changed yet. The root is `/proc/sys`, or a mount of it.
    ///
    /// # Errors
    /// When the ledger is there but cannot be read: what it says must not be lost by a new one.
    pub fn open(root: &Path, state: &Path) -> Result<Self, Error> {
        let file = state.join(LEDGER);
        let ledger = match fs::read(&file) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|source| Error::ParseLedger { path: file.clone(), source })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(source) => return Err(Error::ReadLedger { path: file, source }),
        };
        Ok(Self { root: root.to_owned(), file, ledger })
    }

    /// As [`read`], where it would be set.
    ///
    /// # Errors
    /// As of that.
    pub fn read(&self, key: &str) -> Result<String, Error> {
        read(&self.root, key)
    }

    /// Sets a setting, after noting what it was. True when it was changed.
    ///
    /// The key is as for sysctl(8): `net.ipv4.ip_forward` or `net/ipv4/conf/eth1.5/rp_filter`, where what separates first is the
    /// separator, and the other one stands for itself in a NIC's name.
    ///
    /// # Errors
    /// When the setting is not there, or the ledger cannot be written; the setting is untouched then.
    pub fn set(&mut self, key: &str, value: &str) -> Result<bool, Error> {
        let key = slashed(key)?;
        let found = read_at(&self.root, &key)?;
        if found == value {
            return Ok(false);
        }
        let kept = self.ledger.get(&key).filter(|entry| entry.ours.contains(&found) || entry.before == found);
        let mut entry = kept.cloned().unwrap_or(Entry { before: found, ours: BTreeSet::new() });
        entry.ours.insert(value.to_owned());
        if kept != Some(&entry) {
            let before = self.ledger.insert(key.clone(), entry);
            if let Err(error) = self.save() {
                // What is not in the file is not known to the next run.
                match before {
                    Some(before) => self.ledger.insert(key, before),
                    None => self.ledger.remove(&key),
                };
                return Err(error);
            }
        }
        self.write(&key, value)?;
        Ok(true)
    }

    /// Puts every setting back as it was, while it still holds our value, and empties the ledger. `forwarding_needed` says that
    /// others on this host forward too (a bridge that is not ours, a container engine): then forwarding stays on. Where that of IPv6 does, so do
    /// the settings by which the kernel still heeds router advertisements. One that cannot be written stays in the ledger, and the others go on.
    pub fn restore_all(&mut self, forwarding_needed: bool) -> Restored {
        let mut restored = Restored::default();
        let forwards_v6 = self.keeps_forwarding_v6(forwarding_needed);
        // Those that ask how forwarding will be come first: whoever goes on after a failure finds it in the ledger.
        let (first, then): (Vec<String>, Vec<String>) = self.ledger.keys().cloned().partition(|key| is_advertisements(key));
        for key in first.into_iter().chain(then) {
            let put_back = self.restore(&key, forwarding_needed, forwards_v6).and_then(|left| {
                self.ledger.remove(&key);
                self.save().map(|()| left)
            });
            match put_back {
                Ok(left) => restored.left.extend(left),
                Err(error) => restored.failed.push(error),
            }
        }
        restored
    }

    /// Puts one setting back, unless it is to be left alone.
    fn restore(&self, key: &str, forwarding_needed: bool, forwards_v6: bool) -> Result<Option<LeftAlone>, Error> {
        let Some(entry) = self.ledger.get(key) else { return Ok(None) };
        let value = match read_at(&self.root, key) {
            // The NIC is gone, and its settings with it.
            Err(Error::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let why = if value == entry.before {
            return Ok(None);
        } else if !entry.ours.contains(&value) {
            Why::ChangedSince
        } else if forwarding_needed && is_forwarding(key) {
            Why::ForwardingNeeded
        } else if forwards_v6 && is_advertisements(key) {
            Why::StillForwards
        } else {
            return self.write(key, &entry.before).map(|()| None);
        };
        Ok(Some(LeftAlone { key: key.to_owned(), value, why }))
    }

    /// Whether this host, which was no IPv6 router when forwarding was set, is one also when everything has been put back.
    fn keeps_forwarding_v6(&self, forwarding_needed: bool) -> bool {
        let Some(entry) = self.ledger.get(FORWARD_V6) else { return false };
        let now = read_at(&self.root, FORWARD_V6);
        now.is_ok_and(|now| now != entry.before && (forwarding_needed || !entry.ours.contains(&now)))
    }

    fn write(&self, key: &str, value: &str) -> Result<(), Error> {
        let written = fs::OpenOptions::new().write(true).open(self.root.join(key)).and_then(|mut file| file.write_all(value.as_bytes()));
        written.map_err(|source| Error::Write { key: key.to_owned(), value: value.to_owned(), source })
    }

    /// Replaces the ledger in one go, and is sure of it: the setting is written right after.
    fn save(&self) -> Result<(), Error> {
        let failed = |source| Error::WriteLedger { path: self.file.clone(), source };
        let mut bytes = serde_json::to_vec_pretty(&self.ledger).map_err(|e| failed(e.into()))?;
        bytes.push(b'\n');
        whole::write(&self.file, &bytes, fs::File::sync_all).map_err(failed)
    }
}

fn read_at(root: &Path, key: &str) -> Result<String, Error> {
    let found = fs::read_to_string(root.join(key));
    found.map(|text| text.trim().to_owned()).map_err(|source| Error::Read { key: key.to_owned(), source })
}

/// Whether this turns a host into a router.
fn is_forwarding(key: &str) -> bool {
    key == "net/ipv4/ip_forward" || (key.starts_with("net/ipv") && key.ends_with("/forwarding"))
}

/// Whether this says if the kernel learns routes from router advertisements: with 1 it does unless it forwards, with 2 in any case.
fn is_advertisements(key: &str) -> bool {
    key.starts_with("net/ipv6/conf/") && key.ends_with("/accept_ra")
}

/// A key with slashes between its parts.
fn slashed(key: &str) -> Result<String, Error> {
    let swap = key.find(['.', '/']).is_some_and(|at| key.as_bytes()[at] == b'.');
    let slashed: String = key
        .chars()
        .map(|c| match c {
            '.' if swap => '/',
            '/' if swap => '.',
            other => other,
        })
        .collect();
    let parts = || slashed.split('/');
    if parts().count() < 2 || parts().any(|part| matches!(part, "" | "." | "..")) {
        return Err(Error::Key { key: key.to_owned() });
    }
    Ok(slashed)
}
