//! Ends, resets and limits of two joined connections.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

/// Two connected sockets.
async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let calling = TcpStream::connect(listener.local_addr().unwrap());
    let (called, calling) = tokio::join!(listener.accept(), calling);
    (calling.unwrap(), called.unwrap().0)
}

const LIMITS: Limits = Limits { open: 1, idle: Duration::from_secs(60), half_closed: Duration::from_secs(60) };

/// A client and a server, joined by a relay in a task of its own.
async fn joined(limits: Limits) -> (TcpStream, TcpStream, tokio::task::JoinHandle<io::Result<()>>) {
    let ((client, near), (far, server)) = (pair().await, pair().await);
    let relay = tokio::spawn(async move {
        let (pipes, up, down) = Default::default();
        Relay { pipes: &pipes, limits, counts: [&up, &down] }.run(&near, &far).await
    });
    (client, server, relay)
}

#[tokio::test]
async fn each_end_is_passed_on_by_itself() {
    let (mut client, mut server, relay) = joined(LIMITS).await;
    client.write_all(b"a question").await.unwrap();
    client.shutdown().await.unwrap();
    let mut question = Vec::new();
    server.read_to_end(&mut question).await.unwrap();
    assert_eq!(question, b"a question");
    server.write_all(b"an answer, after the question's end").await.unwrap();
    server.shutdown().await.unwrap();
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer, b"an answer, after the question's end");
    relay.await.unwrap().unwrap();
}

#[tokio::test]
async fn who_says_nothing_is_given_up() {
    let short = Duration::from_millis(50);
    let (_client, _server, relay) = joined(Limits { idle: short, ..LIMITS }).await;
    assert_eq!(relay.await.unwrap().unwrap_err().kind(), io::ErrorKind::TimedOut);
    let (mut client, _server, relay) = joined(Limits { half_closed: short, ..LIMITS }).await;
    client.shutdown().await.unwrap();
    assert_eq!(relay.await.unwrap().unwrap_err().kind(), io::ErrorKind::TimedOut);
}

#[tokio::test]
async fn a_reset_is_seen_also_of_a_side_that_has_ended() {
    let (client, _server, relay) = joined(LIMITS).await;
    client.set_zero_linger().unwrap();
    drop(client);
    assert!(relay.await.unwrap().is_err());
    let (mut client, mut server, relay) = joined(LIMITS).await;
    client.shutdown().await.unwrap();
    assert_eq!(server.read(&mut [0]).await.unwrap(), 0, "the end has come through");
    client.set_zero_linger().unwrap();
    drop(client);
    assert!(relay.await.unwrap().is_err());
}

#[tokio::test]
async fn a_carrier_with_bytes_in_it_is_not_used_again() {
    let (pipes, (mut client, near)) = (Pipes::default(), pair().await);
    client.write_all(b"left over").await.unwrap();
    near.readable().await.unwrap();
    let mut carrier = Carrier::new(&pipes, true);
    assert_eq!(carrier.fill(&near).unwrap(), 9);
    drop(carrier);
    client.write_all(b"next").await.unwrap();
    let mut carrier = Carrier::new(&pipes, true);
    while near.try_io(Interest::READABLE, || carrier.fill(&near)).is_err() {
        near.readable().await.unwrap();
    }
    let (mut far, server) = pair().await;
    assert_eq!(carrier.empty(&server).unwrap(), 4);
    let mut got = [0; 4];
    far.read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"next");
}
