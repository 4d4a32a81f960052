//! Programs of the host itself: what has to be looked up for the bindings that name them, and what the host says of it.
//!
//! A program is known by its sockets: by the user who opened them, or by the control group (version 2) that they were made in. The kernel
//! knows a control group by its number, which a group that is made anew has not; so who makes one below a guarded group is held until it is
//! known, as on a guarded bridge.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::binding::{Binding, ExitSpec, HostSelector, Selector, Source};
use super::started::{EXEC, Started, started_in};

/// Groups of systemd in which all sorts of programs run: who is new there is not held.
const SHARED: [&str; 3] = ["/system.slice", "/user.slice", "/machine.slice"];

/// What has to be looked up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    pub users: BTreeSet<String>,
    pub cgroups: BTreeSet<String>,
    pub units: BTreeSet<String>,
}

impl Wanted {
    /// What these bindings name.
    pub fn of<'a>(bindings: impl Iterator<Item = &'a Binding>) -> Self {
        let mut wanted = Self::default();
        for binding in bindings {
            let Selector::Host(HostSelector { users, cgroups, units, all: _ }) = &binding.selector else { continue };
            wanted.users.extend(users.iter().cloned());
            wanted.cgroups.extend(cgroups.iter().cloned());
            wanted.units.extend(units.iter().cloned());
        }
        wanted
    }
}

/// What the host has of that.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProgramFacts {
    /// Numbers of users, by what bindings call them.
    pub users: BTreeMap<String, u32>,
    /// Numbers of control groups by path: those that are wanted, the guarded ones above them, and the children of these.
    pub cgroups: BTreeMap<String, u64>,
    /// Paths of systemd units' control groups.
    pub units: BTreeMap<String, BTreeSet<String>>,
    /// Why there are no control groups of version 2, or none that the kernel knows sockets by.
    pub no_cgroups: Option<String>,
    /// The kernel has no conntrack zones.
    pub no_zones: bool,
    /// The resolver of the host itself that programs ask for names.
    pub stub: Option<IpAddr>,
    /// Those of `egressd exec --ip`.
    pub bindings: Vec<Arc<Binding>>,
}

impl ProgramFacts {
    /// Users alone, where control groups cannot be told apart.
    #[must_use]
    pub fn without_cgroups(self, why: String) -> Self {
        Self { users: self.users, no_zones: self.no_zones, stub: self.stub, no_cgroups: Some(why), ..Self::default() }
    }

    /// With the bindings that follow from control groups of `egressd exec --ip`.
    #[must_use]
    pub fn with_bindings(mut self) -> Self {
        let addresses = children(&self.cgroups, EXEC).filter_map(|(path, _)| match started_in(path) {
            Some(Started::As(address)) => Some(Arc::new(by_address(path, address))),
            _ => None,
        });
        self.bindings = addresses.collect();
        self
    }
}

fn by_address(path: &str, address: IpAddr) -> Binding {
    let selector = Selector::Host(HostSelector { cgroups: vec![path.to_owned()], ..HostSelector::default() });
    Binding { exits: vec![ExitSpec::new(address)], ..Binding::plain(Source::Exec, &address.to_string(), selector) }
}

/// The template that a systemd unit is an instance of.
pub fn template_of(unit: &str) -> Option<String> {
    let (prefix, instance) = unit.split_once('@')?;
    let (_, kind) = instance.rsplit_once('.')?;
    Some(format!("{prefix}@.{kind}"))
}

/// Where systemd has the instances of a template, if that is one: each below the slice of the template, whose name has no dash but its first.
pub fn instances_of(unit: &str) -> Option<String> {
    let (prefix, _) = unit.split_once("@.")?;
    Some(format!("/system.slice/system-{}.slice/{unit}", prefix.replace('-', "\\x2d")))
}

/// How many levels a control group is below the root.
pub fn level(path: &str) -> u32 {
    path.split('/').filter(|part| !part.is_empty()).count() as u32
}

/// The group above, whose other new children are held as long as this one is asked for: none at the root, and none that systemd shares
/// among all sorts of programs.
pub fn guarded_parent(path: &str) -> Option<&str> {
    let (parent, _) = path.rsplit_once('/')?;
    (!parent.is_empty() && !SHARED.contains(&parent)).then_some(parent)
}

/// A control group and those above it, the nearest first, without the root.
pub fn with_ancestors(path: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(path), |path| path.rsplit_once('/').map(|(parent, _)| parent)).take_while(|path| !path.is_empty())
}

/// The groups right below one.
pub fn children<'a>(cgroups: &'a BTreeMap<String, u64>, parent: &str) -> impl Iterator<Item = (&'a str, u64)> {
    let prefix = format!("{parent}/");
    let below = cgroups.range(prefix.clone()..).take_while({
        let prefix = prefix.clone();
        move |(path, _)| path.starts_with(&prefix)
    });
    below.filter(move |(path, _)| !path[prefix.len()..].contains('/')).map(|(path, id)| (path.as_str(), *id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guard_stands_above_what_is_asked_for_but_not_where_others_run() {
        assert_eq!(guarded_parent("/jobs/batch"), Some("/jobs"));
        assert_eq!(guarded_parent("/egressd.slice/egressd-batch.slice"), Some("/egressd.slice"));
        assert_eq!(guarded_parent("/system.slice/system-batch.slice/batch@1.service"), Some("/system.slice/system-batch.slice"));
        for shared in ["/batch", "/system.slice/batch.service", "/user.slice/user-1000.slice"] {
            assert_eq!(guarded_parent(shared), None, "{shared}");
        }
    }

    #[test]
    fn instances_of_a_template_are_below_its_slice() {
        assert_eq!(template_of("batch@1.service").as_deref(), Some("batch@.service"));
        assert_eq!(template_of("batch@a@b.c.service").as_deref(), Some("batch@.service"));
        assert_eq!(template_of("batch.service"), None);
        assert_eq!(instances_of("web-batch@.service").as_deref(), Some("/system.slice/system-web\\x2dbatch.slice/web-batch@.service"));
        assert_eq!((instances_of("batch@1.service"), instances_of("batch.service")), (None, None));
    }

    #[test]
    fn children_are_right_below_and_not_beside() {
        let cgroups: BTreeMap<String, u64> =
            [("/a", 1), ("/a/b", 2), ("/a/b/c", 3), ("/a/d", 4), ("/a-e/f", 5)].map(|(path, id)| (path.to_owned(), id)).into();
        assert_eq!(children(&cgroups, "/a").collect::<Vec<_>>(), [("/a/b", 2), ("/a/d", 4)]);
        assert_eq!((level("/a"), level("/a/b/c")), (1, 3));
        assert_eq!(with_ancestors("/a/b/c").collect::<Vec<_>>(), ["/a/b/c", "/a/b", "/a"]);
    }
}
