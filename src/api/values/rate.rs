//! Rates and amounts, as users write them.

use super::{Fault, shown};
use crate::model::rate::Rate;

const BITS: [(&str, u64); 4] = [("bit", 1), ("kbit", 1_000), ("mbit", 1_000_000), ("gbit", 1_000_000_000)];
const BYTES: [(&str, u64); 5] = [("b", 1), ("kb", 1_000), ("mb", 1_000_000), ("kib", 1 << 10), ("mib", 1 << 20)];
/// Bytes a second, of for instance `20Mbit`.
pub fn rate(text: &str) -> Result<u64, Fault> {
    let bits = number(text, &BITS).ok_or_else(|| Fault::new(format!("{} is no rate in bit, kbit, Mbit or Gbit", shown(text))))?;
    if !Rate::BITS.contains(&bits) {
        return Err(Fault::new(format!("{} is not from 64kbit to 100Gbit", shown(text))));
    }
    Ok(bits / 8)
}

/// Bytes, of for instance `256kB`.
pub fn burst(text: &str) -> Result<u32, Fault> {
    let bytes = number(text, &BYTES).ok_or_else(|| Fault::new(format!("{} is no amount in B, kB, MB, KiB or MiB", shown(text))))?;
    u32::try_from(bytes)
        .ok()
        .filter(|bytes| *bytes <= Rate::BURST)
        .ok_or_else(|| Fault::new(format!("{} is more than 1024MiB", shown(text))))
}

/// A whole number with a unit, in lower or upper case.
fn number(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
    let unit = unit.trim().to_ascii_lowercase();
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_has_a_unit_of_bits_and_a_burst_one_of_bytes() {
        assert_eq!(rate("20Mbit").unwrap(), 2_500_000);
        assert_eq!(rate("64 kbit").unwrap(), 8_000);
        assert_eq!((burst("256kB").unwrap(), burst("1MiB").unwrap(), burst("0B").unwrap()), (256_000, 1 << 20, 0));
    }

    #[test]
    fn what_is_none_is_told_with_its_cure() {
        let wrong = |text| rate(text).expect_err(text).message("20Mbit");
        for text in ["20", "Mbit", "", "20MB", "-1Mbit", "1.5Mbit", "99999999999999999999Gbit"] {
            assert!(wrong(text).ends_with("is no rate in bit, kbit, Mbit or Gbit; write for instance `20Mbit`"), "{}", wrong(text));
        }
        assert_eq!(wrong("0Mbit"), "`0Mbit` is not from 64kbit to 100Gbit; write for instance `20Mbit`");
        assert!(wrong("500Gbit").contains("not from 64kbit to 100Gbit"));
        assert!(burst("2048MiB").expect_err("too much").message("256kB").contains("more than 1024MiB"));
        assert!(burst("256kbit").expect_err("bits").message("256kB").contains("no amount in B"));
    }
}
