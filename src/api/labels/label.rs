//! A label, and what the labels of one container or network say together.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::api::nearest::nearest;
use crate::api::values::{Fault, MAX_ITEMS, shown};
use crate::model::binding::{Assignment, ExistingFlows, ExitSpec, Spread, WhenUnavailable};
use crate::model::health::{AllDown, HealthCheck};
use crate::model::inbound::LastResort;
use crate::model::inbound::{Balance, ClientSource};
use crate::model::ipvs::Scheduler;
use crate::model::ports::Ports;

/// What a label is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Which way the container's traffic leaves: a container that bears one of these asks for an exit.
    Exit,
    /// Where the container is put when it is made.
    Placement,
    /// A Docker network.
    Network,
}

/// Values of the labels of one container or network, as far as they are good.
#[derive(Debug, Default)]
pub struct Draft {
    /// With their weights.
    pub exits: Vec<(IpAddr, u16)>,
    pub spread: Spread,
    /// Bytes a second.
    pub rate: Option<u64>,
    /// Bytes.
    pub burst: Option<u32>,
    pub inbound: InboundDraft,
    pub interface: Option<String>,
    pub gateways: Vec<IpAddr>,
    pub assignment: Assignment,
    pub to: Vec<IpNet>,
    pub except: Vec<IpNet>,
    pub ports: Vec<Ports>,
    pub when_unavailable: WhenUnavailable,
    pub existing_flows: ExistingFlows,
    pub priority: i32,
    pub network: Option<String>,
    pub address: Option<IpAddr>,
    pub guard: Option<bool>,
}

impl Draft {
    /// An address with the interface, and the gateway of its family.
    pub fn exit(&self, address: IpAddr, weight: u16) -> ExitSpec {
        let gateway = self.gateways.iter().copied().find(|gateway| gateway.is_ipv4() == address.is_ipv4());
        ExitSpec { interface: self.interface.clone(), gateway, weight, assignment: self.assignment, ..ExitSpec::new(address) }
    }
}

/// One label.
pub struct Label {
    pub name: &'static str,
    pub effect: Effect,
    pub grammar: &'static str,
    pub meaning: &'static str,
    /// A value that is right; errors show it as the cure when there is no better one.
    pub example: &'static str,
    /// Reads a value, without white space around it, into the draft.
    pub read: fn(&mut Draft, &str) -> Result<(), Fault>,
}

/// What the labels of published ports say, as far as it is good.
#[derive(Debug, Default)]
pub struct InboundDraft {
    pub publish: Vec<Published>,
    pub ipvs: Option<bool>,
    pub balance: Option<Balance>,
    pub scheduler: Option<Scheduler>,
    pub client_source: Option<ClientSource>,
    pub weight: Option<u16>,
    pub health: Option<Arc<HealthCheck>>,
    pub all_down: Option<AllDown>,
    pub last_resort: Vec<LastResort>,
    pub affinity: Option<u32>,
}

/// One entry of `egress.publish`.
#[derive(Clone, Debug, PartialEq)]
pub struct Published {
    pub address: Option<IpAddr>,
    pub ports: Ports,
    pub target: Option<u16>,
}

/// Items between commas, without white space around them; none is empty or given twice.
pub fn list<T: PartialEq>(value: &str, item: impl Fn(&str) -> Result<T, Fault>) -> Result<Vec<T>, Fault> {
    let mut all = Vec::new();
    for text in value.split(',').map(str::trim) {
        if text.is_empty() {
            return Err(Fault::new("has a comma with nothing beside it").cure("remove the comma"));
        }
        if all.len() == MAX_ITEMS {
            return Err(Fault::new(format!("has more than {MAX_ITEMS} entries")).cure("write fewer"));
        }
        let good = item(text)?;
        if all.contains(&good) {
            return Err(Fault::new(format!("{} is given twice", shown(text))).cure("keep one"));
        }
        all.push(good);
    }
    Ok(all)
}

/// One of these words.
pub fn choice<T: Copy, const N: usize>(value: &str, choices: [(&'static str, T); N]) -> Result<T, Fault> {
    let low = value.to_ascii_lowercase();
    if let Some((_, chosen)) = choices.iter().find(|(word, _)| *word == low) {
        return Ok(*chosen);
    }
    let words = choices.map(|(word, _)| word);
    let fault = Fault::new(format!("{} is unknown", shown(value)));
    Err(match nearest(value, words) {
        Some(word) => fault.cure(format!("did you mean `{word}`?")),
        None => fault.cure(format!("write {}", words.map(|word| format!("`{word}`")).join(" or "))),
    })
}
