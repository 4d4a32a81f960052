//! One question by HTTP.

use std::pin::pin;

use http_body_util::Empty;
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, HOST, USER_AGENT};
use hyper::{Request, Response, Uri};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing was asked.
    #[error(transparent)]
    Request(#[from] hyper::http::Error),
    #[error("no answer of HTTP: {0}")]
    Answer(#[from] hyper::Error),
}

/// Asks the server at the other end for `path`, as `host`, and has the answer read. It waits for that, and not for the server to hang up.
///
/// # Errors
/// When there is no answer. What `read` comes to is not among them.
pub async fn get<T>(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    path: Uri,
    host: &str,
    read: impl AsyncFnOnce(Response<Incoming>) -> T,
) -> Result<T, Error> {
    let request = Request::get(path)
        .header(HOST, host)
        .header(USER_AGENT, concat!("egressd/", env!("CARGO_PKG_VERSION")))
        .header(CONNECTION, "close")
        .body(Empty::<Bytes>::new())?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let mut answer = pin!(async { Ok(read(sender.send_request(request).await?).await) });
    tokio::select! {
        answer = &mut answer => answer,
        // Who hangs up behind an answer has given one.
        _ended = connection => answer.await,
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn text(answer: Response<Incoming>) -> Vec<u8> {
        answer.into_body().collect().await.unwrap().to_bytes().into()
    }

    #[tokio::test]
    async fn an_answer_is_read_whether_its_server_hangs_up_or_not() {
        for hangs_up in [true, false] {
            let (ours, mut theirs) = tokio::io::duplex(4096);
            let server = async move {
                assert_ne!(theirs.read(&mut [0; 4096]).await.unwrap(), 0);
                theirs.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nhere").await.unwrap();
                (!hangs_up).then_some(theirs)
            };
            let (_open, answer) = tokio::join!(server, get(ours, Uri::from_static("/"), "echo.example", text));
            assert_eq!(answer.unwrap(), b"here", "it hangs up: {hangs_up}");
        }
    }
}
