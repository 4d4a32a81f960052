//! Numbers of users, from `/etc/passwd` alone: who asks a directory service waits for its network.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::{Numbers, Watch};

const FOLDER: &str = "/etc";

/// `before`: what was found last. Who was known stays so while the file has no line for the name, since it may just be written anew, or the user be
/// renamed or removed while programs go on as that number. Another number, or a binding that is gone, is certain.
pub(super) fn users(wanted: &BTreeSet<String>, before: Option<&Numbers<u32>>, watch: &mut Watch) -> Numbers<u32> {
    if wanted.is_empty() {
        return Numbers::new();
    }
    watch.add_for_content(Path::new(FOLDER));
    let passwd = fs::read(Path::new(FOLDER).join("passwd")).unwrap_or_default();
    still(numbers(wanted, &String::from_utf8_lossy(&passwd)), wanted, before)
}

/// With those of before that are still wanted.
fn still(mut now: Numbers<u32>, wanted: &BTreeSet<String>, before: Option<&Numbers<u32>>) -> Numbers<u32> {
    let kept = before.into_iter().flatten().filter(|(user, _)| wanted.contains(*user));
    kept.for_each(|(user, uid)| _ = now.entry(user.clone()).or_insert(*uid));
    now
}

/// A name is looked up before it is taken for a number (`passwd(5)`).
fn numbers(wanted: &BTreeSet<String>, passwd: &str) -> Numbers<u32> {
    let mut numbers: Numbers<u32> = wanted.iter().filter_map(|user| Some((user.clone(), number(user)?))).collect();
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

/// Digits alone: `+5` is nobody. The largest number means "no user" to the kernel (`setuid(2)`).
fn number(text: &str) -> Option<u32> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|uid| digits && *uid != u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_known_by_name_and_by_number_and_the_first_line_counts() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\n# none\ncrawler:x:998:998::/:/bin/false\ncrawler:x:5:5::/:/\nbroken:x\n";
        let wanted = ["crawler", "1000", "nobody", "broken", "+5", "4294967295"].map(str::to_owned).into();
        assert_eq!(numbers(&wanted, passwd), [("crawler".to_owned(), 998), ("1000".to_owned(), 1000)].into());
    }

    #[test]
    fn without_a_line_who_was_known_and_is_wanted_is_known_still() {
        let (wanted, before) =
            (["crawler", "1000"].map(str::to_owned).into(), [("crawler".to_owned(), 998), ("gone".to_owned(), 5)].into());
        let now = still(numbers(&wanted, ""), &wanted, Some(&before));
        assert_eq!(now, [("1000".to_owned(), 1000), ("crawler".to_owned(), 998)].into());
        for (passwd, uid) in [("root:x:0:0::/:/\n", 998), ("spider:x:998:998::/:/\n", 998), ("crawler:x:5:5::/:/\n", 5)] {
            let now = still(numbers(&wanted, passwd), &wanted, Some(&before));
            assert_eq!(now["crawler"], uid, "{passwd}");
        }
    }
}
