//! egressd's definitions and its source of facts against a real API server with its etcd, and no cluster behind it: no controller, no
//! kubelet. Nodes and pods are objects that the tests make.

mod agent;
mod definitions;
mod objects;
mod scale;
mod source;

use std::{process::ExitCode, time::Duration};

use world::Scenario;

/// Many times what a scenario takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(600);

fn main() -> ExitCode {
    // Those that wait longest begin.
    let scenarios = [
        Scenario::new("1,000 bindings and 2,000 pods: no request at rest", || block_on(scale::many_objects())).shown(),
        Scenario::new("a connection that turns silent is noticed", source::a_silent_connection_is_noticed),
        Scenario::new("a bad object is refused with the field and the cure, a good one is taken", definitions::bad_objects_are_refused),
        Scenario::new("all kinds are listed, and each change is heard", source::all_kinds_are_listed_and_heard),
        Scenario::new("with etcd 3.4 they are listed, too, and each change is heard", source::an_old_etcd_serves_too),
        Scenario::new("definitions that come late are waited for", source::definitions_may_come_late),
        Scenario::new("a right that is missing is named, and taken up when it is given", source::a_missing_right_is_named),
        Scenario::new("an API server that was away is read again, and nothing is forgotten meanwhile", source::an_api_server_may_be_away),
        Scenario::new("an update that changes nothing that matters wakes nobody", source::a_status_wakes_nobody),
        Scenario::new("what cannot be read is named, and the others go on", source::garbage_is_named),
    ];
    world::harness::main_of_waiting(scenarios.into_iter().map(|scenario| scenario.within(LIMIT)).collect())
}

fn block_on<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(test)
}
