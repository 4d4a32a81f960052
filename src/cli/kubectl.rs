//! `kubectl egress`: what a cluster's agents say, through the API server. kubectl runs the program `kubectl-egress` for it.

use std::io::Write;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};

use super::output::Output;
use crate::api::binding::EgressBinding;
use crate::api::node::EgressNode;
use crate::api::printable;
use crate::effects::kubernetes::error::Error;
use crate::report::cluster;

/// Shows which pods of a cluster leave from which address, and why not.
#[derive(Debug, Parser)]
#[command(name = "kubectl egress", bin_name = "kubectl egress", version, about)]
pub struct Kubectl {
    #[command(subcommand)]
    command: Command,
    /// The kubeconfig; as kubectl finds it when not given, in a pod its account
    #[arg(long, global = true, value_name = "PATH")]
    kubeconfig: Option<PathBuf>,
    /// The context of it
    #[arg(long, global = true, value_name = "NAME")]
    context: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show every binding: its exits, how many of its workloads use them, and why not all
    Status {
        #[command(flatten)]
        namespace: Namespace,
        /// Bindings of all namespaces
        #[arg(short = 'A', long, conflicts_with = "namespace")]
        all_namespaces: bool,
        /// Output format
        #[arg(short, long, value_enum, default_value_t)]
        output: Output,
    },
    /// Show which binding selects a pod, which exits it gives it, and what the pod's node reports
    Explain {
        /// The pod's name, or `pod/NAME`
        #[arg(value_parser = pod_name)]
        pod: String,
        #[command(flatten)]
        namespace: Namespace,
    },
    /// Show a node's NICs and exits, and the state of each binding there
    Node {
        /// The node's name
        name: String,
    },
}

#[derive(Debug, Args)]
struct Namespace {
    /// The namespace; the context's when not given
    #[arg(short, long, value_name = "NAME")]
    namespace: Option<String>,
}

impl Namespace {
    fn of<K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>>(&self, client: &Client) -> Api<K> {
        match &self.namespace {
            Some(namespace) => Api::namespaced(client.clone(), namespace),
            None => Api::default_namespaced(client.clone()),
        }
    }
}

impl Kubectl {
    /// Does what was asked for.
    pub fn run(self) -> anyhow::Result<()> {
        let text = super::runtime()?.block_on(self.text())?;
        Ok(std::io::stdout().write_all(text.as_bytes())?)
    }

    async fn text(self) -> anyhow::Result<String> {
        let options = KubeConfigOptions { context: self.context, ..KubeConfigOptions::default() };
        let config = match &self.kubeconfig {
            Some(path) => Config::from_custom_kubeconfig(Kubeconfig::read_from(path)?, &options).await?,
            None if options.context.is_some() => Config::from_kubeconfig(&options).await?,
            None => Config::infer().await?,
        };
        let client = Client::try_from(config)?;
        match self.command {
            Command::Status { namespace, all_namespaces, output } => {
                let api = if all_namespaces { Api::all(client) } else { namespace.of(&client) };
                let bindings = list(&api).await?;
                output.print(&cluster::listed(&bindings), || plain(&cluster::status(&bindings)))
            }
            Command::Explain { pod, namespace } => {
                let found =
                    namespace.of::<Pod>(&client).get_opt(&pod).await.map_err(|error| Error::of("get", format!("pods {pod}"), error))?;
                let Some(found) = found else {
                    let of = namespace.namespace.as_deref().unwrap_or(client.default_namespace());
                    anyhow::bail!("there is no pod {pod} in the namespace {of}; see kubectl get pods --all-namespaces")
                };
                let bindings = list(&namespace.of(&client)).await?;
                let node = match found.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) {
                    Some(node) => report(client, node).await?,
                    None => None,
                };
                Ok(plain(&cluster::explain(&found, &bindings, node.as_ref())))
            }
            Command::Node { name } => match report(client, &name).await? {
                Some(node) => Ok(plain(&cluster::node(&node))),
                None => anyhow::bail!("node {name} does not report; see kubectl get egressnodes for those that do"),
            },
        }
    }
}

/// Lines without control characters: a terminal would obey those in a node's report.
fn plain(text: &str) -> String {
    text.lines().map(|line| printable(line, usize::MAX) + "\n").collect()
}

/// A pod as kubectl's other commands have it, too.
fn pod_name(text: &str) -> Result<String, String> {
    match text.split_once('/') {
        None => Ok(text.to_owned()),
        Some(("pod" | "pods" | "po", name)) => Ok(name.to_owned()),
        Some((kind, _)) => Err(format!("`{kind}` cannot be explained; name a pod, for example pod/web")),
    }
}

async fn list(api: &Api<EgressBinding>) -> Result<Vec<EgressBinding>, Error> {
    let listed = api.list(&ListParams::default()).await;
    Ok(listed.map_err(|error| Error::of("list", "egressbindings.egressd.dev", error))?.items)
}

async fn report(client: Client, node: &str) -> Result<Option<EgressNode>, Error> {
    Api::all(client).get_opt(node).await.map_err(|error| Error::of("get", "egressnodes.egressd.dev", error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_written_out() {
        assert_eq!(plain("BINDING  NODE\nweb  \u{1b}[2Jwell\r\n"), "BINDING  NODE\nweb  \\u{1b}[2Jwell\n");
        assert_eq!(plain("shop/web: it's \"bound\"\n"), "shop/web: it's \"bound\"\n");
    }
}
