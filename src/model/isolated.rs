//! Programs that `egressd exec --namespace` started, each in a network namespace of its own behind a veth.
//!
//! The alias of the veth's end on the host says what it is for. So nobody has to remember it but the kernel, which takes the veth away when the
//! last process of the namespace has ended, however that ends.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net};

use super::address::Family;
use super::binding::{Binding, BindingName, ExitSpec, RoutedSource, Selector, Source};
use super::field_error::FieldError;
use super::inbound::Inbound;
use super::started::Started;

/// What the names of the links begin with; a number follows.
pub const LINKS: &str = "egx";

/// What such an alias says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Isolated {
    pub started: Started,
    /// The program's addresses.
    pub addresses: Vec<IpAddr>,
    /// Ports of the exits that it serves.
    pub inbound: Vec<Inbound>,
}

impl Isolated {
    /// The binding of a program behind `link`: the exits of one among `listed`, or an address alone.
    pub fn binding(&self, link: &str, listed: &[Arc<Binding>]) -> Binding {
        let source = |address: &IpAddr| RoutedSource { net: IpNet::from(*address), interface: Some(link.to_owned()) };
        let selector = Selector::Addresses(self.addresses.iter().map(source).collect());
        let plain = Binding::plain(Source::Exec, link, selector.clone());
        let of = |name: &String| listed.iter().find(|binding| binding.name.source == Source::File && binding.name.name == *name);
        let binding = match &self.started {
            Started::As(address) => Binding { exits: vec![ExitSpec::new(*address)], ..plain },
            Started::By(name) => match of(name) {
                Some(binding) => Binding { name: plain.name, copy_of: Some(binding.name.clone()), selector, ..Binding::clone(binding) },
                // It is blocked, as by any binding with an error.
                None => Binding { errors: vec![FieldError { field: "--binding".to_owned(), message: missing(name) }], ..plain },
            },
        };
        Binding { inbound: self.inbound.clone(), ..binding }
    }
}

/// That no file has a binding of this name.
pub fn missing(name: &str) -> String {
    format!("no file has a binding {name}; see `egressd status` for those there are")
}

/// The name of the binding of a program behind a veth.
pub fn name(link: &str) -> BindingName {
    BindingName { source: Source::Exec, name: link.to_owned() }
}

/// The two ends of the link between a program and the host, in one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// The host's address, with the link's subnet.
    pub host: IpNet,
    /// The program's.
    pub program: IpNet,
}

/// Subnets that the links' are taken from, one after the other.
const POOLS: [(Ipv4Addr, u8); 4] = [
    (Ipv4Addr::new(10, 213, 0, 0), 16),
    (Ipv4Addr::new(172, 27, 0, 0), 16),
    (Ipv4Addr::new(192, 168, 213, 0), 24),
    (Ipv4Addr::new(100, 127, 0, 0), 16),
];
/// The same for IPv6: unique local addresses (RFC 4193), a link in each `/127` (RFC 6164).
const POOL_V6: Ipv6Addr = Ipv6Addr::new(0xfd65, 0x6772, 0x6573, 0x7364, 0, 0, 0, 0);

/// Why a link has no addresses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoEnds {
    #[error("{0} is no subnet for two: give one of length 30 or 31, for instance 10.213.0.0/31")]
    Length(Ipv4Net),
    #[error("{0} is in use: this host has a route to {1}; give another subnet")]
    Taken(Ipv4Net, IpNet),
    #[error("all subnets for the link are in use on this host; give one with --subnet")]
    None,
}

/// Addresses that nothing of this host has a route to, for links in these families (RFC 3021: two addresses are a subnet). `taken` are the
/// destinations of the host's routes; `wanted` is a subnet that the user names.
///
/// # Errors
/// When there is none, or what is wanted is in use.
pub fn ends(families: &[Family], taken: &[IpNet], wanted: Option<Ipv4Net>) -> Result<Vec<Ends>, NoEnds> {
    let overlap = |net: IpNet| taken.iter().find(|route| route.prefix_len() > 0 && (route.contains(&net) || net.contains(*route))).copied();
    let mut all = Vec::new();
    for family in families {
        all.push(match (family, wanted) {
            (Family::V4, Some(net)) if !matches!(net.prefix_len(), 30 | 31) => return Err(NoEnds::Length(net)),
            (Family::V4, Some(net)) => match overlap(net.into()) {
                Some(route) => return Err(NoEnds::Taken(net, route)),
                None => {
                    let first = u32::from(net.network()) + u32::from(net.prefix_len() == 30);
                    two(Ipv4Addr::from(first).into(), Ipv4Addr::from(first + 1).into(), net.prefix_len())
                }
            },
            (Family::V4, None) => {
                let starts = POOLS.iter().flat_map(|(first, length)| {
                    let first = u32::from(*first);
                    (first..first + (1 << (32 - length))).step_by(2)
                });
                let two = |first: u32| two(Ipv4Addr::from(first).into(), Ipv4Addr::from(first + 1).into(), 31);
                starts.map(two).find(|ends| overlap(ends.host).is_none()).ok_or(NoEnds::None)?
            }
            (Family::V6, _) => {
                let first = u128::from(POOL_V6);
                let two = |first: u128| two(Ipv6Addr::from(first).into(), Ipv6Addr::from(first + 1).into(), 127);
                (first..first + (1 << 16)).step_by(2).map(two).find(|ends| overlap(ends.host).is_none()).ok_or(NoEnds::None)?
            }
        });
    }
    Ok(all)
}

fn two(host: IpAddr, program: IpAddr, length: u8) -> Ends {
    let net = |address| IpNet::new(address, length).expect("it is a length of the family");
    Ends { host: net(host), program: net(program) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    #[test]
    fn a_link_gets_what_nothing_has_a_route_to() {
        let ends_of = |taken: &[&str]| {
            let taken: Vec<IpNet> = taken.iter().map(|text| net(text)).collect();
            ends(&[Family::V4, Family::V6], &taken, None).map(|all| all.iter().map(|ends| ends.program.to_string()).collect::<Vec<_>>())
        };
        assert_eq!(ends_of(&["0.0.0.0/0", "::/0"]), Ok(vec!["10.213.0.1/31".to_owned(), "fd65:6772:6573:7364::1/127".to_owned()]));
        assert_eq!(ends_of(&["10.213.0.0/31", "10.213.0.2/32"]).unwrap()[0], "10.213.0.5/31");
        assert_eq!(ends_of(&["10.0.0.0/8", "fd65:6772:6573:7364::/127"]).unwrap(), ["172.27.0.1/31", "fd65:6772:6573:7364::3/127"]);
        assert_eq!(ends_of(&["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10"]), Err(NoEnds::None));
    }

    #[test]
    fn a_subnet_that_is_named_is_taken_or_refused() {
        let of = |wanted: &str, taken: &str| ends(&[Family::V4], &[net(taken)], Some(wanted.parse().unwrap()));
        assert_eq!(of("10.9.0.4/30", "10.8.0.0/16"), Ok(vec![Ends { host: net("10.9.0.5/30"), program: net("10.9.0.6/30") }]));
        assert_eq!(of("10.9.0.4/31", "10.8.0.0/16"), Ok(vec![Ends { host: net("10.9.0.4/31"), program: net("10.9.0.5/31") }]));
        assert!(matches!(of("10.9.0.4/30", "10.9.0.6/32"), Err(NoEnds::Taken(..))));
        assert!(matches!(of("10.9.0.0/24", "10.8.0.0/16"), Err(NoEnds::Length(_))));
    }

    #[test]
    fn a_binding_that_is_gone_blocks_the_program() {
        let isolated =
            Isolated { started: Started::By("default/none".to_owned()), addresses: vec![[10, 213, 0, 1].into()], inbound: Vec::new() };
        let binding = isolated.binding("egx0", &[]);
        assert!(!binding.is_accepted() && binding.name == name("egx0"), "{binding:?}");
    }
}
