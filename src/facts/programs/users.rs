//! Numbers of users, from `/etc/passwd` alone: who asks a directory service waits for its network.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::{Numbers, Watch};

const FOLDER: &str = "/etc";

pub(super) fn users(wanted: &BTreeSet<String>, watch: &mut Watch) -> Numbers<u32> {
    if wanted.is_empty() {
        return Numbers::new();
    }
    watch.add_for_content(Path::new(FOLDER));
    // One that cannot be read names nobody, and is looked at again.
    let passwd = fs::read(Path::new(FOLDER).join("passwd")).unwrap_or_default();
    numbers(wanted, &String::from_utf8_lossy(&passwd))
}

/// A name is looked up before it is taken for a number (`passwd(5)`).
fn numbers(wanted: &BTreeSet<String>, passwd: &str) -> Numbers<u32> {
    let mut numbers: Numbers<u32> = wanted.iter().filter_map(|user| Some((user.clone(), user.parse().ok()?))).collect();
    for line in passwd.lines().rev() {
        let mut fields = line.split(':');
        if let (Some(name), Some(uid)) = (fields.next(), fields.nth(1).and_then(|uid| uid.parse().ok()))
            && wanted.contains(name)
        {
            numbers.insert(name.to_owned(), uid);
        }
    }
    numbers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_known_by_name_and_by_number_and_the_first_line_counts() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\n# none\ncrawler:x:998:998::/:/bin/false\ncrawler:x:5:5::/:/\nbroken:x\n";
        let wanted = ["crawler", "1000", "nobody", "broken"].map(str::to_owned).into();
        assert_eq!(numbers(&wanted, passwd), [("crawler".to_owned(), 998), ("1000".to_owned(), 1000)].into());
    }
}
