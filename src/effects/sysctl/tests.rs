//! The ledger on plain files, and one real setting in a namespace of the test's own.

use super::*;
use crate::netlink::testing::{alone, run};

const FORWARD: &str = "net/ipv4/ip_forward";
const FILTER: &str = "net/ipv4/conf/eth1.5/rp_filter";
/// In the order of keys one of them is ahead of the setting for forwarding, and one behind.
const ADVERTISED: [&str; 2] = ["net/ipv6/conf/aether0/accept_ra", "net/ipv6/conf/eth0/accept_ra"];

struct Host {
    folder: tempfile::TempDir,
}

impl Host {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let host = Self { folder };
        for key in [FORWARD, FILTER, FORWARD_V6].into_iter().chain(ADVERTISED) {
            fs::create_dir_all(host.root().join(key).parent().unwrap()).unwrap();
            host.write(key, "0\n");
        }
        host
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("sys")
    }

    fn write(&self, key: &str, value: &str) {
        fs::write(self.root().join(key), value).unwrap();
    }

    fn read(&self, key: &str) -> String {
        read_at(&self.root(), key).unwrap()
    }

    /// A new daemon on this host.
    fn start(&self) -> Sysctls {
        Sysctls::open(&self.root(), self.folder.path()).unwrap()
    }
}

impl Restored {
    /// Nothing failed: what was left alone.
    fn whole(self) -> Vec<LeftAlone> {
        assert!(self.failed.is_empty(), "{self:?}");
        self.left
    }
}

#[test]
fn one_that_cannot_be_put_back_keeps_no_other_from_it() {
    let host = Host::new();
    let mut sysctls = host.start();
    for key in [FILTER, FORWARD, FORWARD_V6] {
        sysctls.set(key, "1").unwrap();
    }
    let broken = host.root().join(FORWARD);
    fs::remove_file(&broken).unwrap();
    fs::create_dir(&broken).unwrap();
    let restored = host.start().restore_all(false);
    assert!(matches!(restored.failed.as_slice(), [Error::Read { key, .. }] if key == FORWARD), "{restored:?}");
    assert_eq!((host.read(FILTER), host.read(FORWARD_V6)), ("0".into(), "0".into()));
    fs::remove_dir(&broken).unwrap();
    host.write(FORWARD, "1");
    assert_eq!(host.start().restore_all(false).whole(), [], "it is tried again");
    assert_eq!(host.read(FORWARD), "0");
}

#[test]
fn what_was_set_is_put_back_by_a_later_run() {
    let host = Host::new();
    assert!(host.start().set(FILTER, "2").unwrap());
    assert!(host.start().set(FORWARD, "1").unwrap());
    assert_eq!((host.read(FILTER), host.read(FORWARD)), ("2".into(), "1".into()));
    assert_eq!(host.start().restore_all(false).whole(), []);
    assert_eq!((host.read(FILTER), host.read(FORWARD)), ("0".into(), "0".into()));
}

#[test]
fn what_could_not_be_noted_is_not_set_however_often_it_is_tried() {
    let host = Host::new();
    let mut sysctls = Sysctls::open(&host.root(), &host.folder.path().join("state")).unwrap();
    for _ in 0..3 {
        sysctls.set(FILTER, "2").unwrap_err();
        assert_eq!(host.read(FILTER), "0");
    }
    fs::create_dir(host.folder.path().join("state")).unwrap();
    assert!(sysctls.set(FILTER, "2").unwrap());
    assert_eq!(sysctls.restore_all(false).whole(), []);
    assert_eq!(host.read(FILTER), "0");
}

#[test]
fn a_setting_that_holds_the_value_already_is_not_ours() {
    let host = Host::new();
    host.write(FORWARD, "1\n");
    assert!(!host.start().set(FORWARD, "1").unwrap());
    host.start().restore_all(false).whole();
    assert_eq!(host.read(FORWARD), "1");
}

#[test]
fn a_setting_that_somebody_changed_since_is_left_alone() {
    let host = Host::new();
    host.start().set(FILTER, "2").unwrap();
    host.write(FILTER, "1\n");
    let left = host.start().restore_all(false).whole();
    let expected = LeftAlone { key: FILTER.into(), value: "1".into(), why: Why::ChangedSince };
    assert_eq!(left, [expected]);
    assert_eq!(host.read(FILTER), "1");
    assert_eq!(host.start().restore_all(false).whole(), [], "it is said once");
}

#[test]
fn a_change_by_somebody_else_is_what_a_later_one_of_ours_goes_back_to() {
    let host = Host::new();
    let mut sysctls = host.start();
    sysctls.set(FILTER, "2").unwrap();
    host.write(FILTER, "1\n");
    sysctls.set(FILTER, "2").unwrap();
    sysctls.restore_all(false).whole();
    assert_eq!(host.read(FILTER), "1");
}

#[test]
fn forwarding_stays_on_while_others_need_it() {
    let host = Host::new();
    host.start().set(FORWARD, "1").unwrap();
    let left = host.start().restore_all(true).whole();
    let expected = LeftAlone { key: FORWARD.into(), value: "1".into(), why: Why::ForwardingNeeded };
    assert_eq!(left, [expected]);
    assert_eq!(host.read(FORWARD), "1");
}

/// A host with advertised default routes, as the daemon leaves it; then it is cleaned up.
fn cleaned_up(forwarded_before: &str, forwarding_needed: bool) -> ([String; 3], Vec<LeftAlone>) {
    let host = Host::new();
    host.write(FORWARD_V6, forwarded_before);
    for key in ADVERTISED {
        host.write(key, "1\n");
        host.start().set(key, "2").unwrap();
    }
    host.start().set(FORWARD_V6, "1").unwrap();
    let left = host.start().restore_all(forwarding_needed).whole();
    ([FORWARD_V6, ADVERTISED[0], ADVERTISED[1]].map(|key| host.read(key)), left)
}

#[test]
fn advertised_default_routes_are_renewed_while_forwarding_of_ipv6_stays_on() {
    let (settings, left) = cleaned_up("0", true);
    assert_eq!(settings, ["1", "2", "2"]);
    let advertised = left.iter().filter(|left| left.why == Why::StillForwards).map(|left| left.key.as_str());
    assert_eq!(advertised.collect::<Vec<_>>(), ADVERTISED);
    assert_eq!(cleaned_up("1", true).0, ["1", "1", "1"], "it was on before, and is as it was found");
    assert_eq!(cleaned_up("0", false), (["0", "1", "1"].map(str::to_owned), Vec::new()), "nobody forwards any more");
}

#[test]
fn a_crash_between_the_ledger_and_the_setting_does_no_harm() {
    let host = Host::new();
    let mut sysctls = host.start();
    sysctls.set(FILTER, "1").unwrap();
    // As if it was killed after the ledger had the next value, before the setting had.
    sysctls.set(FILTER, "2").unwrap();
    host.write(FILTER, "1\n");
    assert_eq!(host.start().restore_all(false).whole(), []);
    assert_eq!(host.read(FILTER), "0");

    // As if it was killed like that at the very first change.
    host.start().set(FILTER, "2").unwrap();
    host.write(FILTER, "0\n");
    assert_eq!(host.start().restore_all(false).whole(), []);
    assert_eq!(host.read(FILTER), "0");
}

#[test]
fn a_ledger_that_cannot_be_written_leaves_the_setting_untouched() {
    let host = Host::new();
    let mut sysctls = host.start();
    fs::create_dir(host.folder.path().join("sysctl.new")).unwrap();
    assert!(matches!(sysctls.set(FILTER, "2"), Err(Error::WriteLedger { .. })));
    assert_eq!(host.read(FILTER), "0");
}

#[test]
fn a_nic_that_is_gone_has_nothing_to_put_back() {
    let host = Host::new();
    host.start().set(FILTER, "2").unwrap();
    fs::remove_file(host.root().join(FILTER)).unwrap();
    assert_eq!(host.start().restore_all(false).whole(), []);
}

#[test]
fn a_broken_ledger_is_not_replaced_by_an_empty_one() {
    let host = Host::new();
    fs::write(host.folder.path().join(LEDGER), "{").unwrap();
    let opened = Sysctls::open(&host.root(), host.folder.path());
    assert!(matches!(opened, Err(Error::ParseLedger { .. })));
}

#[test]
fn the_first_separator_of_a_key_is_its_separator() {
    assert_eq!(slashed("net.ipv4.conf.eth1.rp_filter").unwrap(), "net/ipv4/conf/eth1/rp_filter");
    assert_eq!(slashed("net/ipv4/conf/eth1.5/rp_filter").unwrap(), FILTER);
    assert_eq!(slashed("net.ipv4.conf.eth1/5.rp_filter").unwrap(), FILTER);
    for wrong in ["", "net", "net/../../etc/passwd", "/net/ipv4", "net//ipv4"] {
        assert!(matches!(slashed(wrong), Err(Error::Key { .. })), "{wrong}");
    }
}

#[test]
fn a_real_setting_of_a_vlan_nic_is_set_and_put_back() {
    alone(|| {
        run("ip link add eth1.5 type veth peer name wire");
        let root = Path::new("/proc/sys");
        let state = tempfile::tempdir_in("/run").unwrap();
        let before = read(root, FILTER).unwrap();
        let ours = if before == "2" { "1" } else { "2" };
        Sysctls::open(root, state.path()).unwrap().set(FILTER, ours).unwrap();
        assert_eq!(read(root, FILTER).unwrap(), ours);
        Sysctls::open(root, state.path()).unwrap().restore_all(false).whole();
        assert_eq!(read(root, FILTER).unwrap(), before);
    });
}
