//! Exits as users write them: an address, a range or a subnet of them, and a weight.

use std::net::IpAddr;

use super::{Fault, cidr, exit_address, family, shown};
use crate::model::binding::{ExitSpec, SourcePorts, Spread};
use crate::model::pool::Block;

/// Addresses of the exits of one binding, ranges and subnets counted out.
pub const MAX_ADDRESSES: usize = 4096;
/// Parts of the new flows that an exit may have.
const WEIGHTS: std::ops::RangeInclusive<u16> = 1..=100;

/// One address, all of a range (`10.0.1.64-10.0.1.95`, ends included), or all of a subnet (`10.0.1.64/27`).
pub fn exit_addresses(text: &str) -> Result<Vec<IpAddr>, Fault> {
    let (first, last) = if let Some((first, last)) = text.split_once('-') {
        (exit_address(first.trim())?, exit_address(last.trim())?)
    } else if text.contains('/') {
        let net = cidr(text)?;
        (exit_address(&net.network().to_string())?, exit_address(&net.broadcast().to_string())?)
    } else {
        return exit_address(text).map(|address| vec![address]);
    };
    let block = match (first, last) {
        (IpAddr::V4(first), IpAddr::V4(last)) => Block::V4(first, last),
        (IpAddr::V6(first), IpAddr::V6(last)) => Block::V6(first, last),
        _ => {
            let wrong = format!("`{first}` is {}, but `{last}` is {}", family(first), family(last));
            return Err(Fault::new(wrong).cure("write a range of one family"));
        }
    };
    if first > last {
        return Err(Fault::new(format!("{} is reversed", shown(text))).cure("write the lower address first"));
    }
    if block.size() > MAX_ADDRESSES as u128 {
        return Err(Fault::new(format!("{} has more than {MAX_ADDRESSES} addresses", shown(text))).cure("write a smaller range"));
    }
    Ok(block.addresses().collect())
}

/// A part of the new flows.
pub fn weight(number: i64) -> Result<u16, Fault> {
    let good = u16::try_from(number).ok().filter(|number| WEIGHTS.contains(number));
    good.ok_or_else(|| {
        let fault = Fault::new(format!("{number} is no weight from {} to {}", WEIGHTS.start(), WEIGHTS.end()));
        if number == 0 { fault.cure("leave the exit out, or let it drain (`draining` in a manifest)") } else { fault }
    })
}

/// A range of source ports, `40000-49999`.
pub fn source_ports(text: &str) -> Result<SourcePorts, Fault> {
    let number = |text: &str| text.trim().parse::<u16>().ok().filter(|port| *port > 0);
    let range = text.split_once('-').and_then(|(first, last)| Some((number(first)?, number(last)?)));
    let (first, last) = range.ok_or_else(|| Fault::new(format!("{} is no range of ports", shown(text))))?;
    if first > last {
        return Err(Fault::new(format!("`{first}-{last}` is reversed")).cure(format!("write `{last}-{first}`")));
    }
    let ports = SourcePorts { first, last };
    if ports.count() < SourcePorts::FEWEST {
        let few = format!("{} has {} ports, and the kernel often finds none free of so few", shown(text), ports.count());
        return Err(Fault::new(few).cure(format!("write {} or more", SourcePorts::FEWEST)));
    }
    Ok(ports)
}

/// Addresses with their weight, as a label has them: `10.0.1.98*3`.
pub fn weighted(text: &str) -> Result<(Vec<IpAddr>, u16), Fault> {
    match text.split_once('*') {
        None => Ok((exit_addresses(text)?, 1)),
        Some((addresses, number)) => {
            let number = number.trim();
            let number =
                number.parse().map_err(|_| Fault::new(format!("{} is no weight", shown(number))).cure("write for instance `*3`"))?;
            Ok((exit_addresses(addresses.trim())?, weight(number)?))
        }
    }
}

/// Weights without a spread are a slip, and do no harm.
pub fn idle_weights(exits: &[ExitSpec], spread: Spread) -> Option<String> {
    let idle = spread == Spread::FirstUsable && exits.iter().any(|exit| exit.weight != 1);
    idle.then(|| "weights have no effect while everything leaves through the first usable exit; set a spread, or leave them out".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(text: &str) -> String {
        weighted(text).expect_err(text).message("10.0.1.98")
    }

    #[test]
    fn a_range_and_a_subnet_are_all_their_addresses() {
        assert_eq!(
            exit_addresses("10.0.1.98-10.0.1.100").unwrap(),
            ["10.0.1.98", "10.0.1.99", "10.0.1.100"].map(|a| a.parse::<IpAddr>().unwrap())
        );
        assert_eq!(exit_addresses("10.0.1.64/30").unwrap().len(), 4);
        assert_eq!(exit_addresses("2001:db8::10-2001:db8::12").unwrap().len(), 3);
        assert_eq!(exit_addresses("10.0.0.0/20").unwrap().len(), MAX_ADDRESSES);
        assert_eq!(weighted("10.0.1.98 * 3").unwrap(), (vec!["10.0.1.98".parse().unwrap()], 3));
    }

    #[test]
    fn source_ports_are_a_range_of_enough_ports() {
        assert_eq!(source_ports("40000-49999").unwrap(), SourcePorts { first: 40_000, last: 49_999 });
        for (text, said) in [
            ("40000", "`40000` is no range of ports; write for instance `40000-49999`"),
            ("0-4000", "`0-4000` is no range of ports; write for instance `40000-49999`"),
            ("40000-70000", "`40000-70000` is no range of ports; write for instance `40000-49999`"),
            ("49999-40000", "`49999-40000` is reversed; write `40000-49999`"),
            ("40000-40062", "`40000-40062` has 63 ports, and the kernel often finds none free of so few; write 64 or more"),
        ] {
            assert_eq!(source_ports(text).expect_err(text).message("40000-49999"), said);
        }
    }

    #[test]
    fn what_is_no_range_is_told_with_its_cure() {
        assert_eq!(wrong("10.0.1.95-10.0.1.64"), "`10.0.1.95-10.0.1.64` is reversed; write the lower address first");
        assert_eq!(wrong("10.0.0.0/8"), "`10.0.0.0/8` has more than 4096 addresses; write a smaller range");
        assert_eq!(wrong("10.0.0.1-2001:db8::1"), "`10.0.0.1` is IPv4, but `2001:db8::1` is IPv6; write a range of one family");
        assert_eq!(wrong("::1-ffff:ffff:ffff:ffff::"), "`::1` is a loopback address; write for instance `10.0.1.98`");
        assert!(wrong("2001:db8::/32").contains("more than 4096"), "{}", wrong("2001:db8::/32"));
        assert!(wrong("10.0.1.98*0").contains("0 is no weight from 1 to 100; leave the exit out"));
        assert!(wrong("10.0.1.98*-1").contains("-1 is no weight from 1 to 100"));
        assert!(wrong("10.0.1.98*x").contains("`x` is no weight; write for instance `*3`"));
        assert!(wrong("10.0.1.98*101").contains("101 is no weight"));
    }
}
