//! `egressd proxies`: what `egressd proxy` serves.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use http_body_util::BodyExt;
use hyper::Response;
use hyper::body::Incoming;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::output::Output;
use super::show::Form;
use super::{runtime, values};
use crate::facts::http;
use crate::proxy::report::Report;
use crate::proxy::table;

/// How long the answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug, Args)]
pub(super) struct ProxiesArgs {
    /// Address of `egressd proxy`'s status
    #[arg(long, env = "EGRESSD_PROXY_METRICS_ADDRESS", value_parser = values::listens, default_value = "127.0.0.1:9466", value_name = "ADDRESS:PORT")]
    metrics_address: SocketAddr,
    /// Output format
    #[arg(short, long, value_enum, default_value_t)]
    output: Form,
}

/// The table, or the answer as it came.
///
/// # Errors
/// When nobody answers there, or not as a proxy does.
pub(super) fn proxies(ProxiesArgs { metrics_address: at, output: form }: &ProxiesArgs) -> anyhow::Result<String> {
    let (at, form) = (*at, *form);
    let late = || format!("no answer of {at} within {} s", PATIENCE.as_secs());
    let text = runtime()?.block_on(async { timeout(PATIENCE, get(at)).await }).with_context(late)??;
    let report: Report = serde_json::from_str(&text)
        .with_context(|| format!("failed to read the answer of {at}; is that `egressd proxy`, and of the same version?"))?;
    let output = match form {
        Form::Table | Form::Wide => Output::Table,
        Form::Json => Output::Json,
        Form::Yaml => Output::Yaml,
    };
    output.print(&report, || table::render(&report, form == Form::Wide))
}

async fn get(at: SocketAddr) -> anyhow::Result<String> {
    let stream = TcpStream::connect(at)
        .await
        .with_context(|| format!("failed to reach `egressd proxy` at {at}; does it run, with this --metrics-address?"))?;
    let read = async |answer: Response<Incoming>| {
        if !answer.status().is_success() {
            bail!("{at} answers {}; is that `egressd proxy`?", answer.status());
        }
        let body = answer.into_body().collect().await.with_context(|| format!("failed to read the answer of {at}"))?;
        Ok(String::from_utf8_lossy(&body.to_bytes()).into_owned())
    };
    http::get(stream, "/status".parse()?, &at.to_string(), read).await.with_context(|| format!("{at} does not answer as it should"))?
}
