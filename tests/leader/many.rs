//! A thousand nodes: what their reports cost the API server.

use std::time::{Duration, Instant};

use egressd::api::node::{EgressNode, EgressNodeSpec};
use futures::StreamExt;
use kube::api::{WatchEvent, WatchParams};
use kube::{Api, ResourceExt};

use super::support::{agent, lab, report, write};

const NODES: usize = 1_000;
/// How often each node's report changes.
const CHANGES: i64 = 5;
/// How long after the last report the status may be late: the next second's, with room for a busy machine.
const LATE: Duration = Duration::from_secs(10);

pub fn a_thousand_nodes() {
    lab(|lab| async move {
        let _agent = agent(&lab.client, "one");
        lab.pool("10.0.0.4", "10.0.0.5").await;
        let made = &lab.bind("crawler").await;
        let began = Instant::now();
        for workloads in 1..=CHANGES {
            let api = lab.nodes();
            let writes = futures::stream::iter(0..NODES).map(|node| write_one(&api, node, report(made, workloads, 0)));
            writes.buffer_unordered(16).collect::<Vec<()>>().await;
        }
        let reported = Instant::now();
        let total = CHANGES * i64::try_from(NODES).expect("few");
        lab.until("crawler", |binding| binding.status.as_ref().is_some_and(|status| status.summary.programmed == total)).await;
        let late = reported.elapsed();
        let taken = began.elapsed().as_secs_f64();

        let writes = lab.requests("patch", "egressbindings/status");
        let reports = lab.requests("patch", "egressnodes");
        let version = made.resource_version().expect("it has one");
        let events = lab.bindings().watch(&WatchParams::default().timeout(2), &version).await.expect("it is there");
        let events = events.filter(|event| std::future::ready(matches!(event, Ok(WatchEvent::Modified(_))))).count().await;
        println!(
            "{reports} reports in {taken:.1} s: {writes} status writes, {events} watch events of the binding; the last one {late:.1?} late"
        );
        assert!(late <= LATE, "the status is {late:.1?} behind the last report");
        assert_eq!(reports, NODES * usize::try_from(CHANGES).expect("few"));
        // The first one, and one a second.
        assert!((writes as f64) <= taken + 2.0, "{writes} writes in {taken:.1} s");
        assert!(events <= writes, "{events} events of {writes} writes");
    });
}

async fn write_one(api: &Api<EgressNode>, node: usize, report: EgressNodeSpec) {
    write(api, &format!("n{node:04}"), report).await;
}
