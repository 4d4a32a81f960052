//! The kernel: its version, its parts, what this process may do, and settings.

use super::facts::{CAP_NET_ADMIN, CAP_NET_BROADCAST, CAP_NET_RAW, Facts};
use super::finding::Finding;
use crate::model::release;

/// Oldest kernel that egressd is for.
const OLDEST: (u32, u32) = (5, 15);
/// nftables tables that survive their owner, and that others cannot flush.
const OWNED_TABLES: (u32, u32) = (6, 9);

pub fn findings(facts: &Facts) -> Vec<Finding> {
    let mut findings = vec![version(&facts.kernel)];
    findings.extend(features(facts));
    findings.extend(zones(facts));
    findings.extend(privileges(facts));
    findings.extend(sysctls(facts));
    findings.extend(conntrack(facts));
    findings
}

fn version(release: &str) -> Finding {
    let Some(version) = release::version(release) else {
        return Finding::warn("kernel", format!("its version {release:?} cannot be read"), "make sure that it is Linux 5.15 or later");
    };
    if version < OLDEST {
        return Finding::fail("kernel", format!("Linux {release} is too old"), "use Linux 5.15 or later");
    }
    let also = if version < OWNED_TABLES {
        "; before 6.9 `nft flush ruleset` removes egressd's tables, and bound workloads are without their exit until the daemon has restored them"
    } else {
        ""
    };
    Finding::ok("kernel", format!("Linux {release}{also}"))
}

fn features(facts: &Facts) -> Vec<Finding> {
    let refused = |(feature, error): &(super::facts::Feature, Option<String>)| {
        let error = error.as_ref()?;
        let cure = format!("`modprobe {}`; if there is no such module, use a kernel that has it", feature.module);
        Some(Finding::fail(feature.name, format!("the kernel refuses it: {error}"), cure))
    };
    let refused: Vec<_> = facts.features.iter().filter_map(refused).collect();
    if !refused.is_empty() || facts.features.is_empty() {
        return refused;
    }
    let names: Vec<_> = facts.features.iter().map(|(feature, _)| feature.name).collect();
    vec![Finding::ok("kernel's parts", names.join(", "))]
}

fn zones(facts: &Facts) -> Option<Finding> {
    let why = facts.no_zones.as_ref()?;
    let message =
        format!("the kernel refuses them: {why}; two programs of the host that send datagrams from one port to one peer share one exit");
    Some(Finding::warn("conntrack zones", message, "use a kernel with `CONFIG_NF_CONNTRACK_ZONES`, or give each program a port of its own"))
}

fn privileges(facts: &Facts) -> Vec<Finding> {
    let needed = [
        (CAP_NET_ADMIN, "CAP_NET_ADMIN", "to set rules, routes and link groups"),
        (CAP_NET_BROADCAST, "CAP_NET_BROADCAST", "to see the addresses inside containers before they send"),
    ];
    let lacks = |bit| facts.capabilities & bit == 0;
    let cure = |name: &str| format!("run as root, or with {name} (`AmbientCapabilities=` of a unit, `--cap-add` of a container)");
    let missing = needed.iter().filter(|(bit, ..)| lacks(*bit));
    let mut findings: Vec<_> = missing
        .map(|(_, name, what_for)| Finding::fail(*name, format!("this process lacks it; it is needed {what_for}"), cure(name)))
        .collect();
    if lacks(CAP_NET_RAW) {
        let message = "this process lacks it: gateways and neighbours cannot be probed (ARP, neighbour discovery), so a dead gateway is not \
                       noticed, and no address with `assignment: Managed` is put on a NIC";
        findings.push(Finding::warn("CAP_NET_RAW", message, cure("CAP_NET_RAW")));
    }
    if !facts.sysctls_writable {
        let cure =
            "run it with /proc/sys writable (`ProtectKernelTunables=no` in a unit), or with the host's mounted elsewhere (`--sysctl-root`)";
        let message = "read-only for this process: the settings that egressd would change stay as they are";
        findings.push(match forwards(facts) {
            true => Finding::warn("/proc/sys", message, cure),
            false => Finding::fail("/proc/sys", format!("{message}, and net.ipv4.ip_forward is 0"), cure),
        });
    }
    if findings.is_empty() {
        findings.push(Finding::ok("privileges", "CAP_NET_ADMIN, CAP_NET_BROADCAST, CAP_NET_RAW, /proc/sys writable"));
    }
    findings
}

fn forwards(facts: &Facts) -> bool {
    facts.sysctl("net/ipv4/ip_forward") != Some(0)
}

fn sysctls(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.push(match forwards(facts) {
        true => Finding::ok("net.ipv4.ip_forward", "1"),
        false => Finding::ok("net.ipv4.ip_forward", "0; egressd sets it to 1 when a workload with an IPv4 exit is bound"),
    });
    let v6_off = facts.sysctl("net/ipv6/conf/all/disable_ipv6");
    findings.push(match v6_off {
        None => Finding::ok("IPv6", "the kernel has none: only IPv4 exits can be used"),
        Some(0) => Finding::ok("IPv6", "on"),
        Some(_) => Finding::ok("IPv6", "off by net.ipv6.conf.all.disable_ipv6: only IPv4 exits can be used"),
    });
    for nic in facts.nics() {
        findings.extend(nic_sysctls(facts, &nic.name));
    }
    if facts.sysctl("net/bridge/bridge-nf-call-iptables") == Some(1) {
        findings.push(Finding::ok(
            "net.bridge.bridge-nf-call-iptables",
            "1; packets between ports of one bridge pass iptables too; egressd tells them apart ahead of that",
        ));
    }
    findings
}

fn nic_sysctls(facts: &Facts, nic: &str) -> Vec<Finding> {
    let of = |family, place: &str, name| facts.sysctl(&format!("net/{family}/conf/{place}/{name}"));
    // The kernel goes by the larger of both.
    let in_force = |name| of("ipv4", "all", name).unwrap_or(0).max(of("ipv4", nic, name).unwrap_or(0));
    let mut set = Vec::new();
    if in_force("rp_filter") == 1 {
        set.push("rp_filter to 2 (now 1: answers over a NIC that is not the default route's are dropped)");
    }
    if in_force("arp_ignore") == 0 {
        set.push("arp_ignore to 1 (now 0: it answers for other NICs' addresses)");
    }
    if in_force("arp_announce") < 2 {
        set.push("arp_announce to 2 (it asks with other NICs' addresses)");
    }
    let mut findings = Vec::new();
    let advertised = of("ipv6", nic, "accept_ra") == Some(1);
    if advertised && of("ipv6", "all", "forwarding") == Some(1) {
        findings.push(Finding::warn(
            format!("net.ipv6.conf.{nic}.accept_ra"),
            "1, but IPv6 forwarding is on, so the kernel ignores router advertisements there: no IPv6 gateway is learned",
            format!("`sysctl -w net/ipv6/conf/{nic}/accept_ra=2`, if its gateway is to be learned from advertisements"),
        ));
    } else if advertised {
        set.push("accept_ra to 2 before IPv6 forwarding is turned on (which else deletes the advertised default route)");
    }
    let subject = format!("settings of {nic}");
    findings.push(match (set.is_empty(), facts.sysctls_writable) {
        (true, _) => Finding::ok(subject, "as egressd needs them"),
        (false, true) => {
            Finding::ok(subject, format!("while a workload leaves through {nic}, egressd sets, where needed, {}", set.join(", ")))
        }
        (false, false) => Finding::warn(
            subject,
            format!("{nic} as an uplink needs {}", set.join(", ")),
            "set them in /etc/sysctl.d, as egressd cannot: /proc/sys is read-only for it",
        ),
    });
    findings
}

fn conntrack(facts: &Facts) -> Option<Finding> {
    let (count, max) = (facts.sysctl("net/netfilter/nf_conntrack_count")?, facts.sysctl("net/netfilter/nf_conntrack_max")?);
    let (subject, said) = ("conntrack table", format!("{count} of {max} entries"));
    let cure = || format!("`sysctl -w net.netfilter.nf_conntrack_max={}`, and the same in /etc/sysctl.d", max.saturating_mul(2));
    Some(match max {
        // No limit.
        0 => Finding::ok(subject, format!("{count} entries")),
        _ if count >= max => Finding::fail(subject, format!("{said}: full, new flows are dropped"), cure()),
        _ if count >= max / 10 * 8 => Finding::warn(subject, format!("{said}: new flows are dropped once it is full"), cure()),
        _ => Finding::ok(subject, said),
    })
}
