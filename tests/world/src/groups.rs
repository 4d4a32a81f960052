//! Control groups that a test makes below each hierarchy's root, and their end.
//!
//! All are below one whose name begins with `PREFIX`. What stays behind is not only untidy: kubelets look at every group of the machine when
//! they start, and ask containerd about each that has a container's name. Some thousand cost a node ten seconds of a processor.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

/// Before the number of a test program's process.
const PREFIX: &str = "egressd-test-";
/// What a killed program left is removed after this time. Its number may have been counted in another PID namespace.
const STALE: Duration = Duration::from_secs(3600);
const PATIENCE: Duration = Duration::from_secs(5);

/// A name that no other test has.
pub fn unique() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{PREFIX}{}-{}", process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Makes a group in each hierarchy, with the controllers that there are.
pub fn make(name: &str) -> io::Result<()> {
    for root in roots()? {
        let group = root.join(name);
        fs::create_dir_all(&group)?;
        // In version 2 controllers are handed down by each group on the way; in version 1 there is no such file.
        let above: Vec<&Path> = group.ancestors().skip(1).take_while(|above| above.starts_with(&root)).collect();
        for above in above.into_iter().rev() {
            let controllers = fs::read_to_string(above.join("cgroup.controllers")).unwrap_or_default();
            for controller in controllers.split_whitespace() {
                // One that this machine does not hand down is one that nobody has.
                let _ = fs::write(above.join("cgroup.subtree_control"), format!("+{controller}"));
            }
        }
    }
    Ok(())
}

/// Removes the group from each hierarchy, with those below it. Killed processes take a moment to leave it.
pub fn remove(name: &str) -> Result<(), String> {
    let roots = roots().map_err(|error| format!("failed to read /proc/mounts: {error}"))?;
    let groups: Vec<PathBuf> = roots.into_iter().map(|root| root.join(name)).collect();
    let start = Instant::now();
    loop {
        let failed: Vec<String> = groups
            .iter()
            .filter(|group| group.exists())
            .filter_map(|group| remove_tree(group).err().map(|error| format!("{}: {error}", group.display())))
            .collect();
        if failed.is_empty() {
            return Ok(());
        }
        if start.elapsed() > PATIENCE {
            return Err(format!("left a control group behind: {}", failed.join(", ")));
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// Removes what test programs left that were killed.
pub(crate) fn sweep() {
    for root in roots().unwrap_or_default() {
        for group in fs::read_dir(root).into_iter().flatten().flatten().filter(is_stale) {
            // Another program may be sweeping, too.
            let _ = remove_tree(&group.path());
        }
    }
}

fn is_stale(group: &fs::DirEntry) -> bool {
    let name = group.file_name();
    let process = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.split('-').next());
    let old = || group.metadata()?.modified()?.elapsed().map_err(io::Error::other);
    process.is_some_and(|process| !Path::new("/proc").join(process).exists()) && old().is_ok_and(|age| age > STALE)
}

/// Where hierarchies are mounted.
fn roots() -> io::Result<Vec<PathBuf>> {
    let mounts = fs::read_to_string("/proc/mounts")?;
    let root = |line: &str| {
        let mut fields = line.split(' ').skip(1);
        let (path, kind) = (fields.next()?, fields.next()?);
        kind.starts_with("cgroup").then(|| PathBuf::from(path))
    };
    Ok(mounts.lines().filter_map(root).collect())
}

/// Control groups are removed by rmdir, children first; their files are not files.
fn remove_tree(group: &Path) -> io::Result<()> {
    for entry in fs::read_dir(group)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(group)
}
