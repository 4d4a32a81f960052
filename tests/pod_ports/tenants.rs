//! One port, and several who want it.

use std::{net::TcpListener, thread, time::Duration};

use serde_json::json;
use world::{Nic, published::CALLED};

use crate::node::{Lab, entry};

/// A port that a program of the node has.
const TAKEN: u16 = CALLED + 1;
/// Creation times are whole seconds.
const SECOND: Duration = Duration::from_millis(1100);

pub fn the_older_has_it() {
    let mut lab = Lab::new();
    let [shop, mail] = [("shop", 10), ("mail", 11)].map(|(namespace, number)| lab.run(namespace, number));
    let at = (lab.world.layout.address(Nic::Eth1), TAKEN);
    let listener = lab.world.host.enter(|| TcpListener::bind(at)).expect("nobody has it");
    lab.lend(&json!([{ "protocol": "TCP", "port": CALLED, "endPort": TAKEN }]));
    lab.publish("shop", &json!([entry(CALLED)]), 0);
    thread::sleep(SECOND);
    // Its name comes first, and it gives itself what priority it likes.
    lab.publish("mail", &json!([entry(CALLED)]), 1000);
    lab.start();
    lab.await_said("shop", "Published", "True", "Published");
    let told = lab.await_said("mail", "Published", "False", "PortTaken");
    let service = format!("tcp/{}:{CALLED}", at.0);
    assert_eq!(told, format!("n1: spec.inbound[0].port: {service} is served by api/shop/web; choose another port, or remove that one"));
    assert_eq!(lab.call(6, [&shop, &mail]), [6, 0]);
    lab.leaves_by(&mail, Nic::Eth1).expect("its way out is not touched");
    lab.restart_agent();
    assert_eq!(lab.call(6, [&shop, &mail]), [6, 0], "after a restart, too");

    // What the older one lets go is the other one's.
    lab.publish("shop", &json!([entry(TAKEN)]), 0);
    lab.await_said("mail", "Published", "True", "Published");
    assert_eq!(lab.call(6, [&shop, &mail]), [0, 6]);
    let told = lab.await_said("shop", "Published", "False", "PortTaken");
    assert!(told.contains(&format!("tcp/{}:{TAKEN} is taken by ", at.0)) && told.contains("which listens on"), "{told}");
    let before = shop.calls();
    let stream = lab.world.internet.enter(|| std::net::TcpStream::connect(lab.called(TAKEN)));
    stream.expect("the node's program takes it");
    listener.accept().expect("it has the call");
    assert_eq!(shop.calls(), before);
    drop(listener);
    lab.await_said("shop", "Published", "True", "Published");
}
