//! The part of an `EgressBinding` that names programs of the host itself.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Programs of this node that match any of what is given; at least one is needed. If several bindings name a program, the one that takes precedence
/// has it, whether it names the user, the control group or the unit; `all` gives way to each of these.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "((has(self.users) && size(self.users) > 0) || (has(self.cgroups) && size(self.cgroups) > 0) || (has(self.systemdUnits) && size(self.systemdUnits) > 0)) != (has(self.all) && self.all)",
    "message": "give users, cgroups or systemdUnits, or all: true by itself"
}]))]
pub struct HostSelector {
    /// Every program of the host that no other binding names: its packets over the main table's default route, from a socket whose address it
    /// has not chosen itself.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub all: bool,
    /// Users of `/etc/passwd` by name, or any user by number (`id -u`): the sockets that they open.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(min = 1, max = 255)))]
    pub users: Vec<String>,
    /// Control groups (version 2) by their path below the hierarchy's root, `/batch`, with all below them: the sockets that are created there. A path
    /// has at most 128 levels.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(min = 1, max = 4096)))]
    pub cgroups: Vec<String>,
    /// Units of the system's systemd by their full name: a service, a slice or a scope. A template, `batch@.service`, means all its instances.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(min = 1, max = 255)))]
    pub systemd_units: Vec<String>,
}
