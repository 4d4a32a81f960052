//! Amazon EC2 by its Query API: a dozen calls, signed by AWS's own signer (`aws-sigv4`).
//!
//! The whole client (`aws-sdk-ec2`) is 1.24 million lines of generated source and takes eight minutes and eight gigabytes to build, so the few
//! calls are written here; the tests check each against the model of the API that AWS publishes (botocore's).

mod body;
mod client;
mod credentials;
mod http;
pub mod policy;
mod query;
mod read;
mod request;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use egressd::model::cloud::{CloudPool, ElasticAddresses, Interface};

use crate::model::call::{Answer, Call};
use crate::model::facts::{DefaultRoute, Elastic, Facts, Limits, Nic, Subnet, Target};
use crate::model::{interface, tags};
use crate::provider::{Error, Provider};
use crate::stop::Stop;
use client::Client;
use query::Query;

/// Pages of one answer: each has up to a thousand network interfaces, and those that are asked for are a few.
const MAX_PAGES: usize = 100;
/// Values of one filter, by EC2's limit.
const MAX_VALUES: usize = 200;

/// Amazon EC2, for pools of any region.
pub struct Aws {
    client: Client,
    /// Of pools that name none; asked of the instance once.
    region: Option<String>,
    /// This instance's id, asked once.
    instance: Option<String>,
    /// Ranges of subnets never change.
    subnets: BTreeMap<String, Subnet>,
}

impl Aws {
    /// `region`: of pools that name none; this instance's when not given. Told to stop it makes no call again.
    ///
    /// # Errors
    /// When an address of the environment (`AWS_ENDPOINT_URL`) cannot be used, or the machine has no certificates.
    pub fn new(region: Option<String>, stop: Stop) -> anyhow::Result<Self> {
        Ok(Self { client: Client::new(stop)?, region, instance: None, subnets: BTreeMap::new() })
    }

    /// The network interfaces that bear the ledger of a pool.
    ///
    /// # Errors
    /// When the API does not say.
    pub async fn interfaces_of(&mut self, pool: &str, region: Option<&str>) -> Result<Vec<Nic>, Error> {
        let region = self.region(region).await?;
        let key = format!("{}{pool}", tags::LEDGER);
        self.network_interfaces(&region, query::filter("tag-key", [key])).await
    }

    /// What is left at a pool's network interface; where that is gone, the elastic addresses that are for it.
    ///
    /// # Errors
    /// When the API does not say.
    pub async fn left(&mut self, pool: &CloudPool) -> Result<Facts, Error> {
        match (self.read(pool).await, &pool.aws.interface) {
            (Err(Error::Interface(_)), Interface::Id(id)) => {
                let region = self.region(pool.aws.region.as_deref()).await?;
                let elastics = read::addresses(&self.client.call(&region, "DescribeAddresses", &Query::new()).await?)?;
                let nic = Nic { id: id.clone(), ..Nic::default() };
                Ok(Facts { nic, elastics, gone: BTreeSet::new(), tables: BTreeMap::new(), limits: None })
            }
            (read, _) => read,
        }
    }

    async fn region(&mut self, named: Option<&str>) -> Result<String, Error> {
        if let Some(region) = named.or(self.region.as_deref()) {
            return Ok(region.to_owned());
        }
        let region = self.client.instance("placement/region").await.map_err(|error| {
            Error::Interface(format!(
                "no region is given, and the instance metadata did not have it ({error}); set `spec.cloud.aws.region`, --region or AWS_REGION"
            ))
        })?;
        self.region = Some(region.clone());
        Ok(region)
    }

    /// This instance's id.
    ///
    /// # Errors
    /// When the metadata service does not say.
    pub async fn instance(&mut self) -> Result<String, Error> {
        if let Some(instance) = &self.instance {
            return Ok(instance.clone());
        }
        let instance = self.client.instance("instance-id").await.map_err(|error| {
            Error::Interface(format!(
                "no network interface is given, and the instance metadata did not name this instance ({error}); set `spec.cloud.aws.networkInterface`"
            ))
        })?;
        self.instance = Some(instance.clone());
        Ok(instance)
    }

    async fn network_interfaces(&mut self, region: &str, query: Query) -> Result<Vec<Nic>, Error> {
        const ACTION: &str = "DescribeNetworkInterfaces";
        let mut nics = Vec::new();
        let mut page = query.clone();
        for number in 1.. {
            let (found, next) = read::network_interfaces(&self.client.call(region, ACTION, &page).await?)?;
            nics.extend(found);
            let Some(next) = next else { break };
            if number == MAX_PAGES {
                return Err(Error::Unanswered { action: ACTION, message: format!("it has no end after {MAX_PAGES} pages") });
            }
            page = query.clone();
            page.push(("NextToken".to_owned(), next));
        }
        let unknown: Vec<String> = nics.iter().map(|nic| nic.subnet.id.clone()).filter(|id| !self.subnets.contains_key(id)).collect();
        if !unknown.is_empty() {
            let answer = self.client.call(region, "DescribeSubnets", &query::filter("subnet-id", unknown)).await?;
            self.subnets.extend(read::subnets(&answer)?.into_iter().map(|subnet| (subnet.id.clone(), subnet)));
        }
        for nic in &mut nics {
            nic.subnet = self.subnets.get(&nic.subnet.id).cloned().unwrap_or_else(|| nic.subnet.clone());
        }
        Ok(nics)
    }

    /// Those of these network interfaces that there are.
    async fn existing(&mut self, region: &str, ids: BTreeSet<String>) -> Result<BTreeSet<String>, Error> {
        if ids.is_empty() {
            return Ok(ids);
        }
        let nics = self.network_interfaces(region, query::filter("network-interface-id", ids)).await?;
        Ok(nics.into_iter().map(|nic| nic.id).collect())
    }

    /// The network interfaces that elastic addresses of the pool are for, lead nowhere, and are not there.
    async fn gone(&mut self, region: &str, pool: &str, nic: &Nic, elastics: &[Elastic]) -> Result<BTreeSet<String>, Error> {
        let idle = elastics.iter().filter(|elastic| elastic.association.is_none());
        let others = idle.filter_map(tags::claim).filter(|claim| claim.pool == pool && claim.nic != nic.id);
        let named: BTreeSet<String> = others.map(|claim| claim.nic.to_owned()).collect();
        let found = self.existing(region, named.clone()).await?;
        Ok(named.into_iter().filter(|id| !found.contains(id)).collect())
    }

    /// EC2 calls a route to a stopped machine's network interface a black hole, as one to a network interface that is gone.
    async fn find_stopped(&mut self, region: &str, tables: &mut BTreeMap<String, DefaultRoute>) -> Result<(), Error> {
        let dead = tables.values().filter(|route| !route.alive).filter_map(|route| match &route.target {
            Some(Target::Nic(id)) => Some(id.clone()),
            _ => None,
        });
        let stopped = self.existing(region, dead.collect()).await?;
        for route in tables.values_mut() {
            route.alive |= matches!(&route.target, Some(Target::Nic(id)) if stopped.contains(id));
        }
        Ok(())
    }
}

impl Provider for Aws {
    async fn read(&mut self, pool: &CloudPool) -> Result<Facts, Error> {
        let region = self.region(pool.aws.region.as_deref()).await?;
        let query = match &pool.aws.interface {
            Interface::Id(id) => query::filter("network-interface-id", [id.clone()]),
            _ => {
                let instance = match &pool.host {
                    Some(host) => host.instance.clone(),
                    None => self.instance().await?,
                };
                query::filter("attachment.instance-id", [instance])
            }
        };
        let nics = self.network_interfaces(&region, query).await?;
        let nic = interface::choose(pool, &nics).map_err(Error::Interface)?.clone();
        // An account without elastic addresses to come need not allow that they are read.
        let elastics = match &pool.aws.elastic {
            None if !nic.addresses.iter().any(|held| held.public.is_some()) => Vec::new(),
            _ => read::addresses(&self.client.call(&region, "DescribeAddresses", &Query::new()).await?)?,
        };
        let noted = nic.tags.keys().filter_map(|key| key.strip_prefix(tags::ROUTE)).map(str::to_owned);
        let tables: Vec<String> = pool.aws.route_tables.iter().cloned().chain(noted).collect();
        let mut tables = if tables.is_empty() {
            BTreeMap::new()
        } else {
            read::route_tables(&self.client.call(&region, "DescribeRouteTables", &query::filter("route-table-id", tables)).await?)?
        };
        self.find_stopped(&region, &mut tables).await?;
        let gone = self.gone(&region, &pool.name, &nic, &elastics).await?;
        Ok(Facts { nic, elastics, gone, tables, limits: None })
    }

    async fn limits(&mut self, pool: &CloudPool, facts: &Facts, addresses: &[Ipv4Addr]) -> Result<Limits, Error> {
        let region = self.region(pool.aws.region.as_deref()).await?;
        let mut limits = Limits::default();
        if !addresses.is_empty() {
            if let Some((instance, _)) = &facts.nic.attachment {
                let id = vec![("InstanceId.1".to_owned(), instance.clone())];
                if let Some(kind) = read::instance_type(&self.client.call(&region, "DescribeInstances", &id).await?)? {
                    let query = vec![("InstanceType.1".to_owned(), kind.clone())];
                    let most = read::addresses_per_interface(&self.client.call(&region, "DescribeInstanceTypes", &query).await?)?;
                    limits.nic = most.map(|most| (kind, most));
                }
            }
            for some in addresses.chunks(MAX_VALUES) {
                let mut query = query::filter("addresses.private-ip-address", some.iter().map(Ipv4Addr::to_string));
                query.extend(query::nth_filter(2, "subnet-id", [facts.nic.subnet.id.clone()]));
                let others = self.network_interfaces(&region, query).await?;
                let held = others
                    .iter()
                    .filter(|nic| nic.id != facts.nic.id)
                    .flat_map(|nic| nic.addresses.iter().map(|held| (held.address, nic.id.clone())));
                limits.taken.extend(held.filter(|(address, _)| some.contains(address)));
            }
        }
        if pool.aws.elastic == Some(ElasticAddresses::Allocate) {
            let query = vec![("AttributeName.1".to_owned(), "vpc-max-elastic-ips".to_owned())];
            limits.elastic = read::elastic_limit(&self.client.call(&region, "DescribeAccountAttributes", &query).await?)?;
        }
        Ok(limits)
    }

    async fn perform(&mut self, pool: &CloudPool, call: &Call) -> Result<Answer, Error> {
        let region = self.region(pool.aws.region.as_deref()).await?;
        let (action, query) = query::of(call);
        let answer = self.client.call(&region, action, &query).await?;
        match call {
            Call::Allocate { .. } => read::allocated(&answer),
            Call::Associate { .. } => read::associated(&answer),
            _ => body::done(&answer).map(|()| Answer::Done),
        }
    }
}
