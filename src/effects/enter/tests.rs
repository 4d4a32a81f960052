//! The thread comes back, and enters nothing else than it was told.

use std::os::fd::AsRawFd;
use std::panic::{self, AssertUnwindSafe};
use std::path::PathBuf;
use std::sync::mpsc;
use std::thread;

use nix::sched::unshare;

use super::*;
use crate::netlink::testing::{alone, run};

/// Another namespace, by a path that stays as long as the returned file.
pub fn another() -> (File, PathBuf) {
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).expect("these tests run as root");
        tell.send(kernel::own_namespace()).expect("it is awaited");
    });
    let file = told.recv().unwrap().unwrap();
    let path = format!("/proc/self/fd/{}", file.as_raw_fd()).into();
    (file, path)
}

#[test]
fn work_is_done_inside_and_the_thread_comes_back_whatever_happens() {
    let (file, path) = another();
    let id = NamespaceId::from(file.metadata().unwrap());
    let home = Home::new().unwrap();
    for round in 0..2_000 {
        let done = panic::catch_unwind(AssertUnwindSafe(|| {
            home.visit(&path, id, || {
                assert_eq!(NamespaceId::own()?, id);
                match round % 3 {
                    0 => Ok(()),
                    1 => Err(io::Error::other("no socket")),
                    _ => panic!("an injected fault"),
                }
            })
        }));
        match round % 3 {
            0 => assert!(matches!(done, Ok(Ok(())))),
            1 => assert!(matches!(done, Ok(Err(_)))),
            _ => assert!(done.is_err()),
        }
        assert_eq!(NamespaceId::own().unwrap(), home.id, "round {round}");
    }
}

#[test]
fn a_namespace_that_is_another_one_now_is_not_entered() {
    let (_file, path) = another();
    let (other, _) = another();
    let home = Home::new().unwrap();
    let wrong = home.visit(&path, NamespaceId::from(other.metadata().unwrap()), || -> io::Result<()> { panic!("nothing is done in it") });
    assert_eq!(wrong.unwrap_err().kind(), io::ErrorKind::NotFound);
    let no_namespace = home.visit(Path::new("/dev/null"), home.id, || -> io::Result<()> { panic!("nothing is done in it") });
    assert_eq!(no_namespace.unwrap_err().kind(), io::ErrorKind::NotFound);
}

#[test]
fn a_thread_that_comes_back_to_another_namespace_knows() {
    let (file, _path) = another();
    let home = Home::new().unwrap();
    let lost = Home { file, id: home.id };
    thread::scope(|scope| {
        let came_back = scope.spawn(|| lost.come_back());
        came_back.join().unwrap().expect_err("it ends the process");
    });
}

#[test]
fn a_name_is_a_namespace_once_one_is_mounted_on_it() {
    alone(|| {
        let path = Path::new("/run/netns/blue");
        assert_eq!(NamespaceId::at(path, None), None);
        run("mkdir /run/netns
             touch /run/netns/blue");
        assert_eq!(NamespaceId::at(path, None), None);
        run("rm /run/netns/blue
             ip netns add blue");
        assert!(NamespaceId::at(path, None).is_some_and(|id| id != NamespaceId::own().unwrap()));
    });
}

#[test]
fn a_namespace_without_a_descriptor_to_look_at_it_is_still_there() {
    let (file, path) = another();
    let id = NamespaceId::from(file.metadata().unwrap());
    assert_eq!(NamespaceId::at(&path, Some(id)), Some(id));
    assert!(is_shortage(&io::Error::from(Errno::EMFILE)) && !is_shortage(&io::Error::from(Errno::ESRCH)));
    drop(file);
    assert_ne!(NamespaceId::at(&path, Some(id)), Some(id));
}

#[test]
fn a_namespace_is_written_down_as_it_is_read() {
    let id = NamespaceId::own().unwrap();
    assert_eq!(id.to_string().parse(), Ok(id));
    for other in ["", "4", "4-", "x-1", "sysctl.json"] {
        assert_eq!(other.parse::<NamespaceId>(), Err(()), "{other}");
    }
}
