//! Sources that have not given their first snapshot.

use crate::daemon::Options;

/// Which of them have not.
pub(super) struct Silent {
    pub kernel: bool,
    pub files: bool,
    pub cloud: bool,
    pub programs: bool,
    pub engine: bool,
    pub runtime: bool,
    pub cluster: bool,
    /// Which exits run out of source ports, where an earlier run left flows to other ones.
    pub ports: bool,
}

impl Silent {
    /// At first none has, of those that there are.
    pub fn new(options: &Options) -> Self {
        Self {
            kernel: true,
            files: options.manifests.is_some(),
            cloud: options.manifests.is_some(),
            programs: true,
            engine: options.docker.is_some(),
            runtime: options.containerd.is_some(),
            cluster: options.cluster.is_some(),
            ports: false,
        }
    }

    /// Some has not: nothing is taken away.
    pub fn any(&self) -> bool {
        self.local() || self.engine || self.runtime || self.cluster || self.ports
    }

    /// One that answers at once has not: nothing is decided.
    pub fn local(&self) -> bool {
        self.kernel || self.files || self.cloud || self.programs
    }
}
