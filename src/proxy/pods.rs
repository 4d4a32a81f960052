//! Pods of this node in which ports are opened, and who asks for them: the cluster's `EgressProxy` objects by the API server, and sandboxes
//! with their network namespaces by containerd. A sandbox's record has its pod's namespace, name and labels, so no pod is read of the API server.

use std::collections::BTreeMap;
use std::future::pending;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tracing::warn;

use crate::facts::containerd;
use crate::facts::kubernetes::Client;
use crate::facts::kubernetes::proxies::{Proxies, Source};
use crate::model::manifests::Manifests;
use crate::model::pod::{NetworkNamespace, Owner, Pod, RuntimeChange, Sandbox};
use crate::model::proxy::{KIND, Namespace, RunningPod};

/// The cluster, as far as the proxy has to know it. Nothing at all outside of one.
#[derive(Default)]
pub struct Pods {
    cluster: Option<Cluster>,
    proxies: Proxies,
    /// Sandboxes of pods, by id.
    sandboxes: BTreeMap<String, Sandbox>,
    /// Why containerd is away.
    lost: Option<String>,
}

struct Cluster {
    objects: Source,
    runtime: containerd::Source,
    socket: PathBuf,
}

/// What has changed.
pub enum Changed {
    /// The objects that ask for ports.
    Proxies(Manifests),
    Pods,
}

impl Pods {
    /// Follows a cluster's objects, and the pods of the containerd that listens at `socket`.
    pub fn of(client: Client, socket: &Path) -> Self {
        let cluster = Cluster {
            objects: Source::start(client),
            // Containers that no kubelet made are nobody's here.
            runtime: containerd::Source::new(socket, |_| None),
            socket: socket.to_owned(),
        };
        Self { cluster: Some(cluster), ..Self::default() }
    }

    /// Waits until something has changed. May be dropped while it waits.
    pub async fn changed(&mut self) -> Changed {
        let Some(cluster) = &mut self.cluster else { return pending().await };
        tokio::select! {
            proxies = cluster.objects.next() => {
                self.proxies = proxies;
                Changed::Proxies(Manifests { proxies: self.proxies.all.clone(), ..Manifests::default() })
            }
            changes = cluster.runtime.next() => {
                changes.into_iter().for_each(|change| take(&mut self.sandboxes, &mut self.lost, change));
                Changed::Pods
            }
        }
    }

    /// Pods whose network namespace is a file. Of a pod whose sandbox was made anew, the newest one.
    pub fn running(&self) -> Vec<RunningPod> {
        let mut newest: BTreeMap<(&str, &str), (u64, RunningPod)> = BTreeMap::new();
        for sandbox in self.sandboxes.values() {
            let Some((pod, file)) = of_pod(sandbox) else { continue };
            let place = newest.entry((&pod.namespace, &pod.name));
            let this = || (sandbox.created, RunningPod { pod: Arc::clone(pod), file: file.clone() });
            place
                .and_modify(|other| {
                    if other.0 <= sandbox.created {
                        *other = this()
                    }
                })
                .or_insert_with(this);
        }
        newest.into_values().map(|(_, running)| running).collect()
    }

    /// What is wrong with objects, with the API server and with containerd.
    pub fn problems(&self) -> impl Iterator<Item = String> + '_ {
        let objects =
            self.proxies.errors.iter().map(|(name, error)| format!("{KIND} {name}: {error} (its last valid version stays in force)"));
        let server = self.proxies.problem.iter().map(|problem| format!("the API server: {problem}; the last known objects stay in force"));
        let runtime = self.cluster.iter().zip(&self.lost).map(|(cluster, why)| {
            format!("containerd at {}: {why}; pods that start meanwhile are not served (see --containerd-socket)", cluster.socket.display())
        });
        objects.chain(server).chain(runtime)
    }
}

fn take(sandboxes: &mut BTreeMap<String, Sandbox>, lost: &mut Option<String>, change: RuntimeChange) {
    let is_of_pod = |sandbox: &Sandbox| matches!(sandbox.owner, Owner::Pod(_));
    match change {
        RuntimeChange::Snapshot(all) => {
            *lost = None;
            *sandboxes = all.into_iter().filter(is_of_pod).map(|sandbox| (sandbox.id.clone(), sandbox)).collect();
        }
        RuntimeChange::Sandbox(sandbox) if is_of_pod(&sandbox) => drop(sandboxes.insert(sandbox.id.clone(), *sandbox)),
        RuntimeChange::Sandbox(sandbox) => drop(sandboxes.remove(&sandbox.id)),
        RuntimeChange::Gone(id) => drop(sandboxes.remove(&id)),
        RuntimeChange::Problems(problems) => {
            problems.iter().for_each(|(about, problem)| warn!(about, problem, "failed to read containerd's pods"));
        }
        RuntimeChange::Lost(why) => *lost = Some(why),
    }
}

/// The pod of a sandbox, and the file of its network namespace. One that has the node's network has none.
fn of_pod(sandbox: &Sandbox) -> Option<(&Arc<Pod>, PathBuf)> {
    let Owner::Pod(pod) = &sandbox.owner else { return None };
    let NetworkNamespace::Named(name) = &sandbox.network else { return None };
    Some((pod, Namespace::named(name).file()?.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sandbox(id: &str, pod: &str, network: NetworkNamespace, created: u64) -> RuntimeChange {
        let (namespace, name) = pod.split_once('/').unwrap();
        let pod = Pod { namespace: namespace.to_owned(), name: name.to_owned(), ..Pod::default() };
        RuntimeChange::Sandbox(Box::new(Sandbox { id: id.to_owned(), owner: Owner::Pod(Arc::new(pod)), network, created }))
    }

    #[test]
    fn a_pod_is_where_its_newest_sandbox_is_and_the_nodes_network_is_nobodys() {
        let mut pods = Pods::default();
        let mut hear = |change| take(&mut pods.sandboxes, &mut pods.lost, change);
        let named = |name: &str| NetworkNamespace::Named(name.to_owned());
        hear(sandbox("a", "shop/web", named("cni-1"), 1));
        hear(sandbox("b", "shop/web", named("cni-2"), 2));
        hear(sandbox("c", "shop/node", NetworkNamespace::Host, 1));
        hear(sandbox("d", "mail/web", named("cni-3"), 1));
        let files = |pods: &Pods| pods.running().into_iter().map(|running| running.file.display().to_string()).collect::<Vec<_>>();
        assert_eq!(files(&pods), ["/run/netns/cni-3", "/run/netns/cni-2"]);
        take(&mut pods.sandboxes, &mut pods.lost, RuntimeChange::Gone("b".to_owned()));
        assert_eq!(files(&pods), ["/run/netns/cni-3", "/run/netns/cni-1"]);
        take(&mut pods.sandboxes, &mut pods.lost, RuntimeChange::Snapshot(Vec::new()));
        assert_eq!(files(&pods), [""; 0]);
    }
}
