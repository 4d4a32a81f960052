//! Reads the host: `/proc`, configuration files, netlink, Docker's socket. What cannot be read is noted, and the rest goes on.

mod files;

use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use nix::libc;

use super::facts::{Docker, Facts, Feature, Unseen};
use crate::contract::{PRIORITY_BRIDGE, PRIORITY_PREROUTING, PRIORITY_SNAT};
use crate::daemon::control::{self, AskError, Request};
use crate::effects::nft::Nft;
use crate::facts::cause::with_causes;
use crate::facts::docker::{self, Client};
use crate::facts::kernel::Asker;
use crate::netlink::Channel;
use crate::nft::build::{constant, ct_reply_daddr, fib_oif, iif, rule};
use crate::nft::{Base, ChainKind, Change, Family, Hook, Rule};
use crate::plan::datapath::programs::trial_of_zones;
use crate::wire::netfilter;

/// How long Docker may take for an answer.
const DOCKER_PATIENCE: Duration = Duration::from_secs(5);
/// `IPCTNL_MSG_CT_GET_STATS`: asks for one number only.
const CONNTRACK_STATISTICS: u16 = netfilter::kind(libc::NFNL_SUBSYS_CTNETLINK as u16, 5);

/// Reads everything. Files of `/etc`, `/run` and `/usr` are looked for below `root`, the
/// kernel's settings below `sysctls`.
pub async fn gather(root: &Path, sysctls: &Path, docker: &Path, state: &Path) -> Facts {
    let mut unseen = Unanswered::default();
    let mut facts = Facts { docker: Some(engine(docker).await), ..Facts::default() };
    if let Some(mut ask) = unseen.or_note("links and routes", Asker::open()) {
        facts.links = unseen.or_none("links", ask.links());
        facts.addressed = unseen.or_none("addresses", ask.own_addresses()).into_iter().map(|(index, _)| index).collect();
        (facts.routes, facts.rules) = unseen.or_none("routes and policy rules", ask.routing());
    }
    if let Some(mut nft) = unseen.or_note("nftables", Nft::open()) {
        facts.chains = unseen.or_none("nftables", nft.chains());
        let zones = unseen.or_note("conntrack zones", nft.refuses(Family::Ip, trial_of_zones()));
        facts.no_zones = zones.flatten().map(|error| error.to_string());
        for (feature, family, changes) in trials() {
            let tried = unseen.or_note(feature.name, nft.refuses(family, changes));
            facts.features.extend(tried.map(|refused| (feature, refused.map(|error| error.to_string()))));
        }
    }
    facts.daemon = unseen.or_note("egressd", daemon(state));
    let flows = Feature { name: "conntrack by netlink", module: "nf_conntrack_netlink" };
    match conntrack() {
        Err(error) if error.errno() != Some(libc::EPERM) => facts.features.push((flows, Some(with_causes(&error)))),
        answer => facts.features.extend(unseen.or_note(flows.name, answer).map(|()| (flows, None))),
    }
    files::read(root, sysctls, &mut facts);
    facts.unseen = unseen.0;
    facts
}

/// Collects what went wrong.
#[derive(Default)]
struct Unanswered(Vec<Unseen>);

impl Unanswered {
    fn or_note<T, E: std::error::Error>(&mut self, what: &'static str, answer: Result<T, E>) -> Option<T> {
        answer.map_err(|error| self.0.push(Unseen { what, why: with_causes(&error) })).ok()
    }

    fn or_none<T: Default, E: std::error::Error>(&mut self, what: &'static str, answer: Result<T, E>) -> T {
        self.or_note(what, answer).unwrap_or_default()
    }
}

fn conntrack() -> Result<(), crate::netlink::Error> {
    let mut channel = Channel::open(netlink_sys::protocols::NETLINK_NETFILTER)?;
    channel.request(netfilter::message(CONNTRACK_STATISTICS, 0, 0, 0), |_| {})
}

/// What of nf_tables is tried, each by the least that needs it.
fn trials() -> Vec<(Feature, Family, Vec<Change>)> {
    let trial = |name, module, family, (kind, hook, priority), rule: Rule| {
        let chain = Change::AddChain(family, "trial".to_owned(), Some(Base { kind, hook, priority }));
        (Feature { name, module }, family, vec![chain, Change::AddRule(family, "trial".to_owned(), rule)])
    };
    let in_bridge = (ChainKind::Filter, Hook::Prerouting, PRIORITY_BRIDGE);
    let in_prerouting = (ChainKind::Filter, Hook::Prerouting, PRIORITY_PREROUTING);
    let in_postrouting = (ChainKind::Nat, Hook::Postrouting, PRIORITY_SNAT);
    let no_way = || rule().is(fib_oif(), 0).done();
    let mut trials = vec![
        trial("bridge family", "nft_meta_bridge", Family::Bridge, in_bridge, rule().is(iif(), 0).done()),
        trial("SNAT", "nft_nat", Family::Ip, in_postrouting, rule().snat(Family::Ip, constant(0))),
        trial("conntrack's addresses", "nft_ct", Family::Ip, in_prerouting, rule().is(ct_reply_daddr(false), 0).done()),
        trial("fib lookups", "nft_fib_ipv4", Family::Ip, in_prerouting, no_way()),
    ];
    if Path::new("/proc/sys/net/ipv6").exists() {
        trials.push(trial("fib lookups (IPv6)", "nft_fib_ipv6", Family::Ip6, in_prerouting, no_way()));
    }
    trials
}

/// Whether one answers on the state folder's socket, ready or not.
fn daemon(state: &Path) -> Result<bool, AskError> {
    match control::ask(state, &Request::Ready) {
        Ok(_) => Ok(true),
        Err(AskError::Unreachable { source, .. }) if matches!(source.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

async fn engine(socket: &Path) -> Docker {
    if !socket.exists() {
        return Docker::None(socket.to_owned());
    }
    let asked = async {
        let engine = Client::new(socket, DOCKER_PATIENCE);
        Ok::<_, docker::AskError>(Docker::There { version: engine.version().await?, networks: engine.networks().await?.entries })
    };
    match tokio::time::timeout(DOCKER_PATIENCE, asked).await {
        Ok(Ok(there)) => there,
        Ok(Err(error)) => Docker::Away(with_causes(&error)),
        Err(_) => Docker::Away(format!("no answer within {} s on {}", DOCKER_PATIENCE.as_secs(), socket.display())),
    }
}
