//! The record of what pools lend, as the next leader will find it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::net::IpAddr;

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::api::status::EgressBindingStatus;
use crate::model::objects::ApiBinding;
use crate::model::pool::{Entry, Record};

/// The ConfigMap that it stands in, in the controllers' namespace, with a key for each pool.
pub const RECORD: &str = "egressd-allocations";

/// How long after a leader began addresses are kept for a binding that is not there, or has not got them back yet: a restore takes its time.
pub const KEPT: SignedDuration = SignedDuration::from_hours(1);

/// Bytes of all lines. A ConfigMap may have 1,048,576 with the pools' names.
const MAX_BYTES: usize = 960_000;

/// Marks a binding's line: it has let go of its addresses.
const RELEASED: &str = "released";

/// What a leader has seen of the record since it began.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    began: Option<Timestamp>,
    /// Pools and bindings whose status has said what stands there: one that does so no longer has let go.
    confirmed: BTreeSet<(String, String)>,
}

/// By pool, a line for each binding: `shop/webhook 172.31.0.14 172.31.0.15`, or `shop/webhook released 172.31.0.14`. A line that says nothing else
/// is passed over.
pub fn read(data: &BTreeMap<String, String>) -> Record {
    let mut record = Record::default();
    for (pool, line) in data.iter().flat_map(|(pool, text)| text.lines().map(move |line| (pool, line))) {
        let mut words = line.split_whitespace().peekable();
        let Some(binding) = words.next().filter(|binding| binding.contains('/')) else { continue };
        let released = words.next_if(|word| *word == RELEASED).is_some();
        let addresses: Vec<IpAddr> = words.filter_map(|word| word.parse().ok()).collect();
        if !addresses.is_empty() {
            record.enter(pool, binding, Entry { addresses, released });
        }
    }
    record
}

/// The other way round. Where a ConfigMap has no room for all of it, the namespaces with the most to say leave out some; how many lines those are
/// is the second.
pub fn text(record: &Record) -> (BTreeMap<String, String>, usize) {
    let lines: Vec<(&str, &str, String)> =
        record.entries().map(|(pool, binding, entry)| (pool, namespace(binding), line(binding, entry))).collect();
    let mut rooms = rooms(&lines);
    let mut data: BTreeMap<String, String> = BTreeMap::new();
    let mut left_out = 0;
    for (pool, namespace, line) in &lines {
        match rooms.get_mut(namespace) {
            Some(room) if *room >= line.len() => {
                *room -= line.len();
                data.entry((*pool).to_owned()).or_default().push_str(line);
            }
            _ => left_out += 1,
        }
    }
    (data, left_out)
}

fn namespace(binding: &str) -> &str {
    binding.split('/').next().unwrap_or_default()
}

fn line(binding: &str, entry: &Entry) -> String {
    let mut text = binding.to_owned();
    if entry.released {
        text.push(' ');
        text.push_str(RELEASED);
    }
    for address in &entry.addresses {
        // Writing into a String cannot fail.
        let _ = write!(text, " {address}");
    }
    text.push('\n');
    text
}

/// How many bytes each namespace may have: what it asks for, and where that is too much for all of them, none more than another that gets less
/// than it asks for.
fn rooms<'a>(lines: &[(&str, &'a str, String)]) -> BTreeMap<&'a str, usize> {
    let mut asked: BTreeMap<&str, usize> = BTreeMap::new();
    for (_, namespace, line) in lines {
        *asked.entry(namespace).or_default() += line.len();
    }
    let mut by_size: Vec<(&str, usize)> = asked.into_iter().collect();
    by_size.sort_by_key(|(_, bytes)| *bytes);
    let mut left = MAX_BYTES;
    let count = by_size.len();
    let one = |(at, (namespace, bytes)): (usize, (&'a str, usize))| {
        let room = bytes.min(left / (count - at));
        left -= room;
        (namespace, room)
    };
    by_size.into_iter().enumerate().map(one).collect()
}

/// Enters what a binding's status says.
pub fn enter(record: &mut Record, binding: &str, status: &EgressBindingStatus) {
    let addresses: Vec<IpAddr> = status.exits.iter().filter_map(|exit| exit.parse().ok()).collect();
    if let Some(pool) = status.pool.as_ref().filter(|_| !addresses.is_empty()) {
        record.enter(pool, binding, Entry { addresses, released: false });
    }
}

/// Pool, binding and address, of all that is kept from others.
pub fn kept(unsaid: &Record) -> impl Iterator<Item = (&str, &str, IpAddr)> {
    let kept = unsaid.entries().filter(|(_, _, entry)| !entry.released);
    kept.flat_map(|(pool, binding, entry)| entry.addresses.iter().map(move |address| (pool, binding, *address)))
}

impl Seen {
    /// What of the record no status says, as it stands at `now`. `bindings`: those that are there, by key.
    pub fn look<'a>(&mut self, record: &Record, bindings: impl Fn(&str) -> Option<&'a ApiBinding>, now: Timestamp) -> Record {
        let began = *self.began.get_or_insert(now);
        let mut unsaid = Record::default();
        for (pool, binding, entry) in record.entries() {
            let api = bindings(binding);
            let asks = api.is_some_and(|api| api.binding.pool.as_ref().is_some_and(|request| request.pool == pool));
            if asks && api.is_some_and(|api| !api.allocated.is_empty()) {
                continue;
            }
            let confirmed = self.confirmed.contains(&(pool.to_owned(), binding.to_owned()));
            let over = confirmed || (api.is_some() && !asks) || now.duration_since(began) >= KEPT;
            unsaid.enter(pool, binding, Entry { addresses: entry.addresses.clone(), released: entry.released || over });
        }
        unsaid
    }

    /// The record after a fold: what the statuses say (`said`), and what is `unsaid`.
    pub fn next(&mut self, unsaid: &Record, said: Record) -> Record {
        let named = |(pool, binding, _): (&str, &str, &Entry)| (pool.to_owned(), binding.to_owned());
        let mut confirmed: BTreeSet<(String, String)> = said.entries().map(named).collect();
        let lent: BTreeSet<(String, IpAddr)> =
            said.entries().flat_map(|(pool, _, entry)| entry.addresses.iter().map(|address| (pool.to_owned(), *address))).collect();
        let mut next = said;
        for (pool, binding, entry) in unsaid.entries() {
            let key = (pool.to_owned(), binding.to_owned());
            if confirmed.contains(&key) {
                continue;
            }
            if self.confirmed.contains(&key) {
                confirmed.insert(key);
            }
            let addresses: Vec<IpAddr> = entry.addresses.iter().copied().filter(|a| !lent.contains(&(pool.to_owned(), *a))).collect();
            if !addresses.is_empty() {
                next.enter(pool, binding, Entry { addresses, released: entry.released });
            }
        }
        self.confirmed = confirmed;
        next
    }

    /// When addresses that are kept for bindings without a status are anybody's, if there are any.
    pub fn until(&self, unsaid: &Record) -> Option<Timestamp> {
        unsaid.entries().find(|(_, _, entry)| !entry.released)?;
        Some(self.began? + KEPT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(addresses: usize) -> Entry {
        let addresses = (0..addresses).map(|at| IpAddr::from([0x2001, 0xdb8, 0x1111, 0x2222, 0xaaaa, 0xbbbb, 0xcccc, at as u16]));
        Entry { addresses: addresses.collect(), released: false }
    }

    #[test]
    fn who_has_the_most_to_say_takes_the_room_of_nobody_else() {
        let mut record = Record::default();
        for namespace in ["aaa", "shop"] {
            for at in 0..50 {
                record.enter("public", &format!("{namespace}/b{at}"), entry(2));
            }
        }
        let full = text(&record);
        assert_eq!((read(&full.0), full.1), (record.clone(), 0));
        for at in 0..1000 {
            record.enter("lent", &format!("evil/{}{at}", "x".repeat(240)), entry(64));
        }
        let (data, left_out) = text(&record);
        let bytes: usize = data.iter().map(|(pool, text)| pool.len() + text.len()).sum();
        assert!((900_000..1_048_576).contains(&bytes), "{bytes}");
        assert_eq!(data["public"], full.0["public"]);
        assert_eq!(left_out, 1000 - data["lent"].lines().count());
        let again = read(&data);
        assert_eq!(text(&again), (data, 0), "what was left out moves nothing else");
    }
}
