//! SCTP (RFC 9260): associations are accepted, dialled on, and joined message by message. Each message keeps its bounds, its stream, its payload
//! protocol identifier, and whether it is ordered. SCTP has no half-closed state: when one side shuts down, the other one is shut down, too.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use oxirush_sctp::{ConnectedSocket, InitParams, Listener, NotificationOrData, ReceivedData, SendInfo, SendOptions};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::accept::{self, Call};
use super::context::Context;
use super::port::{OpenConnection, Port};
use super::relay::{Activity, Count};
use super::scope::Scope;
use super::sockets::{self, STREAMS};

/// Accepts associations until the namespace is gone, or `retire` asks to end; then what is waiting is still taken.
pub async fn listen(listener: Listener, port: Arc<Port>, scope: Arc<Scope>, context: Arc<Context>, retire: CancellationToken) {
    accept::listen(listener, port, scope, context, retire, |client, call, place| {
        if abortive(&client).is_ok()
            && let Some(place) = place
        {
            // An association stays with the worker whose epoll it is in.
            tokio::spawn(serve(client, call, place));
        }
    })
    .await;
}

/// From now on it is aborted when dropped: what is cut off looks cut off at both ends, and nothing stays behind in a namespace that is gone.
fn abortive(association: &ConnectedSocket) -> io::Result<()> {
    association.options().set_linger(Some(Duration::ZERO))
}

async fn serve(client: ConnectedSocket, call: Call, _place: OpenConnection) {
    call.run(join(client, &call)).await;
}

async fn join(client: ConnectedSocket, call: &Call) -> io::Result<()> {
    // The server has as many streams as the client. One that has said all and is gone does not tell.
    let streams = client.status().map_or((STREAMS, STREAMS), |status| (status.instreams, status.outstreams));
    let streams = InitParams::streams(streams.0, streams.1);
    let worker = Handle::current();
    let dial = &call.proxy.dial;
    let socket = call.context.dial(dial, &call.port.endpoint, move |dial| sockets::dial_sctp(dial, streams, &worker));
    let (server, scope) = call.reach(socket, |socket| async move { Ok(socket.connect(dial.address).await?.0) }).await?;
    abortive(&server)?;
    let relay = async {
        let [up, down] = &call.port.counts.bytes;
        let activity = Activity::new();
        let left = {
            let up = pin!(direction(&client, &server, up, &activity));
            let down = pin!(direction(&server, &client, down, &activity));
            tokio::select! {
                ended = up => ended.map(|()| Left::Server)?,
                ended = down => ended.map(|()| Left::Client)?,
                () = activity.idle(call.proxy.limits.idle) => return Err(io::ErrorKind::TimedOut.into()),
            }
        };
        let (left, _ended) = match left {
            Left::Server => (server, client),
            Left::Client => (client, server),
        };
        left.options().set_linger(None)?;
        // What it still sends has nobody to go to.
        left.close(call.proxy.limits.half_closed).await.map(drop)
    };
    call.relay(&scope, relay).await
}

/// Whose association is left, once the other side has shut down its own.
enum Left {
    Client,
    Server,
}

/// Carries messages one way until that side shuts down.
async fn direction(from: &ConnectedSocket, to: &ConnectedSocket, count: Count<'_>, activity: &Activity) -> io::Result<()> {
    while let Some(received) = from.recv().await? {
        if let NotificationOrData::Data(message) = received {
            to.send(&message.payload, as_received(&message)).await?;
            count.fetch_add(message.payload.len() as u64, Ordering::Relaxed);
            activity.now();
        }
    }
    Ok(())
}

/// How a message is sent on: as it came.
fn as_received(message: &ReceivedData) -> SendOptions {
    let unordered = message.rcv_info.as_ref().is_some_and(|info| info.flags & SendInfo::UNORDERED != 0);
    SendOptions::new().stream(message.stream_id().unwrap_or_default()).ppid(message.ppid().unwrap_or_default()).unordered(unordered)
}
