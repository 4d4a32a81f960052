//! Sources that have not spoken yet: until all have, nothing is taken away.

/// Each kind of source, and whether it has given its first snapshot yet.
pub(super) struct Silent {
    pub kernel: bool,
    pub files: bool,
    pub engine: bool,
    pub runtime: bool,
    pub cluster: bool,
}

impl Silent {
    /// Some have not.
    pub fn any(&self) -> bool {
        self.kernel || self.files || self.engine || self.runtime || self.cluster
    }
}
