//! Whose things are: what bears no tag of ours stays as it is, and ours stays until somebody asks for its release.

use serde_json::{Value, json};
use world::Scenario;

use crate::support::{Cloud, FORWARDER};

pub fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new("of a hundred foreign addresses none is touched", foreign_addresses_stay),
        Scenario::new("a foreign association, route or holder of an address is named and left", foreign_holders_are_named),
        Scenario::new("elastic addresses that bear the tag are used, and are free again after a release", tagged_addresses_are_used),
        Scenario::new(
            "a pool that is gone keeps what it has until it is released, all of it and nothing else",
            a_pool_is_released_when_asked,
        ),
        Scenario::new("a pool that became smaller gives back what it no longer asks for", a_smaller_pool_gives_back_the_rest),
        Scenario::new("a network interface that replaces another one gets its elastic addresses", a_replaced_nic_gets_what_the_old_one_had),
        Scenario::new("what the pool of a new name asks for stays when the old name is released", a_renamed_pool_keeps_its_addresses),
    ]
}

fn foreign_addresses_stay() {
    let cloud = Cloud::start();
    cloud.new_account(&json!({ "quota": 200, "type": "m5.24xlarge" }));
    let (nic, other) = (cloud.id("nic"), cloud.id("other"));
    // On our NIC and on another one, with and without elastic addresses, and others of another host's pool of the same name.
    let on_ours: Vec<String> = (0..25).map(|n| format!("10.0.1.{}", 100 + n)).collect();
    let on_other: Vec<String> = (0..25).map(|n| format!("10.0.1.{}", 150 + n)).collect();
    cloud.assign(&nic, &on_ours.iter().map(String::as_str).collect::<Vec<_>>());
    cloud.assign(&other, &on_other.iter().map(String::as_str).collect::<Vec<_>>());
    let lead = |nic: &String, addresses: &[String]| addresses.iter().map(|address| json!([nic, address])).collect::<Vec<Value>>();
    cloud.allocate(&json!({ "count": 15, "lead": lead(&nic, &on_ours[..15]) }));
    cloud.allocate(&json!({ "count": 15, "lead": lead(&other, &on_other[..15]) }));
    cloud.allocate(&json!({ "count": 15 }));
    let theirs = json!({ "egressd.dev/pool": "web", "egressd.dev/network-interface": other, "egressd.dev/private-address": "10.0.1.94", "egressd.dev/allocated": "true" });
    cloud.allocate(&json!({ "count": 5, "tags": theirs }));
    let before = cloud.state();
    assert_eq!(before["elastic"].as_object().unwrap().len(), 50);
    let untouched = |when: &str| {
        let now = cloud.state();
        for (id, eip) in before["elastic"].as_object().unwrap() {
            assert_eq!(&now["elastic"][id], eip, "{when}: {id}");
        }
        assert_eq!(now["nics"][&other], before["nics"][&other], "{when}");
        let held: Vec<String> = serde_json::from_value(now["nics"][&nic]["addresses"].clone()).expect("a list");
        assert!(on_ours.iter().all(|address| held.contains(address)), "{when}: {held:?}");
    };
    cloud.pool("web", "10.0.1.90-10.0.1.97", &cloud.forwarder());
    cloud.once().expect("it converges beside them");
    untouched("converged");
    assert_eq!(cloud.state()["elastic"].as_object().unwrap().len(), 58);
    cloud.remove("web");
    cloud.command(&["release", "web", "--network-interface", &nic, "--settle-seconds", "0"], &[]).expect("it is released");
    untouched("released");
    assert_eq!(cloud.state()["elastic"].as_object().unwrap().len(), 50);
}

fn foreign_holders_are_named() {
    let cloud = Cloud::start();
    let (nic, other) = (cloud.id("nic"), cloud.id("other"));
    cloud.assign(&nic, &["10.0.1.95"]);
    let [eip] = cloud.allocate(&json!({ "lead": [[nic, "10.0.1.95"]] })).try_into().expect("one");
    cloud.assign(&other, &["10.0.1.96"]);
    cloud.pool("web", "10.0.1.94-10.0.1.96", FORWARDER);
    cloud.once().expect_err("two of three are somebody else's");
    let state = cloud.state();
    assert_eq!(state["elastic"][&eip]["private"], "10.0.1.95", "{state}");
    let addresses = &cloud.status()["pools"]["web"]["addresses"];
    let told = |address: &str| addresses[address]["message"].as_str().unwrap().to_owned();
    assert!(addresses["10.0.1.94"]["ready"] == true, "{addresses}");
    assert!(told("10.0.1.95").contains(&eip) && told("10.0.1.95").contains("disassociate"), "{}", told("10.0.1.95"));
    assert!(told("10.0.1.96").contains(&other) && told("10.0.1.96").contains("spec.blocks"), "{}", told("10.0.1.96"));
    assert!(cloud.refused().is_empty(), "{:?}", cloud.refused());
    // Ours, led elsewhere by a person.
    let ours = addresses["10.0.1.94"]["elasticAddress"].as_str().unwrap().to_owned();
    cloud.lead(&ours, &other, "10.0.1.20");
    cloud.once().expect_err("it was taken away");
    assert_eq!(cloud.state()["elastic"][&ours]["nic"], other, "and it is not taken back");
    assert!(cloud.condition("web", "ElasticAddressesAssociated")["message"].as_str().unwrap().contains(&ours));
    // The business servers' route leads to another forwarder.
    cloud.new_account(&json!({}));
    cloud.route(&cloud.id("other"));
    cloud.pool("web", "10.0.1.94-10.0.1.94", &cloud.forwarder());
    cloud.once().expect_err("the route is another's");
    let route = cloud.condition("web", "RoutesPointed");
    assert!(route["reason"] == "RouteInUse" && cloud.state()["route"] == cloud.id("other"), "{route}");
    // Its machine is stopped for a while: EC2 says of such a route what it says of one that leads to nothing.
    cloud.set(&json!({ "stopped": true }));
    cloud.once().expect_err("the route is another's");
    assert_eq!(cloud.state()["route"], cloud.id("other"));
    cloud.delete(&cloud.id("other"));
    cloud.once().expect("it is nobody's");
    assert_eq!(cloud.state()["route"], cloud.id("nic"));
}

fn tagged_addresses_are_used() {
    let cloud = Cloud::start();
    let offered = cloud.allocate(&json!({ "count": 2, "tags": { "role": "egress" } }));
    cloud.allocate(&json!({ "count": 1, "tags": { "role": "web" } }));
    let before = cloud.state()["elastic"].clone();
    cloud.pool("web", "10.0.1.94-10.0.1.96", "elasticAddresses: { tag: role=egress }");
    cloud.once().expect_err("two are offered, three are asked for");
    let condition = cloud.condition("web", "ElasticAddressesAssociated");
    assert!(condition["reason"] == "NoElasticAddress" && condition["message"].as_str().unwrap().contains("role=egress"), "{condition}");
    let state = cloud.state();
    assert!(offered.iter().all(|id| state["elastic"][id]["private"].is_string()), "{state}");
    cloud.pool("web", "10.0.1.94-10.0.1.95", "elasticAddresses: { tag: role=egress }");
    cloud.once().expect("both have one");
    cloud.remove("web");
    cloud.command(&["release", "web", "--settle-seconds", "0"], &[]).expect("it is released");
    assert_eq!(cloud.state()["elastic"], before, "they are as they were, and none is given away");
}

fn a_pool_is_released_when_asked() {
    let cloud = Cloud::start();
    let before = cloud.state();
    cloud.pool("web", "10.0.1.94-10.0.1.95", &cloud.forwarder());
    cloud.once().expect("it converges");
    let full = cloud.state();
    cloud.remove("web");
    cloud.once().expect("there is no pool");
    assert_eq!(cloud.state(), full, "nothing is taken away because a file is gone");
    let printed = cloud.command(&["release", "web", "--dry-run"], &[]).expect("it prints");
    assert!(printed.contains("ReleaseAddress") && cloud.state() == full, "{printed}");
    let refused = cloud.command(&["release", "wbe"], &[]).expect_err("there is no such pool");
    assert!(refused.contains("wbe") && cloud.state() == full, "{refused}");
    cloud.command(&["release", "web", "--settle-seconds", "0"], &[]).expect("it is released");
    assert_eq!(cloud.state(), before, "the route, the check and the tags are as they were");
}

fn a_smaller_pool_gives_back_the_rest() {
    let cloud = Cloud::start();
    cloud.pool("web", "10.0.1.94-10.0.1.96", &cloud.forwarder());
    cloud.once().expect("it converges");
    cloud.pool("web", "10.0.1.94-10.0.1.94", &cloud.forwarder());
    cloud.once().expect("what it asks for is there");
    cloud.has(&["10.0.1.94", "10.0.1.95", "10.0.1.96"]);
    assert!(cloud.status()["pools"]["web"]["surplus"].to_string().contains("10.0.1.96"), "{}", cloud.status());
    cloud.command(&["release", "web", "--settle-seconds", "0"], &[]).expect("the rest is released");
    cloud.has(&["10.0.1.94"]);
    assert_eq!(cloud.state()["route"], cloud.id("nic"), "the pool forwards on");
    cloud.once().expect("it is as it is to be");
    assert!(cloud.status()["pools"]["web"]["surplus"].as_array().unwrap().is_empty());
    // Of what it asked for besides nothing is left, either.
    let bare = "deviceIndex: 2";
    cloud.pool("web", "10.0.1.94-10.0.1.94", bare);
    cloud.once().expect("its address is there");
    let surplus = cloud.status()["pools"]["web"]["surplus"].to_string();
    for word in ["for 10.0.1.94", &cloud.id("table"), "source/destination check"] {
        assert!(surplus.contains(word), "{word}: {surplus}");
    }
    cloud.pool("forwarder", "10.0.1.97-10.0.1.97", &cloud.forwarder());
    cloud.once().expect("both have what they ask for");
    let surplus = cloud.status()["pools"]["web"]["surplus"].to_string();
    assert!(surplus.contains("for 10.0.1.94") && !surplus.contains("check"), "the other pool forwards: {surplus}");
    cloud.command(&["release", "web", "--settle-seconds", "0"], &[]).expect("its elastic address is released");
    assert!(cloud.state()["route"] == cloud.id("nic") && cloud.state()["elastic"].as_object().unwrap().len() == 1, "{}", cloud.state());
    cloud.remove("forwarder");
    cloud.command(&["release", "forwarder", "--settle-seconds", "0"], &[]).expect("the other one is released");
    let state = cloud.state();
    let nic = &state["nics"][cloud.id("nic")];
    assert_eq!((&state["route"], &nic["check"], &state["elastic"]), (&json!(cloud.id("gateway")), &json!(true), &json!({})), "{state}");
    assert_eq!(nic["addresses"], json!(["10.0.1.10", "10.0.1.94"]));
}

fn a_renamed_pool_keeps_its_addresses() {
    let cloud = Cloud::start();
    let before = cloud.state();
    cloud.pool("web", "10.0.1.94-10.0.1.95", "deviceIndex: 2");
    cloud.once().expect("it converges");
    cloud.remove("web");
    cloud.pool("shop", "10.0.1.95-10.0.1.96", "deviceIndex: 2");
    cloud.once().expect("it converges");
    cloud.command(&["release", "web", "--settle-seconds", "0"], &[]).expect("the old name is released");
    let nic = || cloud.state()["nics"][cloud.id("nic")].clone();
    assert_eq!(nic()["addresses"], json!(["10.0.1.10", "10.0.1.95", "10.0.1.96"]), "the new one asks for one of the two");
    assert_eq!(nic()["tags"], json!({ "egressd.dev/pool/shop": "10.0.1.95-10.0.1.96" }));
    cloud.remove("shop");
    cloud.command(&["release", "shop", "--settle-seconds", "0"], &[]).expect("it is released");
    assert_eq!(cloud.state(), before, "nobody else would have given it back");
}

fn a_replaced_nic_gets_what_the_old_one_had() {
    let cloud = Cloud::start();
    cloud.pool("web", "10.0.1.94-10.0.1.96", FORWARDER);
    cloud.once().expect("it converges");
    let led = || -> Vec<(String, Value)> {
        cloud.state()["elastic"].as_object().unwrap().iter().map(|(id, eip)| (id.clone(), eip["private"].clone())).collect()
    };
    let before = led();
    let (old, new) = (cloud.id("nic"), cloud.replace());
    assert!(led().iter().all(|(_, private)| private.is_null()), "they lead nowhere: {:?}", led());
    cloud.pool("web", "10.0.1.94-10.0.1.95", FORWARDER);
    cloud.once().expect("it converges");
    let lost = before.iter().find(|(_, private)| private == "10.0.1.96").expect("it had one").0.clone();
    let now: Vec<(String, Value)> = led().into_iter().filter(|(id, _)| *id != lost).collect();
    assert_eq!(now, before.iter().filter(|(id, _)| *id != lost).cloned().collect::<Vec<_>>(), "the outside sees the same addresses");
    assert!(cloud.state()["nics"][&new]["addresses"].to_string().contains("10.0.1.95"));
    let surplus = cloud.status()["pools"]["web"]["surplus"].to_string();
    assert!(surplus.contains(&lost) && surplus.contains(&old), "{surplus}");
    let release = ["release", "web", "--settle-seconds", "0", "--network-interface"];
    cloud.command(&[&release[..], &["eni-0"]].concat(), &[]).expect_err("nothing is of it");
    cloud.command(&[&release[..], &[&old]].concat(), &[]).expect("what is left of the old one is released");
    assert_eq!(led(), now);
}
