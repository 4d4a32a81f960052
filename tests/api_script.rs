//! An agent whose API server is not well, by its packets and by what it says of itself. That it works with a real one is in `tests/kubernetes`.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use serde_json::json;
use world::scripted_api::{Answer, Request};
use world::status::until;
use world::{Container, Egressd, Nic, Scenario, ScriptedApi, World};

const BINDINGS: &str = "egressd.dev/egressbindings";
const REPORTS: &str = "egressd.dev/egressnodes";
/// What an agent watches, without its own DaemonSet.
const KINDS: [&str; 6] = [BINDINGS, "egressd.dev/egresspools", "namespaces", "pods", "nodes", "configmaps"];
/// For scenarios that wait until the agent is not ready, and until it asks again.
const LONG: Duration = Duration::from_secs(300);

fn main() -> ExitCode {
    let mut scenarios = Vec::new();
    let mut add = |name: &str, run: fn()| scenarios.push(Scenario::new(name, run).within(LONG));
    add("an API server that is lost is seen in status, metrics and readiness until it is back", a_lost_api_server_is_seen);
    add("a pod that no link leads to, and that the host reaches by a NIC, is refused", a_pod_beside_the_host_is_refused);
    add("watches that are begun anew, and lists that are, are no loss", watches_begun_anew_are_no_loss);
    world::harness::main(scenarios)
}

/// A pod on a bridge as a CNI plugin makes it, the node n1 that it is on, and a binding of it to eth1.
fn stage() -> (World, ScriptedApi, Container) {
    let world = World::builder().ipv6(false).build();
    let bridge = world.bridge("cni0", 28);
    world.masquerade(&bridge);
    let pod = world.container("web", &bridge, 10);
    let api = world.netns().enter(ScriptedApi::start);
    api.put("nodes", json!({ "metadata": { "name": "n1" } }));
    api.put("namespaces", json!({ "metadata": { "name": "shop" } }));
    run(&api, "web", pod.address);
    world.leaves_by(&pod.netns, Nic::Eth0).expect("nothing is bound yet");
    bind(&world, &api, Nic::Eth1);
    (world, api, pod)
}

/// A pod of the node.
fn run(api: &ScriptedApi, name: &str, address: Ipv4Addr) {
    let status = json!({ "phase": "Running", "podIPs": [{ "ip": address }] });
    api.put("pods", json!({ "metadata": { "namespace": "shop", "name": name }, "spec": { "nodeName": "n1" }, "status": status }));
}

fn bind(world: &World, api: &ScriptedApi, nic: Nic) {
    let spec = json!({ "podSelector": {}, "exits": [{ "address": world.layout.address(nic) }] });
    api.put(BINDINGS, json!({ "metadata": { "namespace": "shop", "name": "web" }, "spec": spec }));
}

fn start(world: &World, api: &ScriptedApi) -> Egressd {
    let folder = tempfile::tempdir().expect("a folder");
    let kubeconfig = api.kubeconfig(folder.path());
    let kubeconfig = kubeconfig.to_string_lossy();
    let egressd = world.egressd(&["--no-docker", "--kubernetes", "--node-name", "n1", "--allow-raw-exits", "--kubeconfig", &kubeconfig]);
    world.await_nic("pod/shop/web", Nic::Eth1);
    egressd
}

fn a_lost_api_server_is_seen() {
    let (world, api, pod) = stage();
    let _egressd = start(&world, &api);
    let (lose, return_) = (|| api.script(|_| Some(Answer::Reset)), || api.script(|_| None));
    let holds = || world.leaves_by(&pod.netns, Nic::Eth1).expect("what is programmed stays");
    world.source_is_lost("kubernetes", "the API server", lose, holds, return_);
}

/// All watches end, and where they were is forgotten: each is listed anew, and begins again.
fn watches_begun_anew_are_no_loss() {
    let (world, api, pod) = stage();
    let _egressd = start(&world, &api);
    until("all is listed", || world.no_problems());
    let begun = Instant::now();
    let is_first = |request: &Request| request.listed && request.version == 0;
    api.script(move |request| match request {
        first if is_first(first) => Some(Answer::Reset),
        resumed if resumed.watch && !resumed.listed => Some(Answer::Refused(410, "")),
        _ => None,
    });
    until("all kinds are listed anew", || {
        assert_eq!((world.no_problems(), world.metric("egressd_source_up{source=\"kubernetes\"}")), (Ok(()), 1), "that is no loss");
        let anew = api.asked().into_iter().filter(|asked| asked.at > begun && asked.request.listed && !is_first(&asked.request));
        let anew: BTreeSet<String> = anew.map(|asked| asked.request.resource).collect();
        if KINDS.iter().all(|kind| anew.contains(*kind)) { Ok(()) } else { Err(format!("{anew:?}")) }
    });
    api.script(|_| None);
    bind(&world, &api, Nic::Eth0);
    world.await_nic("pod/shop/web", Nic::Eth0);
    world.leaves_by(&pod.netns, Nic::Eth0).expect("what happens then is heard");
}

/// One on a NIC of its own, as SR-IOV or macvlan gives it: in the NICs' subnet, and on no link of the host. One in the pods' subnet may be gone.
fn a_pod_beside_the_host_is_refused() {
    let (world, api, _pod) = stage();
    run(&api, "beside", Ipv4Addr::new(172, 31, 0, 77));
    run(&api, "gone", Ipv4Addr::new(172, 28, 0, 77));
    let _egressd = start(&world, &api);
    world.await_rows("pod/shop/beside", |row| row["state"] == "Refused" && row["reason"] == "DatapathBypassed");
    world.await_state("pod/shop/gone", "Waiting");
    until("the node reports it", || {
        let report = api.get(REPORTS, "n1").unwrap_or_default()["spec"]["bindings"][0].clone();
        let told = (report["workloads"] == 3, report["programmed"] == 1, report["failing"] == 1, report["reason"] == "DatapathBypassed");
        if told == (true, true, true, true) { Ok(()) } else { Err(report.to_string()) }
    });
}
