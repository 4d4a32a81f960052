//! Values of options that clap has no reader for which says what would be right.

use std::net::{IpAddr, SocketAddr};

/// Where something listens.
///
/// # Errors
/// When it is not an address with a port.
pub fn listens(text: &str) -> Result<SocketAddr, String> {
    endpoint(text, "127.0.0.1:9464")
}

fn endpoint(text: &str, example: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| format!("has to be an address with a port, for example {example}"))
}

/// The page asks nobody who they are, so it is for this host alone.
///
/// # Errors
/// When it is not an address of the loopback, with a port.
pub fn loopback(text: &str) -> Result<SocketAddr, String> {
    let address = endpoint(text, "127.0.0.1:9467")?;
    let port = address.port();
    if address.ip().is_loopback() {
        Ok(address)
    } else {
        Err(format!(
            "has to be a loopback address, for example 127.0.0.1:{port}: whoever reaches it can read everything; to see it from elsewhere, use ssh -L {port}:127.0.0.1:{port} HOST"
        ))
    }
}

/// A name server.
///
/// # Errors
/// When it is not an address.
pub fn name_server(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| "has to be an address, for example 192.0.2.53".to_owned())
}

/// How long something may take.
///
/// # Errors
/// When it is not a whole number of seconds.
pub fn seconds(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| "has to be a whole number of seconds, for example 30".to_owned())
}
