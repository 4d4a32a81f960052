//! What ties the loop to a cluster: what it hears of it.

use kube::Client;

use super::{ClusterOptions, Error, Event, EventSender};
use crate::facts::kubernetes::{self, Scope};

/// Connects, and listens.
pub(super) async fn join(options: &ClusterOptions, tell: EventSender) -> Result<Client, Error> {
    let client = kubernetes::client(options.kubeconfig.as_deref()).await?;
    listen(options, client.clone(), tell);
    Ok(client)
}

fn listen(options: &ClusterOptions, client: Client, tell: EventSender) {
    let scope = Scope { node: options.node.clone(), namespace: options.namespace.clone(), daemonset: options.daemonset.clone() };
    let mut source = kubernetes::Source::new(client, scope);
    tokio::spawn(async move { while tell.send(Event::Cluster(source.next().await)).is_ok() {} });
}
