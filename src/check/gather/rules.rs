//! Policy rules with everything that they select by, beyond what egressd itself ever writes.

use ipnet::IpNet;

use crate::check::facts::{Action, PolicyRule};
use crate::netlink::{Received, address, attributes_after, routing, text};

/// Length of `struct fib_rule_hdr`.
const FIXED: usize = 12;
const FIB_RULE_INVERT: u32 = 2;
const FR_ACT_TO_TBL: u8 = 1;
const FR_ACT_GOTO: u8 = 2;
const FR_ACT_NOP: u8 = 3;
const FRA_DST: u16 = 1;
const FRA_IIFNAME: u16 = 3;
const FRA_TUN_ID: u16 = 12;
const FRA_OIFNAME: u16 = 17;
const FRA_L3MDEV: u16 = 19;
const FRA_UID_RANGE: u16 = 20;
const FRA_IP_PROTO: u16 = 22;
/// Ports, and whatever later kernels select by.
const FRA_SPORT_RANGE: u16 = 23;

/// Reads `RTM_NEWRULE`.
pub fn read(message: &Received<'_>) -> Option<PolicyRule> {
    let head: &[u8; FIXED] = message.payload.get(..FIXED)?.try_into().ok()?;
    let [_, to_length, _, type_of_service, _, _, _, action, flags @ ..] = *head;
    let mut read = PolicyRule {
        rule: routing::rule(message)?,
        inverted: u32::from_ne_bytes(flags) & FIB_RULE_INVERT != 0,
        action: match action {
            FR_ACT_TO_TBL => Action::Lookup,
            FR_ACT_GOTO => Action::Goto,
            FR_ACT_NOP => Action::Nothing,
            _ => Action::Refuse,
        },
        to: None,
        input: None,
        output: None,
        of_vrfs: false,
        otherwise: type_of_service != 0,
    };
    for (kind, value) in attributes_after(message.payload, FIXED) {
        match kind {
            FRA_DST => read.to = IpNet::new(address(value)?, to_length).ok(),
            FRA_IIFNAME => read.input = Some(text(value)),
            FRA_OIFNAME => read.output = Some(text(value)),
            FRA_L3MDEV => read.of_vrfs = value.first() == Some(&1),
            FRA_TUN_ID | FRA_UID_RANGE | FRA_IP_PROTO | FRA_SPORT_RANGE.. => read.otherwise = true,
            _ => {}
        }
    }
    Some(read)
}
