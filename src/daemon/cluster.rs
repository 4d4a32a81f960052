//! What ties the loop to a cluster: what it hears of it, and how it takes part in it.

use kube::Client;

use super::{ClusterOptions, Error, Teller, Told};
use crate::effects::kubernetes::Names;
use crate::effects::kubernetes::leader::{self, Leader};
use crate::facts::kubernetes::{self, Scope};

/// Connects, and listens.
pub(super) async fn join(options: &ClusterOptions, tell: Teller) -> Result<Client, Error> {
    let client = kubernetes::client(options.kubeconfig.as_deref()).await?;
    listen(options, client.clone(), tell);
    Ok(client)
}

/// Asks for the Lease whose holder folds what all nodes report.
pub(super) fn run_for_leader(options: &ClusterOptions, client: Client) -> Result<Leader, Error> {
    let names = Names { namespace: options.namespace.clone(), pod: options.pod.clone() };
    leader::start(client, names, options.raw_exits).map_err(|source| Error::Serve { what: "as the cluster's leader".to_owned(), source })
}

fn listen(options: &ClusterOptions, client: Client, tell: Teller) {
    let scope = Scope { node: options.node.clone(), namespace: options.namespace.clone(), daemonset: options.daemonset.clone() };
    let mut source = kubernetes::Source::new(client, scope);
    tokio::spawn(async move { while tell.send(Told::Cluster(source.next().await)).is_ok() {} });
}
