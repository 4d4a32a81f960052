//! Policy rules as netlink messages, both ways: what is written here reads back the same. `netlink-packet-route` writes.

use ipnet::IpNet;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::route::RouteProtocol;
use netlink_packet_route::rule::{self as packet, RuleAttribute, RuleFlags, RuleHeader, RuleMessage, RulePortRange};
use nix::libc;

use super::routing::{family_number, family_of};
use crate::model::facts::{Family, Rule, RuleAction};
use crate::wire::{self, Message, Received, address, attributes_after, lossy, number};

/// Length of `struct fib_rule_hdr`.
const FIXED: usize = 12;
const FIB_RULE_INVERT: u32 = 2;
const FR_ACT_TO_TBL: u8 = 1;
const FR_ACT_GOTO: u8 = 2;
const FR_ACT_NOP: u8 = 3;
const FR_ACT_BLACKHOLE: u8 = 6;
const FR_ACT_UNREACHABLE: u8 = 7;
const FR_ACT_PROHIBIT: u8 = 8;
const FRA_DST: u16 = 1;
const FRA_SRC: u16 = 2;
const FRA_IIFNAME: u16 = 3;
const FRA_GOTO: u16 = 4;
const FRA_PRIORITY: u16 = 6;
const FRA_FWMARK: u16 = 10;
const FRA_TUN_ID: u16 = 12;
const FRA_SUPPRESS_IFGROUP: u16 = 13;
const FRA_SUPPRESS_PREFIXLEN: u16 = 14;
const FRA_TABLE: u16 = 15;
const FRA_FWMASK: u16 = 16;
const FRA_OIFNAME: u16 = 17;
const FRA_L3MDEV: u16 = 19;
const FRA_UID_RANGE: u16 = 20;
const FRA_PROTOCOL: u16 = 21;
const FRA_IP_PROTO: u16 = 22;
const FRA_SPORT_RANGE: u16 = 23;
/// Destination ports, and whatever later kernels select by.
const FRA_DPORT_RANGE: u16 = 24;
/// "No such suppressor".
const NONE: u32 = u32::MAX;

/// The message that asks for all policy rules of a family.
pub fn dump(family: Family) -> Message {
    let mut head = [0; FIXED];
    head[0] = family_number(family);
    Message::new(libc::RTM_GETRULE, wire::flags::DUMP, &head)
}

/// Reads `RTM_NEWRULE` and `RTM_DELRULE`.
pub fn rule(message: &Received<'_>) -> Option<Rule> {
    let head: &[u8; FIXED] = message.payload.get(..FIXED)?.try_into().ok()?;
    let [family, to_length, from_length, type_of_service, table, _, _, action, flags @ ..] = *head;
    let mut rule = Rule {
        not: u32::from_ne_bytes(flags) & FIB_RULE_INVERT != 0,
        other: type_of_service != 0,
        ..Rule::new(family_of(family)?, 0, u32::from(table))
    };
    let mut goto = 0;
    for (kind, value) in attributes_after(message.payload, FIXED) {
        match kind {
            FRA_PRIORITY => rule.preference = number(value)?,
            FRA_FWMARK => rule.mark = number(value),
            FRA_FWMASK => rule.mask = number(value),
            FRA_SRC => rule.from = IpNet::new(address(value)?, from_length).ok(),
            FRA_DST => rule.to = IpNet::new(address(value)?, to_length).ok(),
            FRA_IIFNAME => rule.iif = Some(lossy(value)),
            FRA_OIFNAME => rule.oif = Some(lossy(value)),
            FRA_L3MDEV => rule.l3mdev = value.first() == Some(&1),
            FRA_GOTO => goto = number(value)?,
            FRA_TABLE => rule.table = number(value)?,
            FRA_SUPPRESS_PREFIXLEN => rule.suppress_prefix_length = number(value).filter(|n| *n != NONE),
            FRA_SUPPRESS_IFGROUP => rule.suppress_group = number(value).filter(|n| *n != NONE),
            FRA_PROTOCOL => rule.protocol = value.first().copied().unwrap_or_default(),
            FRA_IP_PROTO => (rule.other, rule.ip_protocol) = (true, value.first().copied()),
            FRA_SPORT_RANGE => (rule.other, rule.source_ports) = (true, range(value)),
            FRA_TUN_ID | FRA_UID_RANGE | FRA_DPORT_RANGE.. => rule.other = true,
            _ => {}
        }
    }
    rule.action = match action {
        FR_ACT_TO_TBL => RuleAction::Table,
        FR_ACT_GOTO => RuleAction::Goto(goto),
        FR_ACT_NOP => RuleAction::Nop,
        FR_ACT_BLACKHOLE => RuleAction::Blackhole,
        FR_ACT_UNREACHABLE => RuleAction::Unreachable,
        FR_ACT_PROHIBIT => RuleAction::Prohibit,
        other => RuleAction::Other(other),
    };
    if rule.action != RuleAction::Table || rule.l3mdev {
        rule.table = 0;
    }
    Some(rule)
}

/// `struct fib_rule_port_range`.
fn range(value: &[u8]) -> Option<(u16, u16)> {
    let port = |at: usize| Some(u16::from_ne_bytes(*value.get(at..)?.first_chunk()?));
    Some((port(0)?, port(2)?))
}

/// Writes a policy rule, to be added or (with `RTM_DELRULE`) to be taken away. What it selects by and was not read is not written.
pub fn write(kind: u16, flags: u16, rule: &Rule) -> Message {
    let length = |net: Option<IpNet>| net.map_or(0, |net| net.prefix_len());
    let mut message = RuleMessage::default();
    message.header = RuleHeader {
        family: AddressFamily::from(family_number(rule.family)),
        dst_len: length(rule.to),
        src_len: length(rule.from),
        action: packet::RuleAction::from(number_of(rule.action)),
        flags: if rule.not { RuleFlags::Invert } else { RuleFlags::empty() },
        ..RuleHeader::default()
    };
    let attributes = &mut message.attributes;
    attributes.push(RuleAttribute::Priority(rule.preference));
    attributes.push(RuleAttribute::Protocol(RouteProtocol::from(rule.protocol)));
    attributes.extend(rule.from.map(|net| RuleAttribute::Source(net.network())));
    attributes.extend(rule.to.map(|net| RuleAttribute::Destination(net.network())));
    attributes.extend(rule.iif.clone().map(RuleAttribute::Iifname));
    attributes.extend(rule.oif.clone().map(RuleAttribute::Oifname));
    attributes.extend(rule.l3mdev.then_some(RuleAttribute::L3MDev(true)));
    attributes.extend(Some(rule.table).filter(|table| *table != 0).map(RuleAttribute::Table));
    if let RuleAction::Goto(preference) = rule.action {
        attributes.push(RuleAttribute::Goto(preference));
    }
    attributes.extend(rule.mark.map(RuleAttribute::FwMark));
    attributes.extend(rule.mask.map(RuleAttribute::FwMask));
    attributes.extend(rule.suppress_prefix_length.map(RuleAttribute::SuppressPrefixLen));
    attributes.extend(rule.suppress_group.map(RuleAttribute::SuppressIfGroup));
    attributes.extend(rule.ip_protocol.map(|number| RuleAttribute::IpProtocol(number.into())));
    attributes.extend(rule.source_ports.map(|(start, end)| RuleAttribute::SourcePortRange(RulePortRange { start, end })));
    super::message(kind, flags, &message)
}

fn number_of(action: RuleAction) -> u8 {
    match action {
        RuleAction::Table => FR_ACT_TO_TBL,
        RuleAction::Goto(_) => FR_ACT_GOTO,
        RuleAction::Nop => FR_ACT_NOP,
        RuleAction::Blackhole => FR_ACT_BLACKHOLE,
        RuleAction::Unreachable => FR_ACT_UNREACHABLE,
        RuleAction::Prohibit => FR_ACT_PROHIBIT,
        RuleAction::Other(other) => other,
    }
}
