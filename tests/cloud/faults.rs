//! What a cloud does to its callers, and what happens to a caller.

use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use world::{Scenario, service::Service, status::until_within};

use crate::support::{Cloud, FORWARDER};

/// Kills in CI, of processes that see all that was done, and in a soak, of such that see it late.
const KILLS: [usize; 2] = [20, 200];
/// How long it may take to do as it is told.
const PATIENCE: Duration = Duration::from_secs(30);

pub fn scenarios() -> Vec<Scenario> {
    let minutes = Duration::from_secs(if is_soak() { 3600 } else { 120 });
    vec![
        Scenario::new("killed at any call, its successor finishes, and nothing is there twice", kills_leave_nothing_twice)
            .within(minutes)
            .shown(),
        Scenario::new(
            "killed after an allocation that readings do not show yet, it allocates no second address",
            a_late_reading_allocates_nothing,
        ),
        Scenario::new(
            "a third of the calls throttled and readings two seconds late, no call is done twice",
            throttled_and_late_it_converges,
        ),
        Scenario::new("each missing permission is named, and what needs it not is done", missing_permissions_are_named),
        Scenario::new("while the API is away nothing is taken away, and afterwards it goes on", an_api_that_is_away_removes_nothing),
        Scenario::new("an address that EC2 does not give keeps no other from being assigned", one_refused_address_is_alone),
        Scenario::new("told to stop it waits for no reading, and makes no call again", told_to_stop_it_waits_for_nothing),
        Scenario::new("what a proxy answers in the place of the API is no answer: nothing is allocated for it", a_proxys_page_is_no_answer),
    ]
}

fn is_soak() -> bool {
    std::env::var_os("EGRESSD_SOAK").is_some()
}

/// Starts it, kills it when it makes its `number`th call that changes something (`when`: before or after the cloud has done it), and starts
/// another one, whose end is returned. `None` when there was no such call.
fn killed_at(cloud: &Cloud, number: usize, when: &str, settle: &str) -> Option<Result<String, String>> {
    let arguments = ["run", "--once", "--settle-seconds", settle];
    cloud.set(&json!({ "hold": [number, when] }));
    let mut first = Service::start("first", cloud.program(&arguments, &[]));
    let held = |call: &Value| call["held"] == true;
    let is_held = until_within(PATIENCE, Duration::from_millis(10), "its call is held, or it has ended", || {
        let calls = cloud.calls();
        if calls.iter().any(held) {
            return Ok(true);
        }
        first.ended().map(|_| false).ok_or_else(|| format!("{calls:?}"))
    });
    if !is_held {
        return None;
    }
    first.kill();
    cloud.set(&json!({ "hold": null }));
    Some(cloud.command(&arguments, &[]))
}

fn kills_leave_nothing_twice() {
    let cloud = Cloud::start();
    let (kills, stale, settle) = if is_soak() { (KILLS[1], 0.8, "1") } else { (KILLS[0], 0.0, "0") };
    let mut done = 0;
    let mut number = 0;
    while done < kills {
        number += 1;
        for when in ["before", "after"] {
            cloud.new_account(&json!({}));
            cloud.set(&json!({ "stale": stale }));
            cloud.pool("web", "10.0.1.94-10.0.1.95", &cloud.forwarder());
            if let Some(ended) = killed_at(&cloud, number, when, settle) {
                ended.unwrap_or_else(|error| panic!("call {number}, {when}: {error}"));
                done += 1;
                cloud.has(&["10.0.1.94", "10.0.1.95"]);
                assert_eq!(cloud.state()["elastic"].as_object().unwrap().len(), 2, "call {number}, {when}: {}", cloud.state());
                assert_eq!(cloud.state()["route"], cloud.id("nic"), "call {number}, {when}");
            } else {
                number = 0;
            }
        }
    }
    println!("Cloud, kills at call boundaries: {done}, left behind: 0");
}

fn a_late_reading_allocates_nothing() {
    let cloud = Cloud::start();
    let allocation = {
        cloud.pool("web", "10.0.1.94-10.0.1.94", FORWARDER);
        cloud.once().expect("it converges");
        1 + cloud.changes().iter().position(|call| call.starts_with("AllocateAddress")).expect("it allocates")
    };
    for (settle, waits) in [("3", true), ("0", false)] {
        cloud.new_account(&json!({}));
        cloud.set(&json!({ "stale": 2 }));
        cloud.pool("web", "10.0.1.94-10.0.1.94", FORWARDER);
        // Readings that were made before are late, too.
        cloud.command(&["run", "--dry-run"], &[]).expect("it reads");
        let ended = killed_at(&cloud, allocation, "after", settle).expect("it allocates");
        assert!(ended.is_ok() || !waits, "{ended:?}");
        let allocated = cloud.changes().iter().filter(|call| call.starts_with("AllocateAddress")).count();
        assert_eq!(allocated == 1, waits, "{allocated} with --settle-seconds {settle}");
        thread::sleep(Duration::from_secs(2));
        cloud.once().expect("it converges");
        cloud.has(&["10.0.1.94"]);
    }
}

fn throttled_and_late_it_converges() {
    let cloud = Cloud::start();
    cloud.set(&json!({ "stale": 2, "throttle": 0.3 }));
    cloud.pool("web", "10.0.1.94-10.0.1.97", &cloud.forwarder());
    cloud.command(&["run", "--once", "--settle-seconds", "3"], &[]).expect("it converges");
    cloud.has(&["10.0.1.94", "10.0.1.95", "10.0.1.96", "10.0.1.97"]);
    let changes = cloud.changes();
    let mut once = changes.clone();
    once.sort();
    once.dedup();
    assert_eq!(once.len(), changes.len(), "{changes:?}");
    // The check, its note; the ledger, the addresses; two calls for each; the route, its note.
    assert_eq!(changes.len(), 14, "{changes:?}");
    let throttled = cloud.refused().iter().filter(|call| call["code"] == "RequestLimitExceeded").count();
    assert!(throttled > 0 && cloud.refused().len() == throttled, "{:?}", cloud.refused());
}

fn missing_permissions_are_named() {
    let cloud = Cloud::start();
    cloud.pool("web", "10.0.1.94-10.0.1.94", &cloud.forwarder());
    let policy = cloud.command(&["policy"], &[]).expect("it prints");
    cloud.once().expect("it converges");
    cloud.remove("web");
    cloud.command(&["release", "web", "--settle-seconds", "0"], &[]).expect("it is released");
    let mut actions: Vec<String> = cloud.calls().iter().map(|call| call["action"].as_str().unwrap().to_owned()).collect();
    actions.sort();
    actions.dedup();
    assert!(actions.len() >= 16, "{actions:?}");
    for action in &actions {
        assert!(policy.contains(&format!("\"ec2:{action}\"")), "the policy lacks {action}: {policy}");
    }
    for action in actions {
        cloud.new_account(&json!({}));
        cloud.pool("web", "10.0.1.94-10.0.1.94", &cloud.forwarder());
        let releases = ["Unassign", "Disassociate", "ReleaseAddress", "DeleteTags"].iter().any(|word| action.starts_with(word));
        let told = if releases {
            cloud.once().expect("it needs it not");
            cloud.remove("web");
            cloud.set(&json!({ "deny": [action] }));
            cloud.command(&["release", "web", "--settle-seconds", "0"], &[]).expect_err("it needs it")
        } else {
            cloud.set(&json!({ "deny": [action] }));
            let error = cloud.once().expect_err("it needs it");
            format!("{error} {}", cloud.status())
        };
        assert!(told.contains(&format!("the permission ec2:{action} is missing")), "{action}: {told}");
        if action == "ModifyNetworkInterfaceAttribute" {
            cloud.has(&["10.0.1.94"]);
            assert_eq!(cloud.condition("web", "SourceDestCheckDisabled")["reason"], "PermissionDenied");
        }
    }
}

fn an_api_that_is_away_removes_nothing() {
    let cloud = Cloud::start();
    cloud.pool("web", "10.0.1.94-10.0.1.95", &cloud.forwarder());
    let arguments = ["run", "--interval-seconds", "1", "--settle-seconds", "0"];
    let mut daemon = Service::start("daemon", cloud.program(&arguments, &[]));
    let is = |what: &str, is: &dyn Fn(&Value) -> bool| {
        until_within(PATIENCE, Duration::from_millis(50), what, || {
            let status = cloud.command(&["status", "-o", "json"], &[])?;
            if is(&serde_json::from_str(&status).expect("JSON")) { Ok(()) } else { Err(status) }
        });
    };
    let ready = |status: &Value| status["pools"]["web"]["ready"] == true && status["pools"]["web"]["problem"].is_null();
    is("ready", &ready);
    let before = cloud.state();
    cloud.set(&json!({ "down": true }));
    let problem = |status: &Value| status["pools"]["web"]["problem"].is_string();
    is("told", &problem);
    let known = cloud.status();
    assert!(known["pools"]["web"]["addresses"]["10.0.1.94"]["ready"] == true, "what is known stays: {known}");
    cloud.pool("web", "10.0.1.94-10.0.1.96", &cloud.forwarder());
    thread::sleep(Duration::from_secs(2));
    assert_eq!(cloud.state(), before);
    // Started anew meanwhile, with a manifest that is spoiled for a time.
    daemon.terminate(Duration::from_secs(5));
    cloud.file("manifests/web.yaml", "kind: [");
    let mut daemon = Service::start("daemon", cloud.program(&arguments, &[]));
    is("told of the file", &|status| status["errors"].to_string().contains("web.yaml"));
    assert_eq!(cloud.status()["pools"]["web"]["addresses"], known["pools"]["web"]["addresses"]);
    cloud.pool("web", "10.0.1.94-10.0.1.96", &cloud.forwarder());
    is("told again", &|status| status["errors"] == json!([]) && problem(status));
    assert_eq!(cloud.status()["pools"]["web"]["addresses"], known["pools"]["web"]["addresses"]);
    assert_eq!(cloud.state(), before);
    cloud.set(&json!({ "down": false }));
    is("ready with the new address", &|status| ready(status) && status["pools"]["web"]["addresses"]["10.0.1.96"]["ready"] == true);
    daemon.terminate(Duration::from_secs(5));
    cloud.has(&["10.0.1.94", "10.0.1.95", "10.0.1.96"]);
}

fn a_proxys_page_is_no_answer() {
    let cloud = Cloud::start();
    cloud.pool("web", "10.0.1.94-10.0.1.95", FORWARDER);
    cloud.once().expect("it converges");
    cloud.has(&["10.0.1.94", "10.0.1.95"]);
    let before = cloud.changes();
    for action in ["DescribeAddresses", "DescribeNetworkInterfaces", "DescribeSubnets"] {
        cloud.set(&json!({ "page": [action] }));
        let error = cloud.once().expect_err(action);
        let problem = cloud.status()["pools"]["web"]["problem"].clone();
        let said = problem.as_str().unwrap_or_else(|| panic!("{action}: {error}"));
        assert!(said.contains(action) && said.contains("an HTTP proxy"), "{said}");
        assert_eq!(cloud.changes(), before, "{action}");
    }
    cloud.set(&json!({ "page": [], "endless": true }));
    cloud.once().expect_err("the list has no end");
    let said = cloud.status()["pools"]["web"]["problem"].to_string();
    assert!(said.contains("no end"), "{said}");
    assert_eq!(cloud.changes(), before);
    // A call that changes something and that nobody carried out is made again.
    cloud.pool("web", "10.0.1.94-10.0.1.96", FORWARDER);
    cloud.set(&json!({ "page": ["AssignPrivateIpAddresses"], "endless": false }));
    cloud.once().expect_err("nobody has answered");
    assert_eq!(cloud.condition("web", "AddressesAssigned")["reason"], "CallFailed");
    cloud.set(&json!({ "page": [] }));
    cloud.once().expect("it converges");
    cloud.has(&["10.0.1.94", "10.0.1.95", "10.0.1.96"]);
}

fn one_refused_address_is_alone() {
    let cloud = Cloud::start();
    // Four are EC2's own, and of those it is not asked.
    cloud.pool("web", "10.0.1.2-10.0.1.7", FORWARDER);
    cloud.set(&json!({ "refuse": "10.0.1.5" }));
    cloud.once().expect_err("one of the rest is refused");
    cloud.has(&["10.0.1.4", "10.0.1.6", "10.0.1.7"]);
    let addresses = cloud.status()["pools"]["web"]["addresses"].clone();
    let told = |address: &str| addresses[address]["message"].as_str().unwrap().to_owned();
    assert!(told("10.0.1.3").contains("keeps for itself") && told("10.0.1.3").contains("spec.blocks"), "{addresses}");
    assert!(told("10.0.1.5").contains("InvalidParameterValue"), "{addresses}");
    assert!(addresses["10.0.1.4"]["ready"] == true && told("10.0.1.6").is_empty(), "{addresses}");
    let named: Vec<String> =
        cloud.calls().iter().filter(|call| call["action"] == "AssignPrivateIpAddresses").map(|call| call["form"].to_string()).collect();
    assert!(!named.is_empty() && named.iter().all(|form| !form.contains("10.0.1.2\"") && !form.contains("10.0.1.3\"")), "{named:?}");
    cloud.set(&json!({ "refuse": null }));
    cloud.once().expect_err("two are EC2's own");
    cloud.has(&["10.0.1.4", "10.0.1.5", "10.0.1.6", "10.0.1.7"]);
}

fn told_to_stop_it_waits_for_nothing() {
    let cloud = Cloud::start();
    for pool in ["a", "b", "c"] {
        cloud.pool(pool, "10.0.1.94-10.0.1.94", "deviceIndex: 2");
    }
    cloud.set(&json!({ "hang": 10 }));
    let mut daemon = Service::start("daemon", cloud.program(&["run", "--settle-seconds", "0"], &[]));
    thread::sleep(Duration::from_secs(2));
    assert!(daemon.ended().is_none(), "it reads");
    daemon.terminate(Duration::from_secs(3));
    cloud.set(&json!({ "hang": 0, "busy": ["CreateTags"] }));
    let mut daemon = Service::start("daemon", cloud.program(&["run", "--settle-seconds", "0"], &[]));
    until_within(PATIENCE, Duration::from_millis(50), "a call is refused for being too many", || {
        if cloud.refused().is_empty() { Err(format!("{:?}", cloud.calls())) } else { Ok(()) }
    });
    daemon.terminate(Duration::from_secs(3));
    assert!(cloud.changes().is_empty(), "{:?}", cloud.changes());
}
