//! Client of IPVS: reads its services, and carries out steps.

use std::collections::BTreeMap;

use nix::libc;

use crate::model::ipvs::table::{Table, Virtual};
use crate::netlink::ipvs::{self, Change, FAMILY};
use crate::netlink::{self, Channel};
use crate::plan::ipvs::IpvsStep;
use crate::wire::generic;

/// Why IPVS could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the kernel has no IPVS: load it (`modprobe ip_vs`), or choose `engine: Nftables`")]
    Missing,
    #[error("failed to ask the kernel for IPVS")]
    Open(#[source] netlink::Error),
    #[error("failed to read the virtual services of IPVS")]
    Read(#[source] netlink::Error),
    #[error("failed to carry out `{step}`")]
    Step {
        step: String,
        #[source]
        source: netlink::Error,
    },
}

impl Error {
    /// The kernel has no scheduler of this name, nor a module that brings it.
    pub fn is_unknown(&self) -> bool {
        matches!(self, Self::Step { source, .. } if source.errno() == Some(libc::ENOENT))
    }
}

/// A socket for IPVS.
#[derive(Debug)]
pub struct Ipvs {
    channel: Channel,
    family: u16,
}

impl Ipvs {
    /// Opens it. The kernel loads the module if it is there; that needs no right to load modules.
    ///
    /// # Errors
    /// [`Error::Missing`] where the kernel has none.
    pub fn open() -> Result<Self, Error> {
        let mut channel = Channel::open(netlink_sys::protocols::NETLINK_GENERIC).map_err(Error::Open)?;
        let mut family = None;
        match channel.request(generic::ask_family(FAMILY), |answer| family = family.or(generic::family(&answer))) {
            Err(error) if error.errno() == Some(libc::ENOENT) => return Err(Error::Missing),
            other => other.map_err(Error::Open)?,
        }
        family.map(|family| Self { channel, family }).ok_or(Error::Missing)
    }

    /// All virtual services of the network namespace, but for those of firewall marks.
    ///
    /// # Errors
    /// When the kernel does not answer to the end, or takes it amiss (`CAP_NET_ADMIN` is needed).
    pub fn read(&mut self) -> Result<Table, Error> {
        let services = self.channel.dump(&ipvs::ask_services(self.family), |message| ipvs::service(&message)).map_err(Error::Read)?;
        let mut table = Table::new();
        for (called, settings) in services {
            let v6 = called.0.is_ipv6();
            let ask = ipvs::ask_servers(self.family, called);
            let servers = match self.channel.dump(&ask, |message| ipvs::server(&message, v6)) {
                // It went meanwhile.
                Err(error) if matches!(error.errno(), Some(libc::ESRCH | libc::ENOENT)) => continue,
                other => other.map_err(Error::Read)?,
            };
            table.insert(called, Virtual { settings, servers: servers.into_iter().collect::<BTreeMap<_, _>>() });
        }
        Ok(table)
    }

    /// Carries a step out. What is gone already is a success of its deletion.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub fn apply(&mut self, step: &IpvsStep) -> Result<(), Error> {
        let (change, deletes) = match step {
            IpvsStep::AddService(_, settings) => (Change::AddService(settings), false),
            IpvsStep::EditService(_, settings) => (Change::EditService(settings), false),
            IpvsStep::DeleteService(_) => (Change::DeleteService, true),
            IpvsStep::AddServer(_, endpoint, server) => (Change::AddServer(*endpoint, server), false),
            IpvsStep::EditServer(_, endpoint, server) => (Change::EditServer(*endpoint, server), false),
            IpvsStep::DeleteServer(_, endpoint) => (Change::DeleteServer(*endpoint), true),
        };
        match self.channel.request(ipvs::change(self.family, step.called(), &change), |_| {}) {
            Err(error) if deletes && matches!(error.errno(), Some(libc::ESRCH | libc::ENOENT)) => Ok(()),
            other => other.map_err(|source| Error::Step { step: step.to_string(), source }),
        }
    }
}
