//! Whom to ask: a pure state machine over the endpoints that were given and the leaders that answers named.
//!
//! It opens no socket and reads no clock; times are inputs.
//!
//! One endpoint *serves*: it is asked until it fails. Another one takes its place only once it has answered: a name may lead
//! to where its node was before, and whoever is asked there waits for nothing until a connection is given up. So a leader
//! that answers name is first probed beside the requests, which go on as they did. Where the one that served has failed,
//! all that were given are asked at once ([`Choice::Search`]), and the first that answers serves.
//!
//! A leader's address is a hint. One that was not given may lead nowhere, or behind a port-forward to a stranger at the
//! same address: it serves only once it has answered as a member of the same cluster.
//!
//! Invariants: the given ones come first and are never dropped; there are never more than `LEARNED_MAX` others; an only
//! endpoint is asked whatever became of it.

use std::time::{Duration, Instant};

/// How many endpoints are learned from hints, at most; beyond, the one learned first goes.
const LEARNED_MAX: usize = 16;
/// How long an endpoint is not probed beside requests after its first failure in a row; doubles with each. In a search, one
/// that has just failed is asked so much later than the others.
const AVOID_FIRST: Duration = Duration::from_millis(200);
/// How long an endpoint is avoided at most.
const AVOID_MAX: Duration = Duration::from_secs(10);

/// The endpoints, and what is known of them.
#[derive(Debug)]
pub struct Endpoints {
    given: usize,
    nodes: Vec<Endpoint>,
    /// Who is asked; `None`: nobody is known to answer.
    serving: Option<String>,
    /// The one that serves answered last that it cannot do it now: whoever else answers takes its place.
    declines: bool,
    /// Who was named as the leader last.
    leader: Option<String>,
}

/// Whom to ask now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Choice<'a> {
    /// This one.
    Ask(&'a str),
    /// All candidates at once, to find one that answers.
    Search,
}

#[derive(Debug)]
struct Endpoint {
    /// `host:port`.
    address: String,
    failures: u32,
    avoid_until: Option<Instant>,
    /// It is being probed beside the requests.
    probing: bool,
}

impl Endpoints {
    /// `given`: at least one `host:port`.
    pub fn new(given: Vec<String>) -> Endpoints {
        assert!(!given.is_empty(), "a client without endpoints");
        let nodes: Vec<_> = given.into_iter().map(Endpoint::new).collect();
        Endpoints { given: nodes.len(), nodes, serving: None, declines: false, leader: None }
    }

    /// Whom to ask now.
    pub fn choose(&self) -> Choice<'_> {
        match &self.serving {
            Some(address) => Choice::Ask(address),
            None if self.given == 1 => Choice::Ask(&self.nodes[0].address),
            None => Choice::Search,
        }
    }

    /// Those of whom a search asks all, and how much later than at once.
    pub fn candidates(&self, now: Instant) -> Vec<(String, Duration)> {
        let given = self.nodes[..self.given].iter();
        let wait = |node: &Endpoint| node.avoided_for(now).min(AVOID_FIRST);
        given.map(|node| (node.address.clone(), wait(node))).collect()
    }

    /// Whether it was given, and not learned.
    pub fn is_given(&self, address: &str) -> bool {
        self.find(address).is_some_and(|at| at < self.given)
    }

    /// `address` was the first to answer a search.
    pub fn found(&mut self, address: &str) {
        if let Some(at) = self.find(address) {
            self.nodes[at].is_well();
            self.serving.get_or_insert_with(|| address.to_owned());
        }
    }

    /// `address` answered, and named `leader`. Gives an address to probe, beside the requests, if there is one.
    pub fn answered(&mut self, address: &str, leader: Option<&str>, now: Instant) -> Option<String> {
        self.found(address);
        if self.serving.as_deref() == Some(address) {
            self.declines = false;
        }
        let leader = leader?;
        self.leader = Some(leader.to_owned());
        if self.serving.as_deref() == Some(leader) {
            return None;
        }
        let at = self.find(leader).unwrap_or_else(|| self.learn(leader));
        self.probe(at, now)
    }

    /// A probe of `address` ended; `ok`: it answered, and if it was learned, as a member of the same cluster.
    pub fn probed(&mut self, address: &str, ok: bool, now: Instant) {
        let Some(at) = self.find(address) else { return };
        self.nodes[at].probing = false;
        if !ok {
            self.nodes[at].fail(now);
            return;
        }
        self.nodes[at].is_well();
        let wanted = self.leader.as_deref() == Some(address) || self.serving.is_none() || self.declines;
        if wanted {
            self.serving = Some(address.to_owned());
            self.declines = false;
        }
    }

    /// `address` could not be reached, or its answer broke off.
    pub fn failed(&mut self, address: &str, now: Instant) {
        if let Some(at) = self.find(address) {
            self.nodes[at].fail(now);
        }
        if self.serving.as_deref() == Some(address) {
            self.serving = None;
            self.declines = false;
        }
    }

    /// `address` answered that it cannot do it now. Gives those to probe, beside the requests: the first of them that
    /// answers is asked next.
    pub fn declined(&mut self, address: &str, now: Instant) -> Vec<String> {
        if self.serving.as_deref() != Some(address) {
            return Vec::new();
        }
        self.declines = true;
        let others = (0..self.given).filter(|at| self.nodes[*at].address != address);
        others.collect::<Vec<_>>().into_iter().filter_map(|at| self.probe(at, now)).collect()
    }

    /// Its address, if it is to be probed now.
    fn probe(&mut self, at: usize, now: Instant) -> Option<String> {
        let node = &mut self.nodes[at];
        let now = !node.probing && node.avoided_for(now).is_zero();
        now.then(|| {
            node.probing = true;
            node.address.clone()
        })
    }

    fn learn(&mut self, address: &str) -> usize {
        if self.nodes.len() - self.given >= LEARNED_MAX {
            let serving = self.serving.as_deref();
            let oldest = (self.given..self.nodes.len()).find(|at| Some(&*self.nodes[*at].address) != serving);
            if let Some(oldest) = oldest {
                self.nodes.remove(oldest);
            }
        }
        self.nodes.push(Endpoint::new(address.to_owned()));
        self.nodes.len() - 1
    }

    fn find(&self, address: &str) -> Option<usize> {
        self.nodes.iter().position(|node| node.address == address)
    }
}

impl Endpoint {
    fn new(address: String) -> Endpoint {
        Endpoint { address, failures: 0, avoid_until: None, probing: false }
    }

    fn avoided_for(&self, now: Instant) -> Duration {
        self.avoid_until.map_or(Duration::ZERO, |until| until.saturating_duration_since(now))
    }

    fn is_well(&mut self) {
        (self.failures, self.avoid_until) = (0, None);
    }

    /// Requests that were under way together fail together: that counts once.
    fn fail(&mut self, now: Instant) {
        if self.avoided_for(now).is_zero() {
            let wait = AVOID_FIRST.saturating_mul(1 << self.failures.min(10)).min(AVOID_MAX);
            self.failures = self.failures.saturating_add(1);
            self.avoid_until = Some(now + wait);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Choice::{Ask, Search};
    use super::*;

    fn three() -> Endpoints {
        Endpoints::new(["a:1", "b:1", "c:1"].map(str::to_owned).into())
    }

    /// Three of which `a:1` serves.
    fn served() -> Endpoints {
        let mut endpoints = three();
        endpoints.found("a:1");
        endpoints
    }

    fn probe(address: &str) -> Option<String> {
        Some(address.to_owned())
    }

    #[test]
    fn at_first_all_are_asked_and_the_first_that_answers_serves() {
        let (mut endpoints, now) = (three(), Instant::now());
        assert_eq!(endpoints.choose(), Search);
        let all = ["a:1", "b:1", "c:1"].map(|address| (address.to_owned(), Duration::ZERO));
        assert_eq!(endpoints.candidates(now), all);
        endpoints.found("b:1");
        endpoints.found("c:1");
        assert_eq!(endpoints.choose(), Ask("b:1"));
    }

    #[test]
    fn it_sticks_to_what_works_and_follows_a_leader_that_answers() {
        let (mut endpoints, now) = (served(), Instant::now());
        assert_eq!(endpoints.answered("a:1", None, now), None);
        assert_eq!(endpoints.answered("a:1", Some("c:1"), now), probe("c:1"));
        assert_eq!(endpoints.choose(), Ask("a:1"), "its name may lead to where it was");
        assert_eq!(endpoints.answered("a:1", Some("c:1"), now), None, "one probe at a time");
        endpoints.probed("c:1", true, now);
        assert_eq!(endpoints.choose(), Ask("c:1"));
        assert_eq!(endpoints.answered("c:1", Some("c:1"), now), None);
        assert_eq!(endpoints.answered("a:1", None, now), None);
        assert_eq!(endpoints.choose(), Ask("c:1"), "a late answer of another one");
    }

    #[test]
    fn a_leader_that_does_not_answer_is_not_followed() {
        let (mut endpoints, now) = (served(), Instant::now());
        let mut avoided = AVOID_FIRST;
        let mut now = now;
        for _ in 0..20 {
            assert_eq!(endpoints.answered("a:1", Some("c:1"), now), probe("c:1"));
            endpoints.probed("c:1", false, now);
            assert_eq!(endpoints.choose(), Ask("a:1"));
            assert_eq!(endpoints.answered("a:1", Some("c:1"), now), None, "it failed just now");
            now += avoided;
            avoided = (avoided * 2).min(AVOID_MAX);
        }
        assert_eq!(endpoints.answered("a:1", Some("b:1"), now), probe("b:1"));
        assert_eq!(endpoints.answered("a:1", Some("c:1"), now), probe("c:1"));
        endpoints.probed("b:1", true, now);
        assert_eq!(endpoints.choose(), Ask("a:1"), "another one is named by now");
    }

    #[test]
    fn where_the_one_that_served_failed_all_are_asked_it_a_little_later() {
        let (mut endpoints, now) = (served(), Instant::now());
        for _ in 0..8 {
            endpoints.failed("a:1", now); // requests that were under way together
        }
        assert_eq!(endpoints.choose(), Search);
        let waits = |endpoints: &Endpoints, now| -> Vec<_> {
            endpoints.candidates(now).into_iter().map(|(_, wait)| wait).collect()
        };
        assert_eq!(waits(&endpoints, now), [AVOID_FIRST, Duration::ZERO, Duration::ZERO]);
        assert_eq!(waits(&endpoints, now + AVOID_FIRST), [Duration::ZERO; 3], "that counted once");
        endpoints.failed("b:1", now);
        endpoints.found("c:1");
        endpoints.failed("b:1", now + AVOID_FIRST);
        assert_eq!(endpoints.choose(), Ask("c:1"), "one that does not serve");
    }

    #[test]
    fn one_that_declines_is_followed_by_whoever_answers() {
        let (mut endpoints, now) = (served(), Instant::now());
        assert_eq!(endpoints.declined("c:1", now), [""; 0], "a late answer");
        assert_eq!(endpoints.declined("a:1", now), ["b:1", "c:1"]);
        assert_eq!(endpoints.declined("a:1", now), [""; 0], "they are asked already");
        assert_eq!(endpoints.choose(), Ask("a:1"), "until another one answers");
        endpoints.probed("c:1", true, now);
        endpoints.probed("b:1", true, now);
        assert_eq!(endpoints.choose(), Ask("c:1"));
        endpoints.declined("c:1", now);
        endpoints.answered("c:1", None, now);
        endpoints.probed("a:1", true, now);
        assert_eq!(endpoints.choose(), Ask("c:1"), "it is well again");
    }

    #[test]
    fn an_only_one_is_asked_whatever_became_of_it() {
        let (mut endpoints, now) = (Endpoints::new(vec!["a:1".into()]), Instant::now());
        assert_eq!(endpoints.choose(), Ask("a:1"));
        endpoints.failed("a:1", now);
        assert_eq!(endpoints.declined("a:1", now), [""; 0]);
        assert_eq!(endpoints.choose(), Ask("a:1"));
    }

    #[test]
    fn a_foreign_hint_is_probed_first_and_never_needed() {
        let (mut endpoints, now) = (Endpoints::new(vec!["forwarded:1".into()]), Instant::now());
        assert_eq!(endpoints.answered("forwarded:1", Some("pod:1"), now), probe("pod:1"));
        assert_eq!(endpoints.choose(), Ask("forwarded:1"), "the probe is under way");
        assert!(endpoints.is_given("forwarded:1") && !endpoints.is_given("pod:1"));
        endpoints.probed("pod:1", false, now);
        assert_eq!(endpoints.answered("forwarded:1", Some("pod:1"), now), None, "not again at once");
        assert_eq!(endpoints.choose(), Ask("forwarded:1"));
        let later = now + AVOID_FIRST;
        assert_eq!(endpoints.answered("forwarded:1", Some("pod:1"), later), probe("pod:1"));
        endpoints.probed("pod:1", true, later);
        assert_eq!(endpoints.choose(), Ask("pod:1"));
        endpoints.failed("pod:1", later);
        assert_eq!(endpoints.choose(), Ask("forwarded:1"));
    }

    #[test]
    fn learned_endpoints_are_bounded() {
        let (mut endpoints, now) = (served(), Instant::now());
        endpoints.answered("a:1", Some("pod:1"), now);
        endpoints.probed("pod:1", true, now);
        for number in 0..1_000 {
            endpoints.answered("pod:1", Some(&format!("pod-{number}:1")), now);
        }
        assert_eq!(endpoints.nodes.len(), 3 + LEARNED_MAX);
        assert_eq!(endpoints.choose(), Ask("pod:1"));
        endpoints.failed("pod:1", now);
        assert_eq!(endpoints.choose(), Search);
    }
}
