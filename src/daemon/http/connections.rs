//! The connections of one address: a limited number at once; at the limit a new one replaces the oldest idle one.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use hyper::Request;
use hyper::body::Incoming;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use tokio::task::AbortHandle;
use tokio::time::sleep;

/// Connections at once of one address.
const MOST: usize = 64;
/// How often the limit is checked while all connections are being answered.
const AGAIN: Duration = Duration::from_millis(10);

/// The connections of one address, the oldest first.
#[derive(Default)]
pub(super) struct Connections(Vec<Connection>);

struct Connection {
    task: AbortHandle,
    answering: Answering,
}

/// Whether a whole request is there and its answer has not begun.
type Answering = Arc<AtomicBool>;

impl Connections {
    /// Waits until one more connection is allowed. At the limit the oldest idle connection is closed: a probe must not wait for silent
    /// clients.
    pub async fn free(&mut self) {
        loop {
            self.0.retain(|connection| !connection.task.is_finished());
            if self.0.len() < MOST {
                return;
            }
            match self.0.iter().position(|connection| !connection.answering.load(Ordering::Relaxed)) {
                Some(silent) => self.0.remove(silent).task.abort(),
                None => sleep(AGAIN).await,
            }
        }
    }

    pub fn take(&mut self, task: AbortHandle, answering: Answering) {
        self.0.push(Connection { task, answering });
    }
}

/// What answers the requests of one connection, and whether it is at it.
pub(super) fn service(router: Router) -> (Answering, CountedService) {
    let answering = Answering::default();
    (Arc::clone(&answering), CountedService { answering, router: TowerToHyperService::new(router) })
}

pub(super) struct CountedService {
    answering: Answering,
    router: TowerToHyperService<Router>,
}

impl Service<Request<Incoming>> for CountedService {
    type Response = <TowerToHyperService<Router> as Service<Request<Incoming>>>::Response;
    type Error = <TowerToHyperService<Router> as Service<Request<Incoming>>>::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let answering = Arc::clone(&self.answering);
        answering.store(true, Ordering::Relaxed);
        let answer = self.router.call(request);
        Box::pin(async move {
            let answer = answer.await;
            answering.store(false, Ordering::Relaxed);
            answer
        })
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn a_probe_does_not_wait_for_clients_that_are_silent() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("it is bound");
        let router = Router::new().route("/", get(async || "well")).route("/held", get(std::future::pending::<()>));
        tokio::spawn(super::super::take(listener, router));
        let mut held = ask(address, "/held").await;
        let mut silent = Vec::new();
        for _ in 0..2 * MOST {
            silent.push(TcpStream::connect(address).await.expect("it listens"));
        }
        let mut answer = String::new();
        let probe = ask(address, "/").await.read_to_string(&mut answer).await;
        assert!(probe.is_ok() && answer.ends_with("well"), "{answer}");
        assert_eq!(silent[0].read(&mut [0]).await.ok(), Some(0), "it took the place of the oldest");
        let mut byte = [0];
        let read = timeout(Duration::from_millis(100), held.read(&mut byte)).await;
        assert!(read.is_err(), "who waits for an answer keeps its place: {read:?}");
    }

    async fn ask(address: std::net::SocketAddr, path: &str) -> TcpStream {
        let mut stream = TcpStream::connect(address).await.expect("it listens");
        let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("it reads");
        stream
    }
}
