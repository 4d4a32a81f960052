//! What 1,000 bindings and 2,000 pods cost an agent: the release binary on a machine with two NICs, by a real API server and a real
//! containerd. Node, bindings and these pods are objects and nothing more; the pods whose start is measured have a network namespace.

use std::{
    net::Ipv4Addr,
    thread,
    time::{Duration, Instant},
};

use containerd_client::Client as Runtime;
use egressd::facts::kubernetes::client;
use futures::{StreamExt, stream};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
    core::{ApiResource, DynamicObject},
};
use serde_json::{Value, json};
use world::{
    ApiServer, Container, Nic, World,
    container::Bridge,
    containerd::{self, Containerd, Release},
    status::until_within,
    told::{Told, now, percentiles},
};

use crate::objects::{AGENTS, NODE, apply, binding, define, namespace, node, pod};

const BINDINGS: usize = 1_000;
const PODS: usize = 2_000;
/// Nodes that share the pods: a kubelet runs 110 at most unless told otherwise.
const NODES: usize = 20;
/// Addresses of eth1 that the bindings share.
const EXITS: usize = 100;
const EVENTS: usize = 100;
/// Shorter than a watch, which is asked for anew every five minutes.
const REST: Duration = Duration::from_secs(65);
const PATIENCE: Duration = Duration::from_secs(60);
/// Requests that are under way at once.
const AT_ONCE: usize = 32;
/// Where addresses of pods with a namespace begin in the bridge's subnet: as many that the API server tells of, and as many of containerd.
const FIRST: u8 = 10;

pub async fn many_objects() {
    let world = World::builder().ipv6(false).build();
    let bridge = world.bridge("cni0", 28);
    let exits: String = (0..EXITS).map(|number| format!("addr add {}/20 dev eth1\n", exit(&world, number))).collect();
    world.host.ip(&exits);
    let api = ApiServer::start();
    define(&api);
    let nodes = (0..NODES).map(|number| node(&node_of(number)));
    for object in [namespace(AGENTS), namespace("shop")].into_iter().chain(nodes) {
        apply(&api, &object);
    }
    let kubeconfig = api.user("agent", "/O=system:masters/CN=agent");
    let mut arguments = vec!["--kubernetes", "--no-docker", "--allow-raw-exits", "--pod-name", "agent"];
    arguments.extend(["--kubeconfig", &kubeconfig, "--node-name", NODE]);
    let mut egressd = world.egressd(&arguments);
    let lab = Lab { client: client(Some(api.kubeconfig().as_ref())).await.expect("the kubeconfig is good"), world: &world, bridge };

    let before = egressd.memory("VmRSS");
    lab.create((0..BINDINGS).map(|number| lab.binding(number, number))).await;
    lab.create((0..PODS).map(pod_of)).await;
    let started = (0..PODS).map(|number| lab.start(number, offset(lab.bridge.address(0), 256 + number)));
    stream::iter(started).buffer_unordered(AT_ONCE).collect::<Vec<()>>().await;
    // No interface has their addresses.
    lab.await_count("Waiting", PODS / NODES);
    println!("memory: {before} kB before, {} kB with {BINDINGS} bindings and {PODS} pods on {NODES} nodes", egressd.memory("VmRSS"));

    let containers = lab.containers(FIRST);
    let programmed = Told::by_claims(&world);
    let late = (PODS..).zip(&containers);
    lab.create(late.clone().map(|(number, _)| pod_of(number))).await;
    let mut delays = Vec::new();
    for (number, container) in late {
        let began = now();
        let (delay, ()) = futures::join!(lab.until_told(&programmed, began, container.address), lab.start(number, container.address));
        delays.push(delay);
    }
    println!("from the request that gives a pod its address to the kernel: {}", percentiles(delays));
    let mut delays = Vec::new();
    for (number, container) in containers.iter().enumerate() {
        let began = now();
        let (delay, ()) = futures::join!(lab.until_told(&programmed, began, container.address), lab.change(number));
        delays.push(delay);
    }
    println!("from the request that gives a binding another exit to the kernel: {}", percentiles(delays));

    egressd.kill();
    let began = Instant::now();
    egressd.start();
    lab.await_count("Bound", EVENTS);
    println!("a new agent is as far after {:.2} s, with {} kB", began.elapsed().as_secs_f64(), egressd.memory("VmRSS"));
    rests(&api).await;

    // The kernel and containerd tell of pods from here on, and the addresses of objects count no more.
    drop(egressd);
    let _containerd = Containerd::start(Release::Current);
    arguments.extend(["--containerd-socket", containerd::SOCKET]);
    let _egressd = world.egressd(&arguments);
    lab.create([lab.binding_of("shop", "crawler", 0)].into_iter()).await;
    let delays = lab.sandboxes().await;
    println!("from containerd's event to the kernel: {}", percentiles(delays));
    lab.await_count("Bound", EVENTS);
}

/// The machine, and who writes and watches there.
struct Lab<'a> {
    world: &'a World,
    bridge: Bridge,
    client: Client,
}

impl Lab<'_> {
    /// A binding of the pods of this number, with that exit.
    fn binding(&self, number: usize, exit: usize) -> Value {
        self.binding_of("default", &format!("b{number}"), exit)
    }

    fn binding_of(&self, namespace: &str, app: &str, number: usize) -> Value {
        let exit = json!({ "address": exit(self.world, number), "gateway": self.world.layout.gateway(Nic::Eth1) });
        let mut binding = binding(app, json!({ "podSelector": { "matchLabels": { "app": app } }, "exits": [exit] }));
        binding["metadata"]["namespace"] = namespace.into();
        binding
    }

    fn api(&self, object: &Value) -> Api<DynamicObject> {
        let of: kube::core::TypeMeta = serde_json::from_value(object.clone()).expect("it has a type");
        let resource = ApiResource::from_gvk(&(&of).try_into().expect("a group and a version"));
        Api::namespaced_with(self.client.clone(), object["metadata"]["namespace"].as_str().expect("it has one"), &resource)
    }

    async fn create(&self, objects: impl Iterator<Item = Value>) {
        let create = |object: Value| async move {
            let typed = serde_json::from_value(object.clone()).expect("it is an object");
            drop(self.api(&object).create(&PostParams::default(), &typed).await.expect("it is taken"));
        };
        stream::iter(objects.map(create)).buffer_unordered(AT_ONCE).collect::<Vec<()>>().await;
    }

    /// Gives a pod its address, as a kubelet does once it has started.
    async fn start(&self, number: usize, address: Ipv4Addr) {
        let pod = pod_of(number);
        let status = json!({ "status": { "phase": "Running", "podIP": address, "podIPs": [{ "ip": address }] } });
        let name = pod["metadata"]["name"].as_str().expect("it has one");
        let taken = self.api(&pod).patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await;
        drop(taken.expect("it is taken"));
    }

    /// Gives a binding the next exit.
    async fn change(&self, number: usize) {
        let binding = self.binding(number, number + 1);
        let api = self.api(&binding);
        let changed = api.patch(&format!("b{number}"), &PatchParams::default(), &Patch::Merge(&binding)).await;
        drop(changed.expect("it is taken"));
    }

    /// How long after a time the kernel was told of the address.
    async fn until_told(&self, programmed: &Told, began: Duration, address: Ipv4Addr) -> Duration {
        let patience = Instant::now() + PATIENCE;
        loop {
            if let Some(at) = programmed.after((began, address)) {
                return at - began;
            }
            assert!(Instant::now() < patience, "{address} was never told to the kernel: {}", self.world.status()["problems"]);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Waits until so many addresses are in this state.
    fn await_count(&self, state: &str, count: usize) {
        let line = format!("egressd_workloads{{state=\"{state}\"}} {count}\n");
        until_within(PATIENCE, Duration::from_millis(50), &line, || {
            let metrics = self.world.fetch("/metrics").map_err(|error| error.to_string())?;
            if metrics.contains(&line) { Ok(()) } else { Err(metrics) }
        });
    }

    /// Containers with a namespace, as a CNI plugin leaves them. Returns when what the kernel tells of them is behind the agent.
    fn containers(&self, first: u8) -> Vec<Container> {
        let last = first + u8::try_from(EVENTS).expect("a byte");
        let containers = (first..last).map(|host| self.world.container(&format!("pod-{host}"), &self.bridge, host)).collect();
        thread::sleep(Duration::from_secs(1));
        containers
    }

    /// Has containerd tell of sandboxes, one after the other.
    async fn sandboxes(&self) -> Vec<Duration> {
        let containers = self.containers(FIRST + u8::try_from(EVENTS).expect("a byte"));
        let runtime = Runtime::from_path(containerd::SOCKET).await.expect("a client");
        let listener = Runtime::from_path(containerd::SOCKET).await.expect("a client");
        let events = tokio::spawn(containerd::created(listener, EVENTS));
        tokio::time::sleep(Duration::from_millis(300)).await;
        let (programmed, began) = (Told::by_claims(self.world), now());
        for container in &containers {
            let name = container.netns.name();
            containerd::create(&runtime, containerd::sandbox(name, name)).await;
            self.until_told(&programmed, began, container.address).await;
        }
        let told = containers.iter().map(|container| programmed.after((began, container.address)).expect("it was awaited"));
        let events = events.await.expect("all events");
        told.zip(events).map(|(told, event)| told.saturating_sub(event)).collect()
    }
}

/// While nothing happens an agent asks for nothing; it holds the Lease.
async fn rests(api: &ApiServer) {
    let asked = || api.audit().into_iter().filter(|event| event["user"]["username"] == "agent").collect::<Vec<_>>();
    tokio::time::sleep(Duration::from_secs(15)).await;
    let before = asked().len();
    tokio::time::sleep(REST).await;
    let (leases, others): (Vec<Value>, _) =
        asked().split_off(before).into_iter().partition(|event| event["objectRef"]["resource"] == "leases");
    println!("requests in {REST:?} at rest: {} for the Lease, {} others", leases.len(), others.len());
    assert!(others.is_empty(), "{others:#?}");
}

/// The node of a pod, which are given in turn; those whose start is measured are the agent's.
fn node_of(pod: usize) -> String {
    if pod >= PODS { NODE.to_owned() } else { format!("n{}", 1 + pod % NODES) }
}

/// A pod of the binding that comes next in turn.
fn pod_of(number: usize) -> Value {
    let mut pod = pod(&format!("p{number}"), &node_of(number));
    pod["metadata"]["labels"]["app"] = format!("b{}", number % BINDINGS).into();
    pod
}

/// An address of eth1 that bindings share.
fn exit(world: &World, number: usize) -> Ipv4Addr {
    offset(world.layout.address(Nic::Eth1), 1 + number % EXITS)
}

fn offset(address: Ipv4Addr, by: usize) -> Ipv4Addr {
    Ipv4Addr::from_bits(address.to_bits() + u32::try_from(by).expect("it is small"))
}
