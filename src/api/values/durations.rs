//! Times as users write them.

use super::{Fault, shown};

/// Seconds of a day.
const DAY: u32 = 24 * 3600;

/// How long a client is kept at one server, in seconds: `60s`, `10m`, `3h`; a second to a day.
pub fn affinity(text: &str) -> Result<u32, Fault> {
    let wrong = || Fault::new(format!("{} is no time from 1s to 24h", shown(text)));
    let unit = text.chars().next_back().ok_or_else(wrong)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        _ => return Err(wrong()),
    };
    let digits = text.strip_suffix(unit).unwrap_or_default();
    // `parse` alone would take a sign.
    let number: Option<u32> = digits.parse().ok().filter(|_| digits.bytes().all(|byte| byte.is_ascii_digit()));
    number.and_then(|number| number.checked_mul(seconds)).filter(|seconds| (1..=DAY).contains(seconds)).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_one_unit_and_is_a_day_at_most() {
        for (text, seconds) in [("1s", 1), ("60s", 60), ("10m", 600), ("3h", 10_800), ("24h", DAY)] {
            assert_eq!(affinity(text).expect("it is one"), seconds, "{text}");
        }
        for text in ["", "s", "0s", "60", "1d", "-1s", "+1s", "1ss", "1.5h", "25h", "1m30s", "4294967295h", "1\u{b5}"] {
            let message = affinity(text).expect_err(text).message("60s");
            assert!(message.contains("is no time from 1s to 24h; write for instance `60s`"), "{text}: {message}");
        }
    }
}
