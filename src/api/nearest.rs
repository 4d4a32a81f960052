//! The known name that a mistyped one is most like.

/// Longer names are nobody's slip, and are not compared.
const LONGEST: usize = 64;

/// The name within two edits of `name` (one for names of up to four bytes), the nearest first.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if name.len() > LONGEST {
        return None;
    }
    let name = name.to_ascii_lowercase();
    let allowed = |candidate: &str| if candidate.len() <= 4 { 1 } else { 2 };
    known
        .into_iter()
        .map(|candidate| (distance(name.as_bytes(), candidate.to_ascii_lowercase().as_bytes()), candidate))
        .filter(|(distance, candidate)| *distance <= allowed(candidate))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Damerau-Levenshtein distance (optimal string alignment): insertions, deletions, replacements, and swaps of two neighbours.
fn distance(a: &[u8], b: &[u8]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut row = Vec::with_capacity(b.len() + 1);
        row.push(i + 1);
        for (j, y) in b.iter().enumerate() {
            let mut best = (above[j] + usize::from(x != y)).min(above[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *x == b[j - 1] && a[i - 1] == *y {
                best = best.min(before[j - 1] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut above, row);
    }
    above[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_finds_the_name_that_was_meant() {
        let known = ["egress.ip", "egress.interface", "egress.ports"];
        assert_eq!(nearest("egress.pi", known), Some("egress.ip"));
        assert_eq!(nearest("egress.IP", known), Some("egress.ip"));
        assert_eq!(nearest("egress.interfce", known), Some("egress.interface"));
        assert_eq!(nearest("egress.port", known), Some("egress.ports"));
    }

    #[test]
    fn a_foreign_name_finds_nothing() {
        assert_eq!(nearest("egress.billing-team", ["egress.ip", "egress.ports"]), None);
        assert_eq!(nearest("at", ["to", "cidr"]), None);
        assert_eq!(nearest(&"e".repeat(100_000), ["egress.ip"]), None);
    }

    #[test]
    fn edits_are_counted() {
        assert_eq!(distance(b"", b"abc"), 3);
        assert_eq!(distance(b"abc", b"acb"), 1);
        assert_eq!(distance(b"kitten", b"sitting"), 3);
    }
}
