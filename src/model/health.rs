//! Whether servers of published ports answer: what they are asked, and what their answers add up to.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// How it is found out whether a server serves.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HealthCheck {
    pub probe: Probe,
    /// The port that is asked; the server's own when not given.
    pub port: Option<u16>,
    /// Milliseconds from one probe to the next, which is as long as an answer may take.
    pub interval: u32,
    /// So many failures in a row make a server unhealthy, and as many successes healthy again.
    pub failures: u16,
}

/// A connection each half second, and two failures.
impl Default for HealthCheck {
    fn default() -> Self {
        Self { probe: Probe::Tcp, port: None, interval: 500, failures: 2 }
    }
}

/// What a server is asked.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Probe {
    /// To take a connection.
    Tcp,
    /// To answer a GET with a status from 200 to 399.
    Http {
        path: String,
        /// The `Host` header; address and port when not given.
        host: Option<String>,
        /// By TLS, with any certificate.
        tls: bool,
    },
    /// To answer a datagram.
    Udp {
        send: Vec<u8>,
        /// What the answer has in it.
        expect: Option<String>,
    },
}

/// What an exit is to reach.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExitProbe {
    pub to: SocketAddr,
    pub how: Arc<HealthCheck>,
}

impl ExitProbe {
    /// The check of one exit.
    pub fn check(&self, exit: IpAddr) -> Check {
        Check { address: self.to.ip(), port: self.to.port(), from: Some(exit), how: Arc::clone(&self.how) }
    }
}

/// One server, and what it is asked. Services that ask the same of one server have one check.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Check {
    pub address: IpAddr,
    pub port: u16,
    /// The exit that it is asked from; by the host's own address where there is none.
    pub from: Option<IpAddr>,
    pub how: Arc<HealthCheck>,
}

/// `10.0.0.2:1234`, `198.51.100.10:443 from 172.31.0.14`.
impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", SocketAddr::new(self.address, self.port))?;
        self.from.map_or(Ok(()), |exit| write!(f, " from {exit}"))
    }
}

/// What a server's answers have come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Healthy,
    /// With what was wrong with the last probe.
    Unhealthy(String),
}

/// What calls come to while no server of a service is healthy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AllDown {
    /// The host refuses them, as it does while nobody serves the port: a TCP reset, or "port unreachable".
    #[default]
    Refuse,
    /// They go to all servers, as if health was not looked at.
    KeepAll,
}

/// The answers of one server so far.
#[derive(Clone, Debug)]
pub struct Tally {
    needed: u16,
    healthy: Option<bool>,
    /// How many answers in a row were against the verdict.
    against: u16,
}

impl Tally {
    pub fn new(check: &HealthCheck) -> Self {
        Self { needed: check.failures, healthy: None, against: 0 }
    }

    /// Counts an answer; whether there is a verdict, or another one, by it. The first success is one: who begins to serve need not wait.
    pub fn add(&mut self, success: bool) -> bool {
        if self.healthy == Some(success) {
            self.against = 0;
            return false;
        }
        self.against += 1;
        let decided = self.against >= self.needed || (success && self.healthy.is_none());
        if decided {
            (self.healthy, self.against) = (Some(success), 0);
        }
        decided
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_takes_as_many_answers_in_a_row_either_way() {
        let check = HealthCheck { failures: 3, ..HealthCheck::default() };
        let told = |answers: &str| -> String {
            let mut tally = Tally::new(&check);
            answers.chars().map(|answer| if tally.add(answer == '+') { answer } else { '.' }).collect()
        };
        assert_eq!(told("++++"), "+...", "the first success is enough");
        assert_eq!(told("---+++"), "..-..+");
        assert_eq!(told("+--+---"), "+.....-", "a success between begins anew");
        assert_eq!(told("+---++-+++"), "+..-.....+");
    }
}
