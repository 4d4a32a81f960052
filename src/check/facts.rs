//! What is gathered of a host, as plain data.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use crate::model::facts::{IfIndex, Link, LinkKind, Network, Route, Rule};
use crate::nft::decode::AnyChain;

/// `CAP_NET_BROADCAST`, as a bit of `CapEff`.
pub const CAP_NET_BROADCAST: u64 = 1 << 11;
/// `CAP_NET_ADMIN`, as a bit of `CapEff`.
pub const CAP_NET_ADMIN: u64 = 1 << 12;
/// `CAP_NET_RAW`, as a bit of `CapEff`.
pub const CAP_NET_RAW: u64 = 1 << 13;

/// A host.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// `/proc/sys/kernel/osrelease`.
    pub kernel: String,
    /// `CapEff` of this process.
    pub capabilities: u64,
    /// Settings can be written: `/proc/sys` is not mounted read-only, as it is in most containers.
    pub sysctls_writable: bool,
    /// Settings that matter, those that exist: key in slash form, and value.
    pub sysctls: BTreeMap<String, String>,
    /// What was tried of the kernel, and the error if it refused.
    pub features: Vec<(Feature, Option<String>)>,
    /// Why the kernel has no conntrack zones.
    pub no_zones: Option<String>,
    pub links: Vec<Link>,
    /// Links that hold an address.
    pub addressed: BTreeSet<IfIndex>,
    pub routes: Vec<Route>,
    pub rules: Vec<Rule>,
    /// All nftables chains.
    pub chains: Vec<AnyChain>,
    /// Tables of iptables' older backend (`/proc/net/ip_tables_names`), whose rules are not looked at.
    pub legacy_tables: Vec<String>,
    /// systemd-networkd, where it runs.
    pub networkd: Option<Networkd>,
    /// NICs that NetworkManager manages, by index.
    pub network_manager: BTreeSet<IfIndex>,
    pub docker: Option<Docker>,
    /// The file that nftables.service loads at boot, if it has tables of egressd.
    pub saved: Option<PathBuf>,
    /// Whether a daemon answers on the state folder's socket.
    pub daemon: Option<bool>,
    /// What could not be gathered.
    pub unseen: Vec<Unseen>,
}

/// A question that was not answered.
#[derive(Clone, Debug)]
pub struct Unseen {
    pub what: &'static str,
    pub why: String,
}

/// A part of the kernel that egressd cannot do without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Feature {
    pub name: &'static str,
    /// The module that has it, as modprobe(8) wants it.
    pub module: &'static str,
}

/// What systemd-networkd's configuration says of routes and rules that are not its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Networkd {
    /// `ManageForeignRoutingPolicyRules=` is not `no`.
    pub removes_rules: bool,
    /// `ManageForeignRoutes=` is not `no`.
    pub removes_routes: bool,
}

/// What Docker's socket said.
#[derive(Clone, Debug)]
pub enum Docker {
    /// There is no such socket.
    None(PathBuf),
    /// It does not answer as it should.
    Away(String),
    There {
        version: String,
        networks: Vec<Network>,
    },
}

impl Facts {
    /// Links that could be an uplink: no bridge, no port of one, with an address.
    pub fn nics(&self) -> impl Iterator<Item = &Link> {
        let may = |link: &&Link| !matches!(link.kind, LinkKind::Bridge | LinkKind::Loopback) && link.master.is_none();
        self.links.iter().filter(may).filter(|link| self.addressed.contains(&link.index))
    }

    /// A setting's number.
    pub fn sysctl(&self, key: &str) -> Option<i64> {
        self.sysctls.get(key)?.parse().ok()
    }

    /// Docker's networks; none when it is away.
    pub fn networks(&self) -> &[Network] {
        match &self.docker {
            Some(Docker::There { networks, .. }) => networks,
            _ => &[],
        }
    }
}
