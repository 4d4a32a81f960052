//! Exits that are lost from one look to the next.

use super::{Exit, Uplinks};

impl Uplinks {
    /// Exits that were usable and are not any more, `now`, though somebody still names them.
    pub fn lost<'a>(&'a self, now: &'a Self) -> impl Iterator<Item = &'a Exit> {
        let are_not = self.exits.iter().filter(|(spec, _)| matches!(now.exit(spec), Some(Err(_))));
        are_not.filter_map(|(_, exit)| exit.as_ref().ok())
    }
}
