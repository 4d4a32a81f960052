//! Which gateways answer, and which did before and do not any more.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::facts::{Family, KernelFacts, Place, is_link_local};
use super::managed::At;

/// Gateways that are asked, each with the address of its NIC that asks; `None` while the NIC has none.
pub type Asked = BTreeMap<At, Option<IpAddr>>;

/// The address of the gateway's NIC that asks for it: one of the gateway's subnet, if there is one. It is asked from no address that the NIC does not
/// hold any more: whoever has it by then would lose it in the gateway's cache. A gateway that is on every link (`fe80::1`, as router advertisements
/// have it, or 169.254.1.1) is asked from any: a link's own link-local addresses are no facts, and any of its addresses may ask (RFC 4861, 7.2.2).
pub fn asked_from(kernel: &KernelFacts, (nic, gateway): At) -> Option<IpAddr> {
    let held =
        kernel.addresses_at(Place { nsid: None, index: nic }).filter(|a| a.usable && Family::of(a.net.addr()) == Family::of(gateway));
    let may = held.filter(|a| is_link_local(gateway) || !is_link_local(a.net.addr()));
    may.min_by_key(|a| (!a.net.contains(&gateway), a.temporary, a.ours, !a.primary)).map(|a| a.net.addr())
}

/// Which gateways answer just now, each on its NIC, and which are dead. Of those that have never answered nothing is said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answers {
    alive: BTreeSet<At>,
    dead: BTreeSet<At>,
}

impl Answers {
    /// Takes note of whether a gateway is dead; whether that is new.
    pub fn note(&mut self, gateway: At, dead: bool) -> bool {
        let (now, before) = if dead { (&mut self.dead, &mut self.alive) } else { (&mut self.alive, &mut self.dead) };
        before.remove(&gateway);
        now.insert(gateway)
    }

    /// Forgets those that are not asked any more.
    pub fn retain(&mut self, asked: &Asked) {
        self.alive.retain(|gateway| asked.contains_key(gateway));
        self.dead.retain(|gateway| asked.contains_key(gateway));
    }

    /// It answered before, and does not any more.
    pub fn is_dead(&self, gateway: At) -> bool {
        self.dead.contains(&gateway)
    }

    /// It answers.
    pub fn is_alive(&self, gateway: At) -> bool {
        self.alive.contains(&gateway)
    }
}

/// What is known of one gateway by its answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// It has answered at least once: one that never did may answer nobody, and is never called dead.
    known: bool,
    dead: bool,
    /// Questions without an answer, or answers of a dead one, in a row. Of one that is not known yet, all questions.
    row: u8,
}

impl Health {
    /// Of a gateway that a run of the daemon before this one has known.
    pub fn remembered(dead: bool) -> Self {
        Self { known: true, dead, row: 0 }
    }

    pub fn is_known(&self) -> bool {
        self.known
    }

    pub fn is_dead(&self) -> bool {
        self.dead
    }

    /// It has been asked for some seconds, and has never answered.
    pub fn is_silent(&self) -> bool {
        !self.known && self.row >= Self::SILENT
    }

    /// Questions until one that has never answered is told.
    const SILENT: u8 = 12;
    /// Questions in a row without an answer until it is dead.
    pub const MISSES: u8 = 3;
    /// Answers in a row until it is back.
    pub const ANSWERS: u8 = 2;

    /// Takes note of what became of a question; whether it is dead, if that has changed or is known for the first time.
    pub fn note(&mut self, answered: bool) -> Option<bool> {
        if !self.known {
            (self.known, self.row) = if answered { (true, 0) } else { (false, self.row.saturating_add(1)) };
            return answered.then_some(false);
        }
        if answered != self.dead {
            self.row = 0;
            return None;
        }
        self.row += 1;
        if self.row < if self.dead { Self::ANSWERS } else { Self::MISSES } {
            return None;
        }
        (self.dead, self.row) = (!self.dead, 0);
        Some(self.dead)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What changed at each of these answers.
    fn changes(answers: &str) -> Vec<(usize, bool)> {
        let mut health = Health::default();
        answers.chars().enumerate().filter_map(|(at, answer)| Some((at, health.note(answer == '+')?))).collect()
    }

    #[test]
    fn three_misses_are_death_and_two_answers_life() {
        assert_eq!(changes("++---++"), [(0, false), (4, true), (6, false)]);
        assert_eq!(changes("+--+--+---"), [(0, false), (9, true)], "misses have to be in a row");
        assert_eq!(changes("+---+-+-++"), [(0, false), (3, true), (9, false)], "and so have answers");
    }

    #[test]
    fn who_was_known_before_a_restart_need_not_answer_first() {
        let after = |dead: bool, answers: &str| {
            let mut health = Health::remembered(dead);
            answers.chars().map(|answer| health.note(answer == '+')).collect::<Vec<_>>()
        };
        assert_eq!(after(true, "-++"), [None, None, Some(false)]);
        assert_eq!(after(false, "---"), [None, None, Some(true)]);
    }

    #[test]
    fn a_gateway_is_asked_from_an_address_beside_it_that_the_nic_holds_just_now() {
        use crate::model::facts::{Address, KernelChange};
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let place = Place { nsid: None, index: 4 };
        let mut kernel = KernelFacts::default();
        let mut add = |net: &str, change: fn(Address) -> Address| {
            kernel.apply(KernelChange::Address(place, change(Address::new(net.parse().unwrap()))));
        };
        add("10.5.0.98/32", |a| Address { ours: true, ..a });
        add("192.0.2.7/24", |a| a);
        add("10.5.0.2/24", |a| a);
        add("10.5.0.3/24", |a| Address { primary: false, ..a });
        add("fd10:5::2/64", |a| Address { usable: false, ..a });
        add("fd10:6::3/64", |a| Address { temporary: true, ..a });
        add("fd10:6::2/64", |a| a);
        let of = |kernel: &KernelFacts, gateway: &str| asked_from(kernel, (4, ip(gateway)));
        assert_eq!(of(&kernel, "10.5.0.1"), Some(ip("10.5.0.2")));
        assert_eq!(of(&kernel, "fe80::1"), Some(ip("fd10:6::2")), "a router advertisement's");
        assert_eq!(of(&kernel, "169.254.1.1"), Some(ip("10.5.0.2")), "a provider's");
        assert_eq!(of(&kernel, "fd10:5::1"), Some(ip("fd10:6::2")), "that of its subnet is not proven yet");
        for (gone, next) in [("10.5.0.2/24", Some("10.5.0.3")), ("10.5.0.3/24", Some("192.0.2.7")), ("192.0.2.7/24", Some("10.5.0.98"))] {
            kernel.apply(KernelChange::AddressGone(place, gone.parse().unwrap()));
            assert_eq!(of(&kernel, "10.5.0.1"), next.map(ip));
        }
    }

    #[test]
    fn who_never_answered_is_told_after_a_while() {
        let mut health = Health::default();
        let silent: Vec<bool> = (0..13).map(|_| (health.note(false), health.is_silent()).1).collect();
        assert_eq!(silent.iter().position(|silent| *silent), Some(11));
        health.note(true);
        assert!(!health.is_silent() && (0..20).all(|_| (health.note(false), !health.is_silent()).1), "it is dead by then");
    }

    #[test]
    fn who_never_answered_is_never_dead() {
        assert_eq!(changes("----------"), []);
        assert_eq!(changes("-----+---"), [(5, false), (8, true)]);
    }
}
