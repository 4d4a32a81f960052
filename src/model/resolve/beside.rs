//! The other links that lead to a workload. Its kernel sends with any of its addresses by any of them: a connection keeps its address when the
//! default route moves to another network, as it does where an engine connects one. That links lead to one network namespace, the kernel proves.

use foldhash::HashSet;

use super::super::facts::IfIndex;
use super::super::workload::{Entry, Row, Subject};
use super::Resolver;

impl Resolver<'_> {
    /// By which other links each row's address comes in. Where another row has it by such a link, it stays that one's.
    pub(super) fn find_beside(&self, rows: &mut [Row]) {
        let found: Vec<(usize, Vec<Entry>)> =
            rows.iter().enumerate().map(|(at, row)| (at, self.beside(row))).filter(|(_, beside)| !beside.is_empty()).collect();
        if found.is_empty() {
            return;
        }
        let taken: HashSet<_> = rows.iter().filter_map(|row| Some((row.entry?.interface(), row.address?))).collect();
        for (at, beside) in found {
            let (address, own) = (rows[at].address, rows[at].entry.map(Entry::interface));
            let is_free = |interface: IfIndex| own == Some(interface) || !address.is_some_and(|net| taken.contains(&(interface, net)));
            rows[at].beside = beside.into_iter().filter(|entry| is_free(entry.interface())).collect();
        }
    }

    /// The same of one row, whoever else has its address.
    pub(super) fn beside(&self, row: &Row) -> Vec<Entry> {
        let by_link = matches!(row.entry, Some(Entry::Port { .. } | Entry::Routed { .. })) && !matches!(row.subject, Subject::Source(_));
        let own = row.entry.filter(|_| by_link).map(Entry::link);
        let Some(link) = own.and_then(|own| self.facts.kernel.links.get(&own)) else { return Vec::new() };
        let others = link.peer_nsid.into_iter().flat_map(|nsid| self.facts.kernel.ends_of(nsid)).filter(|other| other.index != link.index);
        let leads_in = |entry: &Entry| [entry.link(), entry.interface()].iter().all(|index| !self.uplinks.nics.contains_key(index));
        others.map(|other| self.entry(other)).filter(leads_in).collect()
    }
}
