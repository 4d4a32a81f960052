//! Has conntrack follow a connection that it has not seen begin.

use std::net::SocketAddr;

use nix::libc;

use super::{
    ASSURED, CONFIRMED, CTA_PROTOINFO, CTA_PROTOINFO_TCP, CTA_PROTOINFO_TCP_STATE, CTA_STATUS, CTA_TIMEOUT, CTA_TUPLE_ORIG,
    CTA_TUPLE_REPLY, Error, Flows, NEW, SEEN_REPLY, Tuple, message, put_tuple,
};
use crate::model::facts::Family;
use crate::model::ports::Protocol;
use crate::netlink::routing::family_number;
use crate::wire::{Message, flags};

/// `TCP_CONNTRACK_ESTABLISHED`.
const ESTABLISHED: u8 = 3;
/// Seconds that the kernel keeps an open connection without a packet, unless it is told otherwise (`nf_conntrack_tcp_timeout_established`).
const TIMEOUT: u32 = 432_000;

impl Flows {
    /// Adds the entry of an open TCP connection that nobody has translated, and that the first of these began; one that is there is as good.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn follow(&mut self, source: SocketAddr, destination: SocketAddr) -> Result<(), Error> {
        match self.channel.request(addition(source, destination), |_| {}) {
            Err(error) if error.errno() == Some(libc::EEXIST) => Ok(()),
            other => other.map_err(|error| Error::Add { source_address: source, destination, source: error }),
        }
    }
}

fn addition(source: SocketAddr, destination: SocketAddr) -> Message {
    let mut message = message(NEW, flags::CREATE | flags::EXCL, family_number(Family::of(source.ip())), 0);
    for (kind, from, to) in [(CTA_TUPLE_ORIG, source, destination), (CTA_TUPLE_REPLY, destination, source)] {
        let tuple = Tuple {
            protocol: Protocol::Tcp.number(),
            source: from.ip(),
            destination: to.ip(),
            source_port: from.port(),
            destination_port: to.port(),
            zone: 0,
        };
        put_tuple(&mut message, kind, &tuple);
    }
    message.put_be32(CTA_STATUS, CONFIRMED | SEEN_REPLY | ASSURED);
    message.put_be32(CTA_TIMEOUT, TIMEOUT);
    message.nest(CTA_PROTOINFO, |info| info.nest(CTA_PROTOINFO_TCP, |tcp| tcp.put(CTA_PROTOINFO_TCP_STATE, &[ESTABLISHED])));
    message
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::testing::alone;

    #[test]
    fn a_connection_that_is_followed_is_an_open_one_and_is_followed_once() {
        alone(|| {
            let mut flows = Flows::open().unwrap();
            for ends in [["172.31.0.8:5000", "198.51.100.10:443"], ["[2001:db8::8]:5000", "[2001:db8::10]:443"]] {
                let [source, destination]: [SocketAddr; 2] = ends.map(|end| end.parse().unwrap());
                flows.follow(source, destination).unwrap();
                flows.follow(source, destination).unwrap();
                flows.follow(destination, source).expect("it is the same the other way round");
                let mut all = Vec::new();
                flows.for_each(|flow| all.extend((flow.source == source.ip()).then_some(flow))).unwrap();
                let [flow] = all.as_slice() else { panic!("{all:?}") };
                assert!(flow.is_open_connection() && flow.tcp_state == Some(ESTABLISHED), "{flow:?}");
                assert_eq!((flow.destination, flow.reply_destination), (destination.ip(), source.ip()));
            }
        });
    }
}
