//! A folder of manifests while it changes, in every way that editors and tools change files.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use super::*;

/// Generous: what is waited for comes in a tenth of a second.
const SOON: Duration = Duration::from_secs(20);

fn binding(name: &str, address: &str) -> String {
    format!(
        "apiVersion: egressd.dev/v1alpha1\nkind: EgressBinding\nmetadata: {{ name: {name} }}\n\
         spec:\n  containerSelector: {{ names: [{name}] }}\n  exits: [{{ address: {address} }}]\n"
    )
}

async fn next(source: &mut Source) -> Manifests {
    tokio::time::timeout(SOON, source.next()).await.expect("the folder was read")
}

/// Readings until one has these bindings: a write may be seen in two steps.
async fn until(source: &mut Source, wanted: &[&str]) -> Manifests {
    loop {
        let read = next(source).await;
        if exits(&read) == wanted {
            return read;
        }
    }
}

fn exits(manifests: &Manifests) -> Vec<String> {
    manifests.bindings.iter().map(|b| format!("{} {}", b.name.name, b.exits[0].address)).collect()
}

fn write(folder: &Path, file: &str, text: &str) {
    fs::write(folder.join(file), text).expect("written");
}

#[tokio::test]
async fn files_are_followed_as_they_come_change_and_go() {
    let folder = tempfile::tempdir().expect("a folder");
    write(folder.path(), "a.yaml", &binding("a", "172.31.0.8"));
    write(folder.path(), "notes.txt", "not ours");
    write(folder.path(), ".a.yaml.swp", "an editor's");
    write(folder.path(), "loud.YAML", &binding("loud", "172.31.0.7"));
    let mut source = Source::new(folder.path(), Path::new("/nowhere"), None).expect("a thread");
    assert_eq!(exits(&next(&mut source).await), ["default/a 172.31.0.8", "default/loud 172.31.0.7"]);
    fs::remove_file(folder.path().join("loud.YAML")).expect("removed");
    write(
        folder.path(),
        "b.json",
        r#"{"apiVersion":"egressd.dev/v1alpha1","kind":"EgressBinding","metadata":{"name":"b"},"spec":{"networkNamespaces":["b"],"exits":[{"address":"172.31.0.9"}]}}"#,
    );
    until(&mut source, &["default/a 172.31.0.8", "default/b 172.31.0.9"]).await;
    write(folder.path(), "new", &binding("a", "172.31.0.14"));
    fs::rename(folder.path().join("new"), folder.path().join("a.yaml")).expect("renamed");
    until(&mut source, &["default/a 172.31.0.14", "default/b 172.31.0.9"]).await;
    fs::remove_file(folder.path().join("a.yaml")).expect("removed");
    until(&mut source, &["default/b 172.31.0.9"]).await;
}

#[tokio::test]
async fn a_folder_that_comes_later_is_read_then() {
    let above = tempfile::tempdir().expect("a folder");
    let folder = above.path().join("etc/manifests");
    let mut source = Source::new(&folder, Path::new("/nowhere"), None).expect("a thread");
    let missing = next(&mut source).await;
    assert!(missing.errors[0].error.message.contains("does not exist; create it"), "{missing:?}");
    fs::create_dir_all(&folder).expect("made");
    write(&folder, "a.yaml", &binding("a", "172.31.0.8"));
    let read = until(&mut source, &["default/a 172.31.0.8"]).await;
    assert!(read.errors.is_empty(), "{read:?}");
}

/// A file that is removed says something; a folder that is gone does not.
#[test]
fn a_folder_that_is_gone_leaves_in_force_what_it_said() {
    let above = tempfile::tempdir().expect("a folder");
    let path = above.path().join("manifests");
    let mut folder = Folder::new(path.clone(), "/nowhere".into(), None);
    fs::create_dir(&path).expect("made");
    write(&path, "a.yaml", &binding("a", "172.31.0.8"));
    assert_eq!(exits(&folder.read()), ["default/a 172.31.0.8"]);
    fs::rename(&path, above.path().join("away")).expect("moved");
    let gone = folder.read();
    assert_eq!(exits(&gone), ["default/a 172.31.0.8"]);
    assert!(gone.errors[0].error.message.contains("stays in force"), "{gone:?}");
    fs::create_dir(&path).expect("made again");
    assert_eq!(exits(&folder.read()), [""; 0], "an empty folder says that nothing is bound");
    folder.device = Some(0);
    write(&path, "a.yaml", &binding("a", "172.31.0.14"));
    assert_eq!(exits(&folder.read()), ["default/a 172.31.0.14"], "another file system with files");
    fs::remove_file(path.join("a.yaml")).expect("removed");
    folder.device = Some(0);
    let unmounted = folder.read();
    assert_eq!(exits(&unmounted), ["default/a 172.31.0.14"]);
    assert!(unmounted.errors[0].error.message.contains("on another file system"), "{unmounted:?}");
}

#[tokio::test]
async fn a_swapped_link_is_followed_as_configmaps_swap_theirs() {
    let folder = tempfile::tempdir().expect("a folder");
    for (version, address) in [("..1", "172.31.0.8"), ("..2", "172.31.0.14")] {
        fs::create_dir(folder.path().join(version)).expect("made");
        write(&folder.path().join(version), "a.yaml", &binding("a", address));
    }
    symlink("..1", folder.path().join("..data")).expect("linked");
    symlink("..data/a.yaml", folder.path().join("a.yaml")).expect("linked");
    let mut source = Source::new(folder.path(), Path::new("/nowhere"), None).expect("a thread");
    assert_eq!(exits(&next(&mut source).await), ["default/a 172.31.0.8"]);
    symlink("..2", folder.path().join("..tmp")).expect("linked");
    fs::rename(folder.path().join("..tmp"), folder.path().join("..data")).expect("swapped");
    until(&mut source, &["default/a 172.31.0.14"]).await;
}

#[tokio::test]
async fn a_folder_that_is_a_link_is_followed_when_it_points_elsewhere() {
    let above = tempfile::tempdir().expect("a folder");
    for (version, address) in [("one", "172.31.0.8"), ("two", "172.31.0.14")] {
        fs::create_dir(above.path().join(version)).expect("made");
        write(&above.path().join(version), "a.yaml", &binding("a", address));
    }
    let folder = above.path().join("current");
    symlink("one", &folder).expect("linked");
    let mut source = Source::new(&folder, Path::new("/nowhere"), None).expect("a thread");
    assert_eq!(exits(&next(&mut source).await), ["default/a 172.31.0.8"]);
    symlink("two", above.path().join("new")).expect("linked");
    fs::rename(above.path().join("new"), &folder).expect("swapped");
    until(&mut source, &["default/a 172.31.0.14"]).await;
    write(&above.path().join("two"), "a.yaml", &binding("a", "172.31.0.15"));
    until(&mut source, &["default/a 172.31.0.15"]).await;
}

#[test]
fn a_file_that_has_not_changed_is_not_read_again() {
    let place = tempfile::tempdir().expect("a folder");
    let mut folder = Folder::new(place.path().to_owned(), "/nowhere".into(), None);
    write(place.path(), "a.yaml", &binding("a", "172.31.0.8"));
    let before = folder.read();
    write(place.path(), "b.yaml", &binding("b", "172.31.0.14"));
    let after = folder.read();
    assert_eq!(exits(&after), ["default/a 172.31.0.8", "default/b 172.31.0.14"]);
    assert!(Arc::ptr_eq(&before.bindings[0], &after.bindings[0]));
    write(place.path(), "a.yaml", &binding("a", "172.31.0.9"));
    assert_eq!(exits(&folder.read()), ["default/a 172.31.0.9", "default/b 172.31.0.14"]);
}

#[test]
fn a_file_that_breaks_leaves_in_force_what_it_said() {
    let place = tempfile::tempdir().expect("a folder");
    let mut folder = Folder::new(place.path().to_owned(), "/nowhere".into(), None);
    write(place.path(), "a.yaml", &binding("a", "172.31.0.8"));
    let good = folder.read();
    for broken in [&b"spec: [half"[..], b"\x00\xff", b"", b" \n", &vec![b' '; MAX_FILE + 1]] {
        fs::write(place.path().join("a.yaml"), broken).expect("written");
        let read = folder.read();
        assert_eq!(read.bindings, good.bindings);
        assert_eq!(read.errors.len(), 1);
        assert!(read.errors[0].error.message.ends_with("(the file's last valid version stays in force)"), "{:?}", read.errors);
    }
    write(place.path(), "a.yaml", &binding("a", "172.31.0.14"));
    assert_eq!(exits(&folder.read()), ["default/a 172.31.0.14"]);
    assert_eq!(folder.read().errors, []);
    fs::remove_file(place.path().join("a.yaml")).expect("removed");
    assert_eq!(folder.read(), Manifests::default());
}

#[test]
fn what_is_not_a_regular_file_is_named_and_blocks_nobody() {
    let place = tempfile::tempdir().expect("a folder");
    nix::unistd::mkfifo(&place.path().join("pipe.yaml"), nix::sys::stat::Mode::S_IRWXU).expect("made");
    symlink("nowhere", place.path().join("lost.yaml")).expect("linked");
    fs::create_dir(place.path().join("folder.yaml")).expect("made");
    write(place.path(), "z.yaml", &binding("z", "172.31.0.8"));
    let read = Folder::new(place.path().to_owned(), "/nowhere".into(), None).read();
    let objects: Vec<_> = read.errors.iter().map(|e| e.object.as_str()).collect();
    assert_eq!(objects, ["lost.yaml", "pipe.yaml"]);
    assert_eq!(exits(&read), ["default/z 172.31.0.8"]);
}

#[test]
fn a_file_in_place_of_the_folder_is_an_error() {
    let place = tempfile::tempdir().expect("a folder");
    write(place.path(), "file", "");
    let read = Folder::new(place.path().join("file"), "/nowhere".into(), None).read();
    assert_eq!(read.errors.len(), 1);
    assert_eq!(read.errors[0].error.field, "folder");
}

#[tokio::test]
async fn reading_a_folder_is_not_taken_for_a_change_of_it() {
    let folder = tempfile::tempdir().expect("a folder");
    write(folder.path(), "a.yaml", &binding("a", "172.31.0.8"));
    let (signal, signals) = mpsc::channel();
    let _watch = Watch::new(folder.path(), &signal, &Writers::default());
    Folder::new(folder.path().to_owned(), "/nowhere".into(), None).read();
    assert!(signals.recv_timeout(Duration::from_millis(300)).is_err());
    write(folder.path(), "a.yaml", &binding("a", "172.31.0.9"));
    assert_eq!(signals.recv_timeout(SOON), Ok(Signal::Change));
}

#[tokio::test]
async fn a_name_that_is_not_utf8_is_a_problem() {
    use std::os::unix::ffi::OsStrExt;
    let folder = tempfile::tempdir().expect("a folder");
    let odd = folder.path().join(std::ffi::OsStr::from_bytes(b"caf\xe9.yaml"));
    fs::write(&odd, binding("a", "172.31.0.8")).expect("written");
    let read = next(&mut Source::new(folder.path(), Path::new("/nowhere"), None).expect("a thread")).await;
    let [ManifestError { object, error }] = read.errors.as_slice() else { panic!("{:?}", read.errors) };
    assert!(object.contains("caf") && error.message.contains("rename it"), "{object}: {error}");
}

#[tokio::test]
async fn the_file_of_options_is_no_manifest() {
    let folder = tempfile::tempdir().expect("a folder");
    write(folder.path(), "a.yaml", &binding("a", "172.31.0.8"));
    write(folder.path(), "config.yaml", "no-docker: true\n");
    let read = async |apart: &str| next(&mut Source::new(folder.path(), &folder.path().join(apart), None).expect("a thread")).await;
    assert_eq!(read("other.yaml").await.errors.len(), 1, "it would be one");
    let read = read("config.yaml").await;
    assert!(read.errors.is_empty(), "{:?}", read.errors);
    assert_eq!(exits(&read), ["default/a 172.31.0.8"]);
}

/// A part of a file can be whole by itself: that it is one shows only in that its writer has not closed it.
#[tokio::test]
async fn a_file_that_is_being_written_says_what_it_said_until_its_writer_is_done() {
    use std::io::Write;
    let folder = tempfile::tempdir().expect("a folder");
    let both = format!("{}---\n{}", binding("a", "172.31.0.8"), binding("b", "172.31.0.9"));
    write(folder.path(), "two.yaml", &both);
    let mut source = Source::new(folder.path(), Path::new("/nowhere"), None).expect("a thread");
    assert_eq!(exits(&next(&mut source).await).len(), 2);
    let changed = both.replace("172.31.0.9", "172.31.0.10");
    let (half, rest) = changed.split_at(changed.find("---").expect("it has two documents"));
    let mut file = fs::File::create(folder.path().join("two.yaml")).expect("emptied");
    file.write_all(half.as_bytes()).expect("written");
    let early = tokio::time::timeout(Duration::from_millis(500), source.next()).await;
    assert!(early.is_err(), "{:?}", early.map(|early| exits(&early)));
    file.write_all(rest.as_bytes()).expect("written");
    drop(file);
    until(&mut source, &["default/a 172.31.0.8", "default/b 172.31.0.10"]).await;
    // Who keeps it open is not waited for for ever.
    let mut file = fs::File::create(folder.path().join("two.yaml")).expect("emptied");
    file.write_all(half.as_bytes()).expect("written");
    until(&mut source, &["default/a 172.31.0.8"]).await;
}

/// As it would be without the restart.
#[test]
fn what_breaks_while_nobody_reads_leaves_in_force_what_it_said() {
    let above = tempfile::tempdir().expect("a folder");
    let (path, memory) = (above.path().join("manifests"), above.path().join("memory"));
    let started = || Folder::new(path.clone(), "/nowhere".into(), Some(memory.clone()));
    fs::create_dir(&path).expect("made");
    for (file, address) in [("a.yaml", "172.31.0.8"), ("b.yaml", "172.31.0.9")] {
        write(&path, file, &binding(&file[..1], address));
    }
    let before = started().read();
    let both = ["default/a 172.31.0.8", "default/b 172.31.0.9"];
    assert_eq!(exits(&before), both);
    for broken in ["apiVersion: [", ""] {
        write(&path, "a.yaml", broken);
        let read = started().read();
        assert_eq!(exits(&read), both, "{broken:?}");
        assert_eq!(read.errors.len(), 1, "it is told: {read:?}");
    }
    fs::rename(&path, above.path().join("away")).expect("moved");
    let read = started().read();
    assert_eq!(exits(&read), both.map(str::to_owned).to_vec());
    fs::create_dir(&path).expect("made again");
    write(&path, "b.yaml", &binding("b", "172.31.0.9"));
    assert_eq!(exits(&started().read()), both[1..], "a file that is removed says something");
    assert_eq!(exits(&started().read()), both[1..]);
}

/// Whoever was bound stays held, though the file that names them nowhere is all that the next start finds.
#[test]
fn a_selector_that_turns_wrong_holds_whom_it_named_through_restarts() {
    let above = tempfile::tempdir().expect("a folder");
    let (path, memory) = (above.path().join("manifests"), above.path().join("memory"));
    let started = || Folder::new(path.clone(), "/nowhere".into(), Some(memory.clone()));
    fs::create_dir(&path).expect("made");
    write(&path, "a.yaml", &binding("a", "172.31.0.8"));
    started().read();
    for wrong in ["names: []", "nams: [a]", "names: ['a b']"] {
        write(&path, "a.yaml", &binding("a", "172.31.0.8").replace("names: [a]", wrong));
        for _ in 0..2 {
            let read = started().read();
            assert_eq!(exits(&read), ["default/a 172.31.0.8"], "{wrong}");
            assert!(!read.bindings[0].errors.is_empty(), "it is held: {read:?}");
        }
    }
    write(&path, "a.yaml", &binding("a", "172.31.0.9"));
    assert_eq!(exits(&started().read()), ["default/a 172.31.0.9"]);
    assert_eq!(fs::read_dir(memory.join("bindings")).expect("listed").count(), 0);
}
