//! Labels of ports that containers serve at their exits' addresses: `egress.publish` and what goes with it.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::label::{Draft, Effect, InboundDraft, Label, Published, choice, list};
use crate::api::values::{self, Fault, Faults, shown};
use crate::model::binding::ExitSpec;
use crate::model::health::{AllDown, HealthCheck, Probe};
use crate::model::inbound::{Balance, ClientSource, Inbound, LastResort, Limits};
use crate::model::ipvs::{Balancer, Engine, Scheduler};
use crate::model::ports::Protocol;

pub const PUBLISH: Label = Label {
    name: "egress.publish",
    effect: Effect::Exit,
    grammar: "published {`,` published}, published = [address `:`] port [`-` port | `:` port] [`/` protocol], protocol `tcp`, `udp` or `sctp`; an IPv6 address stands in brackets",
    meaning: "Ports of the exits' addresses that the container serves: the exit (each of them when not given), the port that is called (or a range), and the container's own port. Containers that publish the same share its connections.",
    example: "27017:1234/tcp",
    read: |draft, value| list(value, published).map(|all| draft.inbound.publish = all),
};

pub const BALANCE: Label = Label {
    name: "egress.balance",
    effect: Effect::Exit,
    grammar: "`round-robin`, `random` or `by-source`",
    meaning: "How new connections to published ports are shared among the containers: in turn, at random, or by a hash of the client's address. `round-robin` when not given.",
    example: "round-robin",
    read: |draft, value| {
        let choices = [("round-robin", Balance::RoundRobin), ("random", Balance::Random), ("by-source", Balance::BySource)];
        choice(value, choices).map(|balance| draft.inbound.balance = Some(balance))
    },
};

pub const ENGINE: Label = Label {
    name: "egress.engine",
    effect: Effect::Exit,
    grammar: "`nftables` or `ipvs`",
    meaning: "How calls reach the container: through rules of nftables, or a virtual service of the kernel's IPVS, which has more schedulers and serves single ports. `nftables` when not given.",
    example: "ipvs",
    read: |draft, value| choice(value, [("nftables", false), ("ipvs", true)]).map(|ipvs| draft.inbound.ipvs = Some(ipvs)),
};

pub const SCHEDULER: Label = Label {
    name: "egress.scheduler",
    effect: Effect::Exit,
    grammar: "`rr`, `wrr`, `lc`, `wlc`, `lblc`, `lblcr`, `dh`, `sh`, `sed`, `nq`, `fo`, `ovf`, `mh` or `twos`",
    meaning: "How IPVS shares new connections to published ports among the containers. `wlc` (least connections by weight) when not given.",
    example: "rr",
    read: |draft, value| {
        let choices = Scheduler::ALL.map(|scheduler| (scheduler.name(), scheduler));
        choice(value, choices).map(|scheduler| draft.inbound.scheduler = Some(scheduler))
    },
};

pub const CLIENT_SOURCE: Label = Label {
    name: "egress.client-source",
    effect: Effect::Exit,
    grammar: "`preserve`, `masquerade` or `route-back`",
    meaning: "The client address that the container sees on a published port: the client's own, or the host's. `preserve` when not given. With `route-back`, for IPVS, the client's own also for clients on the container's link, with a rule in the container's network namespace.",
    example: "preserve",
    read: |draft, value| {
        let choices =
            [("preserve", ClientSource::Preserve), ("masquerade", ClientSource::Masquerade), ("route-back", ClientSource::RouteBack)];
        choice(value, choices).map(|source| draft.inbound.client_source = Some(source))
    },
};

pub const WEIGHT: Label = Label {
    name: "egress.weight",
    effect: Effect::Exit,
    grammar: "number, 0 to 100",
    meaning: "The container's share of the new connections to its published ports; with 0 it gets none. 1 when not given.",
    example: "2",
    read: |draft, value| {
        let number = value.parse().ok().filter(|number| (0..=100).contains(number));
        let number = number.ok_or_else(|| Fault::new(format!("{} is no weight from 0 to 100", shown(value))))?;
        draft.inbound.weight = Some(number);
        Ok(())
    },
};

pub const HEALTH: Label = Label {
    name: "egress.health",
    effect: Effect::Exit,
    grammar: "`tcp` [`:` port], or `http:` or `https:` [port] path",
    meaning: "The health check of the container's published ports, each half second: it has to accept a TCP connection, or answer a GET with a status from 200 to 399 (over TLS with any certificate); on the port that it serves unless another one is given. After two failures in a row it gets no new connection until it has answered twice.",
    example: "http:/ready",
    read: |draft, value| {
        let wrong = || Fault::new(format!("{} is neither `tcp` nor `http:` or `https:` with a path", shown(value)));
        let port = |text: &str| {
            let number = text.parse().map_err(|_| wrong())?;
            values::port_range(Protocol::Tcp, number, number).map(|ports| Some(ports.first))
        };
        let (probe, port) = match value.split_once(':').unwrap_or((value, "")) {
            ("tcp", "") => (Probe::Tcp, None),
            ("tcp", text) => (Probe::Tcp, port(text)?),
            (scheme @ ("http" | "https"), rest) => {
                let (text, path) = rest.split_at(rest.find('/').ok_or_else(wrong)?);
                let number = if text.is_empty() { None } else { port(text)? };
                (Probe::Http { path: values::path(path)?, host: None, tls: scheme == "https" }, number)
            }
            _ => return Err(wrong()),
        };
        draft.inbound.health = Some(Arc::new(HealthCheck { probe, port, ..HealthCheck::default() }));
        Ok(())
    },
};

pub const ALL_DOWN: Label = Label {
    name: "egress.all-down",
    effect: Effect::Exit,
    grammar: "`refuse` or `keep-all`",
    meaning: "What happens to calls to published ports while no container is healthy: the host refuses them, or they go to all containers. `refuse` when not given.",
    example: "keep-all",
    read: |draft, value| {
        let choices = [("refuse", AllDown::Refuse), ("keep-all", AllDown::KeepAll)];
        choice(value, choices).map(|all_down| draft.inbound.all_down = Some(all_down))
    },
};

pub const LAST_RESORT: Label = Label {
    name: "egress.last-resort",
    effect: Effect::Exit,
    grammar: "server [`,` server], server = address [`:` port]; an IPv6 address with a port stands in brackets; one of each family",
    meaning: "Where calls to published ports go while no container is healthy: a server whose health is not checked. On the container's own port unless another one is given.",
    example: "10.0.0.9:8080",
    read: |draft, value| {
        let all = list(value, last_resort)?;
        let second =
            all.iter().enumerate().find(|(at, one)| all[..*at].iter().any(|other| other.address.is_ipv4() == one.address.is_ipv4()));
        if let Some((_, LastResort { address, .. })) = second {
            return Err(Fault::new(format!("`{address}` is a second one of its family")).cure("keep one of each family"));
        }
        draft.inbound.last_resort = all;
        Ok(())
    },
};

pub const AFFINITY: Label = Label {
    name: "egress.affinity",
    effect: Effect::Exit,
    grammar: "number `s`, `m` or `h`, at most a day",
    meaning: "How long a client of published ports is sent to the same container after its last new connection. When not given, each connection is shared out by itself.",
    example: "60s",
    read: |draft, value| values::affinity(value).map(|seconds| draft.inbound.affinity = Some(seconds)),
};

/// The published ports of a container with these exits.
pub fn of(draft: &Draft, exits: &[ExitSpec], errors: &mut Faults) -> Vec<Inbound> {
    let InboundDraft { publish, ipvs, balance, scheduler, client_source, weight, health, all_down, last_resort, affinity } = &draft.inbound;
    let told = [
        (ENGINE, ipvs.is_some()),
        (SCHEDULER, scheduler.is_some()),
        (BALANCE, balance.is_some()),
        (CLIENT_SOURCE, client_source.is_some()),
        (WEIGHT, weight.is_some()),
        (HEALTH, health.is_some()),
        (ALL_DOWN, all_down.is_some()),
        (LAST_RESORT, !last_resort.is_empty()),
        (AFFINITY, affinity.is_some()),
    ];
    for (label, _) in told.iter().filter(|(_, given)| *given && publish.is_empty()) {
        let field = PUBLISH.name;
        // What is wrong with it is said already.
        if !errors.concern(field) {
            errors.push(label.name, || format!("is about a published port, and none is published; add `{field}`, or remove this"));
        }
    }
    let engine = match ipvs {
        Some(true) => Engine::Ipvs(Balancer { scheduler: scheduler.unwrap_or_default(), persistence: None }),
        _ => Engine::Nftables,
    };
    if engine == Engine::Nftables && scheduler.is_some() {
        errors.push(SCHEDULER.name, || format!("is for the engine `ipvs`; add `{}=ipvs`, or use `{}` instead", ENGINE.name, BALANCE.name));
    }
    if engine == Engine::Nftables && *client_source == Some(ClientSource::RouteBack) {
        errors.push(CLIENT_SOURCE.name, || {
            format!("`route-back` is for the engine `ipvs`; add `{}=ipvs`, or choose `preserve` or `masquerade`", ENGINE.name)
        });
    }
    if engine != Engine::Nftables && balance.is_some() {
        errors.push(BALANCE.name, || format!("is for the engine `nftables`; use `{}` instead, for instance `rr`", SCHEDULER.name));
    }
    if engine != Engine::Nftables && affinity.is_some() {
        errors.push(AFFINITY.name, || "is for the engine `nftables`; remove it, or write a manifest with `persistence`".to_owned());
    }
    if *all_down == Some(AllDown::KeepAll) && !last_resort.is_empty() {
        errors.push(LAST_RESORT.name, || {
            format!("gets no call with `{}=keep-all`, which sends calls to all containers; leave one of them out", ALL_DOWN.name)
        });
    }
    for address in publish.iter().filter_map(|one| one.address) {
        // An interface's own address is not known here.
        if exits.iter().all(|exit| exit.address != address && !exit.address.is_unspecified()) {
            errors.push(PUBLISH.name, || {
                format!("`{address}` is none of the exits; name it in `egress.ip`, or publish at one that is there")
            });
        }
    }
    let mut all: Vec<Inbound> = Vec::new();
    for one in publish {
        let Published { address, ports, .. } = one;
        let meets =
            |other: &Inbound| other.ports.meets(ports) && (other.address == *address || other.address.is_none() || address.is_none());
        if all.iter().any(meets) {
            errors.push(PUBLISH.name, || format!("`{ports}` is given twice; keep one"));
        }
        if ports.first != ports.last && health.as_ref().is_some_and(|health| health.port.is_none()) {
            errors
                .push(HEALTH.name, || format!("names no port, and `{ports}` is a range; name the port to check, for instance `tcp:8081`"));
        }
        if ports.first != ports.last && last_resort.iter().any(|last| last.port.is_some()) {
            errors.push(LAST_RESORT.name, || {
                format!("has a port, and `{ports}` is a range, whose ports stay as they are; leave the port out")
            });
        }
        if ports.first != ports.last && engine != Engine::Nftables {
            errors.push(ENGINE.name, || format!("`ipvs` serves single ports, and `{ports}` is a range; publish each port, or remove this"));
        }
        all.push(Inbound {
            engine,
            balance: balance.unwrap_or_default(),
            client_source: client_source.unwrap_or_default(),
            weight: weight.unwrap_or(1),
            health: health.clone(),
            all_down: all_down.unwrap_or_default(),
            last_resort: last_resort.clone(),
            affinity: *affinity,
            ..one.plain()
        });
    }
    all
}

impl Published {
    /// With nothing else said of how it is served.
    fn plain(&self) -> Inbound {
        Inbound {
            address: self.address,
            ports: self.ports,
            target: self.target,
            engine: Engine::Nftables,
            balance: Balance::default(),
            client_source: ClientSource::default(),
            weight: 1,
            weights: BTreeMap::new(),
            thresholds: BTreeMap::new(),
            health: None,
            all_down: AllDown::default(),
            last_resort: Vec::new(),
            drain: None,
            affinity: None,
            limits: Limits::default(),
            refusal: None,
        }
    }
}

/// `10.0.0.9`, `10.0.0.9:8080`, `fd00::9`, `[fd00::9]:8080`.
fn last_resort(text: &str) -> Result<LastResort, Fault> {
    let (address, port) = match text.strip_prefix('[') {
        Some(rest) => rest.split_once("]:").map_or((text, None), |(address, port)| (address, Some(port))),
        None => match text.split_once(':') {
            Some((address, port)) if address.contains('.') => (address, Some(port)),
            _ => (text, None),
        },
    };
    let number = |port: &str| {
        let number = port.parse().map_err(|_| Fault::new(format!("{} is no address and port", shown(text))))?;
        values::port_range(Protocol::Tcp, number, number).map(|ports| ports.first)
    };
    Ok(LastResort { address: values::last_resort_address(address)?, port: port.map(number).transpose()? })
}

/// One published port, by the grammar of the label, with nothing else said of how it is served.
pub fn publish(text: &str) -> Result<Inbound, Fault> {
    published(text).map(|one| one.plain())
}

/// `27017`, `27017:1234/tcp`, `172.31.0.14:8000-8010/udp`, `[2001:db8::14]:27017:1234`.
fn published(text: &str) -> Result<Published, Fault> {
    let wrong = || Fault::new(format!("{} is not a published port", shown(text)));
    let (rest, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = values::protocol(protocol)?;
    let (address, ports) = match rest.strip_prefix('[') {
        Some(rest) => {
            let (address, ports) = rest.split_once("]:").ok_or_else(wrong)?;
            (Some(address), ports)
        }
        None => match rest.split_once(':') {
            Some((address, ports)) if address.contains('.') => (Some(address), ports),
            _ => (None, rest),
        },
    };
    let address = address.map(values::exit_address).transpose()?;
    let port = |text: &str| text.trim().parse::<i32>().map_err(|_| wrong());
    let (called, target) = match ports.split_once(':') {
        Some((called, target)) => (called, Some(port(target)?)),
        None => (ports, None),
    };
    let (first, last) = called.split_once('-').unwrap_or((called, called));
    let ports = values::port_range(protocol, port(first)?, port(last)?)?;
    if target.is_some() && ports.first != ports.last {
        return Err(Fault::new(format!("{} gives a range one port", shown(text)))
            .cure("the ports of a range stay as they are: leave the other out"));
    }
    let target = target.map(|port| values::port_range(protocol, port, port)).transpose()?.map(|ports| ports.first);
    Ok(Published { address, ports, target })
}
