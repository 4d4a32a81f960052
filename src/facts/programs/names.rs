//! Whom this host's programs ask for names: what resolv.conf(5) says.

use std::fs;
use std::net::IpAddr;

/// Where that is.
pub const RESOLVER: &str = "/etc/resolv.conf";

/// The resolver of this host itself that programs ask, where it is one.
pub(super) fn stub() -> Option<IpAddr> {
    stub_in(&fs::read_to_string(RESOLVER).unwrap_or_default())
}

fn stub_in(text: &str) -> Option<IpAddr> {
    servers_in(text).first().copied().filter(IpAddr::is_loopback)
}

/// The servers that a resolv.conf names.
pub fn servers_in(text: &str) -> Vec<IpAddr> {
    let words = text.lines().filter_map(|line| line.split_whitespace().collect::<Vec<_>>().try_into().ok());
    words.filter_map(|[key, server]: [&str; 2]| if key == "nameserver" { server.parse().ok() } else { None }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stub_is_the_first_server_on_a_loopback_address() {
        let of = |text: &str| stub_in(text).map(|stub| stub.to_string());
        assert_eq!(of("# by systemd-resolved\nnameserver 127.0.0.53\noptions edns0\n").as_deref(), Some("127.0.0.53"));
        assert_eq!(of("nameserver ::1\nnameserver 192.0.2.53\n").as_deref(), Some("::1"));
        for other in ["nameserver 192.0.2.53\nnameserver 127.0.0.53\n", "# nameserver 127.0.0.53\n", ""] {
            assert_eq!(of(other), None, "{other}");
        }
    }
}
