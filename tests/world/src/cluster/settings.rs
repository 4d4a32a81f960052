//! The settings files of a node's programs.

use serde_json::json;

use super::node::{self, CONTAINERD as SOCKET, Proxy};

/// containerd's. Root may lack CAP_SYS_RESOURCE, hence no lower OOM score than its own.
pub(super) const CONTAINERD: &str = r#"version = 3

[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = "localhost/pause:1"

[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = true

  [plugins."io.containerd.cri.v1.runtime".cni]
    bin_dirs = ["/usr/lib/cni"]
    conf_dir = "/etc/cni/net.d"
"#;

/// The CNI bridge plugin with its masquerade, and host ports.
pub(super) fn cni(number: u8, ipv6: bool) -> String {
    let mut ranges = vec![json!([{ "subnet": node::pod_network(number) }])];
    let mut routes = vec![json!({ "dst": "0.0.0.0/0" })];
    if ipv6 {
        ranges.push(json!([{ "subnet": node::pod_network6(number) }]));
        routes.push(json!({ "dst": "::/0" }));
    }
    json!({
        "cniVersion": "1.0.0",
        "name": "pods",
        "plugins": [
            {
                "type": "bridge",
                "bridge": "cni0",
                "isGateway": true,
                "ipMasq": true,
                "hairpinMode": true,
                "ipam": { "type": "host-local", "ranges": ranges, "routes": routes },
            },
            { "type": "portmap", "capabilities": { "portMappings": true } },
        ],
    })
    .to_string()
}

/// kubelet's, with all pods below a control group that goes with the scenario.
pub(super) fn kubelet(authority: &str, cgroup: &str) -> String {
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": { "anonymous": { "enabled": false }, "webhook": { "enabled": true }, "x509": { "clientCAFile": authority } },
        "authorization": { "mode": "Webhook" },
        "containerRuntimeEndpoint": format!("unix://{SOCKET}"),
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": cgroup,
        "cgroupsPerQOS": true,
        "enforceNodeAllocatable": [],
        "evictionHard": {},
        "failCgroupV1": false,
        "failSwapOn": false,
        "imageGCHighThresholdPercent": 100,
        "localStorageCapacityIsolation": false,
        "maxPods": 250,
        "nodeStatusUpdateFrequency": "5s",
        "resolvConf": "",
        "staticPodPath": node::STATIC_PODS,
        "volumePluginDir": "/var/lib/kubelet/volume-plugins",
    })
    .to_string()
}

/// kube-proxy's. It leaves conntrack's limits alone: they are the machine's.
pub(super) fn kube_proxy(kubeconfig: &str, proxy: Proxy, ipv6: bool) -> String {
    let (networks, everywhere) =
        if ipv6 { ("10.244.0.0/16,fd10:244::/48", json!(["0.0.0.0/0", "::/0"])) } else { ("10.244.0.0/16", json!(["0.0.0.0/0"])) };
    json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": { "kubeconfig": kubeconfig },
        "clusterCIDR": networks,
        "conntrack": { "maxPerCore": 0, "min": 0, "tcpCloseWaitTimeout": "0s", "tcpEstablishedTimeout": "0s" },
        "mode": proxy.mode(),
        // A node port is to be reached by each NIC.
        "nodePortAddresses": everywhere,
    })
    .to_string()
}
