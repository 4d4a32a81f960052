//! Health of servers, and of what exits are to reach: each one that is to be looked at is asked by a task of its own, on a thread of its
//! own, so that no slow or silent server delays another one, and thousands of them not the loop.

mod probe;
mod tls;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit};
use tokio::sync::{Semaphore, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until, timeout};

use crate::facts::backoff::at_random;
use crate::model::health::{Check, Tally, Verdict};
use probe::probe;

/// Probes under way at a time, at most. Who is silent takes one of them for its whole interval.
const AT_ONCE: u64 = 1024;
/// By this part of an interval a probe may be late: probes that began together do not stay together.
const JITTER: u32 = 10;

/// The checks that are wanted.
pub type Checks = Arc<BTreeSet<Check>>;

/// Begins to ask what is wanted, and tells each verdict. Ends with the sender of what is wanted.
///
/// # Errors
/// When there is no thread or no runtime to be had.
pub fn start(mut wanted: watch::Receiver<Checks>, tell: impl Fn(Check, Verdict) + Clone + Send + 'static) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    thread::Builder::new().name("health".to_owned()).spawn(move || {
        runtime.block_on(async move {
            let slots = Arc::new(Semaphore::new(at_once()));
            let mut tasks: BTreeMap<Check, AbortHandle> = BTreeMap::new();
            while wanted.changed().await.is_ok() {
                let now = Arc::clone(&wanted.borrow_and_update());
                tasks.retain(|check, task| {
                    now.contains(check) || {
                        task.abort();
                        false
                    }
                });
                for check in now.iter().filter(|check| !tasks.contains_key(check)).cloned().collect::<Vec<_>>() {
                    let task = tokio::spawn(watch_over(check.clone(), Arc::clone(&slots), tell.clone()));
                    tasks.insert(check, task.abort_handle());
                }
            }
        });
    })?;
    Ok(())
}

/// Half of the descriptors that the process may have: the others are for everything else.
fn at_once() -> usize {
    let (soft, _) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((256, 256));
    (soft / 2).clamp(1, AT_ONCE) as usize
}

/// Asks one server for ever.
async fn watch_over(check: Check, slots: Arc<Semaphore>, tell: impl Fn(Check, Verdict)) {
    let interval = Duration::from_millis(check.how.interval.into());
    let mut tally = Tally::new(&check.how);
    loop {
        let began = Instant::now();
        let answer = {
            let _slot = slots.acquire().await.expect("it is never closed");
            timeout(interval, probe(&check)).await.unwrap_or_else(|_| Err(format!("no answer within {} ms", interval.as_millis())))
        };
        if tally.add(answer.is_ok()) {
            tell(check.clone(), answer.err().map_or(Verdict::Healthy, Verdict::Unhealthy));
        }
        sleep_until(began + interval + at_random(interval / JITTER)).await;
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, TcpListener};
    use std::sync::mpsc;

    use super::*;
    use crate::model::health::{HealthCheck, Probe};

    const PATIENCE: Duration = Duration::from_secs(20);

    fn check(port: u16) -> Check {
        let how = HealthCheck { probe: Probe::Tcp, port: None, interval: 100, failures: 2 };
        Check { address: IpAddr::from([127, 0, 0, 1]), port, from: None, how: Arc::new(how) }
    }

    #[test]
    fn a_server_that_comes_and_goes_is_told_and_a_silent_one_delays_nobody() {
        let first = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = first.local_addr().expect("bound").port();
        // Nobody takes what waits there.
        let full = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
        full.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).and_then(|()| full.listen(0)).expect("a port");
        let silent = full.local_addr().expect("bound").as_socket().expect("of IPv4").port();
        let _fills: Vec<_> =
            (0..2).map(|_| std::net::TcpStream::connect_timeout(&([127, 0, 0, 1], silent).into(), Duration::from_millis(200))).collect();
        let (tell, told) = mpsc::channel();
        let (want, wanted) = watch::channel(Checks::default());
        start(wanted, move |check, verdict| drop(tell.send((check.port, verdict)))).expect("a thread");
        want.send_replace(Arc::new([check(port), check(silent)].into()));
        assert_eq!(told.recv_timeout(PATIENCE), Ok((port, Verdict::Healthy)));
        let unhealthy = |at: u16| {
            let verdict = std::iter::repeat_with(|| told.recv_timeout(PATIENCE).expect("a verdict")).find(|(port, _)| *port == at);
            let Some((_, Verdict::Unhealthy(why))) = verdict else { panic!("{verdict:?}") };
            why
        };
        assert_eq!(unhealthy(silent), "no answer within 100 ms");
        drop(first);
        assert!(unhealthy(port).contains("refused"));
        let _again = TcpListener::bind(("127.0.0.1", port)).expect("it is free");
        assert_eq!(told.recv_timeout(PATIENCE), Ok((port, Verdict::Healthy)));
    }
}
