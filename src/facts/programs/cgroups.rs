//! Control groups of version 2, by path, and those of systemd's units.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::io;
use std::os::unix::fs::{DirEntryExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};

use super::{Watch, below};
use crate::model::programs::{ProgramFacts, Wanted, guarded_parent, instances_of, template_of, with_ancestors};
use crate::model::started::EXEC;

/// A slice in which no unit of the system's is: the pods', thousands perhaps.
const PODS: &str = "kubepods.slice";

/// Where the hierarchy of version 2 is mounted.
///
/// # Errors
/// When it is not, or cannot be told, or only where another mount hides it.
pub fn hierarchy() -> io::Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let there = |place: &PathBuf| statfs(place).is_ok_and(|about| about.filesystem_type() == CGROUP2_SUPER_MAGIC);
    mounted(&mounts).find(there).ok_or_else(|| io::Error::other("none is mounted, or another mount hides it"))
}

/// `mountinfo` of proc(5): the root of the mount is the fourth field, its place the fifth, the type follows a dash.
fn mounted(mounts: &str) -> impl Iterator<Item = PathBuf> {
    let place = |line: &str| {
        let (mount, kind) = line.split_once(" - ")?;
        let mut fields = mount.split(' ').skip(3);
        let (root, place) = (fields.next()?, fields.next()?);
        (root == "/" && kind.split(' ').next() == Some("cgroup2")).then(|| PathBuf::from(place))
    };
    mounts.lines().filter_map(place)
}

/// Looks for all that is wanted, for guarded groups above it, and for the children of these.
pub(super) fn look(root: &Path, wanted: &Wanted, watch: &mut Watch, facts: &mut ProgramFacts) {
    watch.add(root);
    if !wanted.units.is_empty() {
        units(root, "", wanted, watch, facts);
    }
    // Below the slice of a template another instance may come, though none is there.
    let instances = wanted.units.iter().filter_map(|unit| instances_of(unit));
    let found: Vec<String> = facts.units.values().flatten().cloned().chain(instances).collect();
    let mut parents: BTreeSet<&str> = BTreeSet::from([EXEC]);
    for path in wanted.cgroups.iter().chain(&found) {
        parents.extend(guarded_parent(path));
        let mut above: Vec<&str> = with_ancestors(path).skip(1).collect();
        above.reverse();
        above.into_iter().for_each(|path| watch.add(&below(root, path)));
        number(root, path, facts);
    }
    for parent in parents {
        watch.add(&below(root, parent));
        number(root, parent, facts);
        for (name, id) in groups(root, parent) {
            facts.cgroups.insert(format!("{parent}/{name}"), id);
        }
    }
}

fn number(root: &Path, path: &str, facts: &mut ProgramFacts) {
    if let Some(about) = fs::metadata(below(root, path)).ok().filter(fs::Metadata::is_dir) {
        facts.cgroups.insert(path.to_owned(), about.ino());
    }
}

/// Units are right in a slice, and slices in slices.
fn units(root: &Path, slice: &str, wanted: &Wanted, watch: &mut Watch, facts: &mut ProgramFacts) {
    watch.add(&below(root, slice));
    for (name, _) in groups(root, slice) {
        let path = format!("{slice}/{name}");
        if name.ends_with(".slice") && name != PODS {
            units(root, &path, wanted, watch, facts);
        }
        for unit in template_of(&name).into_iter().chain([name]).filter(|unit| wanted.units.contains(unit)) {
            facts.units.entry(unit).or_default().insert(path.clone());
        }
    }
}

/// The group above each, but for those right below the root; none where there is no hierarchy.
pub fn groups_above() -> HashMap<u64, u64> {
    let mut above = HashMap::new();
    let Ok(root) = hierarchy() else { return above };
    let mut left: Vec<(String, u64)> = groups(&root, "");
    while let Some((path, id)) = left.pop() {
        for (name, child) in groups(&root, &path) {
            above.insert(child, id);
            left.push((format!("{path}/{name}"), child));
        }
    }
    above
}

/// The groups right below one, by name, with their numbers; none when it is gone.
fn groups(root: &Path, path: &str) -> Vec<(String, u64)> {
    let entries = fs::read_dir(below(root, path)).into_iter().flatten().flatten();
    let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    folders.filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.ino()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hierarchy_is_found_where_it_is_mounted_as_a_whole() {
        let hybrid =
            "34 24 0:29 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n41 34 0:36 / /sys/fs/cgroup/unified rw,nosuid - cgroup2 cgroup2 rw\n";
        let mounted = |mounts: &str| mounted(mounts).next();
        assert_eq!(mounted(hybrid), Some("/sys/fs/cgroup/unified".into()));
        let part = "41 34 0:36 /docker/1 /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        assert_eq!(mounted(part), None);
        assert_eq!(mounted("35 34 0:30 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"), None);
    }

    #[test]
    fn units_are_found_in_slices_and_guarded_groups_tell_their_children() {
        let root = tempfile::tempdir().unwrap();
        for path in [
            "system.slice/crawler.service",
            "app.slice/app-a.slice/web.service/sub",
            "system.slice/system-batch.slice/batch@1.service",
            "system.slice/system-batch.slice/batch@2.service",
            "system.slice/system-batch.slice/batch@2.socket",
            "system.slice/system-idle.slice/other.scope",
            "jobs/batch/below",
            "jobs/other",
            "kubepods.slice/web.service",
        ] {
            fs::create_dir_all(root.path().join(path)).unwrap();
        }
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let wanted = Wanted {
            users: BTreeSet::new(),
            cgroups: names(&["/jobs/batch", "/absent"]),
            units: names(&["crawler.service", "web.service", "batch@.service", "batch@1.service", "idle@.service"]),
        };
        let (mut facts, runtime) = (ProgramFacts::default(), tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap());
        runtime.block_on(async { look(root.path(), &wanted, &mut Watch::new(), &mut facts) });
        assert_eq!(facts.units["crawler.service"], names(&["/system.slice/crawler.service"]).into_iter().collect());
        assert_eq!(facts.units["web.service"], names(&["/app.slice/app-a.slice/web.service"]).into_iter().collect());
        let [one, two] = ["/system.slice/system-batch.slice/batch@1.service", "/system.slice/system-batch.slice/batch@2.service"];
        assert_eq!(facts.units["batch@.service"], names(&[one, two]).into_iter().collect());
        assert_eq!(facts.units["batch@1.service"], names(&[one]).into_iter().collect());
        assert!(!facts.units.contains_key("idle@.service"));
        let paths: Vec<&str> = facts.cgroups.keys().map(String::as_str).collect();
        assert_eq!(
            paths,
            [
                "/app.slice/app-a.slice",
                "/app.slice/app-a.slice/web.service",
                "/jobs",
                "/jobs/batch",
                "/jobs/other",
                "/system.slice/crawler.service",
                "/system.slice/system-batch.slice",
                one,
                two,
                "/system.slice/system-batch.slice/batch@2.socket",
                "/system.slice/system-idle.slice",
                "/system.slice/system-idle.slice/other.scope",
            ]
        );
    }
}
