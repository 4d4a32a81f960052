//! `kubectl egress`, as a user runs it.

use std::process::Command;

use super::support::{Lab, agent, lab, report, says, write};

fn kubectl_egress(lab: &Lab, arguments: &[&str]) -> Result<String, String> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kubectl-egress"));
    let output = command.args(arguments).args(["--kubeconfig", &lab.server.kubeconfig()]).output().expect("it is built");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

pub fn shown() {
    lab(|lab| async move {
        let _agent = agent(&lab.client, "one");
        lab.pool("10.0.0.4", "10.0.0.5").await;
        let crawler = lab.bind("crawler").await;
        write(&lab.nodes(), "n1", report(&crawler, 2, 2)).await;
        lab.until("crawler", |binding| says(binding, "Programmed", "False", "InterfaceDown")).await;
        lab.server.apply(
            r#"{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "namespace": "shop"},
                "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "i"}]}}"#,
        );

        let status = kubectl_egress(&lab, &["status", "-A"]).expect("it may");
        let line = "\nshop       crawler  public  10.0.0.4  1      2          0           2        InterfaceDown\n";
        assert!(status.contains(line) && status.contains("eth1 is down"), "{status}");
        assert_eq!(kubectl_egress(&lab, &["status"]).as_deref(), Ok("No EgressBinding found.\n"), "in the context's namespace");
        let json = kubectl_egress(&lab, &["status", "-n", "shop", "-o", "json"]).expect("it may");
        let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
        assert_eq!(json[0]["status"]["summary"]["failing"], 2);

        let explained = kubectl_egress(&lab, &["explain", "web", "-n", "shop"]).expect("it may");
        assert!(explained.starts_with("pod/shop/web (no address yet)\n  binding   crawler\n"), "{explained}");
        assert!(explained.ends_with("            2 do not: InterfaceDown: eth1 is down\n"), "{explained}");
        let node = kubectl_egress(&lab, &["node", "n1"]).expect("it may");
        assert!(node.contains("0 workloads bound, 2 failing"), "{node}");

        let nowhere = kubectl_egress(&lab, &["node", "n9"]).expect_err("there is none");
        assert_eq!(nowhere, "kubectl egress: node n9 does not report; see kubectl get egressnodes for those that do\n");
        let nobody = kubectl_egress(&lab, &["explain", "nobody", "-n", "shop"]).expect_err("there is none");
        assert_eq!(nobody, "kubectl egress: there is no pod nobody in the namespace shop; see kubectl get pods --all-namespaces\n");
    });
}
