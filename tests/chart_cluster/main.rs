//! The chart on a real API server, and on a real cluster with the real image. What it renders is in `tests/chart.rs`.

mod pools;

use std::process::ExitCode;

use egressd::api::binding::EgressBinding;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use world::{
    ApiServer, Cluster, Nic, Scenario, Subnets,
    cluster::{NAMESPACE as INSTALLED, until},
    command,
};

const NAMESPACE: &str = "net";
/// Accounts of the chart's.
const AGENTS: &str = "egressd";
const CONTROLLERS: &str = "egressd-controller";
const PROXIES: &str = "egressd-proxy";

fn main() -> ExitCode {
    world::harness::main(vec![
        Scenario::new("an API server takes the chart with all values, and the examples", the_chart_is_taken),
        Scenario::new("definitions stay at uninstall and are taken over by the next install", definitions_stay),
        Scenario::new("a pool lends the addresses that it has to the namespaces that it names", pools::pools_lend),
        Scenario::new("a binding that lost its pool can be labelled and deleted, and asks for nothing new", pools::what_lost_its_pool),
        Scenario::new("raw exits are refused until the chart allows them", raw_exits),
        Scenario::new("an EgressNode is written by its node's agent alone", nodes_report_for_themselves),
        Scenario::new("the status of bindings and pools is written by the controller that holds the Lease alone", status_is_the_leaders),
        Scenario::new("a pool that bindings leave by is deleted by force only", pools::pools_in_use),
        Scenario::new("who may edit a namespace may edit its bindings, and not their status", editors),
        Scenario::new("agents, controllers and proxies have the rights that they need and no others", agents_rights),
        Scenario::new("the image runs on a node with three capabilities, and says which one is missing", the_image_on_a_node)
            .with_cluster(),
    ])
}

fn file(path: &str) -> String {
    format!("{}/{path}", env!("CARGO_MANIFEST_DIR"))
}

/// Installs the chart, or upgrades it.
fn install(api: &ApiServer, more: &[&str]) {
    let chart = file("charts/egressd");
    let command = ["upgrade", "--install", "egressd", &chart, "--namespace", NAMESPACE, "--create-namespace"];
    api.helm(&[&command, more].concat()).unwrap_or_else(|error| panic!("{error}"));
}

/// An API server with the chart on it, whose policies are in force.
fn with_chart(more: &[&str]) -> ApiServer {
    let api = ApiServer::start();
    install(&api, more);
    api.apply(POOLS);
    until("the policy is in force", || match bind(&api, "default", "pool: {name: public}") {
        Err(_) => Ok(()),
        Ok(printed) => Err(printed),
    });
    api
}

const POOLS: &str = "
{apiVersion: v1, kind: Namespace, metadata: {name: shop}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: gold, labels: {tier: gold, egress: 'yes'}}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: silver, labels: {tier: silver, egress: 'yes'}}}
---
apiVersion: egressd.dev/v1alpha1
kind: EgressPool
metadata: {name: public}
spec:
  blocks: [{cidr: 172.31.0.16/28}, {start: 172.31.0.99, end: 172.31.1.4}, {cidr: '2001:db8:1::/64'}, {start: '2001:db8::fffe', end: '2001:db8::1:2'}]
  allowedNamespaces: {names: [shop], matchLabels: {tier: gold, egress: 'yes'}}
---
apiVersion: egressd.dev/v1alpha1
kind: EgressPool
metadata: {name: nobodys}
spec: {blocks: [{cidr: 172.31.0.0/24}]}
";

/// Asks for a binding, without making it.
fn bind(api: &ApiServer, namespace: &str, exits: &str) -> Result<String, String> {
    let manifest = format!(
        "{{apiVersion: egressd.dev/v1alpha1, kind: EgressBinding, metadata: {{name: asked, namespace: {namespace}}}, spec: {{podSelector: {{}}, {exits}}}}}"
    );
    api.kubectl_as(&api.kubeconfig(), &["create", "--dry-run=server", "-f", "-"], &manifest)
}

/// That it is refused, by this policy and in these words; or with no words, that it is not.
fn assert_refused(answer: Result<String, String>, asked: &str, policy: &str, words: &str) {
    match answer {
        Ok(_) => assert!(words.is_empty(), "{asked} is not refused"),
        Err(said) => {
            assert!(!words.is_empty(), "{asked} is refused: {said}");
            let expected = format!("ValidatingAdmissionPolicy '{policy}' with binding '{policy}' denied request: {words}");
            assert!(said.contains(&expected), "{asked}: {said}");
        }
    }
}

fn the_chart_is_taken() {
    let api = with_chart(&[]);
    let linted = api.get(&["validatingadmissionpolicies"]);
    let warnings: Vec<&Value> =
        linted["items"].as_array().into_iter().flatten().filter(|one| !one["status"]["typeChecking"].is_null()).collect();
    assert!(warnings.is_empty(), "{warnings:#?}");
    for values in ["tests/chart/bare.yaml", "tests/chart/full.yaml", "examples/helm/values.yaml", "charts/egressd/values.yaml"] {
        // The Prometheus operator's definitions are not there.
        let more = ["--values", &file(values), "--set", "monitoring.serviceMonitor.enabled=false,monitoring.prometheusRule.enabled=false"];
        install(&api, &[&more[..], &["--dry-run=server"]].concat());
        install(&api, &more);
    }
    for example in ["1-pool", "2-namespace", "3-binding"] {
        api.kubectl(&["apply", "-f", &file(&format!("examples/kubernetes/{example}.yaml"))]);
    }
    let refused = api.helm(&["install", "second", &file("charts/egressd"), "--namespace", NAMESPACE]).expect_err("there is one already");
    assert!(refused.contains("invalid ownership metadata"), "{refused}");
}

fn definitions_stay() {
    let api = with_chart(&[]);
    api.apply("{apiVersion: egressd.dev/v1alpha1, kind: EgressBinding, metadata: {name: kept, namespace: shop}, spec: {podSelector: {}, pool: {name: public}}}");
    api.helm(&["uninstall", "egressd", "--namespace", NAMESPACE]).unwrap_or_else(|error| panic!("{error}"));
    for gone in
        [&["-n", NAMESPACE, "daemonset", "egressd"][..], &["clusterrole", "egressd"], &["validatingadmissionpolicy", "egressd-pools"]]
    {
        api.try_get(gone).expect_err("it is gone");
    }
    install(&api, &[]);
    api.get(&["-n", "shop", "egressbinding", "kept"]);
}

fn raw_exits() {
    let api = with_chart(&[]);
    let raw = "exits: [{address: 172.31.0.14}]";
    let words = "exits are not allowed in this cluster's bindings; name a pool (spec.pool), or let the chart allow rawExits";
    assert_refused(bind(&api, "shop", raw), raw, "egressd-raw-exits", words);
    install(&api, &["--set", "rawExits=true"]);
    until("the policy is gone", || bind(&api, "shop", raw));
    assert_refused(bind(&api, "default", "pool: {name: public}"), "a pool", "egressd-pools", "EgressPool public does not allow");
}

fn nodes_report_for_themselves() {
    let api = with_chart(&[]);
    for node in ["n1", "n2"] {
        api.apply(&format!("{{apiVersion: v1, kind: Node, metadata: {{name: {node}}}}}"));
    }
    let on_n1 = api.service_account(NAMESPACE, "egressd", &["--bound-object-kind=Node", "--bound-object-name=n1"]);
    let apply = |user: &str, node: &str, bound: u8| {
        let report =
            format!("{{apiVersion: egressd.dev/v1alpha1, kind: EgressNode, metadata: {{name: {node}}}, spec: {{bound: {bound}}}}}");
        api.kubectl_as(user, &["apply", "--server-side", "--field-manager=egressd", "-f", "-"], &report)
    };
    apply(&on_n1, "n1", 1).expect("it is its own");
    apply(&on_n1, "n1", 2).expect("it is its own");
    let refused = |answer, asked: &str, words: &str| assert_refused(answer, asked, "egressd-nodes", words);
    refused(apply(&on_n1, "n2", 1), "another node's", "the agent of node n1 writes EgressNode n1, and not n2");
    let of_nobody = api.service_account(NAMESPACE, "egressd", &[]);
    refused(apply(&of_nobody, "n1", 3), "a token for no pod", "the token names no node, so it may write no EgressNode");
    let words = "an EgressNode is what its node's agent reports; to have it written anew, delete it";
    refused(apply(&api.kubeconfig(), "n2", 1), "an administrator", words);
    let n1 = ["egressnode", "n1"];
    refused(
        api.try_kubectl(&[&["patch"], &n1[..], &["--type=merge", "-p", r#"{"spec": {"bound": 9}}"#]].concat()),
        "an administrator",
        words,
    );
    api.kubectl(&[&["label"], &n1[..], &["seen=yes"]].concat());
    api.kubectl(&[&["delete"], &n1[..]].concat());
}

/// A token of an account of the chart's, for a pod or for nothing.
fn token(api: &ApiServer, account: &str, name: &str, bound: &[&str]) -> String {
    let kubeconfig = api.service_account(NAMESPACE, account, bound);
    let own = format!("{kubeconfig}.{name}");
    std::fs::rename(kubeconfig, &own).expect("/run is ours");
    own
}

/// Writes which address the binding `held` of `shop` has, as a leader does.
fn allocate(kubeconfig: &str, exit: &str) -> Result<String, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let client = async { egressd::facts::kubernetes::client(Some(kubeconfig.as_ref())).await.expect("a client") };
    let status = json!({ "apiVersion": "egressd.dev/v1alpha1", "kind": "EgressBinding", "status": { "exits": [exit] } });
    let written = runtime.block_on(async {
        let api: Api<EgressBinding> = Api::namespaced(client.await, "shop");
        api.patch_status("held", &PatchParams::apply("egressd").force(), &Patch::Apply(&status)).await
    });
    written.map(|binding| format!("{:?}", binding.status)).map_err(|error| error.to_string())
}

fn status_is_the_leaders() {
    let api = with_chart(&[]);
    api.apply("{apiVersion: egressd.dev/v1alpha1, kind: EgressBinding, metadata: {name: held, namespace: shop}, spec: {podSelector: {}, pool: {name: public}}}");
    for (pod, account) in [("one", CONTROLLERS), ("two", CONTROLLERS), ("stolen", AGENTS)] {
        api.apply(&format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: {pod}, namespace: {NAMESPACE}}}, spec: {{serviceAccountName: {account}, containers: [{{name: c, image: i}}]}}}}"
        ));
    }
    let of_pod = |account, pod: &str| token(&api, account, pod, &["--bound-object-kind=Pod", &format!("--bound-object-name={pod}")]);
    let (one, two, bare) = (of_pod(CONTROLLERS, "one"), of_pod(CONTROLLERS, "two"), token(&api, CONTROLLERS, "bare", &[]));
    let agent = of_pod(AGENTS, "stolen");
    let lease = |user: &str, verb: &str, holder: &str, version: &str| {
        let lease = json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": { "name": "egressd", "namespace": NAMESPACE, "resourceVersion": version },
            "spec": { "holderIdentity": holder },
        });
        api.kubectl_as(user, &[verb, "-f", "-"], &lease.to_string())
    };
    let refused = |answer, asked: &str, words: &str| assert_refused(answer, asked, "egressd-status", words);
    until("nobody is the leader, and nobody writes", || allocate(&one, "172.31.0.31").err().ok_or("it is let in".to_owned()));

    // Who restores the record before any controller has run makes the Lease first.
    let record = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": { "name": "egressd-allocations", "namespace": NAMESPACE }, "data": { "public": "shop/held 172.31.0.16\n" },
    });
    let restore = || api.kubectl_as(&api.kubeconfig(), &["apply", "-f", "-"], &record.to_string());
    assert!(restore().expect_err("there is no Lease").contains("no params found"));
    api.apply(&format!("{{apiVersion: coordination.k8s.io/v1, kind: Lease, metadata: {{name: egressd, namespace: {NAMESPACE}}}}}"));
    until("the record is restored", restore);
    refused(allocate(&one, "172.31.0.31"), "a controller's", "controller one is not the leader; nobody holds the Lease egressd");
    api.kubectl(&["-n", NAMESPACE, "delete", "lease", "egressd"]);

    let words = "controller two takes the Lease for itself, and not for one";
    assert_refused(lease(&two, "create", "one", ""), "another's Lease", "egressd-lease", words);
    let words = "the token names no pod, so it may write no Lease";
    assert_refused(lease(&bare, "create", "one", ""), "a Lease by a bare token", "egressd-lease", words);
    lease(&one, "create", "one", "").expect("it is its own");
    until("the leader writes", || allocate(&one, "172.31.0.16"));
    refused(allocate(&two, "172.31.0.31"), "another controller's", "controller two is not the leader; one holds the Lease egressd");
    refused(allocate(&bare, "172.31.0.31"), "a bare token's", "the token names no pod, so it may write no status");
    let map = |user: &str| {
        let map =
            format!("{{apiVersion: v1, kind: ConfigMap, metadata: {{name: egressd-inside, namespace: {NAMESPACE}}}, data: {{cidrs: ''}}}}");
        api.kubectl_as(user, &["apply", "--server-side", "--force-conflicts", "-f", "-"], &map)
    };
    map(&one).expect("it is the leader's");
    refused(map(&two), "what is inside, by another controller", "controller two is not the leader");

    // The next leader writes, and what the former one sends late is refused.
    let version = api.get(&["-n", NAMESPACE, "lease", "egressd"])["metadata"]["resourceVersion"].as_str().expect("it has one").to_owned();
    lease(&two, "replace", "two", &version).expect("it is its own");
    until("the next leader writes", || allocate(&two, "172.31.0.17"));
    refused(allocate(&one, "172.31.0.31"), "a former leader's", "controller one is not the leader; two holds the Lease egressd");
    assert_eq!(api.get(&["-n", "shop", "egressbinding", "held"])["status"]["exits"], json!(["172.31.0.17"]));
    allocate(&api.kubeconfig(), "172.31.0.18").expect("an administrator may repair it");

    // What an agent's token gives: by its role nothing of this, and nothing by whatever else it may be given.
    let version = api.get(&["-n", NAMESPACE, "lease", "egressd"])["metadata"]["resourceVersion"].as_str().expect("it has one").to_owned();
    let attempts = || [allocate(&agent, "172.31.0.31"), map(&agent), lease(&agent, "replace", "stolen", &version)];
    for attempt in attempts() {
        let refused = attempt.expect_err("an agent decides nothing");
        assert!(refused.contains("cannot ") && refused.contains("system:serviceaccount:net:egressd"), "by its role: {refused}");
    }
    api.kubectl(&[
        "create",
        "clusterrolebinding",
        "more",
        "--clusterrole=cluster-admin",
        &format!("--serviceaccount={NAMESPACE}:{AGENTS}"),
    ]);
    until("the role counts", || api.kubectl_as(&agent, &["get", "secrets", "-A"], ""));
    let words = ["a status is the controller's to write", "a status is the controller's to write", "the Lease is the controllers'"];
    for ((attempt, words), policy) in attempts().into_iter().zip(words).zip(["egressd-status", "egressd-status", "egressd-lease"]) {
        assert_refused(attempt, "an agent's", policy, words);
    }
}

fn editors() {
    let api = with_chart(&[]);
    let user = api.user("owner", "/CN=owner");
    // The controller that adds roles up is not here: what it would add is bound as such.
    for name in ["egressd-view", "egressd-edit"] {
        api.kubectl(&["-n", "shop", "create", "rolebinding", name, &format!("--clusterrole={name}"), "--user=owner"]);
    }
    let may = |verb: &str, what: &str, sub: &str| {
        let sub = format!("--subresource={sub}");
        api.kubectl_as(&user, &["-n", "shop", "auth", "can-i", verb, what, &sub], "").is_ok()
    };
    for verb in ["create", "delete", "get", "list", "patch", "update", "watch"] {
        until("the role is known", || if may(verb, "egressbindings.egressd.dev", "") { Ok(()) } else { Err(verb.to_owned()) });
    }
    for (verb, what, sub) in [
        ("patch", "egressbindings.egressd.dev", "status"),
        ("update", "egressbindings.egressd.dev", "status"),
        ("create", "egresspools.egressd.dev", ""),
        ("patch", "egressnodes.egressd.dev", ""),
    ] {
        assert!(!may(verb, what, sub), "{verb} {what} {sub}");
    }
}

fn agents_rights() {
    let api = with_chart(&["--set", "proxy.enabled=true"]);
    let agent = api.service_account(NAMESPACE, AGENTS, &[]);
    let ask = |verb: &str, path: &str| api.kubectl_as(&agent, &[verb, "--raw", path], "");
    let core = format!("/api/v1/namespaces/{NAMESPACE}/configmaps");
    let own = format!("{core}?fieldSelector=metadata.name%3Degressd-inside");
    let daemonsets = format!("/apis/apps/v1/namespaces/{NAMESPACE}/daemonsets");
    let daemonset = format!("{daemonsets}?fieldSelector=metadata.name%3Degressd");
    let (services, pods) = ("/apis/networking.k8s.io/v1/servicecidrs", "/api/v1/pods?fieldSelector=spec.nodeName%3Dn1");
    for path in [&own, &daemonset, pods] {
        ask("get", path).unwrap_or_else(|error| panic!("{path}: {error}"));
    }
    let nobodys = ["/api/v1/secrets", "/api/v1/configmaps", "/apis/apps/v1/daemonsets", "/api/v1/namespaces/default/services"];
    for path in nobodys.into_iter().chain([services, &core, &daemonsets]) {
        let refused = ask("get", path).expect_err(path);
        assert!(refused.contains("is forbidden"), "{path}: {refused}");
    }
    let controller = api.service_account(NAMESPACE, CONTROLLERS, &[]);
    let decide = |path: &str| api.kubectl_as(&controller, &["get", "--raw", path], "");
    for path in [&own, services, "/apis/egressd.dev/v1alpha1/egressnodes"] {
        decide(path).unwrap_or_else(|error| panic!("{path}: {error}"));
    }
    for path in nobodys.into_iter().chain([pods, &core, &daemonset]) {
        let refused = decide(path).expect_err(path);
        assert!(refused.contains("is forbidden"), "{path}: {refused}");
    }
    let proxy = api.service_account(NAMESPACE, PROXIES, &[]);
    let open = |path: &str| api.kubectl_as(&proxy, &["get", "--raw", path], "");
    open("/apis/egressd.dev/v1alpha1/egressproxies").unwrap_or_else(|error| panic!("{error}"));
    let all = ["egressbindings", "egresspools", "egressnodes"].map(|kind| format!("/apis/egressd.dev/v1alpha1/{kind}"));
    for path in nobodys.into_iter().chain([pods, &own, &daemonset]).chain(all.iter().map(String::as_str)) {
        let refused = open(path).expect_err(path);
        assert!(refused.contains("is forbidden"), "{path}: {refused}");
    }
    let map = |name: &str| {
        format!("{{apiVersion: v1, kind: ConfigMap, metadata: {{name: {name}, namespace: {NAMESPACE}}}, data: {{cidrs: ''}}}}")
    };
    let apply = |name: &str| api.kubectl_as(&agent, &["apply", "--server-side", "-f", "-"], &map(name));
    for name in ["another", "egressd-inside"] {
        let refused = apply(name).expect_err("an agent writes none");
        assert!(refused.contains("is forbidden"), "{refused}");
    }
}

/// What an agent's container has, taken away one by one: the agent works with all of it, and without each it says what it lacks.
fn the_image_on_a_node() {
    let cluster = Cluster::builder().subnets(Subnets::One).build();
    let pod = cluster.run("crawler", "n1", &[("app", "crawler")]);
    cluster.install(&["--set=runtime.socket="]);
    cluster.bind("crawler", Nic::Eth1);
    cluster.await_programmed("crawler", 1);
    let n1 = cluster.node("n1");
    n1.leaves_by(&pod.netns, Nic::Eth1).unwrap_or_else(|error| panic!("{error}"));
    let announce = n1.enter(|| command::run(&["sysctl", "-n", "net.ipv4.conf.eth1.arp_announce"]));
    assert_eq!(announce.trim(), "2", "it is written through the mount");

    // kubectl's plugin is in the image, too, and is the pod's account there.
    let plugin = |command: &[&str]| {
        cluster.api.kubectl(&[&["-n", INSTALLED, "exec", "deployment/egressd-controller", "--", "kubectl-egress"], command].concat())
    };
    let told = plugin(&["status", "--all-namespaces"]);
    assert!(told.contains("crawler"), "{told}");

    let container = "/spec/template/spec/containers/0";
    let without = |missing: &str| {
        let left: Vec<_> = ["NET_ADMIN", "NET_BROADCAST", "NET_RAW"].into_iter().filter(|capability| *capability != missing).collect();
        json!({ "path": format!("{container}/securityContext/capabilities/add"), "value": left })
    };
    let patch = |mut change: Value| {
        change["op"] = json!("replace");
        let change = json!([change]).to_string();
        cluster.api.kubectl(&["-n", INSTALLED, "patch", "daemonset", "egressd", "--type=json", "-p", &change]);
    };
    for missing in ["NET_ADMIN", "NET_BROADCAST", "NET_RAW"] {
        patch(without(missing));
        until("an agent says what it lacks", || {
            let logs = cluster.api.try_kubectl(&["-n", INSTALLED, "logs", "--prefix", "-l", "app.kubernetes.io/name=egressd"])?;
            if logs.contains(&format!("CAP_{missing}")) && logs.contains("Operation not permitted") { Ok(()) } else { Err(logs) }
        });
        n1.leaves_by(&pod.netns, Nic::Eth1).unwrap_or_else(|error| panic!("the kernel works on: {error}"));
        cluster.upgrade(&["--set=runtime.socket="]).unwrap_or_else(|error| panic!("{error}"));
    }
    patch(json!({ "path": format!("{container}/volumeMounts/2/readOnly"), "value": true }));
    until("an agent says that it cannot write settings", || {
        let said = cluster.ask_agent("n1", &["check"])?;
        if said.contains("/proc/sys: read-only for this process") { Ok(()) } else { Err(said) }
    });
}
