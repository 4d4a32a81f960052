//! What runs once in a cluster, beside the agents.

use super::*;

#[test]
fn controllers_are_a_deployment_with_an_account_of_their_own_and_no_rights_on_a_node() {
    for values in EVERY_VALUES {
        let objects = rendered(values);
        let deployment = find(&objects, "Deployment", "egressd-controller").expect("it is there");
        let pod = &deployment["spec"]["template"]["spec"];
        let agents = find(&objects, "DaemonSet", "egressd").expect("there are agents");
        assert_ne!(pod["serviceAccountName"], agents["spec"]["template"]["spec"]["serviceAccountName"], "{values}");
        assert_eq!(
            (&pod["hostNetwork"], &pod["volumes"], &pod["securityContext"]["runAsNonRoot"]),
            (&Value::Null, &Value::Null, &json!(true))
        );
        assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault", "{values}");
        let context = &pod["containers"][0]["securityContext"];
        assert_eq!((&context["capabilities"], &context["readOnlyRootFilesystem"]), (&json!({ "drop": ["ALL"] }), &json!(true)), "{values}");
        // The DaemonSet's selector is one label: a controller's pod must not have it.
        let labels = &deployment["spec"]["template"]["metadata"]["labels"];
        assert_ne!(labels["app.kubernetes.io/name"], agents["spec"]["selector"]["matchLabels"]["app.kubernetes.io/name"], "{values}");
        let arguments = strings(&pod["containers"][0]["args"]);
        let raw = strings(&container(&objects)["args"]).contains(&"--allow-raw-exits");
        assert_eq!((arguments.first(), arguments.contains(&"--allow-raw-exits")), (Some(&"controller"), raw), "{values}");
    }
    let usual = rendered(EVERY_VALUES[0]);
    assert_eq!(find(&usual, "Deployment", "egressd-controller").expect("it is there")["spec"]["replicas"], 2);
    assert!(find(&usual, "PodDisruptionBudget", "egressd-controller").is_some());
    let of =
        |objects: &[Value]| find(objects, "Deployment", "egressd-controller").expect("it is there")["spec"]["template"]["spec"].clone();
    let full = rendered("tests/chart/full.yaml");
    assert_eq!(of(&usual)["securityContext"]["runAsUser"], 65532);
    let context = &of(&full)["securityContext"];
    assert_eq!((&context["runAsUser"], &context["fsGroup"]), (&Value::Null, &json!(7)), "the platform's user");
    let pod = &find(&full, "Deployment", "egressd-controller").expect("it is there")["spec"]["template"]["spec"];
    assert_eq!((&pod["serviceAccountName"], &pod["nodeSelector"]["trusted"]), (&json!("leaders"), &json!("yes")));
    assert!(find(&rendered("tests/chart/bare.yaml"), "PodDisruptionBudget", "egressd-controller").is_none(), "one of one may go");
}

/// It has the cloud's credentials, so it is none of the others, and it is there only where somebody asks for it.
#[test]
fn egressd_cloud_is_a_deployment_of_its_own_that_writes_a_part_of_a_status_and_nothing_else() {
    for values in [EVERY_VALUES[0], "tests/chart/bare.yaml", "examples/helm/values.yaml"] {
        assert!(rendered(values).iter().all(|object| object["metadata"]["name"] != "egressd-cloud"), "{values}: nobody asked for it");
    }
    let usual = render(EVERY_VALUES[0], &["--set", "cloud.enabled=true"]).unwrap_or_else(|error| panic!("{error}"));
    let full = rendered("tests/chart/full.yaml");
    for objects in [&usual, &full] {
        let deployment = find(objects, "Deployment", "egressd-cloud").expect("it is asked for");
        let pod = &deployment["spec"]["template"]["spec"];
        let others = [
            &find(objects, "DaemonSet", "egressd").expect("it is there")["spec"]["template"]["spec"]["serviceAccountName"],
            &find(objects, "Deployment", "egressd-controller").expect("it is there")["spec"]["template"]["spec"]["serviceAccountName"],
        ];
        assert!(pod["serviceAccountName"].is_string() && !others.contains(&&pod["serviceAccountName"]), "{pod}");
        assert_eq!((&pod["hostNetwork"], &pod["volumes"]), (&Value::Null, &Value::Null), "it has nothing of a node");
        let container = &pod["containers"][0];
        assert_eq!((&container["command"], &container["image"]), (&json!(["/bin/egressd-cloud"]), &self::container(objects)["image"]));
        assert_eq!(container["securityContext"]["capabilities"], json!({ "drop": ["ALL"] }));
        assert_eq!(strings(&container["args"])[..2], ["run", "--kubernetes"]);
        let labels = &deployment["spec"]["template"]["metadata"]["labels"];
        assert_eq!(labels["app.kubernetes.io/name"], "egressd-cloud", "the DaemonSet's selector is another name");
        let role = find(objects, "ClusterRole", "egressd-cloud").expect("it has one");
        for rule in role["rules"].as_array().expect("rules") {
            let writes = strings(&rule["verbs"]).iter().any(|verb| !["list", "watch"].contains(verb));
            assert!(!writes || rule["resources"] == json!(["egresspools/status"]), "{rule}");
        }
    }
    let pod = &find(&full, "Deployment", "egressd-cloud").expect("it is there")["spec"]["template"]["spec"];
    let arguments = strings(&pod["containers"][0]["args"]);
    for expected in ["--interval-seconds=60", "--region=eu-central-1", "--log-json"] {
        assert!(arguments.contains(&expected), "{expected}: {arguments:?}");
    }
    let account = find(&full, "ServiceAccount", "buyers").expect("it is made");
    let identity = "arn:aws:iam::123456789012:role/egressd-cloud";
    assert_eq!(account["metadata"]["annotations"]["eks.amazonaws.com/role-arn"], identity);
    assert_eq!((&pod["nodeSelector"]["trusted"], &pod["securityContext"]["runAsUser"]), (&json!("yes"), &Value::Null));
    let last = pod["containers"][0]["env"].as_array().and_then(|env| env.last()).expect("variables");
    assert_eq!(last["name"], "AWS_EC2_METADATA_DISABLED");
}

/// It may enter every pod's network, so it is no part of the agent, and it is there only where somebody asks for it.
#[test]
fn the_proxy_has_an_account_of_its_own_that_only_reads_its_objects_and_two_capabilities() {
    for values in [EVERY_VALUES[0], "tests/chart/bare.yaml", "examples/helm/values.yaml"] {
        assert!(rendered(values).iter().all(|object| object["metadata"]["name"] != "egressd-proxy"), "{values}: nobody asked for it");
    }
    let usual = render(EVERY_VALUES[0], &["--set", "proxy.enabled=true"]).unwrap_or_else(|error| panic!("{error}"));
    let full = rendered("tests/chart/full.yaml");
    for (objects, account, address, seconds) in
        [(&usual, "egressd-proxy", "127.0.0.1:9466", (30, 45)), (&full, "openers", "[::]:9998", (5, 20))]
    {
        let proxies = find(objects, "DaemonSet", "egressd-proxy").expect("it is asked for");
        let pod = &proxies["spec"]["template"]["spec"];
        assert_eq!(pod["serviceAccountName"], account);
        assert_ne!(pod["serviceAccountName"], self::pod(objects)["serviceAccountName"]);
        let labels = &proxies["spec"]["template"]["metadata"]["labels"];
        assert_eq!(labels["app.kubernetes.io/name"], "egressd-proxy", "the agents' selector is another name");
        let container = &pod["containers"][0];
        assert_eq!(container["securityContext"], confined(&["SYS_ADMIN", "NET_BIND_SERVICE"]));
        assert_eq!((&pod["hostPID"], &pod["hostIPC"]), (&Value::Null, &Value::Null));
        let mounts = container["volumeMounts"].as_array().expect("mounts");
        assert!(mounts.len() == 3 && mounts.iter().all(|mount| mount["readOnly"] == true), "{mounts:?}");
        let arguments = strings(&container["args"]);
        assert_eq!(arguments[..2], ["proxy", "--kubernetes"]);
        let (drain, grace) = seconds;
        for expected in [format!("--metrics-address={address}"), format!("--drain-seconds={drain}")] {
            assert!(arguments.contains(&expected.as_str()), "{expected}: {arguments:?}");
        }
        assert_eq!(pod["terminationGracePeriodSeconds"], grace);
        let probe = &container["readinessProbe"]["httpGet"];
        assert_eq!(
            (&probe["host"], probe["port"].to_string()),
            (&json!("127.0.0.1"), address.rsplit(':').next().expect("a port").to_owned())
        );
        let role = find(objects, "ClusterRole", "egressd-proxy").expect("it has one");
        let only = json!([{ "apiGroups": ["egressd.dev"], "resources": ["egressproxies"], "verbs": ["list", "watch"] }]);
        assert_eq!(role["rules"], only, "it reads its objects and writes nothing");
        let bound = find(objects, "ClusterRoleBinding", "egressd-proxy").expect("it has it");
        assert_eq!(bound["subjects"][0]["name"], account);
        assert!(objects.iter().all(|object| object["kind"] != "RoleBinding" || object["subjects"][0]["name"] != account), "and no other");
    }
    let without = render(EVERY_VALUES[0], &["--set", "proxy.enabled=true,runtime.socket="]).expect_err("it knows pods by nothing else");
    assert!(without.contains("proxy.enabled needs runtime.socket"), "{without}");
}
