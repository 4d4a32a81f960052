//! What counts of a node's report. Its agent may be of another version, and its token somebody else's: no word of it may keep a binding or a pool
//! from its status, which the API server takes or refuses as a whole.

use std::collections::BTreeSet;

use crate::api::node::{EgressNodeSpec, NodeBinding, NodeService, Unserved};

/// Characters of a reason, by the schema of `Condition` twice as many as any of ours.
const MAX_REASON: usize = 128;
/// Bytes of a message; a condition's may have 32,768 characters, and is made of several.
const MAX_MESSAGE: usize = 2048;
/// Services of a binding, by our schema.
const MAX_SERVICES: usize = 64;
/// Bytes of a service's name: the longest is `sctp/` with an address of IPv6 and a range of ports.
const MAX_SERVICE: usize = 64;
/// More pods than any node has.
const MAX_COUNT: i64 = 1_000_000;
/// What stands for a reason that is none.
const UNKNOWN: &str = "Unknown";

/// The report as far as it can be believed.
pub(super) fn sound(mut spec: EgressNodeSpec) -> EgressNodeSpec {
    let mut uids = BTreeSet::new();
    spec.bindings.retain(|binding| uids.insert(binding.uid.clone()));
    spec.bindings.iter_mut().for_each(of_binding);
    for address in &mut spec.addresses {
        word(&mut address.reason);
        cut(&mut address.message);
    }
    spec
}

fn of_binding(binding: &mut NodeBinding) {
    binding.workloads = binding.workloads.clamp(0, MAX_COUNT);
    binding.programmed = binding.programmed.clamp(0, binding.workloads);
    binding.failing = binding.failing.clamp(0, binding.workloads);
    binding.reason.iter_mut().for_each(word);
    binding.message.iter_mut().for_each(cut);
    if let Some(Unserved { reason, message }) = &mut binding.unserved {
        word(reason);
        cut(message);
    }
    let mut names = BTreeSet::new();
    binding.services.retain(|one| one.service.len() <= MAX_SERVICE && names.insert(one.service.clone()));
    binding.services.truncate(MAX_SERVICES);
    for NodeService { servers, ready, .. } in &mut binding.services {
        *servers = (*servers).clamp(0, MAX_COUNT);
        *ready = (*ready).clamp(0, *servers);
    }
}

/// Makes it one that a condition may have (the schema of `Condition`: `^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$`).
fn word(reason: &mut String) {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"_,:".contains(&byte);
    let bytes = reason.as_bytes();
    let is_one = bytes.first().is_some_and(u8::is_ascii_alphabetic)
        && bytes.last().is_some_and(|last| last.is_ascii_alphanumeric() || *last == b'_')
        && bytes.iter().all(|byte| inner(*byte))
        && bytes.len() <= MAX_REASON;
    if !is_one {
        UNKNOWN.clone_into(reason);
    }
}

fn cut(message: &mut String) {
    message.truncate(message.floor_char_boundary(MAX_MESSAGE));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::node::NodeAddress;

    fn service(name: &str) -> NodeService {
        NodeService { service: name.to_owned(), servers: 3, ready: 2 }
    }

    fn binding() -> NodeBinding {
        let unserved = Unserved { reason: "PortTaken".to_owned(), message: "it is taken".to_owned() };
        NodeBinding {
            uid: "1".to_owned(),
            workloads: 5,
            programmed: 3,
            failing: 2,
            reason: Some("NoExitOnNode".to_owned()),
            message: Some("there is no exit".to_owned()),
            services: vec![service("tcp/172.31.0.14:80"), service("sctp/[2001:db8:1111:2222:3333:4444:5555:6666]:60000-61000")],
            unserved: Some(unserved),
            ..NodeBinding::default()
        }
    }

    #[test]
    fn what_an_agent_says_counts_as_it_is() {
        let address =
            NodeAddress { pool: "p".to_owned(), address: [10, 0, 1, 9].into(), reason: "NicMissing".to_owned(), message: "m".to_owned() };
        let spec = EgressNodeSpec { bindings: vec![binding()], addresses: vec![address], ..EgressNodeSpec::default() };
        assert_eq!(sound(spec.clone()), spec);
    }

    #[test]
    fn what_no_status_could_have_is_made_so_that_it_can() {
        let twice = vec![service("tcp/172.31.0.14:80"); 2];
        let many = (0..100).map(|port| service(&format!("tcp/172.31.0.14:{port}"))).collect();
        let endless = Unserved { reason: "x".repeat(300_000), message: "ä".repeat(900_000) };
        for (services, count) in [(twice, 1), (many, MAX_SERVICES), (vec![service(&"x".repeat(900_000))], 0)] {
            let lie = NodeBinding {
                workloads: -5,
                programmed: i64::MIN,
                failing: i64::MAX,
                reason: Some(String::new()),
                message: Some(endless.message.clone()),
                unserved: Some(endless.clone()),
                services,
                ..binding()
            };
            let heard = sound(EgressNodeSpec { bindings: vec![lie, binding()], ..EgressNodeSpec::default() });
            let [one] = heard.bindings.as_slice() else { panic!("a binding is told of once: {heard:?}") };
            assert_eq!([one.workloads, one.programmed, one.failing], [0; 3]);
            assert_eq!(one.services.len(), count);
            assert_eq!((one.reason.as_deref(), one.unserved.as_ref().map(|it| it.reason.as_str())), (Some(UNKNOWN), Some(UNKNOWN)));
            assert!(one.message.as_ref().is_some_and(|message| message.len() <= MAX_MESSAGE));
        }
        for reason in ["1st", "two words", "Ends:", "Ä", "a-b"] {
            let mut text = reason.to_owned();
            word(&mut text);
            assert_eq!(text, UNKNOWN, "{reason}");
        }
    }
}
