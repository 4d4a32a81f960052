//! What other programs, and sockets of ours that are gone, do to our tables.

use std::thread;
use std::time::Duration;

use egressd::effects::nft::{CommitError, Nft, NftEvents};
use egressd::nft::encode::Ownership;
use egressd::nft::{Change, Family, Ruleset, diff};

use crate::everything::everything;
use crate::lab::*;

#[test]
fn our_tables_survive_a_foreign_flush_and_our_own_end_and_are_taken_over() {
    in_namespace(|| {
        let wanted = everything();
        let mut first = Nft::open().unwrap();
        assert_eq!(first.ownership(), Ownership::Exclusive, "this test needs kernel 6.9");
        put(&mut first, &wanted);
        assert!(nft(&["flush", "ruleset"]).status.success());
        assert!(!nft(&["add", "element", "ip", "egressd", "uplinks", "{ 9 }"]).status.success());
        assert_eq!(first.read().unwrap(), wanted);

        // While it is owned another socket can look and not touch.
        let mut second = Nft::open().unwrap();
        assert_eq!(second.read().unwrap(), wanted);
        let flush = [Change::FlushChain(Family::Ip, "prerouting".into())];
        let CommitError::Refused { source, .. } = second.commit(&flush).unwrap_err() else { panic!("refused otherwise") };
        assert_eq!(source.raw_os_error(), Some(nix::libc::EPERM));

        // Orphaned it stays, everyone can write, and a new socket takes it over as it is.
        drop(first);
        assert_eq!(second.read().unwrap(), wanted);
        second.commit(&[]).unwrap();
        assert!(!nft(&["add", "element", "ip", "egressd", "uplinks", "{ 9 }"]).status.success());
        assert_eq!(second.read().unwrap(), wanted);

        // An orphan can be made anew in one batch, too.
        drop(second);
        let mut third = Nft::open().unwrap();
        third.read().unwrap();
        let mut changes = vec![Change::DeleteTable(Family::Ip)];
        changes.extend(diff(&wanted, &Ruleset::default()).into_iter().filter(|change| *change == Change::AddTable(Family::Ip)));
        third.commit(&changes).unwrap();
        assert!(!nft(&["delete", "table", "ip", "egressd"]).status.success());
    });
}

#[test]
fn a_table_that_someone_else_made_is_replaced_by_ours() {
    in_namespace(|| {
        let output = load("table ip egressd { set other { type ipv4_addr; flags interval; elements = { 10.0.0.0/8 }\n }\n }\n");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let mut nft = Nft::open().unwrap();
        put(&mut nft, &everything());
        assert_eq!(nft.read().unwrap(), everything());
    });
}

#[test]
fn what_someone_else_put_into_an_orphan_is_taken_out() {
    in_namespace(|| {
        let mut first = Nft::open().unwrap();
        put(&mut first, &everything());
        drop(first);
        let output = load(
            "add chain ip egressd theirs\n\
             add rule ip egressd theirs tcp dport { 1, 2 } drop\n\
             insert rule ip egressd seal accept\n\
             add set ip egressd names { type ifname; elements = { \"eth0\" }; }\n\
             add element ip egressd uplinks { 9 }\n\
             add map ip egressd verdicts { type ipv4_addr : verdict; elements = { 10.0.0.1 : jump theirs }; }\n",
        );
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let mut second = Nft::open().unwrap();
        assert_ne!(second.read().unwrap(), everything());
        put(&mut second, &everything());
        assert_eq!(second.read().unwrap(), everything());
    });
}

#[test]
fn only_foreign_nat_chains_that_are_ahead_of_ours_are_told_apart() {
    in_namespace(|| {
        let other = "table inet other { chain early { type nat hook postrouting priority 50; }\n chain late { type nat hook postrouting priority 100; }\n chain f { type filter hook input priority 0; }\n }\n";
        assert!(load(other).status.success());
        let mut nft = Nft::open().unwrap();
        put(&mut nft, &everything());
        let chains = nft.chains().unwrap();
        assert!(chains.iter().any(|chain| chain.table == "egressd"));
        let ahead: Vec<_> = chains.iter().filter(|chain| chain.is_nat_ahead_of_ours()).map(ToString::to_string).collect();
        assert_eq!(ahead, ["inet other early"]);
    });
}

#[test]
fn a_read_while_others_write_is_never_torn() {
    in_namespace(|| {
        let mut reader = Nft::open().unwrap();
        let (old, new) = (claims(500, 0x1001), claims(500, 0x1002));
        put(&mut reader, &old);
        let there = diff(&new, &old);
        let back = diff(&old, &new);
        drop(reader);
        let stop = std::sync::atomic::AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut writer = Nft::open().unwrap();
                writer.read().unwrap();
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    for changes in [&there, &back] {
                        writer.commit(changes).unwrap();
                        thread::sleep(Duration::from_millis(3));
                    }
                }
            });
            let mut reader = Nft::open().unwrap();
            for _ in 0..50 {
                let seen = reader.read().unwrap();
                assert!(seen == old || seen == new, "a mixture");
            }
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
        });
    });
}

#[test]
fn foreign_changes_are_told_and_our_own_are_not() {
    in_namespace(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut nft_socket = Nft::open().unwrap();
            let mut events = NftEvents::open(nft_socket.port()).unwrap();
            put(&mut nft_socket, &everything());
            let quiet = tokio::time::timeout(Duration::from_millis(200), events.next()).await;
            assert!(quiet.is_err(), "{quiet:?}");

            assert!(load("table ip other { chain a { type nat hook postrouting priority 50; }\n }\n").status.success());
            let notice = events.next().await.unwrap();
            assert_eq!((notice.ours, notice.nat_chains, notice.lost), (false, true, false));
            assert_eq!(notice.program.as_deref(), Some("nft"));

            drop(nft_socket);
            assert!(nft(&["add", "element", "ip", "egressd", "uplinks", "{ 9 }"]).status.success());
            let notice = events.next().await.unwrap();
            assert_eq!((notice.ours, notice.nat_chains), (true, false));
        });
    });
}
