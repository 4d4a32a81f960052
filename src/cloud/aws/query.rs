//! Calls as EC2's Query API has them: names and values of a form. Lists are numbered from 1.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use crate::model::call::Call;
use crate::model::facts::{Tags, Target};

/// Names and values.
pub type Query = Vec<(String, String)>;

/// Where default routes lead to, in a call.
const EVERYWHERE: &str = "0.0.0.0/0";

/// `Filter.1` by a name, for any of these values, each once.
pub fn filter(name: &str, values: impl IntoIterator<Item = String>) -> Query {
    nth_filter(1, name, values)
}

/// The filter of this number.
pub fn nth_filter(number: usize, name: &str, values: impl IntoIterator<Item = String>) -> Query {
    let mut query = vec![(format!("Filter.{number}.Name"), name.to_owned())];
    query.extend(numbered(&format!("Filter.{number}.Value"), values.into_iter().collect::<BTreeSet<_>>()));
    query
}

/// The action and its parameters.
pub fn of(call: &Call) -> (&'static str, Query) {
    let one = |name: &str, value: &str| vec![(name.to_owned(), value.to_owned())];
    match call {
        Call::Tag { id, tags } => ("CreateTags", [one("ResourceId.1", id), self::tags("Tag", tags)].concat()),
        Call::Untag { id, keys } => {
            let keys = keys.iter().enumerate().map(|(at, key)| (format!("Tag.{}.Key", at + 1), key.clone()));
            ("DeleteTags", one("ResourceId.1", id).into_iter().chain(keys).collect())
        }
        Call::Assign { nic, addresses } => {
            let query = [one("NetworkInterfaceId", nic), self::addresses(addresses), one("AllowReassignment", "false")];
            ("AssignPrivateIpAddresses", query.concat())
        }
        Call::Unassign { nic, addresses } => {
            ("UnassignPrivateIpAddresses", [one("NetworkInterfaceId", nic), self::addresses(addresses)].concat())
        }
        Call::Allocate { tags } => {
            let tags = self::tags("TagSpecification.1.Tag", tags);
            ("AllocateAddress", [one("Domain", "vpc"), one("TagSpecification.1.ResourceType", "elastic-ip"), tags].concat())
        }
        Call::Release { id } => ("ReleaseAddress", one("AllocationId", id)),
        Call::Associate { id, nic, private } => {
            let query = [
                one("AllocationId", id),
                one("NetworkInterfaceId", nic),
                one("PrivateIpAddress", &private.to_string()),
                // The default of old accounts is to take the address away from whoever has it.
                one("AllowReassociation", "false"),
            ];
            ("AssociateAddress", query.concat())
        }
        Call::Disassociate { association, .. } => ("DisassociateAddress", one("AssociationId", association)),
        Call::Check { nic, on } => {
            let on = if *on { "true" } else { "false" };
            ("ModifyNetworkInterfaceAttribute", [one("NetworkInterfaceId", nic), one("SourceDestCheck.Value", on)].concat())
        }
        Call::CreateRoute { table, target } => ("CreateRoute", route(table, Some(target))),
        Call::ReplaceRoute { table, target } => ("ReplaceRoute", route(table, Some(target))),
        Call::DeleteRoute { table } => ("DeleteRoute", route(table, None)),
    }
}

fn addresses(addresses: &[Ipv4Addr]) -> Query {
    numbered("PrivateIpAddress", addresses.iter().map(Ipv4Addr::to_string))
}

fn numbered(name: &str, values: impl IntoIterator<Item = String>) -> Query {
    values.into_iter().enumerate().map(|(at, value)| (format!("{name}.{}", at + 1), value)).collect()
}

fn tags(name: &str, tags: &Tags) -> Query {
    let both = |(at, (key, value)): (usize, (&String, &String))| {
        let at = at + 1;
        [(format!("{name}.{at}.Key"), key.clone()), (format!("{name}.{at}.Value"), value.clone())]
    };
    tags.iter().enumerate().flat_map(both).collect()
}

fn route(table: &str, target: Option<&Target>) -> Query {
    let mut query = vec![("RouteTableId".to_owned(), table.to_owned()), ("DestinationCidrBlock".to_owned(), EVERYWHERE.to_owned())];
    let name = target.map(|target| match target {
        Target::Nic(_) => "NetworkInterfaceId",
        Target::NatGateway(_) => "NatGatewayId",
        Target::TransitGateway(_) => "TransitGatewayId",
        Target::Gateway(_) | Target::Other(_) => "GatewayId",
    });
    query.extend(name.zip(target).map(|(name, target)| (name.to_owned(), target.id().to_owned())));
    query
}
