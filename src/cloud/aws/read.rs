//! EC2's answers: XML to the model's types. What is not known is passed over.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use serde::Deserialize;

use super::body::{Body, parse};
use crate::model::call::Answer;
use crate::model::facts::{Association, DefaultRoute, Elastic, Nic, NicAddress, Subnet, Tags, Target};
use crate::provider::Error;

/// EC2's lists are elements `item`.
#[derive(Deserialize)]
#[serde(bound = "T: Deserialize<'de>")]
struct Set<T> {
    #[serde(default = "Vec::new")]
    item: Vec<T>,
}

impl<T> Default for Set<T> {
    fn default() -> Self {
        Self { item: Vec::new() }
    }
}

#[derive(Deserialize)]
struct Tag {
    key: String,
    #[serde(default)]
    value: String,
}

fn tags(set: Set<Tag>) -> Tags {
    set.item.into_iter().map(|tag| (tag.key, tag.value)).collect()
}

/// An element without text is a value that is not there.
fn text(value: Option<String>) -> Option<String> {
    value.filter(|text| !text.is_empty())
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct NetworkInterfaces {
    #[serde(default)]
    network_interface_set: Set<NetworkInterface>,
    next_token: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct NetworkInterface {
    network_interface_id: String,
    #[serde(default)]
    subnet_id: String,
    source_dest_check: Option<bool>,
    attachment: Option<Attachment>,
    #[serde(default)]
    private_ip_addresses_set: Set<PrivateAddress>,
    #[serde(default)]
    ipv4_prefix_set: Set<Prefix>,
    #[serde(default)]
    tag_set: Set<Tag>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Attachment {
    instance_id: Option<String>,
    device_index: Option<u32>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PrivateAddress {
    private_ip_address: Ipv4Addr,
    association: Option<PublicAddress>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PublicAddress {
    public_ip: Option<String>,
}

#[derive(Deserialize)]
struct Prefix {}

/// The network interfaces, and where the next page begins.
pub fn network_interfaces(body: &Body) -> Result<(Vec<Nic>, Option<String>), Error> {
    let NetworkInterfaces { network_interface_set, next_token } = parse(body)?;
    let nic = |item: NetworkInterface| {
        let address = |held: PrivateAddress| NicAddress {
            address: held.private_ip_address,
            public: held.association.and_then(|it| it.public_ip?.parse().ok()),
        };
        Nic {
            id: item.network_interface_id,
            subnet: Subnet { id: item.subnet_id, range: None },
            attachment: item.attachment.and_then(|it| text(it.instance_id).zip(it.device_index)),
            addresses: item.private_ip_addresses_set.item.into_iter().map(address).collect(),
            prefixes: item.ipv4_prefix_set.item.len(),
            source_dest_check: item.source_dest_check.unwrap_or(true),
            tags: tags(item.tag_set),
        }
    };
    Ok((network_interface_set.item.into_iter().map(nic).collect(), text(next_token)))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Subnets {
    #[serde(default)]
    subnet_set: Set<SubnetItem>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SubnetItem {
    subnet_id: String,
    cidr_block: String,
}

/// The subnets with their ranges.
pub fn subnets(body: &Body) -> Result<Vec<Subnet>, Error> {
    let subnets: Subnets = parse(body)?;
    let range = |cidr: &str| cidr.parse::<ipnet::Ipv4Net>().ok().map(|net| (net.network(), net.broadcast()));
    Ok(subnets.subnet_set.item.into_iter().map(|item| Subnet { range: range(&item.cidr_block), id: item.subnet_id }).collect())
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Addresses {
    #[serde(default)]
    addresses_set: Set<Address>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Address {
    allocation_id: Option<String>,
    /// One of a Wavelength zone has a carrier's address instead.
    public_ip: Option<String>,
    association_id: Option<String>,
    network_interface_id: Option<String>,
    private_ip_address: Option<String>,
    #[serde(default)]
    tag_set: Set<Tag>,
}

/// The elastic addresses.
pub fn addresses(body: &Body) -> Result<Vec<Elastic>, Error> {
    let addresses: Addresses = parse(body)?;
    let elastic = |item: Address| {
        let association = text(item.association_id).map(|id| Association {
            id,
            nic: text(item.network_interface_id),
            private: item.private_ip_address.and_then(|text| text.parse().ok()),
        });
        Some(Elastic { id: text(item.allocation_id)?, public: item.public_ip?.parse().ok()?, association, tags: tags(item.tag_set) })
    };
    Ok(addresses.addresses_set.item.into_iter().filter_map(elastic).collect())
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RouteTables {
    #[serde(default)]
    route_table_set: Set<RouteTable>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RouteTable {
    route_table_id: String,
    #[serde(default)]
    route_set: Set<Route>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Route {
    destination_cidr_block: Option<String>,
    state: Option<String>,
    network_interface_id: Option<String>,
    gateway_id: Option<String>,
    nat_gateway_id: Option<String>,
    transit_gateway_id: Option<String>,
    vpc_peering_connection_id: Option<String>,
    instance_id: Option<String>,
}

/// The default route of each route table.
pub fn route_tables(body: &Body) -> Result<BTreeMap<String, DefaultRoute>, Error> {
    let tables: RouteTables = parse(body)?;
    let default = |routes: Set<Route>| {
        let route = routes.item.into_iter().find(|route| route.destination_cidr_block.as_deref() == Some("0.0.0.0/0"));
        let Some(route) = route else { return DefaultRoute { target: None, alive: false } };
        let alive = route.state.as_deref() != Some("blackhole");
        let target = text(route.network_interface_id).map(Target::Nic);
        let target = target.or_else(|| text(route.nat_gateway_id).map(Target::NatGateway));
        let target = target.or_else(|| text(route.transit_gateway_id).map(Target::TransitGateway));
        let target = target.or_else(|| text(route.gateway_id).map(Target::Gateway));
        let other =
            text(route.vpc_peering_connection_id).or_else(|| text(route.instance_id)).unwrap_or_else(|| "another target".to_owned());
        DefaultRoute { target: Some(target.unwrap_or(Target::Other(other))), alive }
    };
    Ok(tables.route_table_set.item.into_iter().map(|table| (table.route_table_id, default(table.route_set))).collect())
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Reservations {
    #[serde(default)]
    reservation_set: Set<Reservation>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Reservation {
    #[serde(default)]
    instances_set: Set<Instance>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Instance {
    instance_type: Option<String>,
}

/// The type of the one instance that was asked for.
pub fn instance_type(body: &Body) -> Result<Option<String>, Error> {
    let reservations: Reservations = parse(body)?;
    let mut instances = reservations.reservation_set.item.into_iter().flat_map(|reservation| reservation.instances_set.item);
    Ok(instances.find_map(|instance| text(instance.instance_type)))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct InstanceTypes {
    #[serde(default)]
    instance_type_set: Set<InstanceType>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct InstanceType {
    network_info: Option<NetworkInfo>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct NetworkInfo {
    ipv4_addresses_per_interface: Option<usize>,
}

/// How many IPv4 addresses the one instance type that was asked for allows for each network interface.
pub fn addresses_per_interface(body: &Body) -> Result<Option<usize>, Error> {
    let types: InstanceTypes = parse(body)?;
    Ok(types.instance_type_set.item.into_iter().find_map(|item| item.network_info?.ipv4_addresses_per_interface))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AccountAttributes {
    #[serde(default)]
    account_attribute_set: Set<AccountAttribute>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AccountAttribute {
    attribute_name: String,
    #[serde(default)]
    attribute_value_set: Set<AttributeValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AttributeValue {
    attribute_value: String,
}

/// How many elastic addresses the account may have.
pub fn elastic_limit(body: &Body) -> Result<Option<usize>, Error> {
    let attributes: AccountAttributes = parse(body)?;
    let attribute = attributes.account_attribute_set.item.into_iter().find(|it| it.attribute_name == "vpc-max-elastic-ips");
    Ok(attribute.and_then(|it| it.attribute_value_set.item.into_iter().find_map(|value| value.attribute_value.parse().ok())))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Allocated {
    allocation_id: String,
    public_ip: Ipv4Addr,
}

/// The new elastic address.
pub fn allocated(body: &Body) -> Result<Answer, Error> {
    let Allocated { allocation_id, public_ip } = parse(body)?;
    Ok(Answer::Allocated { id: allocation_id, public: public_ip })
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Associated {
    association_id: String,
}

/// The new association.
pub fn associated(body: &Body) -> Result<Answer, Error> {
    let Associated { association_id } = parse(body)?;
    Ok(Answer::Associated { association: association_id })
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Failure {
    // EC2 wraps errors into a list, STS does not.
    errors: Option<Failures>,
    error: Option<Fault>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Failures {
    error: Fault,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Fault {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

/// The code and message of an error. `None`: the body is none of EC2's or STS's.
pub fn fault(text: &str) -> Option<(String, String)> {
    let failure: Failure = quick_xml::de::from_str(text).ok()?;
    let fault = failure.errors.map(|errors| errors.error).or(failure.error)?;
    Some((fault.code, fault.message))
}

/// What STS lends.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct WebIdentity {
    pub assume_role_with_web_identity_result: WebIdentityResult,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct WebIdentityResult {
    pub credentials: Lent,
}

/// Credentials as STS, the metadata service and container agents write them.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Lent {
    pub access_key_id: String,
    pub secret_access_key: String,
    #[serde(alias = "Token")]
    pub session_token: Option<String>,
    pub expiration: Option<String>,
}

/// The credentials of STS's answer.
pub fn web_identity(body: &Body) -> Result<Lent, Error> {
    Ok(parse::<WebIdentity>(body)?.assume_role_with_web_identity_result.credentials)
}
