//! `spec.rate` and `spec.burst`.

use super::super::binding::EgressBindingSpec;
use super::super::values::{self, Faults};
use super::optional;
use crate::model::rate::Rate;

/// How fast the workloads send, if that is said.
pub(super) fn rate(spec: &EgressBindingSpec, faults: &mut Faults) -> Option<Rate> {
    let bytes = optional(faults, || "spec.rate".to_owned(), "20Mbit", spec.rate.as_deref().map(values::rate));
    let burst = optional(faults, || "spec.burst".to_owned(), "256kB", spec.burst.as_deref().map(values::burst));
    if spec.rate.is_none() && spec.burst.is_some() {
        faults.push("spec.burst", || "is given without `rate`; write for instance `rate: 20Mbit`, or leave it out".to_owned());
    }
    if spec.rate.is_some() && spec.host_selector.is_some() {
        faults.push("spec.rate", || {
            "is not for programs of the host: only forwarded packets are limited; leave it out, or run them in a container".to_owned()
        });
    }
    bytes.map(|bytes| Rate { bytes, burst: burst.unwrap_or(0) })
}
