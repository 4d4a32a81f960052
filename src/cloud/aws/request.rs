//! Requests of AWS's Query API, not signed yet: where they go, and what stands in them.

use std::env;

use anyhow::Context;
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::{Method, Request, Uri};

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
}
