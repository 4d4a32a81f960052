//! Which node has which address of a pool whose addresses no NIC has by itself. Decided once for the cluster, and kept in the pool's status.
//!
//! An address moves when its node is gone, or is no longer one of the pool's. It never moves because a node's agent is silent: that agent may
//! still hold it, and an address that two NICs hold is nobody's.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::Pool;
use crate::model::labels::{Labels, bears};

/// Addresses that a pool may have when they are given to nodes: the pool's status names each of them.
pub const MAX_PLACED: usize = 4096;

/// The node of each address.
pub type Places = BTreeMap<IpAddr, String>;

/// A node of the cluster, as pools look at it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Candidate {
    pub labels: Labels,
    /// It may get further addresses: it is ready, and its agent reports.
    pub able: bool,
}

/// All nodes that there are, by name.
pub type Candidates = BTreeMap<String, Candidate>;

/// The node of each address of a pool. `lent`: addresses that the pool has no more, and that bindings keep. What has no node that fits is not
/// in it.
pub fn place(pool: &Pool, lent: impl Iterator<Item = IpAddr>, nodes: &Candidates) -> Places {
    if !pool.is_placed() {
        return Places::new();
    }
    // Which nodes and addresses are meant nobody knows until it is corrected.
    if !pool.errors.is_empty() {
        return pool.places.clone();
    }
    let selected = |name: &String| nodes.get(name).filter(|node| bears(&node.labels, &pool.nodes));
    let own = pool.blocks.iter().flat_map(|block| block.addresses()).take(MAX_PLACED);
    let wanted: BTreeSet<IpAddr> = own.chain(lent).collect();
    let mut places: Places = pool.places.iter().map(|(address, node)| (*address, node.clone())).collect();
    places.retain(|address, node| wanted.contains(address) && selected(node).is_some());
    let mut counts: BTreeMap<&String, usize> =
        nodes.keys().filter(|name| selected(name).is_some_and(|node| node.able)).map(|name| (name, 0)).collect();
    for node in places.values() {
        counts.get_mut(node).into_iter().for_each(|count| *count += 1);
    }
    let mut fewest: BTreeSet<(usize, &String)> = counts.into_iter().map(|(name, count)| (count, name)).collect();
    for address in wanted {
        if places.contains_key(&address) {
            continue;
        }
        let Some((count, node)) = fewest.pop_first() else { break };
        places.insert(address, node.clone());
        fewest.insert((count + 1, node));
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::binding::Assignment;
    use crate::model::pool::Block;

    fn address(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    fn pool(first: u8, last: u8) -> Pool {
        let blocks = vec![Block::new(address(first), address(last)).expect("of one family")];
        Pool { name: "public".to_owned(), blocks, assignment: Assignment::Managed, ..Pool::default() }
    }

    fn nodes<const N: usize>(names: [&str; N]) -> Candidates {
        names.map(|name| (name.to_owned(), Candidate { labels: Labels::new(), able: true })).into()
    }

    fn placed(pool: &Pool, nodes: &Candidates) -> Places {
        place(pool, std::iter::empty(), nodes)
    }

    /// The last number of the addresses of a node.
    fn of(places: &Places, node: &str) -> Vec<String> {
        places.iter().filter(|(_, of)| *of == node).map(|(address, _)| address.to_string().replace("10.0.0.", "")).collect()
    }

    #[test]
    fn each_address_has_one_node_and_the_nodes_have_as_many_as_each_other() {
        let places = placed(&pool(4, 10), &nodes(["n1", "n2", "n3"]));
        assert_eq!(["n1", "n2", "n3"].map(|node| of(&places, node)), [vec!["4", "7", "10"], vec!["5", "8"], vec!["6", "9"]]);
        let existing = Pool { assignment: Assignment::Existing, ..pool(4, 10) };
        assert_eq!(placed(&existing, &nodes(["n1"])), Places::new(), "somebody else puts these where they are");
    }

    #[test]
    fn an_address_stays_whoever_comes_and_goes_to_another_node_only_when_its_own_is_gone() {
        let mut pool = pool(4, 7);
        pool.places = placed(&pool, &nodes(["n1", "n2"]));
        let before = pool.places.clone();
        assert_eq!(placed(&pool, &nodes(["n1", "n2", "n3"])), before, "a node that comes takes none");
        let mut silent = nodes(["n1", "n2"]);
        silent.insert("n2".to_owned(), Candidate::default());
        assert_eq!(placed(&pool, &silent), before, "a silent agent may still hold them");
        let places = placed(&pool, &nodes(["n1", "n3"]));
        assert_eq!(["n1", "n3"].map(|node| of(&places, node)), [vec!["4", "6"], vec!["5", "7"]], "those of n2 go to who has the fewest");
        pool.places = places.clone();
        assert_eq!(placed(&pool, &nodes(["n1", "n2", "n3"])), places, "and stay there when it is back");
    }

    #[test]
    fn only_nodes_that_are_selected_get_addresses_and_only_able_ones_new_ones() {
        let mut pool = pool(4, 5);
        pool.nodes = Labels::from([("egress".to_owned(), "yes".to_owned())]);
        let mut all = nodes(["n1", "n2"]);
        assert_eq!(placed(&pool, &all), Places::new(), "nobody is selected");
        all.insert("n2".to_owned(), Candidate { labels: pool.nodes.clone(), able: false });
        assert_eq!(placed(&pool, &all), Places::new(), "it would not put them anywhere");
        all.insert("n2".to_owned(), Candidate { labels: pool.nodes.clone(), able: true });
        pool.places = placed(&pool, &all);
        assert_eq!(of(&pool.places, "n2"), ["4", "5"]);
        all.insert("n2".to_owned(), Candidate { labels: Labels::new(), able: true });
        assert_eq!(placed(&pool, &all), Places::new(), "it is not selected any more");
    }

    #[test]
    fn what_a_binding_keeps_of_a_smaller_pool_keeps_its_node_and_an_error_moves_nothing() {
        let mut pool = pool(4, 7);
        let both = nodes(["n1", "n2"]);
        pool.places = placed(&pool, &both);
        pool.blocks.truncate(0);
        pool.blocks.extend(Block::new(address(4), address(5)));
        let places = place(&pool, [address(7)].into_iter(), &both);
        assert_eq!(["n1", "n2"].map(|node| of(&places, node)), [vec!["4"], vec!["5", "7"]]);
        pool.errors = vec![crate::model::field_error::FieldError { field: "spec.blocks[0]".to_owned(), message: "is odd".to_owned() }];
        assert_eq!(placed(&pool, &nodes(["n3"])), pool.places);
    }

    #[test]
    fn no_pool_is_too_large_to_be_counted_out() {
        let large = Pool { blocks: vec![Block::of("fd00::/8".parse().expect("a subnet"))], ..pool(4, 4) };
        assert_eq!(placed(&large, &nodes(["n1"])).len(), MAX_PLACED);
    }
}
