//! The cloud's side of pools, against an EC2 emulator: moto, with `patches.py` for what it lacks, and `emulator.py` in front for what a real
//! cloud does to its callers (too many calls, readings that lag behind, permissions that are missing).

mod cluster;
mod faults;
mod ownership;
mod support;

use std::process::ExitCode;

use serde_json::json;
use support::{Cloud, FORWARDER};
use world::Scenario;

fn main() -> ExitCode {
    let mut scenarios = vec![
        Scenario::new("a forwarder's pool gets all that it asks for, and then nothing is left to do", a_pool_gets_what_it_asks_for),
        Scenario::new("a dry run prints the calls and makes none", a_dry_run_makes_no_call),
        Scenario::new("limits are counted before the call, and named", limits_are_named),
        Scenario::new("credentials come from the environment, a web identity, or the instance's role", credentials_have_an_order),
        Scenario::new("what is wrong with a pool is named with its field, and the good one goes on", bad_pools_are_named),
    ];
    scenarios.extend(cluster::scenarios());
    scenarios.extend(ownership::scenarios());
    scenarios.extend(faults::scenarios());
    world::harness::main_of_waiting(scenarios)
}

fn a_pool_gets_what_it_asks_for() {
    let cloud = Cloud::start();
    cloud.pool("web", "10.0.1.94-10.0.1.96", &cloud.forwarder());
    let before = cloud.state();
    assert!(before["elastic"].as_object().unwrap().is_empty() && before["route"] == cloud.id("gateway"), "{before}");
    cloud.once().expect("it converges");
    cloud.has(&["10.0.1.94", "10.0.1.95", "10.0.1.96"]);
    let state = cloud.state();
    let (nic, outside) = (&state["nics"][cloud.id("nic")], &state["nics"][cloud.id("outside")]);
    assert_eq!((&nic["check"], &outside["check"]), (&json!(false), &json!(true)), "of forwarding NICs only");
    assert_eq!(state["route"], cloud.id("nic"));
    let status = cloud.status();
    for address in ["10.0.1.94", "10.0.1.95", "10.0.1.96"] {
        let known = &status["pools"]["web"]["addresses"][address];
        assert!(known["ready"] == true && known["publicAddress"].is_string(), "{status}");
    }
    // One call for all private addresses, and two for each elastic one.
    let changes = cloud.changes();
    let count = |action: &str| changes.iter().filter(|call| call.starts_with(action)).count();
    assert_eq!([count("AssignPrivateIpAddresses"), count("AllocateAddress"), count("AssociateAddress")], [1, 3, 3], "{changes:?}");
    cloud.once().expect("it is as it is to be");
    assert_eq!(cloud.changes(), changes, "nothing is done twice");
    for call in cloud.calls() {
        assert!(call["wrong"].is_null(), "AWS's model of the API says: {call}");
        assert_eq!(call["by"], "AWS4-HMAC-SHA256 Credential=role", "{call}");
    }
}

fn a_dry_run_makes_no_call() {
    let cloud = Cloud::start();
    cloud.pool("web", "10.0.1.94-10.0.1.95", &cloud.forwarder());
    let before = cloud.state();
    let printed = cloud.command(&["run", "--dry-run"], &[]).expect("it prints");
    assert!(cloud.changes().is_empty() && cloud.state() == before, "{:?}", cloud.changes());
    cloud.once().expect("it converges");
    for change in cloud.changes() {
        let action = change.split(' ').next().unwrap();
        assert!(printed.contains(action), "{change} was not announced: {printed}");
    }
    assert_eq!(printed.matches("AllocateAddress").count(), 2, "{printed}");
}

fn limits_are_named() {
    let cloud = Cloud::start();
    cloud.new_account(&json!({ "type": "t3.micro" }));
    cloud.pool("web", "10.0.1.94-10.0.1.96", FORWARDER);
    let error = cloud.once().expect_err("the NIC has no room for three");
    let named = cloud.condition("web", "AddressesAssigned");
    assert_eq!(named["reason"], "LimitReached", "{error}");
    for word in ["t3.micro", "allows 2", "has 2", "asks for 2 more", "larger instance type"] {
        assert!(named["message"].as_str().unwrap().contains(word), "{word}: {named}");
    }
    cloud.has(&["10.0.1.94"]);
    assert!(cloud.refused().is_empty(), "no call was made that the cloud refuses: {:?}", cloud.refused());

    cloud.new_account(&json!({ "quota": 2 }));
    cloud.allocate(&json!({ "count": 1 }));
    cloud.pool("web", "10.0.1.94-10.0.1.96", FORWARDER);
    cloud.once().expect_err("the account has no room for three");
    let named = cloud.condition("web", "ElasticAddressesAssociated");
    for word in ["may have 2 elastic addresses", "Service Quotas"] {
        assert!(named["reason"] == "LimitReached" && named["message"].as_str().unwrap().contains(word), "{word}: {named}");
    }
    assert!(cloud.refused().is_empty(), "{:?}", cloud.refused());
    assert!(cloud.status()["pools"]["web"]["addresses"]["10.0.1.94"]["ready"] == true, "what fits is done");
}

fn credentials_have_an_order() {
    let cloud = Cloud::start();
    cloud.pool("web", "10.0.1.94-10.0.1.94", "");
    let by = |environment: &[(&str, &str)]| {
        cloud.command(&["run", "--dry-run"], environment).unwrap_or_else(|error| panic!("{environment:?}: {error}"));
        let calls = cloud.calls();
        calls.last().expect("it reads")["by"].as_str().unwrap().rsplit('=').next().unwrap().to_owned()
    };
    assert_eq!(by(&[]), "role");
    let token = cloud.file("token", "a.web.token\n");
    let identity = [("AWS_WEB_IDENTITY_TOKEN_FILE", token.as_str()), ("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/egressd-cloud")];
    let lent = by(&identity);
    assert!(lent != "role" && lent.len() > 10, "STS lends its own: {lent}");
    assert_eq!(by(&[identity[0], identity[1], ("AWS_ACCESS_KEY_ID", "own"), ("AWS_SECRET_ACCESS_KEY", "s")]), "own");
    let none = cloud.command(&["run", "--dry-run"], &[("AWS_EC2_METADATA_DISABLED", "true"), ("AWS_REGION", "eu-central-1")]);
    let error = none.expect_err("there is nobody to ask");
    assert!(error.contains("networkInterface") || error.contains("no credentials"), "{error}");
}

fn bad_pools_are_named() {
    let cloud = Cloud::start();
    for (fields, field, cure) in [
        ("elasticAddresses: Alocate", "spec.cloud.aws.elasticAddresses", "write `Allocate`"),
        ("elasticAddresses: { tag: egress }", "spec.cloud.aws.elasticAddresses.tag", "role=egress"),
        ("networkInterface: eth1", "spec.cloud.aws.networkInterface", "eni-"),
        ("networkInterface: eni-1, deviceIndex: 1", "spec.cloud.aws.deviceIndex", "keep one"),
        ("routeTables: [main]", "spec.cloud.aws.routeTables[0]", "rtb-"),
        ("region: 'eu.example/x'", "spec.cloud.aws.region", "eu-central-1"),
        ("sourceDestCheck: Off", "spec.cloud.aws.sourceDestCheck", "Disabled"),
        ("subnet: subnet-1", "spec.cloud.aws.subnet", "unknown field"),
    ] {
        cloud.pool("bad", "10.0.1.50-10.0.1.51", fields);
        let error = cloud.command(&["policy"], &[]).expect_err(fields);
        assert!(error.contains("EgressPool bad") && error.contains(field) && error.contains(cure), "{fields}: {error}");
    }
    cloud.pool("good", "10.0.1.94-10.0.1.94", FORWARDER);
    cloud.once().expect_err("one pool is wrong");
    cloud.has(&["10.0.1.94"]);
    assert!(cloud.status()["errors"].to_string().contains("EgressPool bad"), "{}", cloud.status());
    for (fields, cure) in [("networkInterface: eni-0", "there is no network interface eni-0"), ("deviceIndex: 9", "device index 9")] {
        cloud.pool("bad", "10.0.1.50-10.0.1.51", fields);
        cloud.once().expect_err(fields);
        assert!(cloud.status()["pools"]["bad"]["problem"].as_str().is_some_and(|problem| problem.contains(cure)), "{}", cloud.status());
    }
    cloud.pool("bad", "10.0.7.50-10.0.7.51", &format!("networkInterface: {}", cloud.id("nic")));
    cloud.once().expect_err("the subnet is another one");
    assert_eq!(cloud.condition("bad", "AddressesAssigned")["reason"], "NotInSubnet");
}
