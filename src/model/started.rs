//! What programs were started for by `egressd exec`.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// The control group whose children are made by `egressd exec`.
pub const EXEC: &str = "/egressd";
/// What a child of [`EXEC`] is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Started {
    /// The binding of that name, `NAMESPACE/NAME`.
    By(String),
    /// An exit alone.
    As(IpAddr),
}

impl Started {
    /// The control group of programs that are started so. Names of objects have no underscore.
    pub fn cgroup(&self) -> String {
        match self {
            Self::By(binding) => format!("{EXEC}/{}", binding.replacen('/', "_", 1)),
            Self::As(address) => format!("{EXEC}/{address}"),
        }
    }
}

/// What programs in a control group were started for, if it is one of `egressd exec`.
pub fn started_in(path: &str) -> Option<Started> {
    let name = path.strip_prefix(EXEC)?.strip_prefix('/')?;
    match name.split_once('_') {
        Some((namespace, name)) if !name.contains('/') => Some(Started::By(format!("{namespace}/{name}"))),
        _ => name.parse().ok().map(Started::As),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_of_exec_says_what_it_is_for() {
        for started in
            [Started::By("default/crawler".to_owned()), Started::As([172, 31, 0, 14].into()), Started::As("2001:db8::14".parse().unwrap())]
        {
            assert_eq!(started_in(&started.cgroup()), Some(started));
        }
        for other in ["/egressd", "/egressd/crawler", "/egressd/default_crawler/below", "/batch/default_crawler", "/egressdx/172.31.0.14"] {
            assert_eq!(started_in(other), None, "{other}");
        }
    }
}
