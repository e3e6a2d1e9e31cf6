//! One node with all that is its own: the real core, its disk, and the writes under way.
//!
//! A site takes one input and carries out what the core asks for, as far as that is its own business; what it sends is
//! handed back. Its fingerprint leaves out what only tells of time and chance, since here a timer may run out whenever
//! the explorer likes. Knows no other site, and no property.

use balsa_raft::{
    Change, Config, Entry, HardState, Index, Membership, Message, NodeId, Persist, Raft, Restored, Role, Term,
};
use bytes::Bytes;
use std::collections::VecDeque;
use std::fmt::Write as _;
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

/// The shortest election timeout, in ticks: more than there are heartbeats on any way, so that no timer runs out but by
/// [`Input::Timeout`] and [`Input::Patience`].
const ELECTION_TICKS: u32 = 64;

/// What can happen to one site.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Input {
    /// This message arrives, by its number.
    Deliver(u32),
    /// The oldest write under way becomes durable.
    Persist,
    /// The election timer runs out; on a leader, the time to check its quorum comes.
    Timeout,
    /// It has not heard from its leader for so long that it no longer stands by it, and its timer has not run out yet.
    Patience,
    /// Time for a heartbeat.
    Heartbeat,
    /// A client proposes the next value.
    Propose,
    /// The membership change of the world is proposed.
    Change,
    /// It is asked to hand leadership over to this node.
    Transfer(u64),
    /// It loses what is not durable, and starts again.
    Crash,
}

/// What survives a crash.
#[derive(Clone, Debug)]
struct Disk {
    hard_state: HardState,
    /// From index 1.
    entries: Vec<Entry>,
}

/// One node.
#[derive(Clone, Debug)]
pub struct Site {
    raft: Raft,
    disk: Disk,
    pending: VecDeque<Persist>,
}

/// What an outsider may know of a site: the truth that properties are about.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Its role.
    pub role: Role,
    /// Its term.
    pub term: Term,
    /// Its commit index.
    pub commit: Index,
    /// Its log: term and a digest of kind and payload of each entry, from index 1.
    pub log: Vec<(Term, u64)>,
    /// The part of its log that is on its disk, likewise.
    pub durable: Vec<(Term, u64)>,
    /// Term and vote on its disk.
    pub hard_state: HardState,
    /// Who leads, as far as it knows.
    pub leader: Option<NodeId>,
    /// The effective membership.
    pub membership: Membership,
    /// Whether a write is under way.
    pub is_writing: bool,
}

impl Site {
    /// A founder of a cluster with this membership.
    pub fn founder(id: NodeId, membership: &Membership) -> Site {
        let disk = Disk {
            hard_state: HardState { term: Term(1), vote: None },
            entries: vec![Raft::bootstrap_entry(membership)],
        };
        Site::start(id, disk)
    }

    /// A node that has nothing yet.
    pub fn blank(id: NodeId) -> Site {
        Site::start(id, Disk { hard_state: HardState::default(), entries: Vec::new() })
    }

    fn start(id: NodeId, disk: Disk) -> Site {
        let config =
            Config { election_ticks: ELECTION_TICKS, heartbeat_ticks: 1, ..Config::with_defaults(id, id.0) };
        let restored =
            Restored { hard_state: disk.hard_state, entries: disk.entries.clone(), ..Restored::blank() };
        let raft = Raft::new(config, restored).unwrap_or_else(|error| panic!("the disk of {id}: {error}"));
        let mut site = Site { raft, disk, pending: VecDeque::new() };
        let sent = site.drain();
        assert!(sent.is_empty(), "{id} sends at its start: {sent:?}");
        site
    }

    /// Takes an input; gives what it sends. `message` is the one that is delivered, `change` what is proposed.
    pub fn input(&mut self, input: Input, message: Option<&Message>, change: &[Change]) -> Vec<Message> {
        let mut sent = Vec::new();
        match input {
            Input::Deliver(_) => {
                if let Some(message) = message {
                    self.raft.step(message.clone());
                }
            }
            Input::Persist => {
                let Some(persist) = self.pending.pop_front() else { return sent };
                self.disk.write(&persist);
                sent.extend(persist.then_send);
                self.raft.handle_persisted(persist.token);
            }
            Input::Timeout if self.raft.is_leader() => {
                for _ in 0..ELECTION_TICKS {
                    self.raft.tick();
                }
            }
            Input::Timeout => {
                let before = (self.raft.role(), self.raft.term());
                for _ in 0..3 * ELECTION_TICKS {
                    self.raft.tick();
                    if (self.raft.role(), self.raft.term()) != before && self.raft.role() != Role::Follower {
                        break;
                    }
                }
            }
            Input::Patience => {
                let before = self.raft.role();
                for _ in 0..ELECTION_TICKS {
                    self.raft.tick();
                    if self.raft.role() != before {
                        break;
                    }
                }
            }
            Input::Heartbeat => self.raft.tick(),
            // What is refused changes nothing, which is all there is to know here.
            Input::Propose => {
                let _ = self.raft.propose(Bytes::from_static(b"value"));
            }
            Input::Change => {
                let _ = self.raft.propose_membership(change, Bytes::new());
            }
            Input::Transfer(to) => {
                let _ = self.raft.transfer_leadership(Some(NodeId(to)));
            }
            Input::Crash => *self = Site::start(self.raft.id(), self.disk.clone()),
        }
        sent.extend(self.drain());
        sent
    }

    /// Carries out what the core asks for, until it asks for nothing.
    fn drain(&mut self) -> Vec<Message> {
        let mut sent = Vec::new();
        loop {
            let ready = self.raft.take_ready();
            if ready.is_empty() {
                return sent;
            }
            sent.extend(ready.send);
            if let Some(last) = ready.apply.last() {
                self.raft.handle_applied(last.index);
            }
            self.pending.extend(ready.persist);
        }
    }

    /// What properties may look at.
    pub fn facts(&self) -> Facts {
        let status = self.raft.status();
        let digest =
            |entry: &Entry| (entry.term, xxh3_64(format!("{:?}{:?}", entry.kind, entry.data).as_bytes()));
        // The log as the core has it: what is durable, then what is under way, the later on top.
        let mut log = self.disk.clone();
        self.pending.iter().for_each(|persist| log.write(persist));
        let log: Vec<_> = log.entries.iter().map(digest).collect();
        assert_eq!(log.len() as u64, status.last.0, "the log of {} and its writes differ", status.id);
        for (at, (term, _)) in log.iter().enumerate() {
            let index = Index(at as u64 + 1);
            assert_eq!(self.raft.term_at(index), Some(*term), "entry {index} of {}", status.id);
        }
        Facts {
            role: status.role,
            term: status.term,
            commit: status.commit,
            log,
            durable: self.disk.entries.iter().map(digest).collect(),
            hard_state: self.disk.hard_state,
            leader: status.leader,
            membership: Membership::clone(&status.membership),
            is_writing: !self.pending.is_empty(),
        }
    }

    /// The same for sites that differ in time and chance alone, and for no others.
    pub fn fingerprint(&self, buffer: &mut String) -> u128 {
        buffer.clear();
        let _ = write!(buffer, "{:?}{:?}{:?}", self.raft, self.disk, self.pending);
        xxh3_128(without_time(buffer).as_bytes())
    }
}

impl Disk {
    fn write(&mut self, persist: &Persist) {
        if let Some(hard_state) = persist.hard_state {
            self.hard_state = hard_state;
        }
        for entry in &persist.entries {
            let at = entry.index.0 as usize - 1;
            assert!(at <= self.entries.len(), "gap before {entry:?}");
            self.entries.truncate(at);
            self.entries.push(entry.clone());
        }
    }
}

/// A core as text without the numbers that tell of time and chance, and with tokens counted from the newest one back. Of
/// the election timer only stays whether a leader could still count as alive.
fn without_time(text: &str) -> String {
    const TIMES: [&str; 8] = [
        " now: ",
        " timeout: ",
        " moved_at: ",
        " since: ",
        " ticks_since_heartbeat: ",
        " ticks_since_quorum_check: ",
        " seed: ",
        " ticks: ",
    ];
    const TOKEN: &str = "PersistToken(";
    const ELAPSED: &str = " elapsed: ";
    let number = |text: &str| {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        (text[..digits].parse::<u64>().unwrap_or(0), digits)
    };
    let newest = text.find("issued: PersistToken(").map_or(0, |at| number(&text[at + 21..]).0);
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find([' ', 'S', 'P']) {
        kept.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(after) = rest.strip_prefix(TOKEN) {
            let (token, digits) = number(after);
            let _ = write!(kept, "T{}", newest.wrapping_sub(token));
            rest = &after[digits..];
        } else if let Some(after) = rest.strip_prefix(ELAPSED) {
            let (ticks, digits) = number(after);
            kept.push(if ticks < u64::from(ELECTION_TICKS) { 'f' } else { 'l' });
            rest = &after[digits..];
        } else if let Some(after) = rest.strip_prefix("SplitMix(") {
            rest = &after[number(after).1..];
        } else if let Some(name) = TIMES.iter().find(|name| rest.starts_with(**name)) {
            rest = &rest[name.len()..];
            rest = &rest[number(rest).1..];
        } else {
            kept.push_str(&rest[..1]);
            rest = &rest[1..];
        }
    }
    kept.push_str(rest);
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_time_and_chance_are_left_out() {
        let text =
            "Raft { now: 12, elapsed: 3, random: SplitMix(77), issued: PersistToken(9), x: PersistToken(7) }";
        assert_eq!(without_time(text), "Raft {,f, random: ), issued: T0), x: T2) }");
        let membership = Membership::of_voters([1, 2, 3].map(NodeId));
        let mut buffer = String::new();
        let fresh = Site::founder(NodeId(1), &membership);
        let mut ticked = fresh.clone();
        ticked.input(Input::Heartbeat, None, &[]);
        assert_eq!(fresh.fingerprint(&mut buffer), ticked.fingerprint(&mut buffer));
        let sent = ticked.input(Input::Timeout, None, &[]);
        assert_eq!(sent.len(), 2, "two pre-votes");
        assert_ne!(fresh.fingerprint(&mut buffer), ticked.fingerprint(&mut buffer));
    }

    #[test]
    fn a_crash_forgets_what_was_not_durable() {
        let mut site = Site::founder(NodeId(1), &Membership::of_voters([NodeId(1)]));
        site.input(Input::Timeout, None, &[]);
        assert_eq!(site.facts().term, Term(2));
        let mut buffer = String::new();
        let mut crashed = site.clone();
        crashed.input(Input::Crash, None, &[]);
        assert_eq!(crashed.facts().term, Term(1));
        site.input(Input::Persist, None, &[]);
        let durable = site.clone();
        site.input(Input::Crash, None, &[]);
        assert_eq!(site.facts().hard_state.vote, Some(NodeId(1)));
        assert_ne!(durable.fingerprint(&mut buffer), site.fingerprint(&mut buffer));
    }
}
