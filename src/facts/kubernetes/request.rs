//! How long a request may take, and how often it is repeated. Nothing waits for ever: neither for an answer, nor as long as a server says.

use std::time::Duration;

use axum::http::{HeaderMap, Request, Response, StatusCode, header::RETRY_AFTER};
use kube::client::Body;
use kube::client::retry::RetryPolicy;
use tokio::time::{Sleep, sleep, timeout};
use tower::BoxError;
use tower::retry::Policy;

/// How long any request may take but a list or a watch, with all its repetitions.
pub const LIMIT: Duration = Duration::from_secs(10);
/// An API server that is overloaded is asked again so often before the caller hears of it...
const REPEATS: u32 = 3;
/// ...after this time, twice that, and so on...
const PAUSE: Duration = Duration::from_millis(200);
/// ...or after as long as it says, but never after more than this: a proxy in front may say a day.
const LONGEST: Duration = Duration::from_secs(2);

/// A request that takes longer counts as one that nobody answers.
pub async fn within<T>(limit: Duration, request: impl Future<Output = kube::Result<T>>) -> kube::Result<T> {
    match timeout(limit, request).await {
        Ok(answer) => answer,
        Err(elapsed) => Err(kube::Error::Service(Box::new(elapsed))),
    }
}

/// Repeats what was refused for the moment: 429, 503 and 504.
#[derive(Clone, Default)]
pub struct Repeat {
    done: u32,
    /// For how a request is copied.
    like: RetryPolicy,
}

impl Repeat {
    fn pause(&self, headers: &HeaderMap) -> Duration {
        let asked = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok()).map(Duration::from_secs);
        (PAUSE * 2_u32.saturating_pow(self.done)).max(asked.unwrap_or_default()).min(LONGEST)
    }
}

impl<B> Policy<Request<Body>, Response<B>, BoxError> for Repeat {
    type Future = Sleep;

    fn retry(&mut self, _: &mut Request<Body>, result: &mut Result<Response<B>, BoxError>) -> Option<Sleep> {
        let response = result.as_ref().ok()?;
        let passing = [StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE, StatusCode::GATEWAY_TIMEOUT];
        if !passing.contains(&response.status()) || self.done >= REPEATS {
            return None;
        }
        let pause = self.pause(response.headers());
        self.done += 1;
        Some(sleep(pause))
    }

    fn clone_request(&mut self, request: &Request<Body>) -> Option<Request<Body>> {
        Policy::<Request<Body>, Response<B>, BoxError>::clone_request(&mut self.like, request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_says_to_come_back_in_a_day_is_asked_again_in_two_seconds() {
        let pause = |done, after: &str| {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, after.parse().expect("a header"))]);
            Repeat { done, ..Repeat::default() }.pause(&headers)
        };
        assert_eq!(pause(0, "86400"), LONGEST);
        assert_eq!(pause(0, "1"), Duration::from_secs(1));
        assert_eq!(pause(0, "Sat, 01 Jan 2028 00:00:00 GMT"), PAUSE);
        assert_eq!(pause(40, "0"), LONGEST);
    }
}
