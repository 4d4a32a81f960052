//! How the API server is found and who we are there: as in a pod, or by a kubeconfig.

use std::path::{Path, PathBuf};

use hyper_util::client::legacy;
use hyper_util::rt::TokioExecutor;
use kube::client::ConfigExt;
use kube::config::{InClusterError, KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};
use tower::retry::RetryLayer;
use tower::{BoxError, ServiceBuilder, service_fn};

use super::connector;
use super::request::Repeat;

/// Why there is no way to the API server. That it does not answer is no reason: it is asked again.
#[derive(Debug, thiserror::Error)]
// The causes are repeated by what these errors say, so they are none's source: each would be told twice.
pub enum Error {
    #[error("failed to use the kubeconfig {path}: {cause}; give one with a current context, as `kubectl --kubeconfig {path}` takes it")]
    Kubeconfig { path: PathBuf, cause: Box<KubeconfigError> },
    #[error("failed to find the API server as a pod does: {cause}; run in a pod that has a ServiceAccount's token, or give --kubeconfig")]
    InCluster { cause: InClusterError },
    #[error("failed to set up the connection to the API server at {server}: {cause}")]
    Connection { server: String, cause: Box<kube::Error> },
}

/// A client of the API server. Nothing is asked yet.
///
/// Without a kubeconfig: at the service address that the environment of a pod names, with the token and the certificate authority of its
/// ServiceAccount, both read again as they rotate.
///
/// # Errors
/// [`Error`], when there is nothing to connect with. Must be called within a tokio runtime.
pub async fn client(kubeconfig: Option<&Path>) -> Result<Client, Error> {
    let config = match kubeconfig {
        Some(path) => {
            let fault = |cause| Error::Kubeconfig { path: path.to_owned(), cause: Box::new(cause) };
            let kubeconfig = Kubeconfig::read_from(path).map_err(fault)?;
            Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.map_err(fault)?
        }
        None => Config::incluster().map_err(|cause| Error::InCluster { cause })?,
    };
    let server = config.cluster_url.to_string();
    connect(config).map_err(|cause| Error::Connection { server, cause: Box::new(cause) })
}

/// As `Client::try_from`, with limits of TCP's own: a watch only listens, and would not notice for minutes that its API server's machine is gone.
fn connect(mut config: Config) -> kube::Result<Client> {
    if config.proxy_url.is_some() {
        // The connection ends at the proxy, and kube knows how to speak to one. Its own repetitions would wait for as long as the server says.
        config.default_retry = false;
        return Client::try_from(config);
    }
    let https = config.rustls_https_connector_with_connector(service_fn(connector::connect))?;
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .layer(RetryLayer::new(Repeat::default()))
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(legacy::Client::builder(TokioExecutor::new()).build(https));
    Ok(Client::new(service, config.default_namespace))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_kubeconfig_that_is_not_there_is_named() {
        let error = client(Some(Path::new("/nowhere/config"))).await.err().expect("there is none").to_string();
        assert!(error.contains("/nowhere/config") && error.contains("--kubeconfig"), "{error}");
    }

    #[tokio::test]
    async fn a_kubeconfig_may_name_a_proxy() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("config");
        for proxy in ["http://127.0.0.1:3128", "https://127.0.0.1:3128", "socks5://127.0.0.1:1080"] {
            let text = format!(
                "{{apiVersion: v1, kind: Config, current-context: c, users: [], contexts: [{{name: c, context: {{cluster: c, user: ''}}}}], clusters: [{{name: c, cluster: {{server: 'https://192.0.2.1:6443', proxy-url: '{proxy}'}}}}]}}"
            );
            std::fs::write(&path, text).expect("written");
            client(Some(&path)).await.unwrap_or_else(|error| panic!("{proxy}: {error}"));
        }
    }

    #[tokio::test]
    async fn outside_of_a_pod_the_cure_is_a_kubeconfig() {
        let error = client(None).await.err().expect("this is no pod").to_string();
        assert!(error.contains("give --kubeconfig"), "{error}");
    }

    #[tokio::test]
    async fn a_kubeconfig_without_a_current_context_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("config");
        std::fs::write(&path, "{apiVersion: v1, kind: Config, clusters: [], contexts: [], users: []}").expect("written");
        let error = client(Some(&path)).await.err().expect("it has no context").to_string();
        assert!(error.contains("give one with a current context"), "{error}");
    }
}
