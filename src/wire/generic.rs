//! Generic netlink: families that have their numbers from the kernel when they come (`include/uapi/linux/genetlink.h`).

use super::{Message, Received, attributes_after, find, flags};

/// Length of `struct genlmsghdr`.
const FIXED: usize = 4;
/// `GENL_ID_CTRL`: the family that tells of families.
const CONTROLLER: u16 = 16;
/// `CTRL_CMD_GETFAMILY`.
const GET_FAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;

/// The beginning of a message to a family.
pub fn message(family: u16, flags: u16, command: u8, version: u8) -> Message {
    Message::new(family, flags, &[command, version, 0, 0])
}

/// Asks for a family by its name; the kernel loads the module that has it.
pub fn ask_family(name: &str) -> Message {
    let mut ask = message(CONTROLLER, 0, GET_FAMILY, 1);
    ask.put_text(CTRL_ATTR_FAMILY_NAME, name);
    ask
}

/// The number of the family that an answer tells of.
pub fn family(answer: &Received<'_>) -> Option<u16> {
    let attributes = answer.payload.get(FIXED..)?;
    Some(u16::from_ne_bytes(*find(attributes, CTRL_ATTR_FAMILY_ID)?.first_chunk()?))
}

/// The attributes behind the header.
pub fn body<'a>(received: &Received<'a>) -> impl Iterator<Item = (u16, &'a [u8])> {
    attributes_after(received.payload, FIXED)
}

/// A dump of all that a command tells.
pub fn dump(family: u16, command: u8, version: u8) -> Message {
    message(family, flags::DUMP, command, version)
}
