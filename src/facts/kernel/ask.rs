//! Questions to the kernel that are answered at once.

use std::fs::File;
use std::os::fd::AsRawFd;

use nix::libc;

use super::wire;
use crate::model::facts::{Address, Family, IfIndex, Link, Place, Route, Rule};
use crate::netlink::nexthop::{self, Objects};
use crate::netlink::routing::{self, ReadRoute};
use crate::netlink::{Channel, Error, rule};

/// Asks the kernel.
pub struct Asker {
    channel: Channel,
}

impl Asker {
    pub fn open() -> Result<Self, Error> {
        let channel = Channel::open(netlink_sys::protocols::NETLINK_ROUTE)?;
        Ok(Self { channel })
    }

    /// All links of this namespace.
    pub fn links(&mut self) -> Result<Vec<Link>, Error> {
        self.channel.dump(&wire::link_dump(), |message| wire::link(&message))
    }

    /// One link, if it is (still) here.
    pub fn link(&mut self, index: IfIndex) -> Result<Option<Link>, Error> {
        let mut link = None;
        let asked = self.channel.request(wire::link_get(index), |message| {
            link = wire::link(&message);
        });
        gone_is_none(asked.map(|()| link))
    }

    /// All addresses of this namespace, with their interfaces.
    pub fn own_addresses(&mut self) -> Result<Vec<(IfIndex, Address)>, Error> {
        self.channel.dump(&wire::address_dump(None), |message| wire::interface_address(&message))
    }

    /// The addresses of one interface in another namespace; none when one of both is gone.
    ///
    /// `IFA_TARGET_NETNSID` asks for `CAP_NET_ADMIN` here, not for entering anything (Linux 4.20).
    pub fn addresses_of(&mut self, place: Place) -> Result<Vec<Address>, Error> {
        let asked = self.channel.dump(&wire::address_dump(Some(place)), |message| {
            let (index, address) = wire::interface_address(&message)?;
            (index == place.index).then_some(address)
        });
        gone_is_none(asked.map(Some)).map(Option::unwrap_or_default)
    }

    /// All routes and policy rules that matter.
    pub fn routing(&mut self) -> Result<(Vec<Route>, Vec<Rule>), Error> {
        let (mut read, mut rules) = (Vec::new(), Vec::new());
        for family in [Family::V4, Family::V6] {
            read.append(&mut self.channel.dump(&routing::dump(family), |m| routing::route(&m))?);
            rules.append(&mut self.channel.dump(&rule::dump(family), |m| rule::rule(&m))?);
        }
        // Unless `net.ipv4.nexthop_compat_mode` is off, the kernel itself says where such routes lead.
        let objects = if read.iter().any(ReadRoute::leads_to_an_object) { self.nexthops()? } else { Objects::default() };
        Ok((read.into_iter().map(|route| route.resolve(&objects)).collect(), rules))
    }

    fn nexthops(&mut self) -> Result<Objects, Error> {
        self.channel.dump(&nexthop::dump(), |message| nexthop::object(&message)).map(Objects::from_iter)
    }

    /// The number that the namespace of this open file has here.
    pub fn nsid(&mut self, namespace: &File) -> Result<Option<i32>, Error> {
        self.number(wire::Whose::File(namespace.as_raw_fd().cast_unsigned()))
    }

    /// The same, after giving it a number when it has none: what happens in it is only heard with one.
    pub fn nsid_or_new(&mut self, namespace: &File) -> Result<Option<i32>, Error> {
        self.number_or_new(wire::Whose::File(namespace.as_raw_fd().cast_unsigned()))
    }

    /// The same for the namespace that a process is in; `None` when the process is gone.
    pub fn nsid_of_process(&mut self, pid: u32) -> Result<Option<i32>, Error> {
        match self.number_or_new(wire::Whose::Process(pid)) {
            Err(error) if error.errno() == Some(libc::ESRCH) => Ok(None),
            other => other,
        }
    }

    fn number(&mut self, whose: wire::Whose) -> Result<Option<i32>, Error> {
        let mut nsid = None;
        self.channel.request(wire::nsid_get(whose), |message| nsid = wire::nsid(&message))?;
        Ok(nsid)
    }

    fn number_or_new(&mut self, whose: wire::Whose) -> Result<Option<i32>, Error> {
        if let Some(nsid) = self.number(whose)? {
            return Ok(Some(nsid));
        }
        match self.channel.request(wire::nsid_new(whose), |_| {}) {
            // Somebody else was faster.
            Err(error) if error.errno() == Some(libc::EEXIST) => {}
            other => other?,
        }
        self.number(whose)
    }
}

/// Makes "no such device" and "no such namespace" (`EINVAL`, from the family's dump) into `None`.
fn gone_is_none<T>(answer: Result<Option<T>, Error>) -> Result<Option<T>, Error> {
    match answer {
        Err(error) if matches!(error.errno(), Some(libc::ENODEV | libc::EINVAL | libc::ENOENT)) => Ok(None),
        other => other,
    }
}
