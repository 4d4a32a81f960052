//! The `egress.` labels of containers and networks. [`table`] has the grammar; here it is applied to one container or network.

mod inbound;
pub mod label;
pub mod table;

use std::collections::BTreeMap;

use ipnet::IpNet;

pub use self::inbound::publish;
use self::label::{Draft, Effect, Label};
use self::table::LABELS;
use super::nearest::nearest;
use super::schema::listed;
use super::values::{self, Faults, MAX_REPORTED, shown};
use crate::model::binding::{Asked, Assignment, Binding, BindingName, Destination, ExitSpec, Placement, Selector, Source, Traffic};
use crate::model::facts::Container;
use crate::model::field_error::FieldError;
use crate::model::rate::Rate;
use crate::model::served::refuse_mode;

/// All labels of ours begin so.
pub const PREFIX: &str = "egress.";
/// Bytes of a label's value.
pub const MAX_VALUE: usize = 4096;

/// What a container's labels ask for; `None` when none of them begins with [`PREFIX`].
///
/// A container that clearly asked for an exit gets a binding whatever is wrong with its labels, so that it is held and not masqueraded.
pub fn parse(container: &Container) -> Option<Asked> {
    let mut read = Read::of(&container.labels, "belongs on a Docker network, not on a container", |effect| effect != Effect::Network)?;
    let mode = refuse_mode(&container.network_mode);
    let mut placement = placement(&mut read, container, mode.as_ref());
    let binding = if read.asks {
        Some(binding(read, container, mode))
    } else {
        let field = PREFIX.trim_end_matches('.').to_owned();
        placement.errors.extend(read.warnings.into_iter().map(|message| FieldError { field: field.clone(), message }));
        None
    };
    Some(Asked { binding, placement })
}

/// What a Docker network's labels ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkAsked {
    /// `egress.guard`; `None` leaves it to whether a bound container is on the network.
    pub guard: Option<bool>,
    pub errors: Vec<FieldError>,
    pub warnings: Vec<String>,
}

/// Reads the labels of a Docker network.
pub fn parse_network(labels: &BTreeMap<String, String>) -> NetworkAsked {
    match Read::of(labels, "belongs on a container, not on a Docker network", |effect| effect == Effect::Network) {
        Some(read) => NetworkAsked { guard: read.draft.guard, errors: read.errors.finish(), warnings: read.warnings },
        None => NetworkAsked::default(),
    }
}

/// Labels of one object, as far as read.
#[derive(Default)]
struct Read {
    draft: Draft,
    /// Of all labels but those that place the container.
    errors: Faults,
    placement: Faults,
    warnings: Vec<String>,
    /// An exit was asked for, be it by a label whose name has a slip.
    asks: bool,
    /// `egress.ip` is there, good or bad.
    said_ip: bool,
}

impl Read {
    /// `None` when there is no label of ours. `fits` says which labels belong on this kind of object, `misplaced` what to say of the others.
    fn of(labels: &BTreeMap<String, String>, misplaced: &str, fits: impl Fn(Effect) -> bool) -> Option<Self> {
        let mut read = Self::default();
        let mut any = false;
        let mut unsaid = 0;
        for (name, value) in labels.range(PREFIX.to_owned()..).take_while(|(name, _)| name.starts_with(PREFIX)) {
            any = true;
            match table::find(name) {
                Some(label) if fits(label.effect) => read.label(label, value.trim()),
                Some(_) if read.warnings.len() < MAX_REPORTED => read.warnings.push(format!("{name}: {misplaced}")),
                None if read.warnings.len() < MAX_REPORTED => read.unknown(name, &fits),
                _ => unsaid += 1,
            }
        }
        if unsaid > 0 {
            read.warnings.push(format!("{unsaid} more labels that begin with `{PREFIX}` are unknown"));
        }
        any.then_some(read)
    }

    fn label(&mut self, label: &Label, value: &str) {
        self.asks |= label.effect == Effect::Exit;
        self.said_ip |= label.name == "egress.ip";
        let result = match value.len() {
            0 => Err(values::Fault::new("is empty")),
            length if length > MAX_VALUE => {
                Err(values::Fault::new(format!("is {length} bytes long, and {MAX_VALUE} are read")).cure("write fewer entries"))
            }
            _ => (label.read)(&mut self.draft, value),
        };
        if let Err(fault) = result {
            let faults = if label.effect == Effect::Placement { &mut self.placement } else { &mut self.errors };
            faults.push(label.name, || fault.message(label.example));
        }
    }

    fn unknown(&mut self, name: &str, fits: impl Fn(Effect) -> bool) {
        let known = || LABELS.iter().filter(|label| fits(label.effect)).map(|label| label.name);
        let name_shown = shown(name);
        match nearest(name, known()) {
            Some(meant) => {
                self.asks |= table::find(meant).is_some_and(|label| label.effect == Effect::Exit);
                self.warnings.push(format!("{name_shown} is unknown; did you mean `{meant}`?"));
            }
            None => self.warnings.push(format!("{name_shown} is unknown; known are {}", listed(known()))),
        }
    }
}

fn placement(read: &mut Read, container: &Container, mode: Option<&FieldError>) -> Placement {
    let placement = Placement { network: read.draft.network.take(), address: read.draft.address.take(), errors: Vec::new() };
    let mut faults = std::mem::take(&mut read.placement);
    let placed = placement.network.is_some() || placement.address.is_some();
    if let Some(error) = mode.filter(|_| placed) {
        faults.push(&error.field, || error.message.clone());
    } else if placement.address.is_some() && placement.network.is_none() && matches!(container.network_mode.as_str(), "default" | "bridge")
    {
        faults.push("egress.container-ip", || {
            "Docker does not allow a chosen address on its default bridge; add `egress.network` with a network of your own".to_owned()
        });
    }
    if faults.is_empty() { placement } else { Placement { errors: faults.finish(), ..Placement::default() } }
}

fn binding(read: Read, container: &Container, mode: Option<FieldError>) -> Binding {
    let Read { draft, mut errors, mut warnings, said_ip, .. } = read;
    if let Some(error) = mode {
        errors.push(&error.field, || error.message);
    }
    if !said_ip && draft.interface.is_none() {
        errors.push("egress.ip", || {
            "is missing; write the source address that the container is to leave with, for instance `172.31.0.14`, or the NIC whose own address it is (`egress.interface`)".to_owned()
        });
    }
    if !said_ip && draft.assignment == Assignment::Managed {
        errors.push("egress.manage", || {
            "is given without `egress.ip`; add the address that is to be put on the NIC, or leave it out".to_owned()
        });
    }
    if draft.burst.is_some() && draft.rate.is_none() {
        errors.push("egress.burst", || "is given without `egress.rate`; add it, for instance `20Mbit`, or leave this out".to_owned());
    }
    let mut exits = exits(&draft, &mut errors);
    if !said_ip && draft.interface.is_some() {
        exits.extend(values::own_addresses(None).map(|address| draft.exit(address, 1)));
    }
    let inbound = inbound::of(&draft, &exits, &mut errors);
    let to = destinations(&draft, &mut errors);
    warnings.extend(values::idle_families(&exits, &to));
    warnings.extend(values::idle_weights(&exits, draft.spread));
    Binding {
        name: BindingName { source: Source::Label, name: container.name.clone() },
        copy_of: None,
        selector: Selector::Container(container.id.clone()),
        exits,
        spread: draft.spread,
        rate: draft.rate.map(|bytes| Rate { bytes, burst: draft.burst.unwrap_or(0) }),
        inbound,
        pool: None,
        refusal: None,
        traffic: Traffic::new(to, draft.ports),
        when_unavailable: draft.when_unavailable,
        existing_flows: draft.existing_flows,
        priority: draft.priority,
        created: container.created,
        errors: errors.finish(),
        lapsed: false,
        warnings,
    }
}

/// Each address with the interface, and the gateway of its family.
fn exits(draft: &Draft, errors: &mut Faults) -> Vec<ExitSpec> {
    for gateway in &draft.gateways {
        let of_family = || draft.exits.iter().map(|(address, _)| address).filter(|exit| exit.is_ipv4() == gateway.is_ipv4());
        // Without any good exit the error is there already.
        let misfit = draft.exits.first().map(|(address, _)| address).filter(|_| of_family().next().is_none());
        for fault in misfit.into_iter().chain(of_family()).filter_map(|exit| values::check_gateway(*exit, *gateway).err()).take(1) {
            errors.push("egress.gateway", || fault.message("172.31.0.1"));
        }
    }
    draft.exits.iter().map(|(address, weight)| draft.exit(*address, *weight)).collect()
}

/// Each `egress.except` goes to the destinations that have it.
fn destinations(draft: &Draft, errors: &mut Faults) -> Vec<Destination> {
    let within: Vec<IpNet> = match (draft.to.is_empty(), draft.except.is_empty()) {
        (true, true) => Vec::new(),
        (true, false) => values::everywhere().to_vec(),
        (false, _) => draft.to.clone(),
    };
    for except in &draft.except {
        if within.contains(except) {
            errors.push("egress.except", || format!("`{except}` covers all of a destination; remove it from `egress.to` and here"));
        } else if !within.iter().any(|net| net.contains(except)) {
            errors
                .push("egress.except", || format!("`{except}` is inside no destination of `egress.to`, so it excepts nothing; remove it"));
        }
    }
    let excepted = |net: &IpNet| draft.except.iter().filter(|except| net.contains(*except)).copied().collect();
    within.iter().map(|net| Destination { cidr: *net, except: excepted(net) }).collect()
}

#[cfg(test)]
mod tests;
