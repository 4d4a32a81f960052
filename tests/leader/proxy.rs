//! A way to the API server that can be cut.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::net::{TcpListener, TcpStream};

/// A port that leads to the API server until it is cut.
pub struct Way {
    pub port: u16,
    cut: Arc<AtomicBool>,
    connections: tokio::sync::watch::Sender<()>,
}

impl Way {
    pub async fn open(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("it is bound").port();
        let cut = Arc::new(AtomicBool::new(false));
        let connections = tokio::sync::watch::Sender::new(());
        let (closed, ended) = (Arc::clone(&cut), connections.subscribe());
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                if !closed.load(Ordering::Relaxed) {
                    tokio::spawn(carry(near, server, ended.clone()));
                }
            }
        });
        Self { port, cut, connections }
    }

    /// Ends all connections, and refuses new ones.
    pub fn cut(&self) {
        self.cut.store(true, Ordering::Relaxed);
        self.connections.send_replace(());
    }
}

async fn carry(mut near: TcpStream, server: u16, mut cut: tokio::sync::watch::Receiver<()>) -> io::Result<()> {
    let mut far = TcpStream::connect(("127.0.0.1", server)).await?;
    cut.mark_unchanged();
    tokio::select! {
        _ = cut.changed() => Ok(()),
        done = tokio::io::copy_bidirectional(&mut near, &mut far) => done.map(drop),
    }
}
