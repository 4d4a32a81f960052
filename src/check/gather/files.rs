//! What stands in files: `/proc`, and the configuration and state of network managers.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use nix::sys::statvfs::{FsFlags, statvfs};

use crate::check::facts::{Facts, Networkd};
use crate::contract::TABLE;
use crate::effects::sysctl;
use crate::model::facts::IfIndex;

/// Where systemd looks for configuration, what counts most first.
const SYSTEMD: [&str; 4] = ["etc/systemd", "run/systemd", "usr/local/lib/systemd", "usr/lib/systemd"];

/// What systemd has of networkd while that is active, and removes when it is not. `/run/systemd/netif` says nothing: systemd makes it at boot, on
/// every host.
const NETWORKD: &str = "run/systemd/units/invocation:systemd-networkd.service";

/// Adds what files tell; `links` have to be there already.
pub fn read(root: &Path, sysctls: &Path, facts: &mut Facts) {
    let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
    facts.kernel = text("/proc/sys/kernel/osrelease").trim().to_owned();
    facts.capabilities = capabilities(&text("/proc/thread-self/status"));
    facts.sysctls_writable = statvfs(&sysctls.join("net")).is_ok_and(|fs| !fs.flags().contains(FsFlags::ST_RDONLY));
    facts.legacy_tables = text("/proc/thread-self/net/ip_tables_names").lines().map(str::to_owned).collect();
    let nics: Vec<_> = facts.nics().map(|nic| nic.name.as_str()).collect();
    facts.sysctls = keys(&nics).filter_map(|key| Some((key.clone(), sysctl::read(sysctls, &key).ok()?))).collect();
    facts.saved = saved(root);
    // A link to a number, and not to a file.
    facts.networkd = root.join(NETWORKD).is_symlink().then(|| networkd(root));
    facts.network_manager = network_manager(root);
}

/// Debian's and Fedora's file of nftables.service, if it has our tables.
fn saved(root: &Path) -> Option<PathBuf> {
    let has = |file: &PathBuf| {
        let text = fs::read_to_string(root.join(file.strip_prefix("/").unwrap_or(file))).unwrap_or_default();
        text.lines().any(|line| matches!(*line.split_whitespace().collect::<Vec<_>>(), ["table", _, TABLE, ..]))
    };
    ["/etc/nftables.conf", "/etc/sysconfig/nftables.conf"].map(PathBuf::from).into_iter().find(has)
}

fn capabilities(status: &str) -> u64 {
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0)
}

fn keys(nics: &[&str]) -> impl Iterator<Item = String> {
    let fixed = [
        "net/ipv4/ip_forward",
        "net/ipv6/conf/all/forwarding",
        "net/ipv6/conf/all/disable_ipv6",
        "net/bridge/bridge-nf-call-iptables",
        "net/netfilter/nf_conntrack_max",
        "net/netfilter/nf_conntrack_count",
    ];
    let mut keys: Vec<String> = fixed.map(str::to_owned).into();
    for place in nics.iter().chain([&"all"]) {
        keys.extend(["rp_filter", "arp_ignore", "arp_announce"].map(|name| format!("net/ipv4/conf/{place}/{name}")));
        keys.push(format!("net/ipv6/conf/{place}/accept_ra"));
    }
    keys.into_iter()
}

/// networkd.conf(5): one main file, then all drop-ins in the order of their names; of one name, the first folder's counts.
fn networkd(root: &Path) -> Networkd {
    let main = SYSTEMD.iter().map(|folder| root.join(folder).join("networkd.conf")).find(|file| file.exists());
    let mut drop_ins: BTreeMap<_, PathBuf> = BTreeMap::new();
    for folder in SYSTEMD {
        let entries = fs::read_dir(root.join(folder).join("networkd.conf.d")).into_iter().flatten().flatten();
        for entry in entries.filter(|entry| entry.path().extension().is_some_and(|extension| extension == "conf")) {
            drop_ins.entry(entry.file_name()).or_insert_with(|| entry.path());
        }
    }
    let mut networkd = Networkd { removes_rules: true, removes_routes: true };
    for file in main.into_iter().chain(drop_ins.into_values()) {
        networkd_file(&fs::read_to_string(file).unwrap_or_default(), &mut networkd);
    }
    networkd
}

fn networkd_file(text: &str, networkd: &mut Networkd) {
    let mut section = "";
    for line in text.lines().map(str::trim) {
        if line.starts_with('[') {
            section = line;
        }
        let Some((key, value)) = line.split_once('=').filter(|_| section == "[Network]") else { continue };
        let Some(value) = boolean(value.trim()) else { continue };
        match key.trim() {
            "ManageForeignRoutingPolicyRules" => networkd.removes_rules = value,
            "ManageForeignRoutes" => networkd.removes_routes = value,
            _ => {}
        }
    }
}

/// systemd's words for true and false; anything else is ignored, as systemd does.
fn boolean(value: &str) -> Option<bool> {
    match value.to_ascii_lowercase().as_str() {
        "1" | "yes" | "y" | "true" | "t" | "on" => Some(true),
        "0" | "no" | "n" | "false" | "f" | "off" => Some(false),
        _ => None,
    }
}

/// NetworkManager keeps a file for each device, named by its index.
fn network_manager(root: &Path) -> BTreeSet<IfIndex> {
    let devices = fs::read_dir(root.join("run/NetworkManager/devices")).into_iter().flatten().flatten();
    let managed = devices.filter(|device| {
        let text = fs::read_to_string(device.path()).unwrap_or_default();
        text.lines().any(|line| matches!(line.trim(), "managed=true" | "managed=1"))
    });
    managed.filter_map(|device| device.file_name().to_str()?.parse().ok()).collect()
}
