//! IPVS, the kernel's own layer-4 balancer, as the other engine of published ports: what is asked of it, and what is known of it on this host.

pub mod table;

use std::collections::BTreeSet;
use std::fmt;

use super::ports::Called;

/// What brings calls to the workloads of a published port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Engine {
    /// Destination NAT by rules of nftables.
    #[default]
    Nftables,
    /// A virtual service of IPVS, whose servers get their calls by NAT (`ipvsadm -m`).
    Ipvs(Balancer),
}

impl Engine {
    /// What IPVS is to do, where it is the engine.
    pub fn ipvs(self) -> Option<Balancer> {
        match self {
            Self::Nftables => None,
            Self::Ipvs(balancer) => Some(balancer),
        }
    }
}

/// How a virtual service chooses among its servers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Balancer {
    pub scheduler: Scheduler,
    pub persistence: Option<Persistence>,
}

/// A client comes to the server of its last connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Persistence {
    /// Seconds after its last connection began; as long as one is open it stays.
    pub seconds: u32,
    /// Clients whose addresses agree in so many bits are one: of IPv4, 1 to 32.
    pub ipv4_prefix_length: u8,
    /// The same of IPv6, 1 to 128.
    pub ipv6_prefix_length: u8,
}

/// The kernel's schedulers, by the names that it knows them by. Each is a module of its own, `ip_vs_NAME`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scheduler {
    Rr,
    Wrr,
    Lc,
    /// What `ipvsadm` takes when nothing is said.
    #[default]
    Wlc,
    Lblc,
    Lblcr,
    Dh,
    Sh,
    Sed,
    Nq,
    /// Linux 3.18.
    Fo,
    /// Linux 3.19.
    Ovf,
    /// Linux 4.18.
    Mh,
    /// Linux 5.12.
    Twos,
}

impl Scheduler {
    pub const ALL: [Self; 14] = [
        Self::Rr,
        Self::Wrr,
        Self::Lc,
        Self::Wlc,
        Self::Lblc,
        Self::Lblcr,
        Self::Dh,
        Self::Sh,
        Self::Sed,
        Self::Nq,
        Self::Fo,
        Self::Ovf,
        Self::Mh,
        Self::Twos,
    ];

    /// The kernel's name, as `ipvsadm -s` takes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rr => "rr",
            Self::Wrr => "wrr",
            Self::Lc => "lc",
            Self::Wlc => "wlc",
            Self::Lblc => "lblc",
            Self::Lblcr => "lblcr",
            Self::Dh => "dh",
            Self::Sh => "sh",
            Self::Sed => "sed",
            Self::Nq => "nq",
            Self::Fo => "fo",
            Self::Ovf => "ovf",
            Self::Mh => "mh",
            Self::Twos => "twos",
        }
    }
}

impl fmt::Display for Scheduler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How many connections one server may have. Those that are ending count, too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Thresholds {
    /// With so many it gets no new connection; 0: no limit.
    pub upper: u32,
    /// Once it has fewer it gets new ones again; 0: three quarters of `upper`.
    pub lower: u32,
}

/// What is known of IPVS in this network namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KernelIpvs {
    /// Why there is none, with the cure.
    pub missing: Option<String>,
    /// Virtual services that are not ours.
    pub foreign: BTreeSet<Called>,
    /// Schedulers that the kernel does not have.
    pub unknown: BTreeSet<Scheduler>,
}

/// Why IPVS cannot serve something: the field that asks for too much, and the message with the cure.
pub type Refusal = (&'static str, String);

impl KernelIpvs {
    /// Why these ports cannot be served so.
    ///
    /// # Errors
    /// When there is no IPVS, no such scheduler, or another program's service there.
    pub fn serves(&self, called: Called, name: &str, balancer: Balancer) -> Result<(), Refusal> {
        if let Some(why) = &self.missing {
            return Err(("engine", format!("{name} is not served: {why}")));
        }
        if self.unknown.contains(&balancer.scheduler) {
            let scheduler = balancer.scheduler;
            let cure = format!("load it (`modprobe ip_vs_{scheduler}`), or choose another scheduler");
            return Err(("scheduler", format!("{name} is not served: the kernel has no IPVS scheduler `{scheduler}`; {cure}")));
        }
        if self.foreign.contains(&called) {
            return Err((
                "port",
                format!("{name} is a virtual service of another program (`ipvsadm -Ln` shows it); delete that one, or choose another port"),
            ));
        }
        Ok(())
    }
}
