//! What agents and controllers ask of the API server: all that their roles allow and nothing else, in words when a verb is missing, and no
//! write at rest.

use std::{collections::BTreeSet, thread, time::Duration};

use serde_json::{Value, json};
use world::{
    Cluster, Nic, Scenario,
    cluster::{Etcd, NAMESPACE, Pod, until},
};

use crate::support::{AGENTS, CONTROLLERS, await_said, binding, restart_agents, restart_controllers};

/// The accounts of agents and controllers.
const ACCOUNTS: [&str; 2] = ["egressd", "egressd-controller"];
/// How long nobody may write.
const REST: Duration = Duration::from_secs(20);

pub fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "etcd 3.4: pods are bound, and agents and controllers ask for all that their roles allow and for nothing else",
            by_lists,
        ),
        Scenario::new("current etcd: the same without a list, nothing is written at rest, and a verb taken away is named", by_streams),
    ]
}

/// A verb on a resource, `GROUP/RESOURCE` with its subresource.
type Right = (String, String);

fn by_lists() {
    let cluster = Cluster::builder().etcd(Etcd::Debian).build();
    live(&cluster);
    ACCOUNTS.iter().for_each(|account| same(&asked(&cluster, account), &allowed(&cluster, account)));
}

fn by_streams() {
    let cluster = Cluster::builder().build();
    let pod = live(&cluster);
    // A list is streamed as a watch. That the old etcd needs the verb is shown with it.
    let lists = |right: &Right| right.0 == "list";
    for account in ACCOUNTS {
        let (lists, others): (BTreeSet<Right>, BTreeSet<Right>) = allowed(&cluster, account).into_iter().partition(lists);
        assert!(!lists.is_empty(), "what an old etcd needs");
        same(&asked(&cluster, account), &others);
    }
    rest(&cluster);
    without_a_verb(&cluster, &pod);
}

/// Nothing was asked for that is not allowed, and nothing is allowed that was not asked for.
fn same(asked: &BTreeSet<Right>, allowed: &BTreeSet<Right>) {
    let only = |these: &BTreeSet<Right>, those: &BTreeSet<Right>| these.difference(those).cloned().collect::<Vec<_>>();
    assert_eq!((only(asked, allowed), only(allowed, asked)), (vec![], vec![]), "asked for alone, allowed alone");
}

/// All that agents and controllers do in their lives: they are installed, take the Lease, lend by name and by number, refuse, and are replaced.
fn live(cluster: &Cluster) -> Pod {
    let pods = cluster.run_all([("crawler-n1", "n1", "crawler"), ("crawler-n2", "n2", "crawler")]);
    for pod in &pods {
        cluster.node(&pod.node).leaves_by(&pod.netns, Nic::Eth1).expect_err("without egressd it leaves by eth0");
    }
    cluster.install(&[]);
    cluster.bind("crawler", Nic::Eth1);
    cluster.await_programmed("crawler", 2);
    cluster.api.apply(&binding("nobody", "nobody", &json!({ "pool": { "name": "pool-crawler" } })));
    await_said(cluster, &["egressbinding", "nobody"], "ResolvedRefs", "False", "PoolExhausted");
    restart_agents(cluster);
    restart_controllers(cluster);
    cluster.run("late", "n1", &[("app", "crawler")]);
    cluster.await_programmed("crawler", 3);
    for pod in &pods {
        cluster.node(&pod.node).leaves_by(&pod.netns, Nic::Eth1).unwrap_or_else(|error| panic!("{error}"));
    }
    let [first, _] = pods;
    first
}

/// Requests of agents, or of controllers, so far.
fn requests(cluster: &Cluster, account: &str) -> Vec<Value> {
    let user = format!("system:serviceaccount:{NAMESPACE}:{account}");
    cluster.api.audit().into_iter().filter(|event| event["user"]["username"] == user.as_str()).collect()
}

/// What they have asked for. Nothing of it was refused.
fn asked(cluster: &Cluster, account: &str) -> BTreeSet<Right> {
    let requests = requests(cluster, account);
    let mut rights = BTreeSet::new();
    for event in &requests {
        let (verb, object, code) = (&event["verb"], &event["objectRef"], &event["responseStatus"]["code"]);
        assert!(!object.is_null(), "it is about a resource: {event}");
        assert!(*code != 401 && *code != 403, "it is refused: {event}");
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let resource = right_of(&text(&object["apiGroup"]), &text(&object["resource"]), &text(&object["subresource"]));
        // Server-side apply is logged as a patch; where it makes the object it has to be allowed to create, too.
        if *verb == "patch" && *code == 201 {
            rights.insert(("create".to_owned(), resource.clone()));
        }
        rights.insert((text(verb), resource));
    }
    rights
}

/// What the roles of a ServiceAccount allow.
fn allowed(cluster: &Cluster, account: &str) -> BTreeSet<Right> {
    let mut rights = BTreeSet::new();
    for kind in ["clusterrolebindings", "rolebindings"] {
        let bindings = cluster.api.get(&[kind, "-A"]);
        let ours = |binding: &&Value| {
            let mut subjects = binding["subjects"].as_array().into_iter().flatten();
            subjects.any(|who| who["kind"] == "ServiceAccount" && who["name"] == account && who["namespace"] == NAMESPACE)
        };
        for binding in bindings["items"].as_array().expect("a list").iter().filter(ours) {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let (role, name) = (text(&binding["roleRef"]["kind"]), text(&binding["roleRef"]["name"]));
            let namespace = binding["metadata"]["namespace"].as_str().unwrap_or("default");
            let role = cluster.api.get(&["-n", namespace, &role, &name]);
            role["rules"].as_array().expect("rules").iter().for_each(|rule| rights.extend(rights_of(rule)));
        }
    }
    assert!(!rights.is_empty(), "{account} has roles");
    rights
}

fn rights_of(rule: &Value) -> Vec<Right> {
    let all = |field: &str| rule[field].as_array().into_iter().flatten().filter_map(Value::as_str).collect::<Vec<_>>();
    let mut rights = Vec::new();
    for group in all("apiGroups") {
        for resource in all("resources") {
            let (resource, sub) = resource.split_once('/').unwrap_or((resource, ""));
            rights.extend(all("verbs").iter().map(|verb| ((*verb).to_owned(), right_of(group, resource, sub))));
        }
    }
    rights
}

fn right_of(group: &str, resource: &str, sub: &str) -> String {
    let sub = if sub.is_empty() { String::new() } else { format!("/{sub}") };
    format!("{group}/{resource}{sub}")
}

/// While nothing changes nobody writes, but for the Lease.
fn rest(cluster: &Cluster) {
    let settled = until("all is told", || {
        let before = versions(cluster);
        thread::sleep(Duration::from_secs(5));
        if versions(cluster) == before { Ok(before) } else { Err(format!("{before:?}")) }
    });
    let begin = ACCOUNTS.map(|account| requests(cluster, account).len());
    thread::sleep(REST);
    assert_eq!(versions(cluster), settled);
    for (account, begin) in ACCOUNTS.into_iter().zip(begin) {
        for event in &requests(cluster, account)[begin..] {
            let lease = event["objectRef"]["resource"] == "leases" && (event["verb"] == "update" || event["verb"] == "get");
            let alive = event["objectRef"]["resource"] == "egressnodes" && event["verb"] == "patch";
            assert!(lease || alive || event["verb"] == "watch", "nothing has changed: {event}");
        }
    }
    cluster.run("news", "n2", &[("app", "crawler")]);
    cluster.await_programmed("crawler", 4);
    assert_ne!(versions(cluster), settled, "a pod more is written down");
}

/// All that agents and controllers write, with its versions.
fn versions(cluster: &Cluster) -> Vec<(String, String)> {
    let kinds = "egressnodes.egressd.dev,egressbindings.egressd.dev,egresspools.egressd.dev";
    let objects = cluster.api.get(&[kinds, "-A"]);
    let maps = ["egressd-inside", "egressd-allocations"].map(|name| cluster.api.get(&["-n", NAMESPACE, "configmap", name]));
    let of = |object: &Value| {
        let metadata = &object["metadata"];
        // An agent's report is written anew every two minutes, with another time.
        let mut said = object["spec"].clone();
        let version = if said.get("reportedAt").is_some() {
            said["reportedAt"].take();
            said.to_string()
        } else {
            metadata["resourceVersion"].to_string()
        };
        (format!("{} {}", object["kind"], metadata["name"]), version)
    };
    objects["items"].as_array().expect("a list").iter().chain(&maps).map(of).collect()
}

/// The verb that an agent or a controller lacks is named, with its resource, and what is bound stays so.
fn without_a_verb(cluster: &Cluster, pod: &Pod) {
    let bound = || cluster.node(&pod.node).leaves_by(&pod.netns, Nic::Eth1).unwrap_or_else(|error| panic!("the kernel works on: {error}"));
    let logged = |who: &str, words: &str| {
        until("it says what it lacks", || {
            let logs = cluster.api.try_kubectl(&["-n", NAMESPACE, "logs", "--tail=-1", "-l", who])?;
            if logs.contains(words) { Ok(()) } else { Err(logs) }
        });
        bound();
    };
    let crawlers = 4;

    // A watch that was let in goes on; the next agent's is refused.
    let role = taken(cluster, &["-n", NAMESPACE, "role", "egressd"], "daemonsets", "watch");
    restart_agents(cluster);
    cluster.api.await_object(&["egressnode", "n1"], |node| {
        let problems = node["spec"]["problems"].to_string();
        problems.contains("not allowed to watch daemonsets.apps; give the agent's ServiceAccount `list` and `watch` on daemonsets.apps")
    });
    bound();
    given_back(cluster, &role);
    cluster.api.await_object(&["egressnode", "n1"], |node| node["spec"]["problems"].is_null());

    let role = taken(cluster, &["clusterrole", "egressd-controller"], "egressbindings/status", "patch");
    cluster.run("fifth", "n1", &[("app", "crawler")]);
    logged(CONTROLLERS, "its role needs the verb patch on egressbindings.egressd.dev/status");
    given_back(cluster, &role);
    cluster.await_programmed("crawler", crawlers + 1);

    let role = taken(cluster, &["clusterrole", "egressd"], "egressnodes", "patch");
    let sixth = cluster.run("sixth", "n1", &[("app", "crawler")]);
    logged(AGENTS, "its role needs the verb patch on egressnodes.egressd.dev");
    cluster.node("n1").leaves_by(&sixth.netns, Nic::Eth1).unwrap_or_else(|error| panic!("it is bound, though nobody is told: {error}"));
    given_back(cluster, &role);
    cluster.await_programmed("crawler", crawlers + 2);

    let role = taken(cluster, &["-n", NAMESPACE, "role", "egressd-controller"], "leases", "update");
    logged(CONTROLLERS, "its role needs the verb update on leases.coordination.k8s.io");
    given_back(cluster, &role);
    cluster.run("seventh", "n1", &[("app", "crawler")]);
    cluster.await_programmed("crawler", crawlers + 3);
}

/// Takes a verb on a resource out of a role, and returns the role as it was.
fn taken(cluster: &Cluster, role: &[&str], resource: &str, verb: &str) -> Value {
    let mut before = cluster.api.get(role);
    before["metadata"]["resourceVersion"].take();
    let mut after = before.clone();
    let mut found = false;
    let rules = after["rules"].as_array_mut().expect("rules");
    for rule in rules.iter_mut().filter(|rule| rule["resources"].as_array().is_some_and(|all| all.iter().any(|one| one == resource))) {
        let verbs = rule["verbs"].as_array_mut().expect("verbs");
        found |= verbs.iter().any(|one| one == verb);
        verbs.retain(|one| one != verb);
    }
    rules.retain(|rule| rule["verbs"].as_array().is_some_and(|verbs| !verbs.is_empty()));
    assert!(found, "{role:?} allows {verb} on {resource}");
    given_back(cluster, &after);
    before
}

fn given_back(cluster: &Cluster, role: &Value) {
    let replaced = cluster.api.kubectl_as(&cluster.api.kubeconfig(), &["replace", "-f", "-"], &role.to_string());
    replaced.unwrap_or_else(|error| panic!("{error}"));
}
