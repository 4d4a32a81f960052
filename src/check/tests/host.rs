//! A real kernel, and configuration in a folder that stands for the root.

use std::fs;
use std::path::Path;

use crate::check::finding::{Finding, Level};
use crate::check::findings::all;
use crate::check::gather::gather;
use crate::netlink::testing::{alone, run};

/// Everything there is to say here.
fn check(root: &Path) -> Vec<Finding> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let nowhere = root.join("nowhere");
    all(&runtime.block_on(gather(root, Path::new("/proc/sys"), &nowhere, &nowhere)))
}

fn a_nic() {
    run("ip link add eth7 type veth peer name wire
         ip addr add 198.51.100.7/24 dev eth7
         ip link set eth7 up
         ip link set wire up");
}

/// Those that are about a subject that begins so.
fn about<'a>(findings: &'a [Finding], subject: &str) -> Vec<&'a Finding> {
    findings.iter().filter(|finding| finding.subject.starts_with(subject)).collect()
}

#[test]
fn a_clean_namespace_fails_in_nothing_and_is_left_as_it_was() {
    alone(|| {
        a_nic();
        let root = tempfile::tempdir_in("/run").unwrap();
        let state = || run("nft list ruleset\nip rule\nip -6 rule\nip route show table all\nip link show");
        // The kernel says a moment later that both ends are up, and later still, once nobody else has them, that their addresses are theirs.
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while state().contains("linkdown") || state().matches("local fe80::").count() < 2 {
            assert!(std::time::Instant::now() < deadline, "{}", state());
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        let before = state();
        let findings = check(root.path());
        let failed: Vec<_> = findings.iter().filter(|finding| finding.level == Level::Fail).collect();
        assert!(failed.is_empty(), "{failed:#?}");
        assert!(about(&findings, "kernel's parts")[0].message.contains("SNAT"), "{findings:#?}");
        assert_eq!(about(&findings, "settings of eth7").len(), 1);
        assert_eq!(about(&findings, "Docker")[0].level, Level::Ok, "a host without Docker lacks nothing");
        assert!(fs::read_dir(root.path()).unwrap().next().is_none(), "a file was made");
        assert_eq!(state(), before);
    });
}

#[test]
fn a_nat_chain_ahead_of_ours_is_found() {
    alone(|| {
        run("nft 'table inet other { chain early { type nat hook postrouting priority 50; oifname eth7 masquerade; }; }'");
        let findings = check(Path::new("/run"));
        assert_eq!(about(&findings, "NAT chain inet other early")[0].level, Level::Fail, "{findings:#?}");
    });
}

#[test]
fn a_dropping_forward_policy_is_found_where_another_bridge_is() {
    alone(|| {
        run("nft 'table ip filter { chain FORWARD { type filter hook forward priority 0; policy drop; }; }'
             ip link add br7 type bridge");
        let findings = check(Path::new("/run"));
        assert_eq!(about(&findings, "forward chain ip filter FORWARD")[0].level, Level::Warn, "{findings:#?}");
    });
}

#[test]
fn rules_ahead_of_ours_and_on_our_marks_are_found_as_ip_rule_shows_them() {
    alone(|| {
        a_nic();
        run("ip route add default via 198.51.100.1 table 100
             ip rule add pref 50 fwmark 0x1001/0x10ff iif eth7 lookup 100
             ip rule add pref 60 not to 203.0.113.0/24 ipproto tcp dport 80 lookup 100
             ip rule add pref 70 to 198.51.100.9 lookup main
             ip rule add pref 80 unreachable
             ip -6 rule add pref 3000 fwmark 0x1000 lookup 100");
        let findings = check(Path::new("/run"));
        let said: Vec<_> = about(&findings, "policy rule").iter().map(|f| (f.level, f.subject.clone())).collect();
        let expected = [
            (Level::Fail, "policy rule 50: from all fwmark 0x1001/0x10ff iif eth7 lookup 100"),
            (Level::Ok, "policy rule 60: not from all to 203.0.113.0/24 and more lookup 100"),
            (Level::Ok, "policy rule 80: from all unreachable"),
            (Level::Fail, "policy rule 3000: from all fwmark 0x1000 lookup 100 (IPv6)"),
        ];
        assert_eq!(said, expected.map(|(level, subject)| (level, subject.to_owned())));
    });
}

#[test]
fn a_route_in_a_table_of_ours_and_a_link_group_are_found() {
    alone(|| {
        a_nic();
        run("ip route add default via 198.51.100.1 table 15601
             ip link set eth7 group 7");
        let findings = check(Path::new("/run"));
        assert_eq!(about(&findings, "route 0.0.0.0/0 in table 15601")[0].level, Level::Fail, "{findings:#?}");
        assert_eq!(about(&findings, "eth7")[0].level, Level::Warn);
    });
}

#[test]
fn networkd_s_settings_come_from_the_file_that_systemd_would_take() {
    alone(|| {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let level = || about(&check(root.path()), "systemd-networkd").first().map(|finding| finding.level);
        let both = "[Network]\nManageForeignRoutes = no\nManageForeignRoutingPolicyRules=false\n";
        write("etc/systemd/networkd.conf.d/90-egressd.conf", both);
        assert_eq!(level(), None, "it does not run");
        fs::create_dir_all(root.path().join("run/systemd/netif/links")).unwrap();
        assert_eq!(level(), None, "systemd makes this folder on every host");
        fs::create_dir_all(root.path().join("run/systemd/units")).unwrap();
        let active = root.path().join("run/systemd/units/invocation:systemd-networkd.service");
        std::os::unix::fs::symlink("0123456789abcdef0123456789abcdef", active).unwrap();
        assert_eq!(level(), Some(Level::Ok));
        write("usr/lib/systemd/networkd.conf.d/95-vendor.conf", "[Network]\nManageForeignRoutes=yes\n");
        assert_eq!(level(), Some(Level::Warn), "of two names the later counts");
        write("etc/systemd/networkd.conf.d/95-vendor.conf", "");
        assert_eq!(level(), Some(Level::Ok), "an empty file of the same name hides the vendor's");
        fs::remove_file(root.path().join("etc/systemd/networkd.conf.d/90-egressd.conf")).unwrap();
        assert_eq!(level(), Some(Level::Warn));
        write("usr/lib/systemd/networkd.conf", both);
        assert_eq!(level(), Some(Level::Ok), "the only main file");
        write("etc/systemd/networkd.conf", "[DHCPv4]\nManageForeignRoutes=no\n#ManageForeignRoutes=no\n");
        assert_eq!(level(), Some(Level::Warn), "another section, and the vendor's main file is not read");
    });
}

#[test]
fn a_nic_that_network_manager_manages_is_found() {
    alone(|| {
        a_nic();
        let root = tempfile::tempdir_in("/run").unwrap();
        let index = run("ip -o link show eth7").split(':').next().unwrap().to_owned();
        let devices = root.path().join("run/NetworkManager/devices");
        fs::create_dir_all(&devices).unwrap();
        fs::write(devices.join(&index), "[device]\nmanaged=true\n").unwrap();
        assert!(about(&check(root.path()), "NetworkManager")[0].message.starts_with("it manages eth7:"));
        fs::write(devices.join(&index), "[device]\nmanaged=false\n").unwrap();
        assert!(about(&check(root.path()), "NetworkManager").is_empty());
    });
}
