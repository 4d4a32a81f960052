//! Which frames a socket is given by the kernel, as a program of the classic BPF.

use std::collections::BTreeSet;
use std::net::IpAddr;

use nix::libc;
use socket2::SockFilter;

use crate::model::facts::Family;
use crate::wire::neighbour::{ADVERTISEMENT, ICMPV6, KIND_AT, LONGEST, NEXT_HEADER_AT, SENDER_AT, SOLICITATION, TARGET_AT};

/// The longest program that the kernel takes (`BPF_MAXINSNS`).
const MOST: usize = 4096;

/// The program; `None` where all frames of the socket's protocol are of use.
pub(super) fn of(family: Family, only: Option<&BTreeSet<IpAddr>>) -> Option<Vec<SockFilter>> {
    let head = || if family == Family::V6 { discovery() } else { Vec::new() };
    let joined = |tail: Vec<SockFilter>| head().into_iter().chain(tail).collect::<Vec<_>>();
    // Where they are too many, whoever reads passes over what is not of interest.
    let of_some = only.map(|only| joined(claims(only))).filter(|program| program.len() <= MOST);
    of_some.or_else(|| (family == Family::V6).then(|| joined(vec![give(LONGEST)])))
}

/// Ends the program for what is not of IPv6's neighbour discovery.
fn discovery() -> Vec<SockFilter> {
    vec![
        load(libc::BPF_B, NEXT_HEADER_AT),
        is(ICMPV6.into(), 1, 0),
        give(0),
        load(libc::BPF_B, KIND_AT),
        is(SOLICITATION.into(), 2, 0),
        is(ADVERTISEMENT.into(), 1, 0),
        give(0),
    ]
}

/// Gives the frames that claim one of these addresses.
fn claims(of: &BTreeSet<IpAddr>) -> Vec<SockFilter> {
    let mut program = Vec::new();
    for address in of {
        match address {
            IpAddr::V4(sender) => {
                program.extend([load(libc::BPF_W, SENDER_AT), is(sender.to_bits(), 0, 1), give(LONGEST)]);
            }
            IpAddr::V6(target) => {
                let bits = target.to_bits();
                for word in 0..4_u32 {
                    program.push(load(libc::BPF_W, TARGET_AT + 4 * word));
                    // What differs goes on behind the end of this address.
                    program.push(is((bits >> (96 - 32 * word)) as u32, 0, (7 - 2 * word) as u8));
                }
                program.push(give(LONGEST));
            }
        }
    }
    program.push(give(0));
    program
}

fn load(size: u32, offset: u32) -> SockFilter {
    SockFilter::new((libc::BPF_LD | size | libc::BPF_ABS) as u16, 0, 0, offset)
}

/// Goes on so many instructions further.
fn is(value: u32, yes: u8, no: u8) -> SockFilter {
    SockFilter::new((libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16, yes, no, value)
}

fn give(bytes: usize) -> SockFilter {
    SockFilter::new((libc::BPF_RET | libc::BPF_K) as u16, 0, 0, bytes as u32)
}
