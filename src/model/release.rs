//! The kernel's release, as it says it.

/// The first two numbers of a release: `6.1.0-42-amd64` is 6.1.
pub fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|part| part.parse::<u32>().ok());
    Some((numbers.next()?, numbers.next()?))
}
