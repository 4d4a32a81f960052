//! The page and its API: what it tells, to whom, and that it holds nobody up. With `EGRESSD_BROWSER` (`make test-ui`) also in a real browser.

mod api;
mod browser;
mod http;
mod schema;

use std::process::ExitCode;

use world::Scenario;

fn main() -> ExitCode {
    let mut scenarios = vec![
        Scenario::new("nothing is served unless it is asked for, and only on a loopback address", api::off_by_default),
        Scenario::new("the page and its API answer loopback names and GET alone, with a strict policy", api::strict),
        Scenario::new("the API tells what the commands tell", api::as_the_commands),
        Scenario::new("a change is an event, and is kept, and the daemon's restart begins anew", api::changes),
        Scenario::new("open flows are told by workload and exit, and those that end are gone", api::flows),
        Scenario::new("clients that say nothing keep nobody out for long, and the loop never", api::silent_clients),
    ];
    if browser::is_wanted() {
        scenarios.extend(browser::scenarios());
    }
    world::harness::main_of_waiting(scenarios)
}
