//! The network: connections that stand or do not, links that are cut, and what becomes of each message.
//!
//! A message travels only over a standing connection, as in production, where a connection that is down refuses it. Beyond
//! that the network is unkinder than TCP: it loses, repeats, delays and reorders single messages. Forwarded requests
//! are never repeated, which the transport promises (each frame at most once).

use super::{MILLI, Micros, SECOND};
use crate::random::Random;
use balsa_node::engine::message::PeerMessage;
use std::collections::{BTreeMap, BTreeSet};

/// A node's place in the simulation.
pub type Place = usize;

/// How messages fare.
#[derive(Clone, Debug)]
pub struct Weather {
    /// Of a thousand messages, so many are lost.
    pub loss: u64,
    /// So many come twice.
    pub duplication: u64,
    /// So many take much longer than the rest.
    pub straggling: u64,
    /// The usual delay is between these.
    pub delay: (Micros, Micros),
}

impl Weather {
    /// As on a good local network.
    pub fn fair() -> Weather {
        Weather { loss: 0, duplication: 0, straggling: 0, delay: (50, 400) }
    }
}

/// All links.
#[derive(Debug)]
pub struct Network {
    random: Random,
    /// The weather now.
    pub weather: Weather,
    /// Directed links that carry nothing.
    cut: BTreeSet<(Place, Place)>,
    /// Directed connections that stand.
    standing: BTreeSet<(Place, Place)>,
    /// Directed links that carry everything, but only from a moment on: what was sent before arrives then, all at once.
    clogged: BTreeMap<(Place, Place), Micros>,
    /// Connections over a dead link, and when that will be noticed.
    dying: BTreeMap<(Place, Place), Micros>,
    /// Connections that will stand again, and when.
    rising: BTreeMap<(Place, Place), Micros>,
}

/// A change of a directed connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It stands now.
    Up(Place, Place),
    /// It broke.
    Down(Place, Place),
}

impl Network {
    /// No connections, fair weather.
    pub fn new(random: Random) -> Network {
        Network {
            random,
            weather: Weather::fair(),
            cut: BTreeSet::new(),
            clogged: BTreeMap::new(),
            standing: BTreeSet::new(),
            dying: BTreeMap::new(),
            rising: BTreeMap::new(),
        }
    }

    /// Cuts a directed link.
    pub fn cut(&mut self, from: Place, to: Place) {
        self.cut.insert((from, to));
    }

    /// Clogs a directed link until then.
    pub fn clog(&mut self, from: Place, to: Place, until: Micros) {
        self.clogged.insert((from, to), until);
    }

    /// Gives all links back.
    pub fn heal(&mut self) {
        self.cut.clear();
        self.clogged.clear();
    }

    /// Whether both directions between two places carry.
    pub fn is_open(&self, from: Place, to: Place) -> bool {
        !self.cut.contains(&(from, to)) && !self.cut.contains(&(to, from))
    }

    /// Whether connections may have to change although nobody wants other ones.
    pub fn is_uneasy(&self) -> bool {
        !self.cut.is_empty() || !self.dying.is_empty() || !self.rising.is_empty()
    }

    /// When the copies of a message arrive: none, one or two times. `None`: there is no connection.
    pub fn send(
        &mut self,
        from: Place,
        to: Place,
        message: &PeerMessage,
        now: Micros,
    ) -> Option<Vec<Micros>> {
        if !self.standing.contains(&(from, to)) {
            return None;
        }
        if self.cut.contains(&(from, to)) || self.random.chance(self.weather.loss) {
            return Some(Vec::new());
        }
        let repeatable = matches!(
            message,
            PeerMessage::Raft(_)
                | PeerMessage::Introduce { .. }
                | PeerMessage::ReadIndex { .. }
                | PeerMessage::ReadIndexReply { .. }
        );
        let copies = 1 + usize::from(repeatable && self.random.chance(self.weather.duplication));
        let leaves = self.leaves(from, to, now);
        Some((0..copies).map(|_| leaves + self.delay()).collect())
    }

    /// When what is sent now gets past the link's clogging.
    pub fn leaves(&mut self, from: Place, to: Place, now: Micros) -> Micros {
        match self.clogged.get(&(from, to)) {
            Some(until) if *until > now => *until,
            Some(_) => {
                self.clogged.remove(&(from, to));
                now
            }
            None => now,
        }
    }

    /// How long a message takes.
    pub fn delay(&mut self) -> Micros {
        let (low, high) = self.weather.delay;
        let usual = self.random.between(low, high);
        if self.random.chance(self.weather.straggling) {
            usual + self.random.between(10 * MILLI, 3 * SECOND)
        } else {
            usual
        }
    }

    /// A process ended: its connections break at once, on both sides.
    pub fn process_ended(&mut self, place: Place) -> Vec<Change> {
        let ends = |pair: &(Place, Place)| pair.0 == place || pair.1 == place;
        self.dying.retain(|pair, _| !ends(pair));
        self.rising.retain(|pair, _| !ends(pair));
        let broken: Vec<_> = self.standing.iter().copied().filter(ends).collect();
        for pair in &broken {
            self.standing.remove(pair);
        }
        broken.into_iter().map(|(from, to)| Change::Down(from, to)).collect()
    }

    /// Looks at all pairs of running processes that want a connection: some break, some stand again.
    pub fn review(&mut self, wanted: &BTreeSet<(Place, Place)>, now: Micros) -> Vec<Change> {
        let mut changes = Vec::new();
        let unwanted: Vec<_> = self.standing.iter().copied().filter(|pair| !wanted.contains(pair)).collect();
        for pair in unwanted {
            self.standing.remove(&pair);
            changes.push(Change::Down(pair.0, pair.1));
        }
        for &(from, to) in wanted {
            let open = self.is_open(from, to);
            let stands = self.standing.contains(&(from, to));
            match (stands, open) {
                (true, true) => drop(self.dying.remove(&(from, to))),
                (true, false) => {
                    let patience = self.random.between(500 * MILLI, 3 * SECOND);
                    let at = *self.dying.entry((from, to)).or_insert(now + patience);
                    if at <= now {
                        self.dying.remove(&(from, to));
                        self.standing.remove(&(from, to));
                        changes.push(Change::Down(from, to));
                    }
                }
                (false, true) => {
                    let backoff = self.random.between(MILLI, 300 * MILLI);
                    let at = *self.rising.entry((from, to)).or_insert(now + backoff);
                    if at <= now {
                        self.rising.remove(&(from, to));
                        self.standing.insert((from, to));
                        changes.push(Change::Up(from, to));
                    }
                }
                (false, false) => drop(self.rising.remove(&(from, to))),
            }
        }
        changes
    }
}
