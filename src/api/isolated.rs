//! The alias of a link to a program of `egressd exec --namespace`, written and read:
//! `egressd exec default/crawler at 10.213.0.1 publish 8090/tcp`.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};

use super::labels;
use crate::model::isolated::Isolated;
use crate::model::started::Started;

const PREFIX: &str = "egressd exec ";
const AT: &str = "at";
const PUBLISH: &str = "publish";
/// Bytes that an alias may have (`IFALIASZ`, less the zero at its end).
const LONGEST: usize = 255;

/// A published port as the command line names it, by the grammar of the label `egress.publish`.
///
/// # Errors
/// What is wrong with it, and the cure.
pub fn published(text: &str) -> Result<String, String> {
    labels::publish(text).map(|_| text.to_owned()).map_err(|fault| fault.message("8090/tcp"))
}

/// The subnet of a program's link, as the command line names it.
///
/// # Errors
/// What is wrong with it, and the cure.
pub fn subnet(text: &str) -> Result<Ipv4Net, String> {
    match super::subnet(text)? {
        IpNet::V4(net) => Ok(net),
        IpNet::V6(_) => Err(format!("`{text}` is of IPv6; write for instance `10.213.0.0/30`")),
    }
}

/// The alias that says this; `publish` as [`published`] takes it. `None` when it is longer than the kernel keeps.
pub fn write(started: &Started, addresses: &[IpAddr], publish: &[String]) -> Option<String> {
    let who = match started {
        Started::By(binding) => binding.clone(),
        Started::As(address) => address.to_string(),
    };
    let addresses = addresses.iter().map(IpAddr::to_string);
    let words = [who, AT.to_owned()].into_iter().chain(addresses).chain([PUBLISH.to_owned()]).chain(publish.iter().cloned());
    let alias = PREFIX.to_owned() + &words.collect::<Vec<_>>().join(" ");
    (alias.len() <= LONGEST).then_some(alias)
}

/// What an alias says; `None` for one that is not ours.
pub fn read(alias: &str) -> Option<Isolated> {
    let mut words = alias.strip_prefix(PREFIX)?.split(' ');
    let who = words.next()?;
    let started = if who.contains('/') { Started::By(who.to_owned()) } else { Started::As(who.parse().ok()?) };
    words.next().filter(|word| *word == AT)?;
    let mut addresses = Vec::new();
    for word in words.by_ref().take_while(|word| *word != PUBLISH) {
        addresses.push(word.parse().ok()?);
    }
    let inbound = words.map(labels::publish).collect::<Result<_, _>>().ok()?;
    Some(Isolated { started, addresses, inbound })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back() {
        let addresses: Vec<IpAddr> = vec![[10, 213, 0, 1].into(), "fd65::1".parse().unwrap()];
        for started in [Started::By("shop/crawler".to_owned()), Started::As([172, 31, 0, 14].into())] {
            for publish in [vec![], vec!["8090/tcp".to_owned(), "53:5353/udp".to_owned()]] {
                let read = read(&write(&started, &addresses, &publish).unwrap()).unwrap();
                assert_eq!((&read.started, &read.addresses, read.inbound.len()), (&started, &addresses, publish.len()));
            }
        }
        assert_eq!(write(&Started::By(format!("shop/{}", "x".repeat(250))), &addresses, &[]), None);
    }

    #[test]
    fn others_aliases_are_nothing_of_ours() {
        for alias in [
            "",
            "uplink to rack 7",
            "egressd exec ",
            "egressd exec x",
            "egressd exec a/b at nowhere",
            "egressd exec a/b at 10.0.0.1 publish x",
        ] {
            assert_eq!(read(alias), None, "{alias}");
        }
    }
}
