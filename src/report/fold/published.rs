//! Whether the ports that a binding publishes are served: by what its pool lends, and by what the nodes report.

use super::binding::{AGENT_SILENT, Case, PUBLISHED};
use super::condition::Verdict;
use super::count::{count, verb};
use crate::api::node::NodeService;
use crate::model::reason::Reason;

impl Case<'_> {
    /// `None` of a binding that publishes nothing.
    pub(super) fn published(&self) -> Option<Verdict> {
        (!self.inbound.is_empty()).then(|| self.verdict())
    }

    fn verdict(&self) -> Verdict {
        if !self.is_accepted() {
            return Verdict::pending("the binding is not accepted".to_owned());
        }
        if self.exits.is_err() {
            return Verdict::pending("the binding's references are not resolved".to_owned());
        }
        if let Some((at, reason)) = self.inbound.iter().enumerate().find_map(|(at, entry)| Some((at, entry.refusal.as_ref()?))) {
            return Verdict::no(reason.word(), format!("spec.inbound[{at}].port: {reason}"));
        }
        let current = || self.spoken().filter(|(_, report)| !self.is_behind(report));
        let unserved = current().find_map(|(node, report)| Some((node, report.unserved.as_ref()?)));
        if let Some((node, unserved)) = unserved {
            return Verdict::no(&unserved.reason, format!("{node}: {}", unserved.message));
        }
        if let Some(silent) = self.reports.iter().find(|report| report.silent && !report.binding.services.is_empty()) {
            let text = format!("no report from node {} any more; check the agent's pod and log there", silent.node);
            return Verdict::unknown(AGENT_SILENT, text);
        }
        let services: Vec<&NodeService> = current().flat_map(|(_, report)| &report.services).collect();
        let idle: Vec<&str> = services.iter().filter(|one| one.ready == 0).map(|one| one.service.as_str()).collect();
        match (services.len(), idle.first()) {
            (0, _) if self.settled => {
                Verdict::no(Reason::NoExitOnNode.word(), "no node has an address of the binding, so its ports cannot be called".to_owned())
            }
            (0, _) => Verdict::pending("no node has reported on the ports yet".to_owned()),
            (all, None) => Verdict::yes(PUBLISHED, format!("{} {} served", count(all, "port"), verb(all, "is", "are"))),
            (all, Some(first)) => {
                let served = all - idle.len();
                let text = format!(
                    "{served} of {} {} served; {first} has no pod on its node that gets new connections",
                    count(all, "port"),
                    verb(all, "is", "are")
                );
                Verdict::yes(PUBLISHED, text)
            }
        }
    }
}
