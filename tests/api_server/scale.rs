//! What 1,000 bindings and 2,000 pods cost an agent: the release binary on a machine with two NICs, by a real API server and a real
//! containerd. Node, bindings and these pods are objects and nothing more; the pods whose start is measured have a network namespace.

use std::{
    collections::HashMap,
    fmt,
    net::Ipv4Addr,
    pin::pin,
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use containerd_client::Client as Runtime;
use egressd::facts::kubernetes::client;
use futures::{StreamExt, stream};
use kube::{
    Api, Client, ResourceExt,
    api::{Patch, PatchParams, PostParams, WatchEvent, WatchParams},
    core::{ApiResource, DynamicObject},
};
use serde_json::{Value, json};
use world::{
    ApiServer, Container, Nic, World,
    container::Bridge,
    containerd::{self, Containerd, Release},
    status::until_within,
    told::{Told, now, percentile, percentiles},
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
/// Bounds that a very busy machine keeps. On a quiet one the median is a few milliseconds, memory is 30 MB, and a start takes 0.2 s.
const MEDIAN: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(1);
const MEMORY: u64 = 64 * 1024;
const START: Duration = Duration::from_secs(3);
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
    let mut arguments = vec!["--kubernetes", "--no-docker", "--allow-raw-exits"];
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
    let programmed = Told::by_policies(&world);
    let late = (PODS..).zip(&containers);
    lab.create(late.clone().map(|(number, _)| pod_of(number))).await;
    let addressed = Heard::when(lab.api(&pod_of(0)), |pod| pod.data["status"]["podIP"].is_string());
    let mut delays = Delays::default();
    for (number, container) in late {
        delays.note(&programmed, &addressed, pod_of(number), container.address, lab.start(number, container.address)).await;
    }
    println!("a pod gets its address: {delays}");
    bounded("a pod's address", &delays.events);
    let changed = Heard::when(lab.api(&lab.binding(0, 0)), |binding| binding.metadata.generation > Some(1));
    let mut delays = Delays::default();
    for (number, container) in containers.iter().enumerate() {
        delays.note(&programmed, &changed, lab.binding(number, 0), container.address, lab.change(number)).await;
    }
    println!("a binding gets another exit: {delays}");
    bounded("a binding's exit", &delays.events);

    egressd.kill();
    let began = Instant::now();
    egressd.start();
    lab.await_count("Bound", EVENTS);
    let (took, memory) = (began.elapsed(), egressd.memory("VmRSS"));
    println!("a new agent is as far after {:.2} s, with {memory} kB", took.as_secs_f64());
    assert!(took <= START && memory <= MEMORY, "{took:?}, {memory} kB");
    rests(&api).await;

    // The kernel and containerd tell of pods from here on, and the addresses of objects count no more.
    drop(egressd);
    let _containerd = Containerd::start(Release::Current);
    arguments.extend(["--containerd-socket", containerd::SOCKET]);
    let _egressd = world.egressd(&arguments);
    lab.create([lab.binding_of("shop", "crawler", 0)].into_iter()).await;
    let delays = lab.sandboxes().await;
    println!("from containerd's event to the kernel: {}", percentiles(&delays));
    bounded("a sandbox", &delays);
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
        let (programmed, began) = (Told::by_policies(self.world), now());
        for container in &containers {
            let name = container.netns.name();
            containerd::create(&runtime, containerd::sandbox(name, name)).await;
            told(&programmed, began, container.address).await;
        }
        let told = containers.iter().map(|container| programmed.after((began, container.address)).expect("it was awaited"));
        let events = events.await.expect("all events");
        told.zip(events).map(|(told, event)| told.saturating_sub(event)).collect()
    }
}

/// When the kernel was told of an address, after a time.
async fn told(programmed: &Told, began: Duration, address: Ipv4Addr) -> Duration {
    sooner(&format!("{address} is told to the kernel"), || programmed.after((began, address))).await
}

/// Waits for something.
async fn sooner<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let patience = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < patience, "never: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// When the API server told of objects, by a watch beside the agent's.
struct Heard(Arc<Mutex<HashMap<String, Duration>>>);

impl Heard {
    /// Listens for the first time that an object is so.
    fn when(api: Api<DynamicObject>, so: fn(&DynamicObject) -> bool) -> Self {
        let heard = Arc::new(Mutex::new(HashMap::new()));
        let times = Arc::clone(&heard);
        tokio::spawn(async move {
            let events = api.watch(&WatchParams::default(), "0").await.expect("a watch");
            let mut events = pin!(events);
            while let Some(Ok(event)) = events.next().await {
                if let WatchEvent::Added(object) | WatchEvent::Modified(object) = event
                    && so(&object)
                {
                    times.lock().expect("nobody panics with it").entry(object.name_any()).or_insert_with(now);
                }
            }
        });
        Self(heard)
    }
}

/// From a request, and from the API server's event that follows it, to the kernel.
#[derive(Default)]
struct Delays {
    requests: Vec<Duration>,
    events: Vec<Duration>,
}

impl Delays {
    async fn note(&mut self, programmed: &Told, heard: &Heard, object: Value, address: Ipv4Addr, request: impl Future<Output = ()>) {
        let began = now();
        let (told, ()) = futures::join!(told(programmed, began, address), request);
        let name = object["metadata"]["name"].as_str().expect("it has one");
        let event = sooner(name, || heard.0.lock().expect("nobody panics with it").get(name).copied()).await;
        self.requests.push(told - began);
        self.events.push(told.saturating_sub(event));
    }
}

impl fmt::Display for Delays {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { requests, events } = self;
        write!(f, "from the request to the kernel {}; from the event {}", percentiles(requests), percentiles(events))
    }
}

/// An agent that takes twenty times its usual is found, and a busy machine, which may stop everybody for a second, is not.
fn bounded(what: &str, delays: &[Duration]) {
    assert!(percentile(delays, 50) <= MEDIAN && percentile(delays, 95) <= LONGEST, "{what}, to the kernel: {}", percentiles(delays));
}

/// While nothing happens an agent asks for nothing.
async fn rests(api: &ApiServer) {
    let asked = || api.audit().into_iter().filter(|event| event["user"]["username"] == "agent").collect::<Vec<_>>();
    tokio::time::sleep(Duration::from_secs(15)).await;
    let before = asked().len();
    tokio::time::sleep(REST).await;
    let asked = asked().split_off(before);
    println!("requests in {REST:?} at rest: {}", asked.len());
    assert!(asked.is_empty(), "{asked:#?}");
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
