//! What the pool's owner lends.

use serde_json::json;
use world::{Nic, cluster::until, published::CALLED, talk::ask_tcp};

use crate::node::{Lab, entry};

/// A port beside the one that is called, which the pool lends all the time.
const OTHER: u16 = CALLED + 1;

pub fn by_its_pool_alone() {
    let mut lab = Lab::new();
    let server = lab.run("shop", 10);
    let both = json!([entry(CALLED), entry(OTHER)]);
    for (inbound, words) in [
        (json!([entry(CALLED), entry(CALLED)]), "two entries have a port in common; keep one of them"),
        (json!([{ "protocol": "TCP", "port": CALLED, "clientSource": "RouteBack", "engine": "Ipvs" }]), "use Masquerade"),
    ] {
        let error = lab.try_publish("shop", &inbound, 0).expect_err("it is refused");
        assert!(error.contains(words), "{error}");
    }
    lab.lend(&json!([{ "protocol": "UDP", "port": CALLED }, { "protocol": "TCP", "port": OTHER }]));
    lab.publish("shop", &both, 0);
    lab.start();
    let told = lab.await_said("shop", "Published", "False", "PortNotLent");
    let cure = format!("EgressPool public does not lend tcp/{CALLED}; add it to the pool's spec.inboundPorts");
    assert!(told.starts_with("spec.inbound[0].port: ") && told.contains(&cure), "{told}");
    lab.await_said("shop", "Programmed", "True", "Programmed");
    lab.await_said("shop", "Ready", "False", "PortNotLent");
    lab.world.problem(&["api/shop/web: spec.inbound[0].port", &cure]).unwrap_or_else(|error| panic!("{error}"));
    lab.assert_refused(CALLED);
    ask_tcp(&lab.world.internet, lab.called(OTHER)).expect("the other entry is served");
    lab.leaves_by(&server, Nic::Eth1).expect("its way out is not touched");

    let range = json!([{ "protocol": "TCP", "port": CALLED - 5, "endPort": OTHER }]);
    lab.lend(&range);
    lab.await_said("shop", "Published", "True", "Published");
    assert_eq!(lab.call(4, [&server]), [4]);

    // Its owner takes it back, and the binding has nothing else to lose.
    lab.lend(&json!([]));
    lab.await_said("shop", "Published", "False", "PortNotLent");
    until("nobody serves it", || match ask_tcp(&lab.world.internet, lab.called(OTHER)) {
        Ok(_) => Err("it is served".to_owned()),
        Err(_) => Ok(()),
    });
    lab.assert_refused(CALLED);
    lab.leaves_by(&server, Nic::Eth1).expect("its way out is not touched");
}
