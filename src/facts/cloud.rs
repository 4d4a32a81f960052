//! What `egressd-cloud` on this host says of addresses: a file that it replaces as a whole.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::Deserialize;
use tracing::{info, warn};

use crate::model::cloud::{AddressReport, AddressReports};

/// Name of the file within the state folder of `egressd-cloud`.
const FILE: &str = "status.json";
/// How often it is looked whether there is another file. (Its folder comes and goes with that program: it cannot be watched.)
const EVERY: Duration = Duration::from_secs(1);

/// The file, as far as it is of interest.
#[derive(Deserialize)]
struct Status {
    pools: BTreeMap<String, Pool>,
}

#[derive(Deserialize)]
struct Pool {
    addresses: AddressReports,
}

/// What tells one file from the next.
type Mark = (SystemTime, u64);

/// The file's reader.
pub struct Source {
    path: PathBuf,
    read: Option<Mark>,
    /// The file of which it was told last that it cannot be read.
    told: Option<Mark>,
    last: Option<AddressReports>,
}

impl Source {
    /// Of the state folder of `egressd-cloud`, which need not be there.
    pub fn new(folder: &Path) -> Self {
        Self { path: folder.join(FILE), read: None, told: None, last: None }
    }

    /// At first what is there, which may be nothing, and then each change. A file that goes, or cannot be read, changes nothing: what the cloud
    /// has shown is not gone by that.
    pub async fn next(&mut self) -> AddressReports {
        loop {
            let first = self.last.is_none();
            let reports = self.look();
            if let Some(reports) = reports.filter(|reports| self.last.as_ref() != Some(reports)) {
                info!(path = %self.path.display(), addresses = reports.len(), "read the cloud's addresses");
                return self.last.insert(reports).clone();
            }
            if first {
                return self.last.insert(AddressReports::new()).clone();
            }
            tokio::time::sleep(EVERY).await;
        }
    }

    /// What another file says than the one that was read last.
    fn look(&mut self) -> Option<AddressReports> {
        let mark = mark(&self.path).ok().filter(|mark| self.read.as_ref() != Some(mark))?;
        let read = read(&self.path);
        self.take(mark, read)
    }

    fn take(&mut self, mark: Mark, read: io::Result<AddressReports>) -> Option<AddressReports> {
        // What is no status stays none; what could not be read now may be read the next time.
        if read.as_ref().map_or_else(is_of_the_text, |_| true) {
            self.read = Some(mark);
        }
        let failed = |error: &io::Error| {
            if self.told.replace(mark) != Some(mark) {
                warn!(path = %self.path.display(), %error, "failed to read the cloud's state of addresses; the last known state stays in force");
            }
        };
        read.inspect_err(failed).ok()
    }
}

/// Whether the file was read, and is no status.
fn is_of_the_text(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)
}

fn mark(path: &Path) -> io::Result<Mark> {
    let metadata = std::fs::metadata(path)?;
    if !metadata.is_file() {
        // A FIFO would block.
        return Err(io::Error::other("not a regular file"));
    }
    Ok((metadata.modified()?, std::os::unix::fs::MetadataExt::ino(&metadata)))
}

fn read(path: &Path) -> io::Result<AddressReports> {
    let status: Status = serde_json::from_slice(&std::fs::read(path)?)?;
    let mut all = AddressReports::new();
    for (address, report) in status.pools.into_values().flat_map(|pool| pool.addresses) {
        let old = all.entry(address).or_default();
        if rank(&report) >= rank(old) {
            *old = report;
        }
    }
    Ok(all)
}

/// Where two pools have one address the cloud carries it if either is given it.
fn rank(report: &AddressReport) -> (bool, bool) {
    (report.ready, report.public_address.is_some())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::json;

    use super::*;

    fn write(folder: &Path, text: &str) {
        let next = folder.join("next");
        fs::write(&next, text).expect("the folder is ours");
        fs::rename(next, folder.join(FILE)).expect("the folder is ours");
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_known_holds_when_the_file_goes_or_breaks() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut source = Source::new(folder.path());
        assert_eq!(source.next().await, AddressReports::new(), "the file need not be there");
        let text = r#"{ "pools": { "forwarder": { "ready": true, "addresses": { "10.0.1.94": { "ready": true, "publicAddress": "203.0.113.41",
            "elasticAddress": "eipalloc-1", "message": "" } } } }, "errors": [] }"#;
        write(folder.path(), text);
        let known = source.next().await;
        assert!(known[&"10.0.1.94".parse::<std::net::IpAddr>().unwrap()].ready);
        for broken in ["", "{}", "null"] {
            write(folder.path(), broken);
            assert_eq!(source.look(), None);
        }
        // A disk that fails for a moment.
        write(folder.path(), text);
        let mark = mark(&folder.path().join(FILE)).expect("it is there");
        assert_eq!(source.take(mark, Err(io::ErrorKind::Other.into())), None);
        assert_eq!(source.look(), Some(known.clone()));
        fs::remove_file(folder.path().join(FILE)).expect("it is there");
        assert_eq!(source.look(), None);
        write(folder.path(), &text.replace("203.0.113.41", "203.0.113.42"));
        assert_ne!(source.next().await, known);
    }

    #[test]
    fn of_two_pools_with_one_address_the_one_that_has_it_counts() {
        let folder = tempfile::tempdir().expect("a folder");
        let pool = |ready: bool| json!({ "addresses": { "10.0.1.96": { "ready": ready, "publicAddress": null, "elasticAddress": null, "message": "" } } });
        for (first, second, ready) in [(true, false, true), (false, true, true), (false, false, false)] {
            write(folder.path(), &json!({ "pools": { "a": pool(first), "b": pool(second) }, "errors": [] }).to_string());
            let reports = Source::new(folder.path()).look().expect("it can be read");
            assert_eq!(reports.values().map(|report| report.ready).collect::<Vec<_>>(), [ready], "{first}, {second}");
        }
    }
}
