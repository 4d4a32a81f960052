//! The command line.

use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{BoolishValueParser, NonEmptyStringValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum};
use egressd::report::columns::columns;

use crate::aws::policy;
use crate::cluster::Access;
use crate::model::report::AddressReport;
use crate::release::{Release, release};
use crate::run::{self, BackendOptions, Options, PoolSource};
use crate::state::Status;

/// Keeps the cloud as egressd's pools ask: private and elastic addresses, the source/destination check, route tables.
#[derive(Debug, Parser)]
#[command(
    name = "egressd-cloud",
    version,
    about,
    after_help = "Exit codes: 0 done, 1 failed or not all pools are ready, 2 wrong arguments.
Credentials come from AWS_ACCESS_KEY_ID, a web identity (AWS_WEB_IDENTITY_TOKEN_FILE), a container's agent, or the instance's role; AWS_ENDPOINT_URL and AWS_ENDPOINT_URL_EC2 name other endpoints."
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Args)]
struct Where {
    /// Folder of manifests; only pools with `cloud` are used
    #[arg(long, env = "EGRESSD_MANIFESTS", required_unless_present = "kubernetes", conflicts_with = "kubernetes", value_name = "DIR")]
    manifests: Option<PathBuf>,
    /// Use the API server's pools instead, with the network interfaces of the cluster's nodes
    #[arg(long, env = "EGRESSD_KUBERNETES", value_parser = BoolishValueParser::new())]
    kubernetes: bool,
    /// Kubeconfig of the API server; the pod's own account when not given
    #[arg(long, env = "EGRESSD_KUBECONFIG", requires = "kubernetes", value_name = "PATH")]
    kubeconfig: Option<PathBuf>,
}

impl Where {
    fn source(self) -> PoolSource {
        match self.manifests {
            Some(folder) if !self.kubernetes => PoolSource::Files(folder),
            _ => PoolSource::Cluster { kubeconfig: self.kubeconfig },
        }
    }
}

#[derive(Debug, Args)]
struct Process {
    /// Name of this process's pod, its identity among those that wait for the Lease
    #[arg(long, env = "POD_NAME", required_if_eq("kubernetes", "true"), value_parser = NonEmptyStringValueParser::new(), value_name = "NAME")]
    pod_name: Option<String>,
    /// Namespace of the Lease, with which one process at a time manages a cluster's pools
    #[arg(long, env = "POD_NAMESPACE", default_value = "egressd", value_name = "NAME")]
    namespace: String,
}

impl Process {
    fn backend(self, source: PoolSource, state: PathBuf) -> BackendOptions {
        match source {
            PoolSource::Files(manifests) => BackendOptions::Host { manifests, state },
            PoolSource::Cluster { kubeconfig } => {
                let identity = self.pod_name.unwrap_or_default();
                BackendOptions::Cluster(Access { kubeconfig, namespace: self.namespace, identity })
            }
        }
    }
}

#[derive(Debug, Args)]
struct Region {
    /// Region of pools without one; this instance's when not given
    #[arg(long, env = "AWS_REGION", value_name = "REGION")]
    region: Option<String>,
}

#[derive(Debug, Args)]
struct State {
    /// Folder for the status
    #[arg(long, env = "EGRESSD_CLOUD_STATE_DIR", default_value = "/run/egressd-cloud", value_name = "DIR")]
    state_dir: PathBuf,
}

#[derive(Debug, Args)]
struct Settle {
    /// How long the cloud's readings may lag behind its answers. For that time after a start nothing is allocated
    #[arg(long, env = "EGRESSD_CLOUD_SETTLE_SECONDS", default_value_t = 15, value_name = "SECONDS")]
    settle_seconds: u64,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Watch the pools of a folder, or of a cluster, and keep the cloud as they ask. Nothing is released
    Run {
        #[command(flatten)]
        source: Where,
        #[command(flatten)]
        region: Region,
        #[command(flatten)]
        state: State,
        #[command(flatten)]
        process: Process,
        /// End as soon as nothing is left to do
        #[arg(long)]
        once: bool,
        /// Print the calls that would be made, and make none that changes anything
        #[arg(long)]
        dry_run: bool,
        /// How often the cloud is read while nothing has to change
        #[arg(long, env = "EGRESSD_CLOUD_INTERVAL_SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..), value_name = "SECONDS")]
        interval_seconds: u64,
        #[command(flatten)]
        settle: Settle,
        /// Log as JSON
        #[arg(long, env = "EGRESSD_LOG_JSON", value_parser = BoolishValueParser::new())]
        log_json: bool,
    },
    /// Show what is known of each pool and address
    Status {
        #[command(flatten)]
        state: State,
        /// Output format
        #[arg(short, long, value_enum, default_value_t)]
        output: Output,
    },
    /// Release what a pool no longer asks for: everything once the pool is gone. Only what egressd allocated is touched
    Release {
        /// The pool's name
        pool: String,
        #[command(flatten)]
        source: Where,
        #[command(flatten)]
        region: Region,
        /// The network interface, where several have a pool of this name
        #[arg(long, value_name = "ENI")]
        network_interface: Option<String>,
        #[command(flatten)]
        settle: Settle,
        /// Print the calls that would be made, and make none that changes anything
        #[arg(long)]
        dry_run: bool,
    },
    /// Print the IAM policy that the pools need, as JSON
    Policy {
        #[command(flatten)]
        source: Where,
    },
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Output {
    #[default]
    Table,
    Json,
}

impl Cli {
    /// Does what was asked for. False when pools are not as they ask.
    ///
    /// # Errors
    /// What is to be told, with the cure.
    pub fn run(self) -> anyhow::Result<bool> {
        let runtime = egressd::cli::runtime()?;
        match self.command {
            Command::Run { source, region, state, process, once, dry_run, interval_seconds, settle, log_json } => {
                egressd::cli::log(log_json);
                let source = source.source();
                if dry_run {
                    return runtime.block_on(run::rehearse(&source, region.region, print)).map(|()| true);
                }
                let options = Options {
                    backend: process.backend(source, state.state_dir),
                    region: region.region,
                    interval: Duration::from_secs(interval_seconds),
                    window: Duration::from_secs(settle.settle_seconds),
                    once,
                };
                // Told to stop it has done what it was for.
                let ready = runtime.block_on(run::run(options))?;
                Ok(ready || !once)
            }
            Command::Status { state, output } => {
                let status = Status::read(&state.state_dir)?;
                let mut out = io::stdout().lock();
                match output {
                    Output::Json => writeln!(out, "{}", serde_json::to_string_pretty(&status)?)?,
                    Output::Table => write!(out, "{}", table(&status))?,
                }
                Ok(true)
            }
            Command::Release { pool, source, region, network_interface, settle, dry_run } => {
                let window = Duration::from_secs(settle.settle_seconds);
                let options = Release { pool, source: source.source(), region: region.region, nic: network_interface, window, dry_run };
                runtime.block_on(release(options, print)).map(|()| true)
            }
            Command::Policy { source } => {
                let pools = runtime.block_on(run::wishes(&source.source()))?;
                anyhow::ensure!(!pools.is_empty(), "no pool has `cloud`: no permission is needed");
                print(serde_json::to_string_pretty(&policy::policy(&pools))?);
                Ok(true)
            }
        }
    }
}

/// A reader that has enough (`| head`) is not told any more.
fn print(line: String) {
    let _ = writeln!(io::stdout(), "{line}");
}

fn table(status: &Status) -> String {
    let row = |(name, nic, private, address): (&String, &str, &Ipv4Addr, &AddressReport)| {
        let public = address.public_address.map_or_else(|| "-".to_owned(), |public| public.to_string());
        let elastic = address.elastic_address.as_deref().unwrap_or("-");
        let ready = if address.ready { "yes" } else { "no" };
        [name.clone(), nic.to_owned(), private.to_string(), public, elastic.to_owned(), ready.to_owned()]
    };
    let rows = status.pools.iter().flat_map(|(name, pool)| {
        let nic = pool.network_interface.as_deref().unwrap_or("-");
        pool.addresses.iter().map(move |(private, address)| (name, nic, private, address))
    });
    let mut text = columns(["POOL", "INTERFACE", "ADDRESS", "PUBLIC", "ELASTIC", "READY"], rows.map(row));
    for (name, pool) in &status.pools {
        text += "\n";
        for (aspect, condition) in &pool.conditions {
            text += &format!("{name}: {aspect} {}: {}\n", condition.reason, condition.message);
        }
        if let Some(problem) = &pool.problem {
            text += &format!("{name}: {problem}\n");
        }
        for surplus in &pool.surplus {
            text += &format!("{name} does not ask for it any more: {surplus}; release it with `egressd-cloud release {name}`\n");
        }
    }
    for error in &status.errors {
        text += &format!("\n{error}\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_commands_are_well_formed() {
        Cli::command().debug_assert();
    }
}
