//! Where credentials come from, in the order of AWS's SDKs: the environment, a web identity (STS), the agent of a container, the instance's
//! role (metadata service, version 2). Profiles of files are a person's, and are not read: `aws configure export-credentials --format env`.

use std::env;
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use http_body_util::Full;
use hyper::{Method, Request, Uri};

use super::body::Body;
use super::http::Http;
use super::read::{self, Lent};
use super::request::{self, endpoint, regional};

/// How long one of these may take to answer.
const ANSWER: Duration = Duration::from_secs(5);
/// Credentials are asked for anew so long before they end.
const BEFORE_THE_END: Duration = Duration::from_secs(300);
/// The address of containers' agents on ECS.
const CONTAINER_AGENT: &str = "169.254.170.2";

/// Credentials, and where new ones come from.
pub struct Chain {
    http: Http,
    metadata: Metadata,
    last: Option<Credentials>,
}

impl Chain {
    pub fn new(http: Http, metadata: Metadata) -> Self {
        Self { http, metadata, last: None }
    }

    /// Credentials that are good for a while.
    pub async fn get(&mut self, region: &str) -> Result<Credentials, String> {
        let now = SystemTime::now();
        let ends = |credentials: &Credentials, spare: Duration| credentials.expiry().is_some_and(|end| end <= now + spare);
        if let Some(last) = self.last.as_ref().filter(|last| !ends(last, BEFORE_THE_END)) {
            return Ok(last.clone());
        }
        match self.lend(region).await {
            Ok(new) => Ok(self.last.insert(new).clone()),
            // The old ones are good for some minutes.
            Err(error) => self.last.clone().filter(|last| !ends(last, Duration::ZERO)).ok_or(error),
        }
    }

    /// The cloud does not take them any more, whatever their end was said to be.
    pub fn forget(&mut self) {
        self.last = None;
    }

    async fn lend(&self, region: &str) -> Result<Credentials, String> {
        if let (Some(id), Some(secret)) = (set("AWS_ACCESS_KEY_ID"), set("AWS_SECRET_ACCESS_KEY")) {
            return Ok(Credentials::new(id, secret, set("AWS_SESSION_TOKEN"), None, "environment"));
        }
        if let (Some(file), Some(role)) = (set("AWS_WEB_IDENTITY_TOKEN_FILE"), set("AWS_ROLE_ARN")) {
            return self.web_identity(region, &file, role).await.map_err(|error| format!("the web identity of {file}: {error}"));
        }
        let full = set("AWS_CONTAINER_CREDENTIALS_FULL_URI");
        if let Some(url) =
            full.or_else(|| set("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI").map(|path| format!("http://{CONTAINER_AGENT}{path}")))
        {
            return self.container(&url).await.map_err(|error| format!("the container's agent at {url}: {error}"));
        }
        self.role().await.map_err(|error| {
            format!(
                "AWS_ACCESS_KEY_ID and AWS_WEB_IDENTITY_TOKEN_FILE are not set, and the instance has no role ({error}); attach a role to \
                 the instance (`egressd-cloud policy` prints what it needs)"
            )
        })
    }

    /// The token is read anew each time: it is replaced before it ends.
    async fn web_identity(&self, region: &str, file: &str, role: String) -> Result<Credentials, String> {
        let token = tokio::fs::read_to_string(file).await.map_err(|error| error.to_string())?;
        let session = set("AWS_ROLE_SESSION_NAME").unwrap_or_else(|| "egressd-cloud".to_owned());
        let query = [("RoleArn", role), ("RoleSessionName", session), ("WebIdentityToken", token.trim().to_owned())];
        let query = query.map(|(name, value)| (name.to_owned(), value));
        let uri = endpoint("STS").map_err(|error| format!("{error:#}"))?.unwrap_or_else(|| regional("sts", region));
        let request = request::post(&uri, request::form("AssumeRoleWithWebIdentity", "2011-06-15", &query))?;
        let (status, text) = self.http.send(request, ANSWER).await.map_err(|error| error.to_string())?;
        if !status.is_success() {
            return Err(read::fault(&text).map_or_else(|| status.to_string(), |(code, message)| format!("{code}: {message}")));
        }
        let body = Body { action: "AssumeRoleWithWebIdentity", text };
        credentials(read::web_identity(&body).map_err(|error| error.to_string())?, "web identity")
    }

    /// ECS, and EKS by Pod Identity.
    async fn container(&self, url: &str) -> Result<Credentials, String> {
        let uri: Uri = url.parse().map_err(|_| "is not an address".to_owned())?;
        let mut request = Request::builder().uri(uri);
        let token = match set("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE") {
            Some(file) => Some(tokio::fs::read_to_string(&file).await.map_err(|error| format!("{file}: {error}"))?.trim().to_owned()),
            None => set("AWS_CONTAINER_AUTHORIZATION_TOKEN"),
        };
        if let Some(token) = token {
            request = request.header("authorization", token);
        }
        let request = request.body(Full::default()).map_err(|error| error.to_string())?;
        let (status, text) = self.http.send(request, ANSWER).await.map_err(|error| error.to_string())?;
        if !status.is_success() {
            return Err(status.to_string());
        }
        credentials(lent(&text)?, "container")
    }

    async fn role(&self) -> Result<Credentials, String> {
        const ROLES: &str = "latest/meta-data/iam/security-credentials/";
        let roles = self.metadata.read(ROLES).await?;
        let role = roles.lines().next().filter(|role| !role.is_empty()).ok_or("it has none")?;
        credentials(lent(&self.metadata.read(&format!("{ROLES}{role}")).await?)?, "instance role")
    }
}

fn lent(text: &str) -> Result<Lent, String> {
    serde_json::from_str(text).map_err(|error| format!("failed to read the answer: {error}"))
}

fn credentials(lent: Lent, provider: &'static str) -> Result<Credentials, String> {
    let end = lent.expiration.map(|text| text.parse::<jiff::Timestamp>().map_err(|_| format!("`{text}` is not a time"))).transpose()?;
    Ok(Credentials::new(lent.access_key_id, lent.secret_access_key, lent.session_token, end.map(SystemTime::from), provider))
}

/// A variable that says something.
fn set(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

/// The metadata service of this instance, version 2: each question bears a token.
#[derive(Clone)]
pub struct Metadata {
    http: Http,
    /// `None`: it is not to be asked (`AWS_EC2_METADATA_DISABLED`).
    address: Option<String>,
}

impl Metadata {
    pub fn new(http: Http) -> anyhow::Result<Self> {
        let disabled = set("AWS_EC2_METADATA_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"));
        let address = set("AWS_EC2_METADATA_SERVICE_ENDPOINT").unwrap_or_else(|| "http://169.254.169.254".to_owned());
        let uri: Uri = address.parse().map_err(|_| anyhow::anyhow!("AWS_EC2_METADATA_SERVICE_ENDPOINT={address} is not an address"))?;
        anyhow::ensure!(uri.host().is_some(), "AWS_EC2_METADATA_SERVICE_ENDPOINT={address} has no host");
        Ok(Self { http, address: (!disabled).then(|| address.trim_end_matches('/').to_owned()) })
    }

    /// What it says there.
    pub async fn read(&self, path: &str) -> Result<String, String> {
        let address = self.address.as_ref().ok_or("AWS_EC2_METADATA_DISABLED is set")?;
        let token = self.ask(Method::PUT, format!("{address}/latest/api/token"), "x-aws-ec2-metadata-token-ttl-seconds", "60").await?;
        self.ask(Method::GET, format!("{address}/{path}"), "x-aws-ec2-metadata-token", &token).await
    }

    async fn ask(&self, method: Method, url: String, name: &str, value: &str) -> Result<String, String> {
        let request =
            Request::builder().method(method).uri(url).header(name, value).body(Full::default()).map_err(|error| error.to_string())?;
        match self.http.send(request, ANSWER).await {
            Ok((status, text)) if status.is_success() => Ok(text),
            Ok((status, _)) => Err(format!("the metadata service answered {status}")),
            Err(error) => Err(format!("the metadata service does not answer: {error}")),
        }
    }
}
