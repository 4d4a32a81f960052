//! Programs that egressd lives with: network managers, Docker, another egressd.

use std::path::Path;

use super::facts::{Docker, Facts, Networkd};
use super::finding::Finding;
use crate::contract::TABLE;
use crate::model::served::refuse_driver;

pub fn findings(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(facts.networkd.map(networkd));
    findings.extend(network_manager(facts));
    findings.extend(docker(facts));
    findings.extend(facts.saved.as_ref().map(|file| saved(file)));
    findings.extend(facts.daemon.map(|runs| match runs {
        true => Finding::ok("egressd", "a daemon runs with this state folder"),
        false if facts.chains.iter().any(|chain| chain.table == TABLE) => Finding::warn(
            "egressd",
            "its rules are in the kernel, and no daemon runs with this state folder: new containers on guarded bridges are held",
            "start it (systemctl start egressd), or remove the rules: egressd cleanup",
        ),
        false => Finding::ok("egressd", "no daemon runs with this state folder"),
    }));
    findings
}

/// What `nft list ruleset` wrote, egressd's tables among all others.
fn saved(file: &Path) -> Finding {
    let file = file.display();
    Finding::warn(
        "nftables",
        format!("{file} has tables of egressd, which name interfaces of the moment: nft may refuse the whole file at the next boot"),
        format!("remove the tables {TABLE} from {file}; egressd creates them itself"),
    )
}

/// Since systemd 246 (routes) and 249 (rules) that can be turned off.
fn networkd(networkd: Networkd) -> Finding {
    let settings = [
        (networkd.removes_rules, "policy rules", "ManageForeignRoutingPolicyRules=no"),
        (networkd.removes_routes, "routes", "ManageForeignRoutes=no"),
    ];
    let wrong: Vec<_> = settings.into_iter().filter(|(removes, ..)| *removes).collect();
    if wrong.is_empty() {
        return Finding::ok("systemd-networkd", "leaves other programs' policy rules and routes");
    }
    let what: Vec<_> = wrong.iter().map(|(_, what, _)| *what).collect();
    let lines: Vec<_> = wrong.iter().map(|(.., line)| *line).collect();
    Finding::warn(
        "systemd-networkd",
        format!(
            "it removes other programs' {} when it starts or is reloaded; bound packets are dropped until the daemon has restored them",
            what.join(" and ")
        ),
        format!(
            "`mkdir -p /etc/systemd/networkd.conf.d && printf '[Network]\\n{}\\n' > /etc/systemd/networkd.conf.d/90-egressd.conf && systemctl try-restart systemd-networkd`",
            lines.join("\\n")
        ),
    )
}

/// It leaves rules that it did not add, and routes in tables other than main unless the profile has a table of its own.
fn network_manager(facts: &Facts) -> Option<Finding> {
    let nics: Vec<_> = facts.nics().filter(|nic| facts.network_manager.contains(&nic.index)).map(|nic| nic.name.as_str()).collect();
    let first = nics.first()?;
    let message = format!(
        "it manages {}: when a connection is activated, it removes addresses that the profile does not have and, if the profile sets ipv4.route-table or ipv6.route-table, egressd's routes",
        nics.join(", ")
    );
    // Not `nmcli device set NIC managed no`: the lease of a NIC that nobody manages ends, and with it the host's address.
    let cure = format!(
        "have every exit address in the profile (`nmcli connection modify PROFILE +ipv4.addresses ADDRESS/PREFIX`, with the profile that `nmcli device show {first}` names; with netplan in its file), and leave route-table at 0"
    );
    Some(Finding::warn("NetworkManager", message, cure))
}

fn docker(facts: &Facts) -> Vec<Finding> {
    let (version, networks) = match facts.docker.as_ref() {
        None => return Vec::new(),
        Some(Docker::None(socket)) => {
            let message = format!("none here: there is no socket {}; without an engine, run egressd with --no-docker", socket.display());
            return vec![Finding::ok("Docker", message)];
        }
        Some(Docker::Away(error)) => {
            let cure = "see what `docker version` prints, give its socket with --docker-socket, or run egressd with --no-docker";
            return vec![Finding::warn("Docker", format!("its engine does not answer: {error}"), cure)];
        }
        Some(Docker::There { version, networks }) => (version, networks),
    };
    let mut findings = vec![Finding::ok("Docker", format!("Engine {version}, {} networks", networks.len()))];
    // Docker has these three always, and nobody takes them for bridges.
    for network in networks.iter().filter(|network| !matches!(network.driver.as_str(), "host" | "null")) {
        if let Some(error) = refuse_driver(&network.driver) {
            let subject = format!("Docker network {}", network.name);
            findings.push(Finding::ok(subject, format!("containers on it cannot be bound: driver {}: {}", network.driver, error.message)));
        }
    }
    let bridged = networks.iter().any(|network| network.bridge.is_some() && !network.internal);
    let masquerades = facts.chains.iter().any(|c| (c.table == "nat" && c.chain == "DOCKER") || c.table == "docker-bridges");
    let hidden = facts.legacy_tables.iter().any(|table| table == "nat") || facts.unseen.iter().any(|unseen| unseen.what == "nftables");
    if bridged && !masquerades && !hidden {
        let message =
            "the engine has made no NAT rules (`iptables=false`?): unbound containers leave with their own addresses, untranslated";
        findings.push(Finding::ok("Docker", message));
    }
    findings
}
