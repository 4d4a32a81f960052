//! Keeper of the routes back, which lead servers' answers through this host: a route and rules in each server's network namespace.
//!
//! Which namespaces have something of ours is written down before it is put there: a folder for each below the state directory, with the ledger of
//! its settings. So it is found again, whoever was killed meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use tracing::{info, warn};

use super::enter::{Home, NamespaceId};
use super::route::Routing;
use super::sysctl::Sysctls;
use crate::facts::cause::with_causes;
use crate::facts::kernel::{self, Asker};
use crate::model::facts::IfIndex;
use crate::model::route_back::{RouteBack, RoutedBack};
use crate::plan::route_back::steps;
use crate::plan::step::InterfaceNames;

/// Where `ip netns`, CNI runtimes, and Docker keep files of network namespaces.
const FOLDERS: [&str; 2] = ["/run/netns", "/run/docker/netns"];
/// The folder of what is written down, below the state directory.
const RECORD: &str = "route-back";
const SYSCTLS: &str = "/proc/sys";
/// In that folder: something was put into the namespace.
const MADE: &str = "made";

/// The namespaces that have a file: by which of the files, and what number each has here.
type Files = BTreeMap<NamespaceId, (PathBuf, Option<i32>)>;

/// A thread's hands. They leave the thread where it was.
pub struct Hands {
    home: Home,
    record: PathBuf,
}

impl Hands {
    /// For the calling thread; `state` is the state directory.
    ///
    /// # Errors
    /// When `/proc` does not tell the thread's namespace.
    pub fn new(state: &Path) -> io::Result<Self> {
        Ok(Self { home: Home::new()?, record: state.join(RECORD) })
    }

    /// Puts all namespaces right: these servers get their rules, and what is there of others goes. Says what became of each.
    pub fn look(&mut self, wanted: &BTreeSet<RouteBack>) -> RoutedBack {
        let recorded = recorded(&self.record);
        if wanted.is_empty() && recorded.is_empty() {
            return RoutedBack::new();
        }
        let files = match files() {
            Ok(files) => files,
            Err(error) => {
                let failed = format!("failed to read the network namespaces below {} and {}: {error}", FOLDERS[0], FOLDERS[1]);
                warn!("{failed}");
                return wanted.iter().map(|one| (*one, Err(failed.clone()))).collect();
            }
        };
        let mut by_namespace: BTreeMap<NamespaceId, Vec<RouteBack>> = recorded.iter().map(|id| (*id, Vec::new())).collect();
        let mut told = RoutedBack::new();
        for one in wanted {
            match files.iter().find(|(_, (_, nsid))| *nsid == Some(one.nsid)) {
                Some((id, _)) => by_namespace.entry(*id).or_default().push(*one),
                None => {
                    let why = format!("no file below {} or {} is its network namespace", FOLDERS[0], FOLDERS[1]);
                    told.insert(*one, Err(why));
                }
            }
        }
        for (id, servers) in by_namespace {
            let Some((path, _)) = files.get(&id) else {
                // The namespace has ended, and all in it.
                self.forget(id);
                continue;
            };
            match self.put(path, id, &servers) {
                Ok(done) => told.extend(done),
                Err(error) if servers.is_empty() => warn!(namespace = %path.display(), %error, "failed to remove the route back"),
                Err(error) => told.extend(servers.iter().map(|one| (*one, Err(cause(&error))))),
            }
        }
        told
    }

    fn put(&self, path: &Path, id: NamespaceId, servers: &[RouteBack]) -> io::Result<RoutedBack> {
        let folder = self.record.join(id.to_string());
        fs::create_dir_all(&folder)?;
        let done = self.home.visit(path, id, || put_here(servers, &folder));
        let refused = done.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied);
        if servers.is_empty() && done.is_ok() || refused && !folder.join(MADE).exists() {
            self.forget(id);
        }
        done
    }

    fn forget(&self, id: NamespaceId) {
        if let Err(error) = fs::remove_dir_all(self.record.join(id.to_string())) {
            warn!(%error, "failed to drop the record of a network namespace");
        }
    }
}

/// Whether something of ours may be in some namespace; `state` is the state directory.
pub fn has_left_something(state: &Path) -> bool {
    !recorded(&state.join(RECORD)).is_empty()
}

fn recorded(record: &Path) -> BTreeSet<NamespaceId> {
    let entries = fs::read_dir(record).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// Takes all away that is ours in any namespace, and returns what could not be.
pub fn withdraw(state: &Path) -> Vec<String> {
    // A thread of its own enters them.
    let work = || match Hands::new(state) {
        Ok(mut hands) => {
            hands.look(&BTreeSet::new());
            recorded(&hands.record).iter().map(|id| format!("the route back in network namespace {id}: see the log for why")).collect()
        }
        Err(error) => vec![format!("routes back in network namespaces: {error}")],
    };
    std::thread::scope(|scope| scope.spawn(work).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
}

fn cause(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::PermissionDenied => format!("{error}: it takes CAP_SYS_ADMIN to enter its network namespace"),
        _ => error.to_string(),
    }
}

/// All namespaces that have a file.
///
/// # Errors
/// When they cannot be read: then none may be taken for gone.
fn files() -> io::Result<Files> {
    let mut ask = Asker::open().map_err(|error| io::Error::other(with_causes(&error)))?;
    let mut files = Files::new();
    for folder in FOLDERS {
        let entries = match fs::read_dir(folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            other => other?,
        };
        for entry in entries {
            let path = entry?.path();
            let Some(id) = NamespaceId::read(&path)? else { continue };
            let number = kernel::open(&path).ok().and_then(|file| ask.nsid(&file).ok().flatten());
            files.entry(id).or_insert((path, number));
        }
    }
    Ok(files)
}

/// Puts the calling thread's namespace right.
fn put_here(servers: &[RouteBack], folder: &Path) -> io::Result<RoutedBack> {
    let failed = |error: &dyn std::error::Error| io::Error::other(with_causes(error));
    let mut ask = Asker::open().map_err(|error| failed(&error))?;
    let addresses = ask.own_addresses().map_err(|error| failed(&error))?;
    let holder = |address: IpAddr| addresses.iter().find(|(_, held)| held.net.addr() == address).map(|(index, _)| *index);
    let mut told = RoutedBack::new();
    let mut here: Vec<(RouteBack, IfIndex)> = Vec::new();
    for one in servers {
        let other = here.iter().map(|(other, _)| other.via).find(|via| via.is_ipv4() == one.via.is_ipv4() && *via != one.via);
        match (holder(one.address), other) {
            (Some(index), None) => here.push((*one, index)),
            (None, _) => _ = told.insert(*one, Err("its network namespace does not have its address".to_owned())),
            (_, Some(via)) => _ = told.insert(*one, Err(format!("answers of its network namespace go back by {via} already"))),
        }
    }
    let (routes, rules) = ask.routing().map_err(|error| failed(&error))?;
    let mut hands = Routing::open().map_err(|error| failed(&error))?;
    let mut sysctls = Sysctls::open(Path::new(SYSCTLS), folder).map_err(|error| failed(&error))?;
    for step in steps(&here, &routes, &rules) {
        fs::write(folder.join(MADE), [])?;
        hands.apply(&step).map_err(|error| failed(&error))?;
        info!("in the network namespace of a server: {}", step.words(&InterfaceNames::default()));
    }
    for (one, index) in here.iter().filter(|(one, _)| one.via.is_ipv6()) {
        // No setting of this host keeps it from telling the server of the client beside it.
        let link = ask.link(*index).map_err(|error| failed(&error))?;
        let done = link.map_or(Ok(false), |link| sysctls.set(&format!("net/ipv6/conf/{}/accept_redirects", link.name), "0"));
        done.map_err(|error| io::Error::other(format!("{}: {}", one.address, with_causes(&error))))?;
    }
    if servers.is_empty() {
        sysctls.restore_all(false).failed.first().map_or(Ok(()), |error| Err(failed(error)))?;
    }
    told.extend(here.iter().map(|(one, _)| (*one, Ok(()))));
    Ok(told)
}
