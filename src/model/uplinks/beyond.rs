//! What is known of exits beyond this host: what the cloud shows, and whether what they are to reach answers.

use std::net::IpAddr;

use super::super::binding::ExitSpec;
use super::super::health::Verdict;
use super::super::reason::{Away, Reason};
use super::{Exit, Survey};

impl Survey<'_> {
    /// The exit, unless it is of no use beyond this host. It is probed whatever became of it here, so that it is known when it comes back.
    ///
    /// # Errors
    /// When it cannot be used already, the cloud does not show it, or its probe failed so often as the binding says.
    pub(super) fn beyond(&mut self, spec: &ExitSpec, address: IpAddr, exit: Result<Exit, Reason>) -> Result<Exit, Reason> {
        let facts = self.inner.facts;
        let check = spec.probe.as_ref().map(|probe| probe.check(address));
        let of_cluster = facts.cluster.cloud_pool(address);
        let report = facts.cloud.get(&address).or_else(|| of_cluster.and_then(|pool| pool.shown.get(&address)));
        self.uplinks.public.extend(report.and_then(|report| Some((address, report.public_address?.into()))));
        let verdict = check.as_ref().and_then(|check| facts.verdicts.get(check));
        let away = |why| Err(Reason::Away { address, why });
        let pool = facts.manifests.pool_of(address).map(|pool| &pool.name).or(of_cluster.map(|pool| &pool.name));
        let exit = match (exit, pool, verdict) {
            (Ok(_), Some(pool), _) if !report.is_some_and(|report| report.ready) => {
                away(Away::Cloud { pool: pool.clone(), message: report.map(|report| report.message.clone()) })
            }
            (Ok(_), _, Some(Verdict::Unhealthy(why))) => {
                let to = spec.probe.as_ref().map(|probe| probe.to).unwrap_or_else(|| (address, 0).into());
                away(Away::Probe { to, why: why.clone() })
            }
            (exit, ..) => exit,
        };
        self.uplinks.probes.extend(check);
        exit
    }
}
