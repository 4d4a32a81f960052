//! What ties the loop to a cluster: what it hears of it, what it reports to it, and when it has to go.

use kube::Client;

use super::{ClusterOptions, Error, Teller, Told};
use crate::effects::kubernetes::reporter::Reporter;
use crate::facts::kubernetes::{self, Scope};
use crate::model::cluster::Cluster;

/// Connects, listens, and gives what the agent reports with.
pub(super) async fn join(options: &ClusterOptions, tell: Teller) -> Result<Reporter, Error> {
    let client = kubernetes::client(options.kubeconfig.as_deref()).await?;
    listen(options, client.clone(), tell);
    Ok(Reporter::start(client))
}

fn listen(options: &ClusterOptions, client: Client, tell: Teller) {
    let scope = Scope { node: options.node.clone(), namespace: options.namespace.clone(), daemonset: options.daemonset.clone() };
    let mut source = kubernetes::Source::new(client, scope);
    tokio::spawn(async move { while tell.send(Told::Cluster(source.next().await)).is_ok() {} });
}

/// The agents' DaemonSet is gone or going, or wants no agent on this node: what is programmed has nobody to look after it any more.
pub(super) fn is_over(cluster: &Cluster) -> bool {
    match &cluster.daemonset {
        Some(Some(daemonset)) => !daemonset.wants(&cluster.node.labels),
        Some(None) => true,
        None => false,
    }
}
