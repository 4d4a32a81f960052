//! Parts of egressd's rules, taken out of a host that its daemon has left.

use world::command;

use crate::host::Host;

/// What is done to a host.
pub type Change = fn(&Host);

/// What egressd's rules cost, by leaving a part of them out of copies of its host, without the daemon: name, host, and what takes it out.
pub const WITHOUT: [(&str, &str, Change); 7] = [
    ("egressd's copy, all there", "copy", |_| {}),
    ("without the seal", "noseal", |host| {
        host.inside.nft("delete chain ip egressd seal");
    }),
    ("without the drop behind SNAT", "nodrop", |host| {
        let text = host.inside.run(&["nft", "--handle", "list", "table", "ip", "egressd"]);
        let (_, chain) = text.split_once("chain source_nat {").expect("the table has the chain");
        let rule = chain.lines().find(|line| line.contains("drop")).expect("the chain ends with a drop");
        let (_, handle) = rule.rsplit_once(' ').expect("a rule ends with its handle");
        // The chain's name is a word of nft's language, which its JSON does not mind.
        let delete = format!(
            r#"{{"nftables": [{{"delete": {{"rule": {{"family": "ip", "table": "egressd", "chain": "source_nat", "handle": {handle}}}}}}}]}}"#
        );
        host.inside.enter(|| command::feed(&["nft", "--json", "--file", "-"], &delete));
    }),
    ("without the owners of 10,000 addresses", "noowners", |host| {
        host.inside.nft("flush chain bridge egressd prerouting");
    }),
    ("without the rule that finds the inside", "noinside", |host| {
        host.inside.ip("rule del pref 1560");
    }),
    ("without any policy rule (its default route is by that NIC)", "norules", |host| {
        for preference in 1560..=1563 {
            // One after the other, until there is none of it.
            while host.inside.enter(|| command::try_run(&["ip", "rule", "del", "pref", &preference.to_string()])).is_ok() {}
        }
        host.inside.ip("route replace default via 172.31.16.1 dev eth1");
    }),
    ("without the rules in prerouting (one sets the mark)", "nochains", |host| {
        let rule = "add rule ip egressd prerouting iifname br0";
        host.inside.nft(&format!("flush chain ip egressd prerouting\n{rule} meta mark set {:#x}", mark(host)));
    }),
];

/// The mark of the way that the host's workloads leave by.
fn mark(host: &Host) -> u32 {
    let text = host.inside.run(&["nft", "list", "map", "ip", "egressd", "ways"]);
    let mut marks = text.split(" : 0x").skip(1).filter_map(|rest| u32::from_str_radix(rest.get(..8)?, 16).ok());
    marks.next().expect("somebody is bound")
}
