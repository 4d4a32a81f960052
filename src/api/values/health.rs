//! How the health of servers is asked for.

use super::{Fault, shown};

/// Characters of a path.
const LONGEST_PATH: usize = 1024;
/// Characters of a name of a host (RFC 1035), a colon and a port.
const LONGEST_HOST: usize = 259;

/// The path of an HTTP request, `/ready?full=1`.
pub fn path(text: &str) -> Result<String, Fault> {
    let good = text.starts_with('/') && text.len() <= LONGEST_PATH && text.chars().all(|c| c.is_ascii_graphic() && c != '#');
    if good { Ok(text.to_owned()) } else { Err(Fault::new(format!("{} is no path of a request", shown(text)))) }
}

/// The `Host` header of an HTTP request.
pub fn host(text: &str) -> Result<String, Fault> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '[' | ']');
    let good = !text.is_empty() && text.len() <= LONGEST_HOST && text.chars().all(fits);
    if good { Ok(text.to_owned()) } else { Err(Fault::new(format!("{} is no name of a host", shown(text)))) }
}
