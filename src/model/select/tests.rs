//! That the index of pods' bindings finds what a look at all of them finds.

use proptest::prelude::*;

use super::*;
use crate::model::labels::{Demand, Values};

fn binding(at: usize, namespace: &str, labels: LabelSelector) -> Binding {
    Binding::plain(Source::Api, &format!("{namespace}/{at}"), Selector::Pods { namespace: namespace.to_owned(), labels })
}

fn word() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["a", "b", "c"]).prop_map(str::to_owned)
}

fn labels() -> impl Strategy<Value = Labels> {
    prop::collection::btree_map(word(), word(), 0..3)
}

fn selector() -> impl Strategy<Value = LabelSelector> {
    let some = || prop::collection::vec(word(), 1..3);
    let values = prop_oneof![some().prop_map(Values::In), some().prop_map(Values::NotIn), Just(Values::Exists), Just(Values::DoesNotExist)];
    let demand = (word(), values).prop_map(|(key, values)| Demand { key, values });
    (labels(), prop::collection::vec(demand, 0..3)).prop_map(|(equal, demands)| LabelSelector { equal, demands })
}

proptest! {
    #[test]
    fn the_index_finds_the_bindings_that_select_a_pod(
        selectors in prop::collection::vec((word(), selector()), 0..12),
        namespace in word(),
        labels in labels(),
    ) {
        let bindings: Vec<_> = selectors.into_iter().enumerate().map(|(at, (of, selector))| binding(at, &of, selector)).collect();
        let selects = |binding: &&Binding| match &binding.selector {
            Selector::Pods { namespace: of, labels: selector } => *of == namespace && selector.selects(&labels),
            _ => false,
        };
        let mut wanted: Vec<_> = bindings.iter().filter(selects).map(|binding| binding.name.clone()).collect();
        wanted.sort();
        let pod = Pod { namespace: namespace.clone(), labels: labels.clone(), ..Pod::default() };
        let index = PodIndex::new(bindings.clone());
        let found: Vec<_> = index.of(&pod).iter().map(|held| held.name.clone()).collect();
        prop_assert_eq!(found, wanted);
    }
}
