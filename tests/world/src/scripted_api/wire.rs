//! HTTP/1.1, as much as a client of an API server speaks.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Result, Write},
    net::TcpStream,
};

use serde_json::Value;

/// A request, taken apart.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// `GET`, `POST`, `PUT`, `PATCH`, `DELETE`.
    pub method: String,
    /// `egressd.dev/egressbindings`, `namespaces`.
    pub resource: String,
    pub namespace: String,
    /// Of one object, or of those that a field selector selects.
    pub name: String,
    /// `status`
    pub sub: String,
    pub watch: bool,
    /// A watch that begins with a list.
    pub listed: bool,
    /// Where a watch begins.
    pub version: u64,
    /// The same as it was written.
    pub version_text: String,
    pub body: Value,
}

impl Request {
    /// Whether it is this, of an object by this name.
    pub fn is(&self, method: &str, resource: &str, name: &str) -> bool {
        self.method == method && self.resource == resource && self.name == name
    }

    fn read(method: &str, target: &str, body: &[u8]) -> Self {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        let (group, parts) = match parts.as_slice() {
            ["apis", group, _version, rest @ ..] => (format!("{group}/"), rest),
            ["api", _version, rest @ ..] => (String::new(), rest),
            other => (String::new(), other),
        };
        let (namespace, parts) = match parts {
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (*namespace, rest),
            other => ("", other),
        };
        let part = |at: usize| parts.get(at).copied().unwrap_or_default().to_owned();
        let query: BTreeMap<&str, &str> = query.split('&').filter_map(|pair| pair.split_once('=')).collect();
        let value = |key: &str| query.get(key).copied().unwrap_or_default();
        let selected = value("fieldSelector").strip_prefix("metadata.name%3D").unwrap_or_default().to_owned();
        Self {
            method: method.to_owned(),
            resource: group + &part(0),
            namespace: namespace.to_owned(),
            name: if parts.len() > 1 { part(1) } else { selected },
            sub: part(2),
            watch: value("watch") == "true",
            listed: value("sendInitialEvents") == "true",
            version: value("resourceVersion").parse().unwrap_or(0),
            version_text: value("resourceVersion").to_owned(),
            body: serde_json::from_slice(body).unwrap_or_default(),
        }
    }

    /// It is of one object, not of a list.
    pub(super) fn is_of_one(&self) -> bool {
        !self.watch && (self.method != "GET" || !self.name.is_empty())
    }
}

/// A connection of a client.
pub(super) struct Wire {
    read: BufReader<TcpStream>,
    write: TcpStream,
}

impl Wire {
    pub fn new(connection: TcpStream) -> Result<Self> {
        Ok(Self { read: BufReader::new(connection.try_clone()?), write: connection })
    }

    /// The next request; `None` at the connection's end.
    pub fn request(&mut self) -> Result<Option<Request>> {
        let mut first = String::new();
        if self.read.read_line(&mut first)? == 0 {
            return Ok(None);
        }
        let mut length = 0;
        loop {
            let mut line = String::new();
            self.read.read_line(&mut line)?;
            let Some((name, value)) = line.trim_end().split_once(':') else { break };
            if name.eq_ignore_ascii_case("content-length") {
                length = value.trim().parse().unwrap_or(0);
            }
        }
        let mut body = vec![0; length];
        self.read.read_exact(&mut body)?;
        let mut words = first.split(' ');
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        Ok(Some(Request::read(method, target, &body)))
    }

    pub fn answer(&mut self, code: u16, headers: &str, body: &Value) -> Result<()> {
        let body = body.to_string();
        let more = if headers.is_empty() { String::new() } else { format!("{headers}\r\n") };
        write!(self.write, "HTTP/1.1 {code} Said\r\nContent-Type: application/json\r\n{more}Content-Length: {}\r\n\r\n{body}", body.len())
    }

    /// The head of an answer, and its first bytes.
    pub fn half(&mut self) -> Result<()> {
        write!(self.write, "HTTP/1.1 200 Said\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{{\"kind\"")
    }

    /// The head of an answer that ends with its connection.
    pub fn begin(&mut self) -> Result<()> {
        write!(self.write, "HTTP/1.1 200 Said\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n")
    }

    pub fn line(&mut self, line: &Value) -> Result<()> {
        writeln!(self.write, "{line}")
    }

    /// Says nothing until the client goes.
    pub fn wait(&mut self) -> Result<()> {
        self.read.read_to_end(&mut Vec::new()).map(drop)
    }
}
