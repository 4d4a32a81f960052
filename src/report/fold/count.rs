//! Numbers in sentences: one node, two nodes.

use std::fmt::Display;

/// `1 node`, `2 nodes`, `2 addresses`.
pub(super) fn count(number: impl Display, noun: &str) -> String {
    let number = number.to_string();
    let ending = match noun {
        _ if number == "1" => "",
        noun if noun.ends_with('s') => "es",
        _ => "s",
    };
    format!("{number} {noun}{ending}")
}

/// The verb that goes with a number.
pub(super) fn verb(number: impl Display, one: &'static str, many: &'static str) -> &'static str {
    if number.to_string() == "1" { one } else { many }
}

/// `node n1`, or `3 nodes (n1, ...)`.
pub(super) fn nodes(number: usize, first: &str) -> String {
    if number == 1 { format!("node {first}") } else { format!("{number} nodes ({first}, ...)") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_has_no_plural() {
        assert_eq!([count(0, "node"), count(1, "node"), count(2_i64, "address")], ["0 nodes", "1 node", "2 addresses"]);
        assert_eq!([verb(1, "is", "are"), verb(11, "is", "are")], ["is", "are"]);
        assert_eq!([nodes(1, "n1"), nodes(2, "n1")], ["node n1", "2 nodes (n1, ...)"]);
    }
}
