//! How fast a binding's workloads may send outside, all of them together.

use std::fmt;

/// Bits a second, and how much may leave at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rate {
    /// Bytes a second.
    pub bytes: u64,
    /// Bytes that may leave at once after a pause, beyond a second's worth.
    pub burst: u32,
}

impl Rate {
    /// Slowest and fastest, in bits a second. The kernel counts a bucket of rate and burst in nanoseconds for a byte, in 64 bits (`nft_limit_init`):
    /// since 6.8 it refuses more than 18.4 GB in all, and before it took that for something else.
    pub const BITS: std::ops::RangeInclusive<u64> = 64_000..=100_000_000_000;
    /// Most bytes that may leave at once.
    pub const BURST: u32 = 1 << 30;
    /// What the kernel is told, in percent. Its bucket holds a second's worth more than the burst (`nft_limit_init`) and is full after a pause: ten
    /// seconds would have eleven seconds' bytes. And of a packet that the NIC is to cut into many it counts one header, which is up to 4 percent.
    const TOLD: u64 = 95;
    /// The largest packet before the NIC cuts it: one that does not fit into the bucket would never pass.
    const PACKET: u64 = 65_536;

    /// Bytes a second, and of burst, as the kernel's limit has them.
    pub fn limit(self) -> (u64, u32) {
        let bytes = self.bytes * Self::TOLD / 100;
        let least = Self::PACKET.saturating_sub(bytes) as u32;
        (bytes, self.burst.max(least))
    }
}

/// As it is written: `20Mbit`.
impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = self.bytes * 8;
        let units = [(1_000_000_000, "Gbit"), (1_000_000, "Mbit"), (1_000, "kbit"), (1, "bit")];
        let (unit, name) = units.into_iter().find(|(unit, _)| bits.is_multiple_of(*unit)).unwrap_or((1, "bit"));
        write!(f, "{}{name}", bits / unit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_rate_lets_a_large_packet_pass() {
        assert_eq!(Rate { bytes: 2_500_000, burst: 0 }.limit(), (2_375_000, 0));
        assert_eq!(Rate { bytes: 2_500_000, burst: 9_000 }.limit(), (2_375_000, 9_000));
        assert_eq!(Rate { bytes: 8_000, burst: 1 }.limit(), (7_600, 57_936));
        assert_eq!([2_500_000, 8_001].map(|bytes| Rate { bytes, burst: 0 }.to_string()), ["20Mbit", "64008bit"]);
    }
}
