//! What the loop does for the addresses that egressd puts on NICs.

use std::time::Instant;

use super::Agent;

impl Agent {
    /// Asks for what is not known of them, and tells the service manager once they are there: whoever starts after egressd finds them.
    pub(super) fn look_after_addresses(&mut self, began: Instant) {
        while self.addresses.look(&self.outcome.uplinks.managed, &self.facts.kernel, &mut self.facts.probes) {
            self.facts.touched.all = true;
            self.round(began, false);
        }
        if !self.silent.local() && !self.addresses.is_busy() {
            self.manager.ready();
        }
    }
}
