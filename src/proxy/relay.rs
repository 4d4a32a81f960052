//! Two TCP connections joined: bytes both ways, the end of each direction passed on, and an end to those that say nothing.

use std::io;
use std::net::Shutdown;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::pipe::{Carrier, MANY, Pipes};
use crate::model::proxy::Limits;

/// Counts the bytes of a direction.
pub type Count<'a> = &'a AtomicU64;

/// What two joined connections need.
pub struct Relay<'a> {
    pub pipes: &'a Pipes,
    pub limits: Limits,
    /// Bytes from the client to the server, and back.
    pub counts: [Count<'a>; 2],
}

/// When something was carried last.
pub struct Activity {
    start: Instant,
    last: AtomicU64,
}

impl Activity {
    /// Just now.
    pub fn new() -> Self {
        Self { start: Instant::now(), last: AtomicU64::new(0) }
    }

    /// Something is carried now.
    pub fn now(&self) {
        let elapsed = self.start.elapsed().as_millis();
        self.last.store(elapsed.try_into().unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Returns once nothing was carried for so long.
    pub async fn idle(&self, limit: Duration) {
        loop {
            let due = self.start + Duration::from_millis(self.last.load(Ordering::Relaxed)) + limit;
            if due <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(due).await;
        }
    }
}

impl Relay<'_> {
    /// Carries bytes until both directions have ended.
    ///
    /// # Errors
    /// When one of the connections breaks, or nothing is carried for too long: both have to be reset then.
    pub async fn run(&self, client: &TcpStream, server: &TcpStream) -> io::Result<()> {
        let activity = Activity::new();
        let mut up = pin!(self.direction(client, server, self.counts[0], &activity));
        let mut down = pin!(self.direction(server, client, self.counts[1], &activity));
        tokio::select! {
            ended = &mut up => {
                ended?;
                self.rest(down, client, &activity).await
            }
            ended = &mut down => {
                ended?;
                self.rest(up, server, &activity).await
            }
            () = activity.idle(self.limits.idle) => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    /// The direction that is left. Nobody reads the side that has ended any more, so a reset of it is looked for.
    async fn rest(&self, direction: impl Future<Output = io::Result<()>>, ended: &TcpStream, activity: &Activity) -> io::Result<()> {
        activity.now();
        tokio::select! {
            biased;
            done = direction => done,
            error = ended.ready(Interest::ERROR) => Err(error.err().unwrap_or_else(|| io::ErrorKind::ConnectionReset.into())),
            () = activity.idle(self.limits.half_closed) => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    /// Carries one direction to its end, and passes the end on.
    async fn direction(&self, from: &TcpStream, to: &TcpStream, count: Count<'_>, activity: &Activity) -> io::Result<()> {
        let mut carried = 0;
        loop {
            from.readable().await?;
            // Made for this burst.
            let mut carrier = Carrier::new(self.pipes, carried >= MANY);
            loop {
                match from.try_io(Interest::READABLE, || carrier.fill(from)) {
                    Ok(0) => {
                        // A peer that is gone has nothing to be told.
                        let _ = SockRef::from(to).shutdown(Shutdown::Write);
                        return Ok(());
                    }
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error),
                }
                while !carrier.is_empty() {
                    match to.try_io(Interest::WRITABLE, || carrier.empty(to)) {
                        Ok(bytes) => {
                            carried += bytes as u64;
                            count.fetch_add(bytes as u64, Ordering::Relaxed);
                            activity.now();
                        }
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => to.writable().await?,
                        Err(error) => return Err(error),
                    }
                }
                if carried >= MANY && !carrier.is_pipe() {
                    break;
                }
                // Others have their turn.
                tokio::task::coop::consume_budget().await;
            }
        }
    }
}

#[cfg(test)]
mod tests;
