//! `kubectl` and `helm`, and waiting for what objects say.

use std::{process::Command, time::Duration};

use serde_json::Value;

use super::{api::ApiServer, program};
use crate::{FOLDER, command, netns::Netns, status::until_within};

/// How long the cluster may take for anything: many times what it takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(90);
/// Between two looks: each is a program that takes a tenth of a second of a processor.
const PAUSE: Duration = Duration::from_millis(200);

pub(super) fn run(netns: &Netns, kubeconfig: &str, arguments: &[&str], input: &str) -> Result<String, String> {
    let mut kubectl = command(kubeconfig);
    kubectl.args(arguments);
    netns.enter(|| command::finish(kubectl, &[&["kubectl"], arguments].concat(), input))
}

/// `kubectl`, to be given arguments.
pub(super) fn command(kubeconfig: &str) -> Command {
    let mut kubectl = Command::new(program("kubectl"));
    kubectl.env("KUBECONFIG", kubeconfig).env("HOME", FOLDER);
    kubectl
}

impl ApiServer {
    /// Runs `kubectl` with every right, and returns what it prints. Panics when it fails.
    pub fn kubectl(&self, arguments: &[&str]) -> String {
        self.try_kubectl(arguments).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Runs `kubectl` with every right, and returns what it prints, or its failure.
    pub fn try_kubectl(&self, arguments: &[&str]) -> Result<String, String> {
        run(&self.netns, &self.kubeconfig(), arguments, "")
    }

    /// Runs `kubectl` as the user of a kubeconfig.
    pub fn kubectl_as(&self, kubeconfig: &str, arguments: &[&str], input: &str) -> Result<String, String> {
        run(&self.netns, kubeconfig, arguments, input)
    }

    /// Applies manifests. Panics when one is refused.
    pub fn apply(&self, manifests: &str) {
        self.try_apply(manifests).unwrap_or_else(|error| panic!("{error}\n{manifests}"));
    }

    /// Applies manifests; the error is what the API server says.
    pub fn try_apply(&self, manifests: &str) -> Result<String, String> {
        run(&self.netns, &self.kubeconfig(), &["apply", "-f", "-"], manifests)
    }

    /// One object, or a list of them: the arguments of `kubectl get`.
    pub fn get(&self, what: &[&str]) -> Value {
        self.try_get(what).unwrap_or_else(|error| panic!("{error}"))
    }

    /// The same, or why there is none.
    pub fn try_get(&self, what: &[&str]) -> Result<Value, String> {
        let printed = self.try_kubectl(&[&["get", "-o", "json"], what].concat())?;
        serde_json::from_str(&printed).map_err(|error| format!("kubectl get {what:?} printed no JSON ({error}): {printed}"))
    }

    /// Deletes at once what `kubectl delete` is told, and waits until it is gone.
    pub fn delete(&self, what: &[&str]) {
        self.kubectl(&[&["delete", "--now", "--timeout=90s"], what].concat());
    }

    /// Waits until all pods of a Deployment, a DaemonSet or the like are as its present template says, and ready.
    pub fn await_rollout(&self, what: &[&str]) {
        let limit = format!("--timeout={}s", PATIENCE.as_secs());
        self.kubectl(&[&["rollout", "status", &limit], what].concat());
    }

    /// Runs `helm` with every right, and returns what it prints, or its failure.
    pub fn helm(&self, arguments: &[&str]) -> Result<String, String> {
        let mut helm = Command::new(program("helm"));
        helm.args(arguments).env("KUBECONFIG", self.kubeconfig()).env("HOME", FOLDER);
        self.netns.enter(|| command::finish(helm, &[&["helm"], arguments].concat(), ""))
    }
}

/// Waits until it is so, as long as the cluster may take, and returns what there is then. Panics with what is instead.
pub fn until<T>(what: &str, so: impl FnMut() -> Result<T, String>) -> T {
    until_within(PATIENCE, PAUSE, what, so)
}

/// Whether the object's status has the condition, and it is `True`.
pub fn has_condition(object: &Value, condition: &str) -> bool {
    let conditions = object["status"]["conditions"].as_array();
    conditions.into_iter().flatten().any(|one| one["type"] == condition && one["status"] == "True")
}
