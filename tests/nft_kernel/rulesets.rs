//! Rulesets that are written, listed and read back.

use egressd::effects::nft::{CommitError, Nft};
use egressd::nft::build::{iif, map, protocol, rule, saddr};
use egressd::nft::{Base, Chain, ChainKind, Change, Data, Datatype, Family, Hook, Key, Ruleset, Set, Verdict, diff};

use crate::everything::everything;
use crate::lab::*;

#[test]
fn what_is_committed_is_read_back_and_needs_no_change() {
    in_namespace(|| {
        let mut nft = Nft::open().unwrap();
        let wanted = everything();
        put(&mut nft, &wanted);
        let present = nft.read().unwrap();
        assert_eq!(present, wanted);
        assert_eq!(diff(&wanted, &present), []);
    });
}

#[test]
fn nft_lists_all_of_it_as_the_golden_file_has_it() {
    in_namespace(|| {
        let mut nft = Nft::open().unwrap();
        put(&mut nft, &everything());
        let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/everything.nft");
        let listing = golden_listing();
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(golden, &listing).unwrap();
        }
        assert_eq!(listing, std::fs::read_to_string(golden).unwrap());
    });
}

/// How `nft` lists a ruleset when it has no owner; nothing of it is left.
fn listed(ruleset: &Ruleset) -> String {
    let mut nft = Nft::open().unwrap();
    put(&mut nft, ruleset);
    // nft 1.0.6 does not know the flag "persist".
    let listing = golden_listing().replace("\tflags owner\n\n", "");
    nft.commit(&[Change::DeleteTable(Family::Ip), Change::DeleteTable(Family::Ip6), Change::DeleteTable(Family::Bridge)]).unwrap();
    listing
}

#[test]
fn the_listing_loads_again() {
    in_namespace(|| {
        let listing = listed(&everything());
        let output = load(&listing);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(golden_listing(), listing);
    });
}

/// Gives `nft` the commands that make a ruleset, as far as it can write them.
pub fn load_words(wanted: &Ruleset, mut can: impl FnMut(&str) -> bool) {
    let name = |index| (index == 1).then(|| "lo".to_owned());
    let changes = diff(wanted, &Ruleset::default());
    let words: Vec<String> = changes.iter().map(|change| change.words(wanted, &name)).filter(|words| can(words)).collect();
    let output = load(&words.join("\n"));
    assert!(output.status.success(), "{}\n{}", String::from_utf8_lossy(&output.stderr), words.join("\n"));
}

/// What a dry run prints is what `nft` takes, and it makes the same of it.
#[test]
fn changes_in_words_are_taken_by_nft_for_the_same() {
    in_namespace(|| {
        let listing = listed(&everything());
        load_words(&everything(), |_| true);
        assert_eq!(golden_listing(), listing);
    });
}

#[test]
fn a_batch_with_one_bad_change_changes_nothing_and_names_it() {
    in_namespace(|| {
        let mut nft = Nft::open().unwrap();
        put(&mut nft, &everything());
        let gone = Key::one(number(99));
        let error = nft
            .commit(&[
                Change::DeleteElements(Family::Ip, "uplinks".into(), vec![Key::one(number(3))]),
                Change::FlushChain(Family::Ip6, "prerouting".into()),
                Change::DeleteElements(Family::Ip, "uplinks".into(), vec![gone]),
                Change::DeleteChain(Family::Ip, "nowhere".into()),
            ])
            .unwrap_err();
        let CommitError::Refused { change, index, refused, source, .. } = error else { panic!("{error:?}") };
        assert_eq!(change, "delete 1 elements of set ip uplinks");
        assert_eq!((index, refused, source.raw_os_error()), (Some(2), 2, Some(nix::libc::ENOENT)));
        assert_eq!(nft.read().unwrap(), everything());
    });
}

#[test]
fn every_step_between_two_rulesets_is_one_batch_that_the_kernel_takes() {
    in_namespace(|| {
        let mut nft = Nft::open().unwrap();
        let whole = everything();
        let mut steps = vec![Ruleset::default(), whole.clone()];
        // Without the chain that verdicts, jumps and gotos lead to.
        let mut without_chain = whole.clone();
        for family in [Family::Ip, Family::Ip6] {
            let table = without_chain.tables.get_mut(&family).unwrap();
            table.chains.remove("arrival");
            table.sets.remove("dispatch");
            table.sets.remove("traffic");
            table.chains.insert("prerouting".into(), Chain::base(ChainKind::Filter, Hook::Prerouting, -99, []));
        }
        steps.push(without_chain);
        steps.push(whole.clone());
        // Other data, and a range that overlaps the one it replaces.
        let mut other_data = whole.clone();
        let table = other_data.tables.get_mut(&Family::Ip).unwrap();
        let prefixes = &mut table.sets.get_mut("prefixes").unwrap().elements;
        prefixes.clear();
        prefixes.insert(Key::prefix(5, "10.1.128.0/17".parse().unwrap()), Data::mark(0x1003));
        prefixes.insert(Key::prefix(6, "10.1.0.1/32".parse().unwrap()), Data::mark(0x1004));
        let dispatch = &mut table.sets.get_mut("dispatch").unwrap().elements;
        dispatch.insert(Key::one(number(3)), Data::Verdict(Verdict::Drop));
        steps.push(other_data);
        // Another priority, and another type of a set.
        let mut anew = whole.clone();
        anew.tables.get_mut(&Family::Ip).unwrap().chains.get_mut("seal").unwrap().base =
            Some(Base { kind: ChainKind::Filter, hook: Hook::Postrouting, priority: 111 });
        anew.tables.get_mut(&Family::Ip6).unwrap().sets.insert("own".into(), Set::of([Datatype::IfIndex, Datatype::Ipv6]).with_ranges());
        steps.push(anew);
        steps.push(Ruleset::default());
        for step in steps {
            put(&mut nft, &step);
            assert_eq!(nft.read().unwrap(), step);
        }
        assert_eq!(listing(), "");
    });
}

#[test]
fn ten_thousand_elements_load_and_change_in_one_batch_each() {
    in_namespace(|| {
        let mut nft = Nft::open().unwrap();
        for exit in [0x1001, 0x1002] {
            let wanted = claims(10_000, exit);
            put(&mut nft, &wanted);
            assert_eq!(nft.read().unwrap(), wanted);
        }
        assert_eq!(diff(&claims(10_000, 0x1002), &nft.read().unwrap()), []);
    });
}

#[test]
fn a_map_is_looked_up_for_its_key_alone_in_two_ways() {
    in_namespace(|| {
        let mut ruleset = claims(1, 0x1001);
        let table = ruleset.tables.get_mut(&Family::Bridge).unwrap();
        let key = || [iif(), saddr(false)];
        let chain = Chain::regular([
            rule().is(protocol(), 0x0800).found("claims", key()).drop(),
            rule().is(protocol(), 0x0800).is_not(map("claims", key()), 0).drop(),
        ]);
        table.chains.insert("both".into(), chain);
        let mut nft = Nft::open().unwrap();
        put(&mut nft, &ruleset);
        let listing = listing();
        assert!(listing.contains("\tiif . ip saddr @claims drop"), "{listing}");
        assert!(listing.contains("\tiif . ip saddr map @claims != 0x0"), "{listing}");
    });
}
