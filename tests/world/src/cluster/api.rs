//! etcd and an API server. Alone they are enough for what is only about objects: schemas, admission, roles, thousands of pods.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use serde_json::{Value, json};

use super::{pki::Pki, program};
use crate::{FOLDER, command, netns::Netns, service::Service};

/// The services' networks.
pub const SERVICES: &str = "10.96.0.0/16";
/// The services' IPv6 network.
pub const SERVICES6: &str = "fd10:96::/112";
/// The address of the service `kubernetes`.
pub const KUBERNETES: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);
/// The port of the API server itself.
pub const PORT: u16 = 6443;
const PATIENCE: Duration = Duration::from_secs(60);

/// Which etcd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Etcd {
    /// What `tests/cluster/programs/etcd` names. It has all that watches can ask for.
    Current,
    /// Debian 12's 3.4, with which an API server cannot stream a list as a watch (WatchList).
    Debian,
}

/// A running API server with its etcd; both end when it is dropped.
#[derive(Debug)]
pub struct ApiServer {
    pub(super) netns: Netns,
    pub(super) pki: Pki,
    address: IpAddr,
    folder: PathBuf,
    arguments: Vec<String>,
    server: Service,
    _etcd: Service,
}

/// What an API server is to be like.
pub(super) struct Order {
    pub(super) netns: Netns,
    pub(super) address: IpAddr,
    pub(super) etcd: Etcd,
    pub(super) ipv6: bool,
    /// Whether there is no controller manager, which makes the service account that each pod has otherwise.
    pub(super) bare: bool,
}

impl ApiServer {
    /// Starts one on the scenario's own loopback, with nothing else: no controller, no scheduler, no node.
    pub fn start() -> Self {
        Self::start_with(Etcd::Current)
    }

    /// The same on this etcd.
    pub fn start_with(etcd: Etcd) -> Self {
        let mut api = Self::order(Order { netns: Netns::host(), address: Ipv4Addr::LOCALHOST.into(), etcd, ipv6: false, bare: true });
        api.await_ready();
        api
    }

    /// Starts one and does not wait for it.
    pub(super) fn order(order: Order) -> Self {
        let Order { netns, address, etcd, ipv6, bare } = order;
        let folder = Path::new(FOLDER).join("control");
        // An earlier one of the same scenario may have left its objects.
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).expect("/run is ours");
        let mut addresses = vec![address, Ipv4Addr::LOCALHOST.into(), KUBERNETES.into()];
        if ipv6 {
            addresses.push(Ipv6Addr::new(0xfd10, 0x96, 0, 0, 0, 0, 0, 1).into());
        }
        let pki = Pki::new(folder.join("pki"), &addresses);
        pki.user("admin", "/O=system:masters/CN=admin");
        fs::write(folder.join("audit-policy.json"), audit_policy().to_string()).expect("/run is ours");
        let _etcd = start_etcd(&netns, etcd, &folder);
        let arguments = arguments(&pki, &folder, address, ipv6, bare);
        let server = start(&netns, &arguments);
        Self { netns, pki, address, folder, arguments, server, _etcd }
    }

    /// Path of a kubeconfig with every right.
    pub fn kubeconfig(&self) -> String {
        self.pki.file("admin.kubeconfig")
    }

    /// Makes a user with a certificate, whose subject is `/O=GROUP/CN=NAME`, and returns the path of its kubeconfig.
    pub fn user(&self, name: &str, subject: &str) -> String {
        self.pki.user(name, subject)
    }

    /// Path of a kubeconfig for a service account that exists, with a token of its own as a pod has one. `bound` are options of
    /// `kubectl create token`.
    pub fn service_account(&self, namespace: &str, name: &str, bound: &[&str]) -> String {
        let token = self.kubectl(&[&["create", "token", "-n", namespace, name], bound].concat());
        self.pki.kubeconfig(&format!("{namespace}-{name}"), &json!({ "token": token.trim() }))
    }

    /// Waits until it serves.
    pub fn await_ready(&mut self) {
        let (netns, at) = (self.netns.clone(), SocketAddr::new(self.address, PORT));
        // It listens last of all.
        self.server.wait_until("listening", PATIENCE, || netns.enter(|| TcpStream::connect(at)).is_ok());
        // Everybody may ask for that. kubectl would take ten times as much of the processor that it needs to become ready.
        let client = ["openssl", "s_client", "-quiet", "-connect", &at.to_string()].map(str::to_owned);
        let client: Vec<&str> = client.iter().map(String::as_str).collect();
        let ask = || command::feed(&client, "GET /readyz HTTP/1.0\r\n\r\n");
        self.server.wait_until("ready", PATIENCE, || netns.enter(ask).lines().next().is_some_and(|line| line.contains(" 200 ")));
    }

    /// Ends it with no chance to tidy up.
    pub fn kill(&mut self) {
        self.server.kill();
    }

    /// Starts it again, and waits until it serves.
    pub fn restart(&mut self) {
        self.server = start(&self.netns, &self.arguments);
        self.await_ready();
    }

    /// The audit log so far: one event for each request that was answered.
    pub fn audit(&self) -> Vec<Value> {
        let log = fs::read_to_string(self.folder.join("audit.log")).unwrap_or_default();
        // Its last line may be half written.
        log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }
}

fn start_etcd(netns: &Netns, etcd: Etcd, folder: &Path) -> Service {
    let program = match etcd {
        Etcd::Current => program("etcd"),
        Etcd::Debian => PathBuf::from("/usr/bin/etcd"),
    };
    assert!(program.exists(), "there is no {}: install the package etcd-server", program.display());
    let mut command = Command::new(program);
    command.arg("--data-dir").arg(folder.join("etcd")).args(["--logger", "zap", "--log-level", "warn"]);
    netns.enter(|| Service::start("etcd", command))
}

fn start(netns: &Netns, arguments: &[String]) -> Service {
    let mut command = Command::new(program("kube-apiserver"));
    command.args(arguments);
    netns.enter(|| Service::start("kube-apiserver", command))
}

fn arguments(pki: &Pki, folder: &Path, address: IpAddr, ipv6: bool, bare: bool) -> Vec<String> {
    let services = if ipv6 { format!("{SERVICES},{SERVICES6}") } else { SERVICES.to_owned() };
    let mut arguments = vec![
        "--etcd-servers=http://127.0.0.1:2379".to_owned(),
        format!("--bind-address={address}"),
        format!("--advertise-address={address}"),
        format!("--secure-port={PORT}"),
        format!("--tls-cert-file={}", pki.file("api.crt")),
        format!("--tls-private-key-file={}", pki.file("api.key")),
        format!("--client-ca-file={}", pki.file("ca.crt")),
        "--authorization-mode=Node,RBAC".to_owned(),
        "--enable-admission-plugins=NodeRestriction".to_owned(),
        format!("--service-account-key-file={}", pki.file("sa.pub")),
        format!("--service-account-signing-key-file={}", pki.file("sa.key")),
        format!("--service-account-issuer=https://{address}:{PORT}"),
        "--allow-privileged=true".to_owned(),
        format!("--service-cluster-ip-range={services}"),
        "--kubelet-preferred-address-types=InternalIP".to_owned(),
        format!("--kubelet-client-certificate={}", pki.file("admin.crt")),
        format!("--kubelet-client-key={}", pki.file("admin.key")),
        format!("--audit-policy-file={}", folder.join("audit-policy.json").display()),
        format!("--audit-log-path={}", folder.join("audit.log").display()),
        format!("--cert-dir={}", folder.display()),
    ];
    if bare {
        arguments.push("--disable-admission-plugins=ServiceAccount".to_owned());
    }
    if address.is_loopback() {
        // A loopback address cannot be an endpoint.
        arguments.retain(|argument| !argument.starts_with("--advertise-address"));
        arguments.extend(["--endpoint-reconciler-type=none", "--advertise-address=192.0.2.1"].map(str::to_owned));
    }
    arguments
}

/// Who did what to which resource, as far as it was answered.
fn audit_policy() -> Value {
    json!({
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived"],
        "rules": [{ "level": "Metadata" }],
    })
}
