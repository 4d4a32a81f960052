//! The kernel's hash of a client's address (`jhash` of nftables, which is Bob Jenkins' lookup3), so that `explain` can say which slot it has.

use std::net::IpAddr;

/// `JHASH_INITVAL`.
const INITIAL: u32 = 0xdead_beef;

/// The slot of an address among so many, as `jhash ip saddr mod SLOTS seed SEED` finds it.
pub fn slot(address: IpAddr, slots: u32, seed: u32) -> u32 {
    let hash = match address {
        IpAddr::V4(v4) => jhash(&v4.octets(), seed),
        IpAddr::V6(v6) => jhash(&v6.octets(), seed),
    };
    // `reciprocal_scale`: a part of the whole range instead of a remainder.
    ((u64::from(hash) * u64::from(slots)) >> 32) as u32
}

/// `jhash()` of include/linux/jhash.h.
fn jhash(key: &[u8], seed: u32) -> u32 {
    let start = INITIAL.wrapping_add(key.len() as u32).wrapping_add(seed);
    let (mut a, mut b, mut c) = (start, start, start);
    let mut rest = key;
    while rest.len() > 12 {
        (a, b, c) = (a.wrapping_add(word(rest, 0)), b.wrapping_add(word(rest, 4)), c.wrapping_add(word(rest, 8)));
        for rotation in [4, 6, 8, 16, 19, 4] {
            a = a.wrapping_sub(c) ^ c.rotate_left(rotation);
            c = c.wrapping_add(b);
            (a, b, c) = (b, c, a);
        }
        rest = &rest[12..];
    }
    if rest.is_empty() {
        return c;
    }
    (a, b, c) = (a.wrapping_add(word(rest, 0)), b.wrapping_add(word(rest, 4)), c.wrapping_add(word(rest, 8)));
    for rotation in [14, 11, 25, 16, 4, 14, 24] {
        c = (c ^ b).wrapping_sub(b.rotate_left(rotation));
        (a, b, c) = (b, c, a);
    }
    // Seven steps leave the last result in the middle.
    b
}

/// Four bytes from there on, with zeros behind the end; little-endian, as the last bytes are on every machine.
fn word(bytes: &[u8], at: usize) -> u32 {
    let mut four = [0; 4];
    let there = bytes.get(at..).unwrap_or_default();
    there.iter().zip(&mut four).for_each(|(from, to)| *to = *from);
    u32::from_le_bytes(four)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_kernels() {
        // Of lookup3's own test, and with another initial value.
        let text = b"Four score and seven years ago";
        assert_eq!((jhash(text, 0), jhash(text, 1)), (0x1777_0551, 0xcd62_8161));
        for slots in [64, 128] {
            assert!((0..200).all(|last| slot(IpAddr::from([10, 0, 0, last]), slots, 7) < slots));
        }
    }
}
