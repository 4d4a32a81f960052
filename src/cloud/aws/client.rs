//! A call to EC2: signed, sent, made again when it was one too many, and its error read. And what this instance's metadata service says.

use std::time::{Duration, SystemTime};

use anyhow::Context;
use aws_credential_types::Credentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use egressd::facts::backoff::{Backoff, at_random};
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::{Request, StatusCode, Uri};
use tracing::debug;

use super::body::Body;
use super::credentials::{Chain, Metadata};
use super::http::Http;
use super::query::Query;
use super::read;
use super::request::{endpoint, form, post, regional};
use crate::provider::Error;
use crate::stop::Stop;

/// The API's version.
const VERSION: &str = "2016-11-15";
/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(30);
/// A call that is one too many is made again after a random part of this, which doubles...
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// ... up to this...
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// ... and so many times: a minute at most.
const TRIES: u32 = 10;

/// How EC2 and what stands before it say that there were too many calls. None of them was carried out.
const THROTTLED: [&str; 6] =
    ["RequestLimitExceeded", "Throttling", "ThrottlingException", "RequestThrottled", "TooManyRequestsException", "EC2ThrottledException"];
/// How credentials are told to be none any more: they ended early, or were taken back.
const STALE: [&str; 5] = ["AuthFailure", "ExpiredToken", "ExpiredTokenException", "InvalidClientTokenId", "RequestExpired"];
/// How a missing permission is told.
const DENIED: [&str; 3] = ["UnauthorizedOperation", "AccessDenied", "AccessDeniedException"];

/// Talks to EC2.
pub struct Client {
    http: Http,
    credentials: Chain,
    metadata: Metadata,
    endpoint: Option<Uri>,
    stop: Stop,
}

impl Client {
    /// By the environment. Once it is told to stop, no call is made again.
    pub fn new(stop: Stop) -> anyhow::Result<Self> {
        let http = Http::new().context("failed to read the certificates of authorities; install ca-certificates")?;
        let metadata = Metadata::new(http.clone())?;
        Ok(Self { credentials: Chain::new(http.clone(), metadata.clone()), metadata, endpoint: endpoint("EC2")?, http, stop })
    }

    /// What the metadata service of this instance says at `latest/meta-data/PATH`.
    pub async fn instance(&self, path: &str) -> Result<String, String> {
        self.metadata.read(&format!("latest/meta-data/{path}")).await
    }

    /// Makes the call, and again while there are too many of them.
    pub async fn call(&mut self, region: &str, action: &'static str, query: &Query) -> Result<Body, Error> {
        let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
        for _ in 1..TRIES {
            match self.once(region, action, query).await {
                Err(Error::Refused { code, .. }) if THROTTLED.contains(&code.as_str()) => {
                    let part = part_of(backoff.wait());
                    debug!(action, code, ?part, "too many calls");
                    tokio::select! {
                        () = tokio::time::sleep(part) => {}
                        () = self.stop.wait() => return Err(Error::Stopped),
                    }
                }
                answer => return answer,
            }
        }
        self.once(region, action, query).await
    }

    async fn once(&mut self, region: &str, action: &'static str, query: &Query) -> Result<Body, Error> {
        let credentials = self.credentials.get(region).await.map_err(Error::Credentials)?;
        let form = form(action, VERSION, query);
        let uri = self.endpoint.clone().unwrap_or_else(|| regional("ec2", region));
        let request =
            signed(&credentials, region, &uri, form).map_err(|message| Error::Refused { action, code: "NotSigned".to_owned(), message })?;
        let (status, text) =
            self.http.send(request, ANSWER).await.map_err(|error| Error::Unanswered { action, message: error.to_string() })?;
        if status.is_success() {
            return Ok(Body { action, text });
        }
        let (code, message) = read::fault(&text).unwrap_or_else(|| (unnamed(status), status.to_string()));
        // AWS appends kilobytes of an encoded message to a denial.
        let message = message.split(" Encoded authorization failure message").next().unwrap_or_default().to_owned();
        if DENIED.contains(&code.as_str()) {
            return Err(Error::Denied { action, message });
        }
        if STALE.contains(&code.as_str()) {
            self.credentials.forget();
            let message = format!("{message} (asking for new credentials; if it goes on, check this machine's clock)");
            return Err(Error::Refused { action, code, message });
        }
        Err(Error::Refused { action, code, message })
    }
}

/// An error that a load balancer has made.
fn unnamed(status: StatusCode) -> String {
    match status {
        StatusCode::TOO_MANY_REQUESTS => "Throttling",
        StatusCode::SERVICE_UNAVAILABLE => "Unavailable",
        _ if status.is_server_error() => "InternalError",
        _ => "Unknown",
    }
    .to_owned()
}

/// The request that posts a form, signed (Signature Version 4).
fn signed(credentials: &Credentials, region: &str, uri: &Uri, form: String) -> Result<Request<Full<Bytes>>, String> {
    let identity = credentials.clone().into();
    let parameters = v4::SigningParams::builder()
        .identity(&identity)
        .region(region)
        .name("ec2")
        .time(SystemTime::now())
        .settings(SigningSettings::default())
        .build()
        .map_err(|error| error.to_string())?
        .into();
    let mut request = post(uri, form.clone())?;
    let url = uri.to_string();
    let headers = request.headers().iter().filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)));
    let signable = SignableRequest::new("POST", url, headers, SignableBody::Bytes(form.as_bytes())).map_err(|error| error.to_string())?;
    let (instructions, _) = sign(signable, &parameters).map_err(|error| error.to_string())?.into_parts();
    instructions.apply_to_request_http1x(&mut request);
    Ok(request)
}

/// A random part: callers that were refused together come again apart.
fn part_of(pause: Duration) -> Duration {
    pause / 2 + at_random(pause / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_at_least_half_of_what_was_asked_for_and_never_more() {
        for _ in 0..1000 {
            let part = part_of(Duration::from_secs(8));
            assert!((Duration::from_secs(4)..=Duration::from_secs(8)).contains(&part), "{part:?}");
        }
    }
}
