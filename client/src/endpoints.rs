//! Whom to ask: a pure state machine over the endpoints that were given and the leaders that answers named.
//!
//! It opens no socket and reads no clock; times are inputs. It never refuses to name an endpoint: where all have failed,
//! it names the one that may be tried soonest.
//!
//! A leader's address is a hint. One that is among the given endpoints is preferred at once. Any other may lead nowhere,
//! or behind a port-forward to a stranger at the same address, so it is first probed beside the requests, and used only
//! once it has answered as a member of the same cluster.
//!
//! Invariants: `current` is a given endpoint; the given ones come first and are never dropped; there are never more than
//! `LEARNED_MAX` others.

use std::time::{Duration, Instant};

/// How many endpoints are learned from hints, at most; beyond, the one learned first goes.
const LEARNED_MAX: usize = 16;
/// How long an endpoint is avoided after its first failure in a row; doubles with each.
const AVOID_FIRST: Duration = Duration::from_millis(200);
/// How long an endpoint is avoided at most.
const AVOID_MAX: Duration = Duration::from_secs(10);

/// The endpoints, and what is known of them.
#[derive(Debug)]
pub struct Endpoints {
    given: usize,
    nodes: Vec<Endpoint>,
    /// The given endpoint that is asked where no leader is known.
    current: usize,
    leader: Option<String>,
}

#[derive(Debug)]
struct Endpoint {
    /// `host:port`.
    address: String,
    failures: u32,
    avoid_until: Option<Instant>,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// May be asked.
    Usable,
    /// Learned; its probe is under way.
    Probing,
    /// Learned; its probe failed, or it did.
    Unusable,
}

impl Endpoints {
    /// `given`: at least one `host:port`. `start`: the one to ask first, taken modulo their number.
    pub fn new(given: Vec<String>, start: usize) -> Endpoints {
        assert!(!given.is_empty(), "a client without endpoints");
        let nodes: Vec<_> = given.into_iter().map(|address| Endpoint::new(address, State::Usable)).collect();
        Endpoints { given: nodes.len(), current: start % nodes.len(), nodes, leader: None }
    }

    /// The address to ask now.
    pub fn choose(&self, now: Instant) -> &str {
        let leader = self.leader.as_ref().and_then(|leader| self.find(leader)).map(|at| &self.nodes[at]);
        if let Some(leader) = leader.filter(|node| node.may_be_asked(now)) {
            return &leader.address;
        }
        let in_turn = (0..self.given).map(|step| &self.nodes[(self.current + step) % self.given]);
        let usable = in_turn.clone().find(|node| node.may_be_asked(now));
        let soonest = || in_turn.clone().min_by_key(|node| node.avoid_until);
        usable.or_else(soonest).map_or("", |node| &node.address)
    }

    /// `address` answered, and named `leader`. Gives an address to probe, beside the requests, if there is one.
    pub fn answered(&mut self, address: &str, leader: Option<&str>, now: Instant) -> Option<String> {
        if let Some(at) = self.find(address) {
            self.nodes[at].failures = 0;
            self.nodes[at].avoid_until = None;
            if at < self.given {
                self.current = at;
            }
        }
        let leader = leader?;
        self.leader = Some(leader.to_owned());
        match self.find(leader) {
            Some(at) => {
                let node = &mut self.nodes[at];
                let again =
                    node.state == State::Unusable && node.avoid_until.is_none_or(|until| until <= now);
                again.then(|| {
                    node.state = State::Probing;
                    node.address.clone()
                })
            }
            None => {
                if self.nodes.len() - self.given >= LEARNED_MAX {
                    self.nodes.remove(self.given);
                }
                self.nodes.push(Endpoint::new(leader.to_owned(), State::Probing));
                Some(leader.to_owned())
            }
        }
    }

    /// A probe of `address` ended; `ok`: it is a member of the same cluster.
    pub fn probed(&mut self, address: &str, ok: bool, now: Instant) {
        let Some(at) = self.find(address).filter(|at| *at >= self.given) else { return };
        if ok {
            let node = &mut self.nodes[at];
            (node.state, node.failures, node.avoid_until) = (State::Usable, 0, None);
        } else {
            self.fail(at, now);
        }
    }

    /// `address` could not be reached, or its answer broke off: it is avoided for a while.
    pub fn failed(&mut self, address: &str, now: Instant) {
        if let Some(at) = self.find(address) {
            self.fail(at, now);
        }
        self.turn_from(address);
    }

    /// `address` answered that it cannot do it now: another is asked next, if there is one.
    pub fn declined(&mut self, address: &str) {
        self.turn_from(address);
    }

    fn fail(&mut self, at: usize, now: Instant) {
        let learned = at >= self.given;
        let node = &mut self.nodes[at];
        let wait = AVOID_FIRST.saturating_mul(1 << node.failures.min(10)).min(AVOID_MAX);
        node.failures = node.failures.saturating_add(1);
        node.avoid_until = Some(now + wait);
        if learned {
            node.state = State::Unusable; // the next use is a probe's
        }
    }

    fn turn_from(&mut self, address: &str) {
        if self.leader.as_deref() == Some(address) {
            self.leader = None;
        }
        if self.nodes[self.current].address == address {
            self.current = (self.current + 1) % self.given;
        }
    }

    fn find(&self, address: &str) -> Option<usize> {
        self.nodes.iter().position(|node| node.address == address)
    }
}

impl Endpoint {
    fn new(address: String, state: State) -> Endpoint {
        Endpoint { address, failures: 0, avoid_until: None, state }
    }

    fn may_be_asked(&self, now: Instant) -> bool {
        self.state == State::Usable && self.avoid_until.is_none_or(|until| until <= now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three() -> Endpoints {
        Endpoints::new(["a:1", "b:1", "c:1"].map(str::to_owned).into(), 0)
    }

    #[test]
    fn it_sticks_to_what_works_and_follows_the_leader() {
        let (mut endpoints, now) = (three(), Instant::now());
        assert_eq!(endpoints.choose(now), "a:1");
        assert_eq!(endpoints.answered("a:1", Some("c:1"), now), None);
        assert_eq!(endpoints.choose(now), "c:1");
        assert_eq!(endpoints.answered("c:1", None, now), None);
        assert_eq!(endpoints.choose(now), "c:1");
    }

    #[test]
    fn a_dead_leader_is_left_and_a_stale_hint_to_it_is_not_followed() {
        let (mut endpoints, now) = (three(), Instant::now());
        endpoints.answered("a:1", Some("c:1"), now);
        endpoints.failed("c:1", now);
        assert_eq!(endpoints.choose(now), "a:1");
        endpoints.answered("a:1", Some("c:1"), now);
        assert_eq!(endpoints.choose(now), "a:1", "it failed just now");
        assert_eq!(endpoints.choose(now + AVOID_FIRST), "c:1", "it may be back");
        endpoints.answered("a:1", Some("b:1"), now);
        assert_eq!(endpoints.choose(now), "b:1");
    }

    #[test]
    fn one_that_declines_is_followed_by_the_next() {
        let (mut endpoints, now) = (three(), Instant::now());
        for expected in ["a:1", "b:1", "c:1", "a:1"] {
            assert_eq!(endpoints.choose(now), expected);
            endpoints.declined(expected);
        }
    }

    #[test]
    fn where_all_failed_the_soonest_is_asked() {
        let (mut endpoints, now) = (three(), Instant::now());
        for (address, after) in [("b:1", 0), ("a:1", 1), ("c:1", 2)] {
            endpoints.failed(address, now + Duration::from_millis(after));
        }
        assert_eq!(endpoints.choose(now + Duration::from_millis(3)), "b:1");
    }

    #[test]
    fn failures_in_a_row_are_avoided_for_longer_up_to_a_bound() {
        let (mut endpoints, now) = (Endpoints::new(vec!["a:1".into(), "b:1".into()], 0), Instant::now());
        for _ in 0..40 {
            endpoints.failed("a:1", now);
        }
        assert_eq!(endpoints.choose(now + AVOID_MAX - Duration::from_millis(1)), "b:1");
        endpoints.failed("b:1", now + AVOID_MAX);
        assert_eq!(endpoints.choose(now + AVOID_MAX), "a:1");
    }

    #[test]
    fn a_foreign_hint_is_probed_first_and_never_needed() {
        let (mut endpoints, now) = (Endpoints::new(vec!["forwarded:1".into()], 0), Instant::now());
        assert_eq!(endpoints.answered("forwarded:1", Some("pod:1"), now), Some("pod:1".to_owned()));
        assert_eq!(endpoints.choose(now), "forwarded:1", "the probe is under way");
        assert_eq!(endpoints.answered("forwarded:1", Some("pod:1"), now), None, "one probe at a time");
        endpoints.probed("pod:1", false, now);
        assert_eq!(endpoints.answered("forwarded:1", Some("pod:1"), now), None, "not again at once");
        assert_eq!(endpoints.choose(now), "forwarded:1");
        let later = now + AVOID_FIRST;
        assert_eq!(endpoints.answered("forwarded:1", Some("pod:1"), later), Some("pod:1".to_owned()));
        endpoints.probed("pod:1", true, later);
        assert_eq!(endpoints.choose(later), "pod:1");
        endpoints.failed("pod:1", later);
        assert_eq!(endpoints.choose(later), "forwarded:1");
        let much_later = later + AVOID_MAX;
        assert!(endpoints.answered("forwarded:1", Some("pod:1"), much_later).is_some(), "by a probe only");
        assert_eq!(endpoints.choose(much_later), "forwarded:1");
    }

    #[test]
    fn learned_endpoints_are_bounded() {
        let (mut endpoints, now) = (three(), Instant::now());
        for number in 0..1_000 {
            endpoints.answered("a:1", Some(&format!("pod-{number}:1")), now);
        }
        assert_eq!(endpoints.nodes.len(), 3 + LEARNED_MAX);
        assert_eq!(endpoints.choose(now), "a:1");
    }
}
