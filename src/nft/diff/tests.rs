//! Properties of the difference, against a small interpreter that refuses what the kernel refuses.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::nft::samples::a_ruleset;
use crate::nft::{Bytes, Datatype, Expr, Verdict};

/// Applies changes as the kernel does: in their order, and each refused that names what is not there or takes away what is named.
fn apply(ruleset: &mut Ruleset, changes: &[Change]) -> Result<(), String> {
    for change in changes {
        apply_one(ruleset, change).ok_or_else(|| format!("refused: {change}"))?;
    }
    Ok(())
}

fn apply_one(ruleset: &mut Ruleset, change: &Change) -> Option<()> {
    let tables = &mut ruleset.tables;
    match change {
        Change::AddTable(family) => {
            tables.entry(*family).or_default();
        }
        Change::DeleteTable(family) => {
            tables.remove(family)?;
        }
        Change::AddSet(family, name, set) => {
            let set = Set { elements: Elements::default(), ..set.clone() };
            refuse(tables.get_mut(family)?.sets.insert(name.clone(), set).is_some())?;
        }
        Change::DeleteSet(family, name) => {
            let table = tables.get_mut(family)?;
            refuse(looked_up(table, name))?;
            table.sets.remove(name)?;
        }
        Change::AddChain(family, name, base) => {
            let chain = Chain { base: *base, rules: Vec::new() };
            refuse(tables.get_mut(family)?.chains.insert(name.clone(), chain).is_some())?;
        }
        Change::FlushChain(family, name) => tables.get_mut(family)?.chains.get_mut(name)?.rules.clear(),
        Change::DeleteChain(family, name) => {
            let table = tables.get_mut(family)?;
            let chain = table.chains.remove(name)?;
            refuse(!chain.rules.is_empty() || targets(table).any(|target| target == name))?;
        }
        Change::AddRule(family, chain, rule) => {
            let table = tables.get_mut(family)?;
            refuse(!rule.exprs.iter().all(|expr| resolves(table, expr)))?;
            table.chains.get_mut(chain)?.rules.push(rule.clone());
        }
        Change::AddElements(family, set, elements) => {
            let table = tables.get_mut(family)?;
            for (key, data) in elements {
                refuse(target(data).is_some_and(|chain| !table.chains.contains_key(chain)))?;
                let elements = &mut table.sets.get_mut(set)?.elements;
                refuse(elements.insert(*key, data.clone()).is_some())?;
            }
        }
        Change::DeleteElements(family, set, keys) => {
            let elements = &mut tables.get_mut(family)?.sets.get_mut(set)?.elements;
            for key in keys {
                elements.remove(key)?;
            }
        }
        // None is in a ruleset that is compared.
        Change::AddFlowtable(..) => refuse(true)?,
    }
    Some(())
}

fn refuse(wrong: bool) -> Option<()> {
    (!wrong).then_some(())
}

fn rules(table: &Table) -> impl Iterator<Item = &Expr> {
    table.chains.values().flat_map(|chain| &chain.rules).flat_map(|rule| &rule.exprs)
}

fn looked_up(table: &Table, name: &str) -> bool {
    rules(table).any(|expr| matches!(expr, Expr::Lookup { set, .. } if set == name))
}

fn target(data: &Data) -> Option<&String> {
    match data {
        Data::Verdict(Verdict::Jump(chain) | Verdict::Goto(chain)) => Some(chain),
        _ => None,
    }
}

fn targets(table: &Table) -> impl Iterator<Item = &String> {
    let of_rules = rules(table).filter_map(|expr| match expr {
        Expr::Verdict(Verdict::Jump(chain) | Verdict::Goto(chain)) => Some(chain),
        _ => None,
    });
    let of_elements = table.sets.values().flat_map(|set| set.elements.values()).filter_map(target);
    of_rules.chain(of_elements)
}

fn resolves(table: &Table, expr: &Expr) -> bool {
    match expr {
        Expr::Lookup { set, .. } => table.sets.contains_key(set),
        Expr::Verdict(Verdict::Jump(chain) | Verdict::Goto(chain)) => table.chains.contains_key(chain),
        _ => true,
    }
}

proptest! {
    #[test]
    fn applying_the_difference_gives_the_desired(desired in a_ruleset(), observed in a_ruleset()) {
        let mut ruleset = observed.clone();
        let changes = diff(&desired, &observed);
        prop_assert_eq!(apply(&mut ruleset, &changes), Ok(()), "{:#?}", changes);
        prop_assert_eq!(&ruleset, &desired);
        let mut ruleset = observed;
        ruleset.apply(&changes);
        prop_assert_eq!(ruleset, desired);
    }

    #[test]
    fn equals_have_no_difference(ruleset in a_ruleset()) {
        prop_assert_eq!(diff(&ruleset, &ruleset), vec![]);
    }
}

fn with_elements(elements: &[(u32, u32)]) -> Ruleset {
    let mut set = Set::map([Datatype::Mark], Datatype::Mark);
    set.elements = elements.iter().map(|(key, value)| (Key::one(Bytes::of_number(*key)), Data::mark(*value))).collect();
    let table = Table { sets: BTreeMap::from([("marks".into(), set)]), ..Table::default() };
    Ruleset { tables: BTreeMap::from([(Family::Ip, table)]) }
}

#[test]
fn an_element_with_other_data_goes_before_it_comes_and_the_rest_stays() {
    let changes = diff(&with_elements(&[(1, 10), (2, 21), (4, 40)]), &with_elements(&[(1, 10), (2, 20), (3, 30)]));
    let set = || (Family::Ip, "marks".to_owned());
    let mut gone = vec![Key::one(Bytes::of_number(2)), Key::one(Bytes::of_number(3))];
    gone.sort();
    let mut new = vec![(Key::one(Bytes::of_number(2)), Data::mark(21)), (Key::one(Bytes::of_number(4)), Data::mark(40))];
    new.sort_by_key(|(key, _)| *key);
    let (family, name) = set();
    assert_eq!(changes, [Change::DeleteElements(family, name.clone(), gone), Change::AddElements(family, name, new),]);
}

#[test]
fn a_table_whose_set_has_another_type_is_made_anew() {
    let observed = with_elements(&[(1, 10)]);
    let mut desired = observed.clone();
    for set in desired.tables.values_mut().flat_map(|table| table.sets.values_mut()) {
        set.key = vec![Datatype::IfIndex];
    }
    let changes = diff(&desired, &observed);
    assert_eq!(changes[..2], [Change::DeleteTable(Family::Ip), Change::AddTable(Family::Ip)]);
    assert_eq!(changes.len(), 4, "{changes:?}");
}

#[test]
fn a_table_that_nobody_wants_goes() {
    assert_eq!(diff(&Ruleset::default(), &with_elements(&[(1, 10)])), [Change::DeleteTable(Family::Ip)]);
}
