//! ARP (RFC 826, RFC 5227) and neighbour discovery (RFC 4861) as Ethernet frames: asking who has an address, and telling that it is here.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A link-layer address.
pub type Mac = [u8; 6];

/// EtherTypes.
pub const ARP: u16 = 0x0806;
pub const IPV6: u16 = 0x86dd;
/// Longer than any of these frames: what follows an advertisement's first options does not matter.
pub const LONGEST: usize = 256;

const BROADCAST: Mac = [0xff; 6];
const NOBODY: Mac = [0; 6];
const ETHERNET: usize = 14;
/// Hardware type Ethernet, protocol IPv4, and their lengths.
const ARP_HEAD: [u8; 6] = [0, 1, 8, 0, 6, 4];
const ARP_LENGTH: usize = 28;
const REQUEST: u8 = 1;
const IPV6_LENGTH: usize = 40;
pub const ICMPV6: u8 = 58;
/// Where a frame of IPv6 has its next header, and ICMPv6 its kind.
pub const NEXT_HEADER_AT: u32 = 14 + 6;
pub const KIND_AT: u32 = 14 + 40;
/// Where a frame of ARP has its sender's address, and one of neighbour discovery its target.
pub const SENDER_AT: u32 = 14 + 14;
pub const TARGET_AT: u32 = 14 + 40 + 8;
/// Less than this, and a router has passed it on (RFC 4861, section 6.1).
const HOP_LIMIT: u8 = 255;
pub const SOLICITATION: u8 = 135;
pub const ADVERTISEMENT: u8 = 136;
const OPTION_SOURCE: u8 = 1;
const OPTION_TARGET: u8 = 2;
/// Of an advertisement: it takes the place of what is known.
const OVERRIDE: u8 = 0x20;
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// That a machine has an address, or is about to have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    pub address: IpAddr,
    pub mac: Mac,
    /// It asks whether somebody has it.
    pub is_probe: bool,
}

/// Asks whether anybody has an address, without a source: nobody's cache changes. An ARP probe, or the solicitation of duplicate address
/// detection.
pub fn probe(address: IpAddr, own: Mac) -> Vec<u8> {
    match address {
        IpAddr::V4(target) => arp(own, Ipv4Addr::UNSPECIFIED, target),
        IpAddr::V6(target) => ndp(own, Ipv6Addr::UNSPECIFIED, solicited(target), [SOLICITATION, 0], target, None),
    }
}

/// Asks who has an address, from an address of our own: everybody, or the machine that had it last (RFC 1122, section 2.3.2.1; RFC 4861, section
/// 7.3). `None` when the two are not of one family.
pub fn ask(address: IpAddr, from: IpAddr, own: Mac, last: Option<Mac>) -> Option<Vec<u8>> {
    let mut frame = match (address, from) {
        (IpAddr::V4(target), IpAddr::V4(from)) => arp(own, from, target),
        (IpAddr::V6(target), IpAddr::V6(from)) => {
            let to = if last.is_some() { target } else { solicited(target) };
            ndp(own, from, to, [SOLICITATION, 0], target, Some((OPTION_SOURCE, own)))
        }
        _ => return None,
    };
    if let Some(last) = last {
        frame[..6].copy_from_slice(&last);
    }
    Some(frame)
}

/// Tells everybody that an address is here. An ARP announcement, or an unsolicited advertisement.
pub fn announce(address: IpAddr, own: Mac) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => arp(own, address, address),
        IpAddr::V6(address) => ndp(own, address, ALL_NODES, [ADVERTISEMENT, OVERRIDE], address, Some((OPTION_TARGET, own))),
    }
}

/// What a frame says of who has which address; `None` when it is another kind of frame.
pub fn read(frame: &[u8]) -> Option<Claim> {
    let source: Mac = frame.get(6..12)?.try_into().ok()?;
    let kind = u16::from_be_bytes(frame.get(12..ETHERNET)?.try_into().ok()?);
    let payload = &frame[ETHERNET..];
    match kind {
        ARP => read_arp(payload),
        IPV6 => read_ndp(payload, source),
        _ => None,
    }
}

fn ethernet(to: Mac, own: Mac, kind: u16, length: usize) -> Vec<u8> {
    let mut frame = Vec::with_capacity(ETHERNET + length);
    frame.extend_from_slice(&to);
    frame.extend_from_slice(&own);
    frame.extend_from_slice(&kind.to_be_bytes());
    frame
}

fn arp(own: Mac, sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let mut frame = ethernet(BROADCAST, own, ARP, ARP_LENGTH);
    frame.extend_from_slice(&ARP_HEAD);
    frame.extend_from_slice(&[0, REQUEST]);
    frame.extend_from_slice(&own);
    frame.extend_from_slice(&sender.octets());
    frame.extend_from_slice(&NOBODY);
    frame.extend_from_slice(&target.octets());
    frame
}

/// A request of somebody without an address is a probe of what it asks for; all else tells where the sender is.
fn read_arp(payload: &[u8]) -> Option<Claim> {
    let payload: &[u8; ARP_LENGTH] = payload.get(..ARP_LENGTH)?.try_into().ok()?;
    if payload[..6] != ARP_HEAD {
        return None;
    }
    let address = |at: usize| Ipv4Addr::from([payload[at], payload[at + 1], payload[at + 2], payload[at + 3]]);
    let (sender, target) = (address(14), address(24));
    let mac: Mac = payload[8..14].try_into().ok()?;
    let is_probe = sender.is_unspecified();
    let address = if is_probe { target } else { sender };
    Some(Claim { address: address.into(), mac, is_probe })
}

/// The multicast group that the holder of an address listens to.
fn solicited(target: Ipv6Addr) -> Ipv6Addr {
    let [.., high, low] = target.segments();
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | (high & 0xff), low)
}

fn ndp(own: Mac, from: Ipv6Addr, to: Ipv6Addr, [kind, flags]: [u8; 2], target: Ipv6Addr, option: Option<(u8, Mac)>) -> Vec<u8> {
    let mut message = vec![kind, 0, 0, 0, flags, 0, 0, 0];
    message.extend_from_slice(&target.octets());
    if let Some((kind, mac)) = option {
        message.extend_from_slice(&[kind, 1]);
        message.extend_from_slice(&mac);
    }
    let sum = checksum(from, to, &message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let [.., a, b, c, d] = to.octets();
    let mut frame = ethernet([0x33, 0x33, a, b, c, d], own, IPV6, IPV6_LENGTH + message.len());
    frame.extend_from_slice(&[0x60, 0, 0, 0, 0, message.len() as u8, ICMPV6, HOP_LIMIT]);
    frame.extend_from_slice(&from.octets());
    frame.extend_from_slice(&to.octets());
    frame.extend_from_slice(&message);
    frame
}

/// An advertisement tells where its target is; a solicitation without a source is a probe for it.
fn read_ndp(payload: &[u8], source: Mac) -> Option<Claim> {
    let (head, message) = payload.split_at_checked(IPV6_LENGTH)?;
    let from: [u8; 16] = head[8..24].try_into().ok()?;
    if head[6] != ICMPV6 || head[7] != HOP_LIMIT {
        return None;
    }
    let target: [u8; 16] = message.get(8..24)?.try_into().ok()?;
    let mac = match message[0] {
        ADVERTISEMENT => option(message.get(24..)?, OPTION_TARGET).unwrap_or(source),
        SOLICITATION if from == [0; 16] => source,
        _ => return None,
    };
    Some(Claim { address: Ipv6Addr::from(target).into(), mac, is_probe: message[0] == SOLICITATION })
}

/// The link-layer address in an option of this kind.
fn option(mut options: &[u8], wanted: u8) -> Option<Mac> {
    loop {
        let [kind, length, ..] = *options else { return None };
        let whole = options.get(..usize::from(length) * 8).filter(|whole| !whole.is_empty())?;
        if kind == wanted {
            return whole.get(2..8)?.try_into().ok();
        }
        options = &options[whole.len()..];
    }
}

/// RFC 4443, section 2.3.
fn checksum(from: Ipv6Addr, to: Ipv6Addr, message: &[u8]) -> u16 {
    let words =
        |bytes: &[u8]| -> u32 { bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0))).sum() };
    let mut sum = words(&from.octets()) + words(&to.octets()) + message.len() as u32 + u32::from(ICMPV6) + words(message);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: Mac = [2, 0, 0, 0, 0, 1];

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn ipv6(text: &str) -> [u8; 16] {
        text.parse::<Ipv6Addr>().unwrap().octets()
    }

    #[test]
    fn a_probe_and_an_announcement_are_read_as_claims_of_who_sent_them() {
        for address in [ip("10.0.1.98"), ip("fd00::98")] {
            for (frame, is_probe) in [(probe(address, OWN), true), (announce(address, OWN), false)] {
                assert_eq!(read(&frame), Some(Claim { address, mac: OWN, is_probe }), "{frame:02x?}");
            }
        }
    }

    #[test]
    fn a_question_claims_what_it_is_asked_from_and_nothing_for_the_address_that_it_asks_for() {
        let asked = ask(ip("10.0.1.1"), ip("10.0.1.98"), OWN, None).unwrap();
        assert_eq!(read(&asked), Some(Claim { address: ip("10.0.1.98"), mac: OWN, is_probe: false }));
        assert_eq!(read(&ask(ip("fd00::1"), ip("fd00::98"), OWN, None).unwrap()), None);
        assert_eq!(ask(ip("fd00::1"), ip("10.0.1.98"), OWN, None), None);
        let again = ask(ip("fd00::1"), ip("fd00::98"), OWN, Some([2, 0, 0, 0, 0, 9])).unwrap();
        assert_eq!((&again[..6], &again[38..54]), (&[2, 0, 0, 0, 0, 9][..], &ipv6("fd00::1")[..]));
    }

    #[test]
    fn a_probe_is_laid_out_as_rfc_5227_and_rfc_4862_say() {
        let arp = probe(ip("10.0.1.98"), OWN);
        assert_eq!(arp[..14], [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1, 8, 6]);
        assert_eq!(arp[14..], [0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10, 0, 1, 98]);
        let ndp = probe(ip("fd00::1:2398"), OWN);
        assert_eq!(ndp[..6], [0x33, 0x33, 0xff, 0x01, 0x23, 0x98]);
        assert_eq!((ndp.len(), ndp[14 + 7], &ndp[22..38], ndp[54]), (78, 255, &[0; 16][..], SOLICITATION));
    }

    #[test]
    fn what_is_cut_short_or_comes_from_beyond_a_router_is_no_claim() {
        for frame in [announce(ip("10.0.1.98"), OWN), announce(ip("fd00::98"), OWN)] {
            // The last option may be missing.
            (0..frame.len().min(62)).for_each(|length| assert_eq!(read(&frame[..length]), None, "{length}"));
        }
        let mut routed = announce(ip("fd00::98"), OWN);
        routed[21] = 64;
        assert_eq!(read(&routed), None);
    }
}
