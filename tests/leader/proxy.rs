//! A way to the API server that can be cut, or go silent.

use std::io;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    /// Connections stay, and nothing passes.
    Silent,
}

/// A port that leads to the API server.
pub struct Way {
    pub port: u16,
    state: Arc<watch::Sender<State>>,
}

impl Way {
    pub async fn open(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("it is bound").port();
        let state = Arc::new(watch::Sender::new(State::Open));
        let told = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                tokio::spawn(carry(near, server, told.subscribe()));
            }
        });
        Self { port, state }
    }

    /// Lets nothing pass from now on; what is sent meanwhile waits.
    pub fn silence(&self) {
        self.state.send_replace(State::Silent);
    }

    /// Lets all pass again, what has waited first.
    pub fn heal(&self) {
        self.state.send_replace(State::Open);
    }
}

async fn carry(near: TcpStream, server: u16, state: watch::Receiver<State>) -> io::Result<()> {
    let far = TcpStream::connect(("127.0.0.1", server)).await?;
    let ((near_read, near_write), (far_read, far_write)) = (near.into_split(), far.into_split());
    tokio::spawn(pass(far_read, near_write, state.clone()));
    pass(near_read, far_write, state).await
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut state: watch::Receiver<State>) -> io::Result<()> {
    let mut bytes = vec![0; 1 << 14];
    loop {
        let count = from.read(&mut bytes).await?;
        // Fails only when the way is gone.
        let _ = state.wait_for(|state| *state == State::Open).await;
        if count == 0 {
            return to.shutdown().await;
        }
        to.write_all(&bytes[..count]).await?;
    }
}
