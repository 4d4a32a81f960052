//! From a `spec` to the model's types, be it of a file or of the API server: every value is parsed here, once.

mod cloud;
mod cluster;
mod exits;
mod health;
mod host;
mod inbound;
mod ipvs;
mod last_resort;
mod lenient;
mod rate;

use ipnet::IpNet;

use super::binding::{ContainerSelector, EgressBindingSpec};
use super::values::{self, Fault, Faults, MAX_ITEMS};
use crate::model::binding::{Binding, BindingName, Compose, Destination, RoutedSource, Selector, Source, Traffic};
use crate::model::field_error::FieldError;
use crate::model::ports::Ports;
pub use cluster::{egress_pool, labels};
use exits::exits;
use inbound::inbound;
pub use lenient::lenient;

/// The binding that `spec` asks for, with what is wrong in its `errors`.
/// `Err` when it does not say who is meant, so that no workload can be held by it.
pub fn binding(name: BindingName, spec: &EgressBindingSpec, created: u64) -> Result<Binding, Vec<FieldError>> {
    let mut faults = Faults::default();
    let selector = match name.source {
        Source::Api => cluster::pods(&name, spec, &mut faults),
        Source::File | Source::Label | Source::Exec => selector(spec, &mut faults),
    };
    let pool = cluster::pool(&name, spec, &mut faults);
    let exits = if pool.is_some() { Vec::new() } else { exits(name.source, spec, &mut faults) };
    let traffic = Traffic::new(destinations(spec, &mut faults), ports(spec, &mut faults));
    let inbound = inbound(&name, spec, &mut faults);
    let rate = rate::rate(spec, &mut faults);
    let errors = faults.finish();
    let Some(selector) = selector else {
        return Err(errors);
    };
    let idle = [values::idle_families(&exits, traffic.to()), values::idle_weights(&exits, spec.spread.into())];
    Ok(Binding {
        name,
        copy_of: None,
        selector,
        warnings: idle.into_iter().flatten().collect(),
        exits,
        spread: spec.spread.into(),
        rate,
        inbound,
        pool,
        lapsed: false,
        refusal: None,
        traffic,
        when_unavailable: spec.when_unavailable.into(),
        existing_flows: spec.existing_flows.into(),
        priority: spec.priority,
        created,
        errors,
    })
}

/// Who is meant, if that can be said. When several kinds are given the first is taken, with an error.
fn selector(spec: &EgressBindingSpec, faults: &mut Faults) -> Option<Selector> {
    let mut given = Vec::new();
    if spec.pod_selector.is_some() {
        faults.push("spec.podSelector", || "pods are the API server's; in a file give `containerSelector`".to_owned());
    }
    if let Some(selector) = &spec.container_selector {
        given.push(("containerSelector", containers("spec.containerSelector", selector, faults)));
    }
    if let Some(addresses) = &spec.addresses {
        given.push(("addresses", routed(addresses, faults)));
    }
    if let Some(namespaces) = &spec.network_namespaces {
        given.push(("networkNamespaces", named(namespaces, faults)));
    }
    if let Some(selector) = &spec.host_selector {
        given.push(("hostSelector", host::programs(selector, faults)));
    }
    let kinds = given.iter().map(|(kind, _)| format!("`{kind}`")).collect::<Vec<_>>().join(" and ");
    match given.len() {
        0 => faults.push("spec", || {
            "selects no workload; give one of `containerSelector`, `addresses`, `networkNamespaces`, `hostSelector`".to_owned()
        }),
        1 => {}
        _ => faults.push("spec", || format!("{kinds} are given; keep one, and write a binding for each of the others")),
    }
    given.into_iter().find_map(|(_, selector)| selector)
}

/// The containers that a selector means; `field` is where it stands.
pub(super) fn containers(field: &str, selector: &ContainerSelector, faults: &mut Faults) -> Option<Selector> {
    let ContainerSelector { names, match_labels, compose } = selector;
    let mut good = Vec::new();
    for (i, name) in names.iter().enumerate() {
        // As `docker ps --format` and inspect show it.
        let name = name.strip_prefix('/').unwrap_or(name);
        take(faults, || format!("{field}.names[{i}]"), "crawler-1", values::docker_name(name), &mut good);
    }
    let compose = compose.as_ref().map(|c| Compose { project: c.project.clone(), service: c.service.clone() });
    if names.is_empty() && match_labels.is_empty() && compose.is_none() {
        faults.push(field, || "is empty and would mean every container; give `names`, `matchLabels` or `compose`".to_owned());
        return None;
    }
    if good.is_empty() && !names.is_empty() {
        return None;
    }
    Some(Selector::Containers { names: good, match_labels: match_labels.clone(), compose })
}

fn routed(addresses: &[super::binding::RoutedSource], faults: &mut Faults) -> Option<Selector> {
    let mut good = Vec::new();
    for (i, source) in addresses.iter().enumerate() {
        let interface =
            optional(faults, || format!("spec.addresses[{i}].interface"), "eth2", source.interface.as_deref().map(values::interface));
        let net = values::cidr(&source.cidr).and_then(values::source).and_then(|net| {
            if net.prefix_len() == 0 && interface.is_none() {
                let everything = Fault::new(format!("`{net}` is every source, this host's neighbours and the internet among them"));
                return Err(everything.cure("name the subnets, or the `interface` that they come in by"));
            }
            Ok(RoutedSource { net, interface })
        });
        take(faults, || format!("spec.addresses[{i}].cidr"), "10.0.0.0/24", net, &mut good);
    }
    if addresses.is_empty() {
        faults.push("spec.addresses", || "is empty; write for instance `[10.0.0.0/24]`".to_owned());
    }
    (!good.is_empty()).then_some(Selector::Addresses(good))
}

fn named(namespaces: &[String], faults: &mut Faults) -> Option<Selector> {
    let mut good = Vec::new();
    for (i, name) in namespaces.iter().enumerate() {
        let wrong = name.contains('/') || matches!(name.as_str(), "" | "." | "..");
        let name = if wrong { Err(Fault::new(format!("{} is not a namespace's name", values::shown(name)))) } else { Ok(name.clone()) };
        take(faults, || format!("spec.networkNamespaces[{i}]"), "blue", name, &mut good);
    }
    if namespaces.is_empty() {
        faults.push("spec.networkNamespaces", || "is empty; write for instance `[blue]`".to_owned());
    }
    (!good.is_empty()).then_some(Selector::Namespaces(good))
}

fn destinations(spec: &EgressBindingSpec, faults: &mut Faults) -> Vec<Destination> {
    let mut all = Vec::new();
    for (i, to) in spec.to.iter().enumerate().take(MAX_ITEMS) {
        let mut nets = Vec::new();
        take(faults, || format!("spec.to[{i}].cidr"), "0.0.0.0/0", values::cidr(&to.cidr), &mut nets);
        let Some(cidr) = nets.pop() else { continue };
        let mut except = Vec::new();
        for (j, text) in to.except.iter().enumerate().take(MAX_ITEMS) {
            let within = values::cidr(text).and_then(|net| inside(net, cidr));
            take(faults, || format!("spec.to[{i}].except[{j}]"), "10.0.0.0/8", within, &mut except);
        }
        all.push(Destination { cidr, except });
    }
    all
}

fn inside(net: IpNet, outer: IpNet) -> Result<IpNet, Fault> {
    if outer == net {
        return Err(Fault::new(format!("`{net}` covers all of its `cidr`")).cure("leave both out, or except less"));
    }
    if outer.contains(&net) {
        return Ok(net);
    }
    Err(Fault::new(format!("`{net}` is not inside `{outer}`, so it excepts nothing"))
        .cure("remove it, or move it to the `cidr` that contains it"))
}

fn ports(spec: &EgressBindingSpec, faults: &mut Faults) -> Vec<Ports> {
    let mut all = Vec::new();
    for (i, range) in spec.ports.iter().enumerate().take(MAX_ITEMS) {
        let last = range.end_port.unwrap_or(range.port);
        let field = || format!("spec.ports[{i}].{}", if range.end_port.is_some() { "endPort" } else { "port" });
        take(faults, field, "443", values::port_range(range.protocol.into(), range.port, last), &mut all);
    }
    values::merge_ports(all)
}

/// Keeps a good value, reports a bad one.
fn take<T>(faults: &mut Faults, field: impl Fn() -> String, example: &str, value: Result<T, Fault>, good: &mut Vec<T>) {
    match value {
        Ok(value) => good.push(value),
        Err(fault) => faults.push(&field(), || fault.message(example)),
    }
}

fn optional<T>(faults: &mut Faults, field: impl Fn() -> String, example: &str, value: Option<Result<T, Fault>>) -> Option<T> {
    let mut good = Vec::new();
    take(faults, field, example, value?, &mut good);
    good.pop()
}
