//! How the health of servers is asked for.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use super::{Fault, shown};

/// Characters of a path.
const LONGEST_PATH: usize = 1024;
/// Characters of a name of a host (RFC 1035), a colon and a port.
const LONGEST_HOST: usize = 259;
/// Bytes of a probe's datagram: no link splits it.
const LONGEST_DATAGRAM: usize = 512;

/// The path of an HTTP request, `/ready?full=1`.
pub fn path(text: &str) -> Result<String, Fault> {
    let good = text.starts_with('/') && text.len() <= LONGEST_PATH && text.chars().all(|c| c.is_ascii_graphic() && c != '#');
    if good { Ok(text.to_owned()) } else { Err(Fault::new(format!("{} is no path of a request", shown(text)))) }
}

/// What is sent by one datagram.
pub fn datagram(bytes: &[u8]) -> Result<Vec<u8>, Fault> {
    let good = (1..=LONGEST_DATAGRAM).contains(&bytes.len());
    if good { Ok(bytes.to_owned()) } else { Err(Fault::new(format!("has {} bytes, and 1 to {LONGEST_DATAGRAM} are sent", bytes.len()))) }
}

/// The same in Base64.
pub fn datagram_of_base64(text: &str) -> Result<Vec<u8>, Fault> {
    let bytes = BASE64_STANDARD.decode(text).map_err(|error| Fault::new(format!("{} is not Base64: {error}", shown(text))))?;
    datagram(&bytes)
}

/// The `Host` header of an HTTP request.
pub fn host(text: &str) -> Result<String, Fault> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '[' | ']');
    let good = !text.is_empty() && text.len() <= LONGEST_HOST && text.chars().all(fits);
    if good { Ok(text.to_owned()) } else { Err(Fault::new(format!("{} is no name of a host", shown(text)))) }
}
