//! A call to EC2: signed, sent, made again when it was one too many, and its error read. And what this instance's metadata service says.

use std::collections::hash_map::RandomState;
use std::env;
use std::hash::{BuildHasher, Hasher};
use std::time::{Duration, SystemTime};

use anyhow::Context;
use aws_credential_types::Credentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode, Uri};
use tracing::debug;

use super::credentials::{Chain, Metadata};
use super::http::Http;
use super::query::Query;
use super::read::{self, Body};
use crate::provider::Error;

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
/// How a missing permission is told.
const DENIED: [&str; 3] = ["UnauthorizedOperation", "AccessDenied", "AccessDeniedException"];

/// Talks to EC2.
pub struct Client {
    http: Http,
    credentials: Chain,
    metadata: Metadata,
    endpoint: Option<Uri>,
}

impl Client {
    /// By the environment.
    pub fn new() -> anyhow::Result<Self> {
        let http = Http::new().context("failed to read the certificates of authorities; install ca-certificates")?;
        let metadata = Metadata::new(http.clone())?;
        Ok(Self { credentials: Chain::new(http.clone(), metadata.clone()), metadata, endpoint: endpoint("EC2")?, http })
    }

    /// What the metadata service of this instance says at `latest/meta-data/PATH`.
    pub async fn instance(&self, path: &str) -> Result<String, String> {
        self.metadata.read(&format!("latest/meta-data/{path}")).await
    }

    /// Makes the call, and again while there are too many of them.
    pub async fn call(&mut self, region: &str, action: &'static str, query: &Query) -> Result<Body, Error> {
        let mut pause = FIRST_PAUSE;
        for _ in 1..TRIES {
            match self.once(region, action, query).await {
                Err(Error::Refused { code, .. }) if THROTTLED.contains(&code.as_str()) => {
                    let part = part_of(pause);
                    debug!(action, code, ?part, "too many calls");
                    tokio::time::sleep(part).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
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

/// A service's address by the environment: `AWS_ENDPOINT_URL_EC2`, else `AWS_ENDPOINT_URL`.
pub fn endpoint(service: &str) -> anyhow::Result<Option<Uri>> {
    for name in [format!("AWS_ENDPOINT_URL_{service}"), "AWS_ENDPOINT_URL".to_owned()] {
        let Some(url) = env::var(&name).ok().filter(|url| !url.is_empty()) else { continue };
        let uri: Uri = url.parse().with_context(|| format!("{name}={url} is not an address"))?;
        anyhow::ensure!(uri.scheme().is_some() && uri.host().is_some(), "{name}={url} has no scheme or no host");
        return Ok(Some(uri));
    }
    Ok(None)
}

/// A service's address in a region. China has a domain of its own.
pub fn regional(service: &str, region: &str) -> Uri {
    let domain = if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
    Uri::builder()
        .scheme("https")
        .authority(format!("{service}.{region}.{domain}"))
        .path_and_query("/")
        .build()
        .unwrap_or_else(|_| Uri::from_static("https://invalid"))
}

/// A form: what the Query API takes as a body.
pub fn form(action: &str, version: &str, query: &[(String, String)]) -> String {
    let own = [("Action".to_owned(), action.to_owned()), ("Version".to_owned(), version.to_owned())];
    let pairs = own.iter().chain(query).map(|(name, value)| format!("{}={}", escaped(name), escaped(value)));
    pairs.collect::<Vec<_>>().join("&")
}

/// All but what RFC 3986 calls unreserved is written as its bytes.
fn escaped(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    text.bytes().map(byte).collect()
}

/// The request that posts a form.
pub fn post(uri: &Uri, form: String) -> Result<Request<Full<Bytes>>, String> {
    Request::builder()
        .method(Method::POST)
        .uri(uri.clone())
        .header("content-type", "application/x-www-form-urlencoded; charset=utf-8")
        .header("user-agent", concat!("egressd-cloud/", env!("CARGO_PKG_VERSION")))
        .body(Full::new(form.into()))
        .map_err(|error| error.to_string())
}

/// The same, signed (Signature Version 4).
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
    let random = RandomState::new().build_hasher().finish();
    pause / 2 + pause.mul_f64((random % 1000) as f64 / 2000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_escapes_what_tags_may_have() {
        let query = vec![("Tag.1.Value".to_owned(), "a b=ü/&+".to_owned())];
        assert_eq!(form("CreateTags", "1", &query), "Action=CreateTags&Version=1&Tag.1.Value=a%20b%3D%C3%BC%2F%26%2B");
    }

    #[test]
    fn regions_of_china_have_their_own_domain() {
        assert_eq!(regional("ec2", "eu-central-1").host(), Some("ec2.eu-central-1.amazonaws.com"));
        assert_eq!(regional("sts", "cn-north-1").host(), Some("sts.cn-north-1.amazonaws.com.cn"));
    }

    #[test]
    fn a_pause_is_at_least_half_of_what_was_asked_for_and_never_more() {
        for _ in 0..1000 {
            let part = part_of(Duration::from_secs(8));
            assert!((Duration::from_secs(4)..=Duration::from_secs(8)).contains(&part), "{part:?}");
        }
    }
}
