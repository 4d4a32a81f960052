//! A service of the outside that tells its callers which address it sees.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::num::NonZeroU16;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::{Response, Uri};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::facts::http;

/// How long a connection and its answer may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of an answer that are read.
const LONGEST: usize = 64 * 1024;
/// What an address consists of.
const LETTERS: &str = "0123456789abcdefABCDEF.:";

/// Where it is: `http://HOST[:PORT][/PATH]`.
#[derive(Clone, Debug)]
pub struct Echo {
    host: String,
    port: u16,
    path: String,
}

impl FromStr for Echo {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let example = "write for instance http://echo.example/ip";
        let uri: Uri = text.parse().map_err(|error| format!("{error}; {example}"))?;
        if uri.scheme_str() != Some("http") {
            return Err(format!("the service is asked over plain http, so that only the address is checked; {example}"));
        }
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(|| format!("it names no host; {example}"))?;
        let port = uri.authority().and_then(|authority| authority.as_str().rsplit_once(host)?.1.strip_prefix(':'));
        let port = port.map_or(Ok(80), |port| match port.parse::<NonZeroU16>() {
            Ok(port) => Ok(port.get()),
            Err(_) => Err(format!("`{port}` is not a port (1 to 65535); {example}")),
        })?;
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        Ok(Self { host: host.trim_matches(['[', ']']).to_owned(), port, path: path.to_owned() })
    }
}

impl Echo {
    /// Where it listens in a family; `None` where it has no address of that.
    ///
    /// # Errors
    /// When its name is not known.
    pub fn at(&self, v6: bool) -> anyhow::Result<Option<SocketAddr>> {
        let found = (self.host.as_str(), self.port).to_socket_addrs();
        let mut all = found.with_context(|| format!("failed to look up {}", self.host))?;
        Ok(all.find(|address| address.is_ipv6() == v6))
    }

    /// As a URL and the header `Host` have it (RFC 9112, 3.2).
    fn written(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        if self.port == 80 { host } else { format!("{host}:{}", self.port) }
    }

    /// The address that it sees whoever calls this come from: the first one of the family in its answer, whether that is plain text or JSON.
    ///
    /// # Errors
    /// When it does not answer, or tells no address.
    pub async fn ask(&self, at: SocketAddr) -> anyhow::Result<IpAddr> {
        let late = |_| anyhow!("no answer of {at} within {} s", PATIENCE.as_secs());
        let text = timeout(PATIENCE, self.get(at)).await.map_err(late)??;
        address(&text, at.is_ipv6())
            .ok_or_else(|| anyhow!("the answer of {at} has no IPv{} address in it", if at.is_ipv6() { 6 } else { 4 }))
    }

    async fn get(&self, at: SocketAddr) -> anyhow::Result<String> {
        let stream = TcpStream::connect(at).await.with_context(|| format!("failed to connect to {at}"))?;
        let host = self.written();
        let read = async |answer: Response<Incoming>| {
            if !answer.status().is_success() {
                bail!("{at} answers {}", answer.status());
            }
            let body = Limited::new(answer.into_body(), LONGEST).collect().await.map_err(|error| anyhow!("the answer of {at}: {error}"))?;
            Ok(String::from_utf8_lossy(&body.to_bytes()).into_owned())
        };
        http::get(stream, self.path.parse()?, &host, read).await.with_context(|| format!("{at} does not answer as it should"))?
    }
}

/// The first address of a family in a text.
fn address(text: &str, v6: bool) -> Option<IpAddr> {
    let words = text.split(|letter| !LETTERS.contains(letter));
    words.filter_map(|word| word.trim_end_matches(['.', ':']).parse().ok()).find(|address: &IpAddr| address.is_ipv6() == v6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_found_in_text_and_in_json() {
        let v4 = Some(IpAddr::from([203, 0, 113, 7]));
        for text in ["203.0.113.7\n", "{\"ip\": \"203.0.113.7\", \"port\": 12}", "fl=1\nip=203.0.113.7\nts=1", "Your IP is 203.0.113.7."] {
            assert_eq!(address(text, false), v4, "{text}");
            assert_eq!(address(text, true), None, "{text}");
        }
        assert_eq!(address("at 12:30:45 from 2001:db8::7", true), "2001:db8::7".parse().ok());
        assert_eq!(address("version 1.2.3, nobody", false), None);
    }

    #[test]
    fn a_service_is_named_as_a_url_of_plain_http() {
        let echo: Echo = "http://[2001:db8::1]:8080/ip?x=1".parse().unwrap();
        assert_eq!((echo.host.as_str(), echo.port, echo.path.as_str()), ("2001:db8::1", 8080, "/ip?x=1"));
        let echo: Echo = "http://echo.example".parse().unwrap();
        assert_eq!((echo.port, echo.path.as_str()), (80, "/"));
        for wrong in ["https://echo.example/", "echo.example", "http://", ""] {
            let error = wrong.parse::<Echo>().unwrap_err();
            assert!(error.contains("http://echo.example/ip"), "{wrong}: {error}");
        }
    }
}
