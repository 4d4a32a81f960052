//! Whose turn it is, by records alone. Two controllers at a real API server are in `tests/leader`.

use super::*;

const NOBODYS_AFTER: u64 = 15;

/// A controller that waits, with a clock of its own that may be wrong.
struct Waiting {
    candidate: Candidate,
    start: Instant,
}

impl Waiting {
    fn new() -> Self {
        let uri = kube::Config::new("http://127.0.0.1:1".parse().expect("an address"));
        let client = Client::try_from(uri).expect("a client that is not used");
        Self { candidate: Candidate::new(client, "egressd", CONTROLLERS, "me", watch::Sender::default()), start: Instant::now() }
    }

    /// Looks at a record that was renewed at `renewed`, `after` seconds from the start by our clock.
    fn look(&mut self, holder: &str, renewed: i64, after: u64, clock: i64) -> Turn {
        let at = |second| Timestamp::from_second(second).expect("a time");
        let record = LeaseSpec {
            holder_identity: Some(holder.to_owned()),
            lease_duration_seconds: Some(15),
            renew_time: Some(MicroTime(at(renewed))),
            ..LeaseSpec::default()
        };
        self.candidate.look(record, self.start + Duration::from_secs(after), at(clock))
    }
}

#[tokio::test]
async fn a_record_that_does_not_change_is_nobody_s_after_its_time_by_our_clock() {
    let mut me = Waiting::new();
    // The holder's clock is an hour behind: that alone takes nothing from it.
    assert_eq!(me.look("other", 1_000, 0, 4_600), Turn::Wait(RETRY));
    assert_eq!(me.look("other", 1_000, NOBODYS_AFTER - 1, 4_614), Turn::Wait(RETRY));
    assert_eq!(me.look("other", 1_000, NOBODYS_AFTER, 4_615), Turn::Take);
}

#[tokio::test]
async fn a_holder_that_renews_keeps_it_however_wrong_its_clock_is() {
    let mut me = Waiting::new();
    for round in 0_i64..20 {
        let turn = me.look("other", 1_000 + round * 10, round.unsigned_abs() * 10, 90_000);
        assert_ne!(turn, Turn::Take, "round {round}");
    }
}

#[tokio::test]
async fn a_lease_that_was_let_go_of_or_is_ours_is_taken_at_once() {
    let mut me = Waiting::new();
    assert_eq!(me.look("", 1_000, 0, 1_000), Turn::Take);
    assert_eq!(me.look("me", 1_000, 0, 1_000), Turn::Take);
}
