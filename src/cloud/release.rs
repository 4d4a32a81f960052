//! `egressd-cloud release`.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use egressd::model::cloud::{Aws as Spec, CloudPool, ElasticAddresses, Interface};

use crate::aws::Aws;
use crate::model::answers::supposed;
use crate::model::facts::{Facts, Nic};
use crate::model::release::{self, Kept};
use crate::model::tags;
use crate::provider::{Error, Provider};
use crate::run::{PoolSource, instances, pools};
use crate::stop::Stop;

/// What `egressd-cloud release` was asked for.
#[derive(Clone, Debug)]
pub struct Release {
    pub pool: String,
    pub source: PoolSource,
    pub region: Option<String>,
    /// `None`: the one that bears the pool's tag.
    pub nic: Option<String>,
    /// So long may readings lag behind answers.
    pub window: Duration,
    pub dry_run: bool,
}

/// Gives back what a pool has and no longer asks for, and says which calls that took (or would take).
///
/// # Errors
/// When a call fails, or what is meant cannot be told.
pub async fn release(options: Release, mut told: impl FnMut(String)) -> anyhow::Result<()> {
    let pools = pools(&options.source).await?;
    let mut aws = Aws::new(options.region.clone(), Stop::default())?;
    let named = pools.iter().find(|pool| pool.name == options.pool);
    let region = options.region.clone().or_else(|| named.and_then(|pool| pool.aws.region.clone()));
    let nic = match &options.nic {
        Some(nic) => nic.clone(),
        None => {
            let nics = aws.interfaces_of(&options.pool, region.as_deref()).await?;
            let own = match instances(&options.source).await? {
                Some(nodes) => nodes,
                // Who cannot say which instance it is has none.
                None => aws.instance().await.into_iter().collect(),
            };
            let meant = |nic: &Nic| matches!(named.map(|pool| &pool.aws.interface), Some(Interface::Id(id)) if *id == nic.id);
            one(&options.pool, &nics, |nic| meant(nic) || nic.attachment.as_ref().is_some_and(|(instance, _)| own.contains(instance)))?
        }
    };
    // Elastic addresses are read whatever the pool asked for.
    let elastic = Some(ElasticAddresses::Allocate);
    let spec = Spec { region, interface: Interface::Id(nic.clone()), elastic, forwards: false, route_tables: Vec::new() };
    let pool = CloudPool { name: options.pool.clone(), addresses: Vec::new(), aws: spec, host: None };
    let known = aws.left(&pool).await?;
    let is_there = !known.nic.addresses.is_empty();
    let is_named = |elastic| tags::claim(elastic).is_some_and(|claim| claim.pool == pool.name && claim.nic == nic);
    anyhow::ensure!(
        is_there || known.elastics.iter().any(is_named),
        "there is no network interface {nic}, and no elastic address of the pool {} is for it",
        pool.name
    );
    let kept = if is_there { kept(&mut aws, &options.pool, &pools, &known).await? } else { Kept::default() };
    loop {
        let made = give_back(&mut aws, &pool, &kept, options.dry_run, &mut told).await?;
        if made == 0 || options.dry_run {
            return Ok(());
        }
        // What was done before this began may have been shown late.
        tokio::time::sleep(options.window).await;
    }
}

/// What is still asked of a network interface.
async fn kept(aws: &mut Aws, name: &str, pools: &[Arc<CloudPool>], known: &Facts) -> Result<Kept, Error> {
    let ledger = tags::ledger(&known.nic.tags, name);
    let mut kept = Kept { pools: pools.iter().map(|pool| pool.name.clone()).collect(), ..Kept::default() };
    for pool in pools {
        // One that is found by its instance may be the same.
        if matches!(&pool.aws.interface, Interface::Id(id) if *id != known.nic.id) {
            continue;
        }
        kept.share(pool);
        if pool.name == name {
            let asked = kept.addresses.get_or_insert_default();
            // Other nodes have other addresses of it.
            if pool.host.is_none() || is_of(aws, pool, &known.nic).await? {
                asked.extend(pool.addresses.iter().copied());
            }
            kept.elastic = pool.aws.elastic.is_some();
        } else {
            let shared: BTreeSet<Ipv4Addr> = pool.addresses.iter().copied().filter(|address| ledger.contains(address)).collect();
            if !shared.is_empty() && is_of(aws, pool, &known.nic).await? {
                kept.others.extend(shared.into_iter().map(|address| (address, pool.name.clone())));
            }
        }
    }
    Ok(kept)
}

/// Whether it is this network interface that the pool means.
async fn is_of(aws: &mut Aws, pool: &CloudPool, nic: &Nic) -> Result<bool, Error> {
    Ok(aws.read(pool).await?.nic.id == nic.id)
}

/// Reads once, and makes the calls that are due after that. Returns how many.
async fn give_back(aws: &mut Aws, pool: &CloudPool, kept: &Kept, dry_run: bool, told: &mut impl FnMut(String)) -> anyhow::Result<usize> {
    let mut known = aws.left(pool).await?;
    let mut made = 0;
    loop {
        let plan = release::release(&pool.name, kept, &known);
        let Some(next) = plan.calls.first() else {
            let left: Vec<&str> = plan.problems.iter().map(|problem| problem.message.as_str()).collect();
            anyhow::ensure!(left.is_empty(), "some of it cannot be released: {}", left.join(". "));
            return Ok(made);
        };
        let answer = if dry_run { supposed(&next.call, made) } else { aws.perform(pool, &next.call).await? };
        told(format!("{}: {}", next.call, next.reason));
        known.learn(&next.call, &answer);
        made += 1;
    }
}

/// The network interface that bears the pool's tag. Another machine may have a pool of that name: one that is not `ours` has to be named.
fn one(pool: &str, nics: &[Nic], ours: impl Fn(&Nic) -> bool) -> anyhow::Result<String> {
    match nics {
        [] => anyhow::bail!("no network interface has the tag of a pool {pool}: there is nothing to release, or --region is wrong"),
        [nic] if ours(nic) => Ok(nic.id.clone()),
        [nic] => {
            let machine = nic.attachment.as_ref().map_or_else(|| "no instance".to_owned(), |(instance, _)| format!("instance {instance}"));
            anyhow::bail!(
                "{}, which has a pool {pool}, is attached to {machine}, so it belongs to another machine; name it with --network-interface if you mean it",
                nic.id
            )
        }
        several => {
            let ids: Vec<&str> = several.iter().map(|nic| nic.id.as_str()).collect();
            anyhow::bail!("several network interfaces have a pool {pool}: name one with --network-interface: {}", ids.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_interface_of_another_machine_has_to_be_named() {
        let nic = |id: &str, instance: Option<&str>| {
            let attachment = instance.map(|instance| (instance.to_owned(), 1));
            Nic { id: id.to_owned(), attachment, ..Nic::default() }
        };
        let ours = |nic: &Nic| nic.attachment.as_ref().is_some_and(|(instance, _)| instance == "i-1");
        assert_eq!(one("web", &[nic("eni-1", Some("i-1"))], ours).expect("it is ours"), "eni-1");
        for (nics, words) in [
            (vec![nic("eni-2", Some("i-2"))], "eni-2, which has a pool web, is attached to instance i-2"),
            (vec![nic("eni-3", None)], "attached to no instance"),
            (vec![nic("eni-1", Some("i-1")), nic("eni-2", Some("i-2"))], "several network interfaces have a pool web"),
            (vec![], "no network interface has the tag"),
        ] {
            let error = one("web", &nics, ours).expect_err(words).to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}
