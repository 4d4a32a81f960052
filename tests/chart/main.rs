//! What the chart renders, by `helm` itself, with its own values and those of `tests/chart`. `tests/chart_cluster` installs it.

mod deployments;
mod distributions;
mod monitoring;

use std::{collections::BTreeSet, env, fs, path::PathBuf, process::Command};

use serde_json::{Value, json};

const CHART: &str = "charts/egressd";
/// The Kubernetes to render for: helm asks no cluster here.
const KUBERNETES: &str = "1.36.0";
const EVERY_VALUES: [&str; 4] =
    ["charts/egressd/values.yaml", "tests/chart/bare.yaml", "tests/chart/full.yaml", "examples/helm/values.yaml"];

/// Runs helm in the tree's folder; its output, or what it says is wrong.
fn helm(arguments: &[&str]) -> Result<String, String> {
    let program = world::cluster::program("helm");
    let output = Command::new(program).args(arguments).current_dir(root()).output().expect("helm can be run");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr) + &text(&output.stdout)) }
}

fn root() -> PathBuf {
    env!("CARGO_MANIFEST_DIR").into()
}

fn text(file: &str) -> String {
    fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

fn yaml(text: &str) -> Value {
    serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

fn render(values: &str, more: &[&str]) -> Result<Vec<Value>, String> {
    let usual = ["template", "egressd", CHART, "--namespace", "net", "--kube-version", KUBERNETES, "--values", values];
    let printed = helm(&[&usual, more].concat())?;
    let documents = printed.split("\n---\n").map(|document| document.trim_start_matches("---\n"));
    let with_content = documents.filter(|document| document.lines().any(|line| !line.is_empty() && !line.starts_with('#')));
    Ok(with_content.map(yaml).collect())
}

fn rendered(values: &str) -> Vec<Value> {
    render(values, &[]).unwrap_or_else(|error| panic!("{values}: {error}"))
}

fn find<'a>(objects: &'a [Value], kind: &str, name: &str) -> Option<&'a Value> {
    objects.iter().find(|object| object["kind"] == kind && object["metadata"]["name"] == name)
}

fn kinds(objects: &[Value]) -> BTreeSet<&str> {
    objects.iter().filter_map(|object| object["kind"].as_str()).collect()
}

fn pod(objects: &[Value]) -> &Value {
    &find(objects, "DaemonSet", "egressd").expect("there are agents")["spec"]["template"]["spec"]
}

fn container(objects: &[Value]) -> &Value {
    &pod(objects)["containers"][0]
}

fn strings(list: &Value) -> Vec<&str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

#[test]
fn helm_finds_nothing_to_say_about_the_chart() {
    for values in EVERY_VALUES {
        let said =
            helm(&["lint", "--strict", CHART, "--values", values, "--kube-version", KUBERNETES]).unwrap_or_else(|error| panic!("{error}"));
        assert!(!said.contains("[WARNING]") && !said.contains("[ERROR]"), "{values}: {said}");
    }
}

/// How many definitions there are, and what Helm is to do with them at uninstall.
fn definitions(objects: &[Value]) -> (usize, BTreeSet<&str>) {
    let all = objects.iter().filter(|object| object["kind"] == "CustomResourceDefinition");
    let policies = all.clone().map(|object| object["metadata"]["annotations"]["helm.sh/resource-policy"].as_str().unwrap_or("go"));
    (all.count(), policies.collect())
}

#[test]
fn the_charts_definitions_are_the_generated_ones_and_are_kept_at_uninstall_unless_told_otherwise() {
    let objects = rendered(EVERY_VALUES[0]);
    let generated = egressd::api::definitions::all();
    for (file, text) in &generated {
        let mut expected = whole(yaml(text));
        let name = expected["metadata"]["name"].as_str().expect("it has a name").to_owned();
        let found = find(&objects, "CustomResourceDefinition", &name).unwrap_or_else(|| panic!("{file} is not rendered"));
        expected["metadata"] = found["metadata"].clone();
        assert!(*found == expected, "{name} is another one in the chart: write it anew with UPDATE_GENERATED=1 cargo test --lib generated");
    }
    assert_eq!(definitions(&objects), (generated.len(), ["keep"].into()), "there are no others");
    assert_eq!(definitions(&rendered("tests/chart/full.yaml")), (generated.len(), ["go"].into()));
    assert_eq!(definitions(&rendered("tests/chart/bare.yaml")), (0, [].into()));
}

/// The same with whole numbers as such: the generator writes 64.0.
fn whole(value: Value) -> Value {
    match value {
        Value::Object(fields) => fields.into_iter().map(|(name, value)| (name, whole(value))).collect(),
        Value::Array(list) => list.into_iter().map(whole).collect(),
        Value::Number(number) => match number.as_f64() {
            Some(float) if float.fract() == 0.0 && float.abs() < f64::from(i32::MAX) => json!(float as i64),
            _ => Value::Number(number),
        },
        other => other,
    }
}

/// The security context of a container of root that has these capabilities, and no more.
fn confined(capabilities: &[&str]) -> Value {
    json!({
        "runAsUser": 0,
        "runAsGroup": 0,
        "privileged": false,
        "allowPrivilegeEscalation": false,
        "readOnlyRootFilesystem": true,
        "capabilities": { "drop": ["ALL"], "add": capabilities },
    })
}

#[test]
fn agents_are_not_privileged_and_have_three_capabilities() {
    for values in EVERY_VALUES {
        let objects = rendered(values);
        assert_eq!(container(&objects)["securityContext"], confined(&["NET_ADMIN", "NET_BROADCAST", "NET_RAW"]), "{values}");
        let pod = pod(&objects);
        assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault", "{values}");
        assert_eq!((&pod["hostNetwork"], &pod["hostPID"], &pod["hostIPC"]), (&json!(true), &Value::Null, &Value::Null), "{values}");
    }
}

#[test]
fn what_is_mounted_is_what_the_readme_says_and_the_runtimes_folder_only_when_asked_for() {
    let mounted = |objects: &[Value]| -> BTreeSet<String> {
        let volumes = pod(objects)["volumes"].as_array().cloned().unwrap_or_default();
        let hosts = volumes.iter().filter(|volume| volume["name"] != "more");
        hosts.map(|volume| volume["hostPath"]["path"].as_str().expect("all are the host's").to_owned()).collect()
    };
    let always = ["/run/netns", "/run/egressd", "/proc/sys/net"];
    let with = |more: &[&str]| always.iter().chain(more).map(|path| (*path).to_owned()).collect::<BTreeSet<_>>();
    for (values, more, socket) in [
        (EVERY_VALUES[0], &["/run/containerd"][..], Some("--containerd-socket=/run/containerd/containerd.sock")),
        ("tests/chart/full.yaml", &["/run/k3s/containerd"], Some("--containerd-socket=/run/k3s/containerd/containerd.sock")),
        ("tests/chart/bare.yaml", &[], None),
    ] {
        let objects = rendered(values);
        assert_eq!(mounted(&objects), with(more), "{values}");
        let arguments = strings(&container(&objects)["args"]);
        let found = arguments.iter().find(|argument| argument.starts_with("--containerd-socket")).copied();
        assert_eq!(found, socket, "{values}: {arguments:?}");
        let mounts = container(&objects)["volumeMounts"].as_array().expect("mounts");
        for mount in mounts.iter().filter(|mount| ["netns", "runtime"].iter().any(|name| mount["name"] == **name)) {
            assert_eq!((&mount["readOnly"], &mount["mountPropagation"]), (&json!(true), &json!("HostToContainer")), "{mount}");
        }
    }
}

#[test]
fn values_reach_the_agent() {
    let objects = rendered("tests/chart/full.yaml");
    let arguments = strings(&container(&objects)["args"]);
    for expected in [
        "--kubernetes",
        "--no-docker",
        "--metrics-address=[::]:9999",
        "--inside=10.0.0.0/8",
        "--inside=fd00::/8",
        "--allow-raw-exits",
        "--log-json",
        "--fast-path=auto",
    ] {
        assert!(arguments.contains(&expected), "{expected}: {arguments:?}");
    }
    let digest = "0123456789abcdef".repeat(4);
    assert_eq!(container(&objects)["image"], format!("images.invalid/net/egressd@sha256:{digest}"));
    let probe = &container(&objects)["readinessProbe"]["httpGet"];
    assert_eq!((&probe["host"], &probe["port"]), (&json!("127.0.0.1"), &json!(9999)));
    let pod = pod(&objects);
    assert_eq!(pod["securityContext"]["seLinuxOptions"]["type"], "spc_t");
    assert_eq!(pod["nodeSelector"], json!({ "egress": "yes", "kubernetes.io/os": "linux" }), "an agent is for Linux");
    assert_eq!(pod["imagePullSecrets"][0]["name"], "registry");
    assert!(arguments.contains(&"--no-metrics"), "{arguments:?}");
    assert_eq!(container(&objects)["env"].as_array().and_then(|env| env.last()), Some(&json!({ "name": "RUST_BACKTRACE", "value": "1" })));
    assert_eq!(
        container(&objects)["volumeMounts"].as_array().and_then(|all| all.last()),
        Some(&json!({ "name": "more", "mountPath": "/more" }))
    );
    assert_eq!(
        (&container(&objects)["livenessProbe"]["failureThreshold"], &container(&objects)["livenessProbe"]["periodSeconds"]),
        (&json!(9), &json!(10))
    );
    assert_eq!((&pod["serviceAccountName"], &pod["hostAliases"][0]["ip"]), (&json!("agents"), &json!("192.0.2.1")));
    let daemonset = find(&objects, "DaemonSet", "egressd").expect("there are agents");
    assert_eq!(daemonset["spec"]["updateStrategy"]["type"], "OnDelete");
    assert_eq!(find(&objects, "ResourceQuota", "egressd").expect("it is asked for")["spec"]["hard"]["pods"], "7");
    let usual = rendered(EVERY_VALUES[0]);
    let arguments = strings(&container(&usual)["args"]);
    assert!(!arguments.contains(&"--allow-raw-exits"), "{arguments:?}");
    for off in ["off", "false"] {
        let objects = render(EVERY_VALUES[0], &["--set", &format!("fastPath={off}")]).unwrap_or_else(|error| panic!("{error}"));
        assert!(
            !strings(&container(&objects)["args"]).iter().any(|argument| argument.starts_with("--fast-path")),
            "YAML reads off as false"
        );
    }
    assert_eq!(container(&usual)["image"], format!("egressd:{}", env!("CARGO_PKG_VERSION")));
}

#[test]
fn policies_and_definitions_can_be_left_out() {
    let policies = |objects: &[Value]| -> BTreeSet<String> {
        let kind = |object: &&Value| object["kind"] == "ValidatingAdmissionPolicy";
        objects.iter().filter(kind).map(|policy| policy["metadata"]["name"].as_str().expect("a name").to_owned()).collect()
    };
    let usual = ["egressd-lease", "egressd-nodes", "egressd-pools", "egressd-pools-in-use", "egressd-status"];
    let expected = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(policies(&rendered(EVERY_VALUES[0])), expected(&[&usual[..], &["egressd-raw-exits"]].concat()));
    let with_cloud = [&usual[..], &["egressd-pool-status"]].concat();
    assert_eq!(policies(&rendered("tests/chart/full.yaml")), expected(&with_cloud), "raw exits are allowed there");
    let bare = rendered("tests/chart/bare.yaml");
    let only = ["ClusterRole", "ClusterRoleBinding", "DaemonSet", "Deployment", "Pod", "Role", "RoleBinding", "ServiceAccount"];
    assert_eq!(kinds(&bare), only.into());
}

#[test]
fn everything_that_names_an_account_names_the_same_one() {
    let usual = render(EVERY_VALUES[0], &["--set", "cloud.enabled=true"]).unwrap_or_else(|error| panic!("{error}"));
    let count = |objects: &[Value], text: &str| -> usize { objects.iter().map(|object| object.to_string().matches(text).count()).sum() };
    for (value, account) in [
        ("serviceAccount.name", "egressd"),
        ("controller.serviceAccount.name", "egressd-controller"),
        ("cloud.serviceAccount.name", "egressd-cloud"),
    ] {
        let other =
            render(EVERY_VALUES[0], &["--set", &format!("cloud.enabled=true,{value}=other")]).unwrap_or_else(|error| panic!("{error}"));
        for named in ["system:serviceaccount:net:NAME'", r#""kind":"ServiceAccount","name":"NAME""#, r#""serviceAccountName":"NAME""#] {
            let [before, after] = [(account, &usual), ("other", &other)].map(|(name, all)| count(all, &named.replace("NAME", name)));
            assert!(before > 0, "{named}");
            assert_eq!((before, count(&other, &named.replace("NAME", account))), (after, 0), "{named}");
        }
    }
    let nobody = "cloud.enabled=true,cloud.serviceAccount.create=false,serviceAccount.create=false,controller.serviceAccount.create=false,rbac.create=false,rbac.aggregateRoles=false";
    let without = render(EVERY_VALUES[0], &["--set", nobody]);
    assert!(kinds(&without.unwrap_or_else(|error| panic!("{error}"))).is_disjoint(&["ServiceAccount", "ClusterRole", "Role"].into()));
}

/// Who decides for the cluster is nobody that runs on every node, and has nothing of a node.
/// A stolen agent's token writes its own node's report, and nothing that concerns the cluster.
#[test]
fn agents_may_write_their_own_report_and_nothing_else() {
    let objects = rendered(EVERY_VALUES[0]);
    let roles = objects
        .iter()
        .filter(|object| ["Role", "ClusterRole"].iter().any(|kind| object["kind"] == **kind) && object["metadata"]["name"] == "egressd");
    let rules: Vec<&Value> = roles.flat_map(|role| role["rules"].as_array().expect("rules")).collect();
    assert!(rules.len() > 5, "{rules:?}");
    for rule in rules {
        let writes = strings(&rule["verbs"]).iter().any(|verb| !["get", "list", "watch"].contains(verb));
        assert!(!writes || rule["resources"] == json!(["egressnodes"]), "{rule}");
    }
}

#[test]
fn whoever_edits_a_namespace_edits_its_bindings_and_not_their_status() {
    let objects = rendered(EVERY_VALUES[0]);
    for (role, aggregate) in [("egressd-view", "view"), ("egressd-edit", "edit"), ("egressd-edit", "admin")] {
        let role = find(&objects, "ClusterRole", role).expect("it is there");
        assert_eq!(role["metadata"]["labels"][format!("rbac.authorization.k8s.io/aggregate-to-{aggregate}")], "true");
        assert!(!role["rules"].to_string().contains("/status"), "{role}");
    }
    let edit = find(&objects, "ClusterRole", "egressd-edit").expect("it is there");
    assert_eq!((&edit["rules"][0]["resources"], &edit["rules"][1]), (&json!(["egressbindings"]), &Value::Null));
    let with_proxy = render(EVERY_VALUES[0], &["--set", "proxy.enabled=true"]).unwrap_or_else(|error| panic!("{error}"));
    let edit = find(&with_proxy, "ClusterRole", "egressd-edit").expect("it is there");
    assert_eq!(edit["rules"][1]["resources"], json!(["egressproxies"]), "who serves nobody is asked by nobody");
    assert_eq!(
        find(&objects, "ClusterRole", "egressd-view").expect("it is there")["metadata"]["labels"]
            .get("rbac.authorization.k8s.io/aggregate-to-nobody"),
        None
    );
}

#[test]
fn a_common_label_is_on_every_object_and_on_the_agents_pods() {
    let objects = rendered("tests/chart/full.yaml");
    for object in objects.iter().filter(|object| object["kind"] != "CustomResourceDefinition") {
        assert_eq!(object["metadata"]["labels"]["team"], "net", "{} {}", object["kind"], object["metadata"]["name"]);
    }
    let template = &find(&objects, "DaemonSet", "egressd").expect("there are agents")["spec"]["template"]["metadata"]["labels"];
    assert_eq!((&template["team"], &template["tier"]), (&json!("net"), &json!("edge")));
}

#[test]
fn agents_are_kept_off_what_is_no_linux_machine() {
    let objects = rendered(EVERY_VALUES[0]);
    let pod = pod(&objects);
    assert_eq!(pod["nodeSelector"], json!({ "kubernetes.io/os": "linux" }));
    let terms =
        pod["affinity"].pointer("/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms/0/matchExpressions");
    let terms = terms.and_then(Value::as_array).expect("demands");
    assert!(terms.iter().all(|term| term["operator"] == "NotIn") && terms.len() == 2, "{terms:?}");
}

#[test]
fn no_role_has_a_wildcard_or_reads_secrets() {
    let objects = rendered(EVERY_VALUES[0]);
    let rules = objects.iter().filter(|object| ["Role", "ClusterRole"].iter().any(|kind| object["kind"] == **kind));
    let rules: Vec<&Value> = rules.flat_map(|role| role["rules"].as_array().expect("rules")).collect();
    assert!(rules.len() > 5, "{rules:?}");
    for rule in rules {
        let words: Vec<&str> = ["apiGroups", "resources", "verbs"].iter().flat_map(|field| strings(&rule[*field])).collect();
        assert!(!words.contains(&"*") && !words.contains(&"secrets"), "{rule}");
    }
}

#[test]
fn slips_in_values_are_refused_by_name() {
    for (slip, named) in [
        ("rawExit=true", "rawExit"),
        ("rawExits=yes", "rawExits"),
        ("image.repo=x", "repo"),
        ("image.pullPolicy=Sometimes", "pullPolicy"),
        ("image.digest=sha256:abc", "digest"),
        ("runtime.socket=containerd.sock", "socket"),
        ("runtime.socket=/run/containerd.sock", "socket"),
        ("inside[0]=10.0.0.1", "inside"),
        ("metrics.address=9464", "address"),
        ("monitoring.serviceMonitor.enable=true", "enable"),
        ("crds.install=true", "install"),
        ("crds.keep=yes", "keep"),
        ("fastPath=on", "fastPath"),
        ("monitoring.serviceMonitor.scrapeTimeout=5", "scrapeTimeout"),
        ("monitoring.serviceMonitor.namespace=Net", "namespace"),
        ("controller.podSecurityContext.runAsNonRoot=false", "runAsNonRoot"),
        ("controller.podSecurityContext.runAsUser=0", "runAsUser"),
        ("cloud.enable=true", "enable"),
        ("cloud.region=Frankfurt", "region"),
        ("cloud.intervalSeconds=0", "intervalSeconds"),
        ("cloud.podSecurityContext.runAsUser=0", "runAsUser"),
        ("updateStrategy.rollingUpdate.maxUnavailable=0", "maxUnavailable"),
        ("updateStrategy.rollingUpdate.maxSurge=1", "maxSurge"),
        ("extraEnv[0].value=x", "extraEnv"),
        ("livenessProbe.path=/", "livenessProbe"),
        ("serviceAccount.named=x", "serviceAccount"),
        ("resources.limits.memry=1Gi", "memry"),
        ("securityContext.privileged=true", "securityContext"),
    ] {
        let refused = render(EVERY_VALUES[0], &["--set", slip]).expect_err(slip);
        assert!(refused.contains("don't meet the specifications of the schema") && refused.contains(named), "{slip}: {refused}");
    }
}

#[test]
fn every_value_is_in_the_readme() {
    let readme = text("charts/egressd/README.md");
    let mut all = Vec::new();
    leaves(&yaml(&text(EVERY_VALUES[0])), "", &mut all);
    // A value that is an object of the user's own is told as a whole.
    let told =
        |path: &str| path.match_indices('.').map(|(at, _)| &path[..at]).chain([path]).any(|name| readme.contains(&format!("`{name}`")));
    let missing: Vec<_> = all.iter().filter(|path| !told(path)).collect();
    assert!(all.len() > 20 && missing.is_empty(), "{missing:?} of {all:?}");
}

fn leaves(value: &Value, path: &str, all: &mut Vec<String>) {
    let Some(fields) = value.as_object().filter(|fields| !fields.is_empty()) else { return all.push(path.to_owned()) };
    for (name, value) in fields {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        leaves(value, &path, all);
    }
}
