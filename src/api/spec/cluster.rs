//! What only the API server's objects say: pods, and pools.

use super::super::binding::{EgressBindingSpec, LabelExpression, LabelOperator, PodSelector};
use super::super::pool::{self, EgressPoolSpec};
use super::super::values::{self, Fault, Faults, MAX_ITEMS};
use super::{cloud, optional, take};
use crate::model::binding::{Assignment, BindingName, PoolRequest, Selector, Source, Wanted};
use crate::model::cloud::AddressReports;
use crate::model::labels::{Demand, LabelSelector, Values};
use crate::model::pool::{Block, MAX_PLACED, Places, Pool};

/// Which pods are meant. An object's other selectors are refused by its schema already, where the definition is of this version.
pub(super) fn pods(name: &BindingName, spec: &EgressBindingSpec, faults: &mut Faults) -> Option<Selector> {
    let foreign = [
        ("containerSelector", spec.container_selector.is_some()),
        ("addresses", spec.addresses.is_some()),
        ("networkNamespaces", spec.network_namespaces.is_some()),
        ("hostSelector", spec.host_selector.is_some()),
    ];
    for (field, _) in foreign.into_iter().filter(|(_, given)| *given) {
        faults.push(&format!("spec.{field}"), || "is for manifest files on a node; in a cluster give `podSelector`".to_owned());
    }
    let Some(selector) = &spec.pod_selector else {
        faults.push("spec.podSelector", || "is missing; write for instance `{matchLabels: {app: crawler}}`".to_owned());
        return None;
    };
    let namespace = name.name.split('/').next().unwrap_or_default().to_owned();
    Some(Selector::Pods { namespace, labels: labels(selector) })
}

/// Which labels pods have to bear.
pub fn labels(selector: &PodSelector) -> LabelSelector {
    let demands = selector.match_expressions.iter().map(demand).collect();
    LabelSelector { equal: selector.match_labels.clone(), demands }
}

fn demand(expression: &LabelExpression) -> Demand {
    let values = expression.values.clone();
    let values = match expression.operator {
        LabelOperator::In => Values::In(values),
        LabelOperator::NotIn => Values::NotIn(values),
        LabelOperator::Exists => Values::Exists,
        LabelOperator::DoesNotExist => Values::DoesNotExist,
    };
    Demand { key: expression.key.clone(), values }
}

pub(super) fn pool(name: &BindingName, spec: &EgressBindingSpec, faults: &mut Faults) -> Option<PoolRequest> {
    let pool = spec.pool.as_ref()?;
    if name.source != Source::Api {
        faults.push("spec.pool", || "pools are the API server's; in a file give `exits`".to_owned());
        return None;
    }
    if !spec.exits.is_empty() {
        faults.push("spec.exits", || "is given beside `pool`; keep one of them".to_owned());
    }
    let wanted = match &pool.addresses {
        Some(addresses) => {
            let mut good = Vec::new();
            for (i, text) in addresses.iter().enumerate() {
                take(faults, || format!("spec.pool.addresses[{i}]"), "172.31.0.14", values::exit_address(text), &mut good);
            }
            if addresses.is_empty() {
                faults.push("spec.pool.addresses", || "is empty; name one, or leave the field out".to_owned());
            }
            Wanted::These(good)
        }
        None => Wanted::Any(usize::try_from(pool.count.unwrap_or(1)).unwrap_or(1)),
    };
    Some(PoolRequest { pool: pool.name.clone(), wanted })
}

/// The pool that `spec` describes, with what is wrong in its `errors`.
pub fn egress_pool(name: &str, generation: i64, spec: &EgressPoolSpec) -> Pool {
    let mut faults = Faults::default();
    let mut blocks = Vec::new();
    for (i, block) in spec.blocks.iter().enumerate() {
        take(&mut faults, || format!("spec.blocks[{i}]"), "{cidr: 172.31.0.16/28}", pool_block(block), &mut blocks);
    }
    if spec.blocks.is_empty() {
        faults.push("spec.blocks", || "is empty; write for instance `[{cidr: 172.31.0.16/28}]`".to_owned());
    }
    let interface = optional(&mut faults, || "spec.interface".to_owned(), "eth1", spec.interface.as_deref().map(values::interface));
    let gateway = optional(&mut faults, || "spec.gateway".to_owned(), "172.31.0.1", spec.gateway.as_deref().map(values::gateway));
    if let Some(fault) = gateway.and_then(|gateway| blocks.iter().find_map(|b| values::check_gateway(b.first(), gateway).err())) {
        faults.push("spec.gateway", || fault.message("172.31.0.1"));
    }
    let mut lent = Vec::new();
    for (i, ports) in spec.inbound_ports.iter().enumerate().take(MAX_ITEMS) {
        let field = if ports.end_port.is_some() { "endPort" } else { "port" };
        let range = values::port_range(ports.protocol.into(), ports.port, ports.end_port.unwrap_or(ports.port));
        take(&mut faults, || format!("spec.inboundPorts[{i}].{field}"), "443", range, &mut lent);
    }
    let assignment = Assignment::from(spec.assignment);
    let size = blocks.iter().map(|block| block.size()).fold(0, u128::saturating_add);
    if assignment != Assignment::Existing && size > MAX_PLACED as u128 {
        faults.push("spec.blocks", || {
            format!("have {size} addresses, and at most {MAX_PLACED} are given to nodes; make them smaller, or several pools of them")
        });
    }
    let aws = cloud::aws(name, spec, &blocks, &mut faults).map(Box::new);
    Pool {
        name: name.to_owned(),
        aws,
        shown: AddressReports::new(),
        generation,
        blocks,
        interface,
        gateway,
        nodes: spec.node_selector.clone(),
        allowed_names: spec.allowed_namespaces.names.iter().cloned().collect(),
        allowed_labels: spec.allowed_namespaces.match_labels.clone(),
        inbound_ports: values::merge_ports(lent),
        assignment,
        places: Places::new(),
        forced: false,
        errors: faults.finish(),
    }
}

fn pool_block(block: &pool::Block) -> Result<Block, Fault> {
    match (&block.cidr, &block.start, &block.end) {
        (Some(cidr), None, None) => values::cidr(cidr).map(Block::of),
        (None, Some(start), Some(end)) => {
            let (first, last) = (values::host_address(start)?, values::host_address(end)?);
            if first.is_ipv4() == last.is_ipv4() && last < first {
                return Err(Fault::new("the range is reversed: end is below start"));
            }
            Block::new(first, last).ok_or_else(|| Fault::new("begins in one family and ends in the other").cure("make a block for each"))
        }
        _ => Err(Fault::new("has to have either `cidr`, or `start` and `end`")),
    }
}
