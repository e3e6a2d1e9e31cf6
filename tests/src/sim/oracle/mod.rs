//! What must hold, checked throughout.
//!
//! - *Election safety*: one leader a term, by a quorum's votes; one vote a node and term, ever.
//! - *Durability*: nobody says what its disk does not hold, nor forgets what it said ([`disk`]).
//! - *Commitment*: what a leader commits is of its own term and durable on a quorum, of both sets while joint.
//! - *Log matching*, and memberships that follow the log, also back ([`logs`]).
//! - *Relations*: compacted <= applied <= commit <= last; flushed <= applied.
//! - *State-machine safety*: all nodes apply the same entry at an index, and have the same digest there.
//! - *Leader completeness*: a new leader has all that was committed before.
//! - *The store's meaning*: every reply and every value read is what the model ([`balsa_store::model`]) gives for the
//!   committed entries.
//! - *Linearizability*: every operation has a place in the order of the log (a write its index, a read the index its
//!   state had applied); an operation that began after another ended has a later place. As the results are the model's
//!   for these places, the history is linearizable.
//! - *The past*: what can still be read is what was.
//! - *Watches* are ordered, unique, atomic, complete and resumable ([`balsa_check::watch`]), and their progress is fresh.
//! - *Exactly once, and honest outcomes*: a write that may not be repeated is in the log once at most; one that was
//!   answered "not applied" never.

pub mod disk;
pub mod logs;

use crate::random::Random;
use balsa_check::watch::Changes;
use balsa_node::engine::handle::WriteError;
use balsa_raft::membership::Membership;
use balsa_raft::{Entry, EntryKind, Index, NodeId, Raft, Term};
use balsa_store::command::{self, Answer, Command, Operation, Reply, RequestId, Value};
use balsa_store::model::Model;
use balsa_store::{MemoryEngine, PastError, Store, StoreConfig, View};
use bytes::Bytes;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// A broken promise; the run ends with it.
#[derive(Debug, Clone)]
pub struct Violation(pub String);

macro_rules! violated {
    ($($what:tt)*) => { return Err($crate::sim::oracle::Violation(format!($($what)*))) };
}
use violated;

/// A committed entry, as the oracle remembers it.
struct Committed {
    term: Term,
    kind: EntryKind,
    hash: u64,
    /// The reference store's digest after it.
    digest: u128,
}

/// An operation that a client began.
#[derive(Debug)]
struct Begun {
    /// The latest place of all operations that had ended when this began.
    floor: u64,
    key: Option<Bytes>,
    repeatable: bool,
    /// It was answered "not applied": it must never take effect.
    denied: bool,
    /// It has taken effect.
    effective: bool,
}

/// The oracle of a run.
pub struct Oracle {
    model: Model,
    reference: Store,
    /// By index - 1.
    committed: Vec<Committed>,
    /// By key: its value from an index on.
    values: HashMap<Bytes, Vec<(u64, Option<Value>)>>,
    /// By revision and key: all changes that ever were.
    changes: Changes<Bytes, Value>,
    /// Indexes at which an operation's command stands, with the model's reply.
    places: HashMap<u64, Vec<(u64, Reply)>>,
    begun: HashMap<u64, Begun>,
    floor: u64,
    leaders: BTreeMap<Term, NodeId>,
    /// What is durable where.
    pub disks: disk::Disks,
    /// What was appended.
    pub logs: logs::Logs,
    /// The newest committed membership and its index.
    pub membership: (Index, Membership),
    random: Random,
    /// Memberships with two sets of voters that were committed.
    pub joint_phases: u64,
    /// Commands that met the recorded reply of an earlier attempt.
    pub repeats: u64,
    /// Answers to clients that were replays of earlier ones.
    pub replays: u64,
}

impl Oracle {
    /// Nothing has happened.
    pub fn new(store: StoreConfig, random: Random) -> Oracle {
        let roomy = StoreConfig { overlay_bytes: 1 << 20, ..store.clone() };
        let reference = match Store::open(Arc::new(MemoryEngine::new()), roomy) {
            Ok(reference) => reference,
            Err(error) => panic!("the reference store cannot be opened: {error}"),
        };
        Oracle {
            model: Model::new(store),
            reference,
            committed: Vec::new(),
            values: HashMap::new(),
            changes: Changes::new(),
            places: HashMap::new(),
            begun: HashMap::new(),
            floor: 0,
            leaders: BTreeMap::new(),
            disks: disk::Disks::default(),
            logs: logs::Logs::default(),
            membership: (Index::ZERO, Membership::default()),
            random,
            joint_phases: 0,
            repeats: 0,
            replays: 0,
        }
    }

    /// A cluster is founded: this is in its proposer's log.
    pub fn founded(&mut self, proposer: NodeId, membership: Membership) {
        let entry = Raft::bootstrap_entry(&membership);
        self.membership = (entry.index, membership);
        if let Err(Violation(what)) = self.logs.appends(proposer, Some(Term(0)), &[entry]) {
            unreachable!("the first entry contradicts an empty history: {what}");
        }
    }

    /// How much is committed.
    pub fn committed_index(&self) -> u64 {
        self.committed.len() as u64
    }

    /// Terms that had a leader.
    pub fn terms_led(&self) -> u64 {
        self.leaders.len() as u64
    }

    /// A node was told to apply these.
    pub fn committed<'a>(
        &mut self,
        node: NodeId,
        entries: impl IntoIterator<Item = &'a Entry>,
    ) -> Result<(), Violation> {
        for entry in entries {
            let hash = xxhash_rust::xxh3::xxh3_64(&entry.data);
            let at = entry.index.0 as usize - 1;
            if let Some(known) = self.committed.get(at) {
                if (known.term, known.kind, known.hash) != (entry.term, entry.kind, hash) {
                    violated!(
                        "state-machine safety: {node} applies another entry at {} (term {}, first seen with term {})",
                        entry.index,
                        entry.term,
                        known.term
                    );
                }
                continue;
            }
            if at != self.committed.len() {
                violated!("{node} applies {} while only {} was committed", entry.index, self.committed.len());
            }
            self.apply(entry, hash)?;
        }
        Ok(())
    }

    fn apply(&mut self, entry: &Entry, hash: u64) -> Result<(), Violation> {
        let index = entry.index.0;
        match entry.kind {
            EntryKind::Command => self.apply_command(entry)?,
            EntryKind::Membership => {
                match Membership::decode(&entry.data) {
                    Ok(membership) => {
                        self.joint_phases += u64::from(membership.is_joint());
                        self.membership = (entry.index, membership);
                    }
                    Err(error) => violated!("the membership at {index} cannot be read: {error}"),
                }
                self.reference.apply_empty(index);
            }
            EntryKind::Noop => self.reference.apply_empty(index),
        }
        self.reference.publish();
        if let Some(job) = self.reference.maybe_rotate() {
            let flushed = job.run().and_then(|index| self.reference.handle_flushed(index));
            if let Err(error) = flushed {
                violated!("the reference store fails to flush: {error}");
            }
        }
        let digest = self.reference.position().digest;
        self.committed.push(Committed { term: entry.term, kind: entry.kind, hash, digest });
        Ok(())
    }

    fn apply_command(&mut self, entry: &Entry) -> Result<(), Violation> {
        let index = entry.index.0;
        let (time_ms, command) = match command::decode(&entry.data) {
            Ok(decoded) => decoded,
            Err(error) => violated!("the entry at {index} is no command: {error}"),
        };
        let before = self.model.revision;
        let reply = self.model.apply(index, time_ms, &command);
        let stored = match self.reference.apply(index, &entry.data) {
            Ok(stored) => stored,
            Err(error) => violated!("the reference store fails at {index}: {error}"),
        };
        if stored != reply {
            violated!("store and model differ at {index}: {stored:?} against {reply:?} for {command:?}");
        }
        if let Some(operation) = operation_of(&command) {
            self.place(operation, index, reply)?;
        }
        if self.model.revision != before {
            self.remember_values(index, &command);
            for ((revision, key), value) in self.model.changes_above(before) {
                self.changes.entry(revision).or_default().insert(key, value);
            }
        }
        Ok(())
    }

    fn place(&mut self, operation: u64, index: u64, reply: Reply) -> Result<(), Violation> {
        let places = self.places.entry(operation).or_default();
        let effective = !reply.replayed && !is_refusal(&reply);
        if let Some(begun) = self.begun.get_mut(&operation) {
            if begun.denied && effective {
                violated!("operation {operation} was answered 'not applied' and is committed at {index}");
            }
            if begun.effective && effective {
                violated!("exactly once: operation {operation} takes effect at {index} once more");
            }
            begun.effective |= effective;
            if !places.is_empty() && !begun.repeatable {
                violated!("operation {operation} may not be repeated and is committed at {index} once more");
            }
        }
        self.repeats += u64::from(reply.replayed);
        places.push((index, reply));
        Ok(())
    }

    fn remember_values(&mut self, index: u64, command: &Command) {
        let keys: Vec<Bytes> = match &command.operation {
            Some(Operation::Put(put)) => vec![put.key.clone()],
            Some(Operation::Delete(delete)) => vec![delete.key.clone()],
            _ => self.values.keys().cloned().collect(),
        };
        for key in keys {
            let value = self.model.keys.get(&key);
            let history = self.values.entry(key).or_default();
            if history.last().and_then(|(_, last)| last.as_ref()) != value {
                history.push((index, value.cloned()));
            }
        }
    }

    /// A node's store says that it has applied up to here, with this digest.
    pub fn applied(&self, node: NodeId, index: u64, digest: u128) -> Result<(), Violation> {
        match self.committed.get((index as usize).wrapping_sub(1)) {
            None if index == 0 => Ok(()),
            None => {
                violated!("{node} has applied {index}, of which only {} is committed", self.committed.len())
            }
            Some(known) if known.digest != digest => {
                violated!("{node} has another digest at {index}: {digest:x} against {:x}", known.digest)
            }
            Some(_) => Ok(()),
        }
    }

    /// A client begins an operation. `repeatable`: it carries a request id.
    pub fn begin(&mut self, operation: u64, key: Option<Bytes>, repeatable: bool) {
        self.begun
            .insert(operation, Begun { floor: self.floor, key, repeatable, denied: false, effective: false });
    }

    /// A write was answered.
    pub fn write_answered(&mut self, operation: u64, reply: &Reply) -> Result<(), Violation> {
        let Some(begun) = self.begun.get(&operation) else {
            violated!("operation {operation} was answered before it began")
        };
        let places = self.places.get(&operation).map(Vec::as_slice).unwrap_or_default();
        let Some((index, expected)) = places.first() else {
            violated!("operation {operation} was answered {reply:?} and is not committed")
        };
        self.replays += u64::from(reply.replayed);
        // A refusal that the log decided is the answer of the attempt it was decided for.
        let matches = |expected: &Reply| expected.answer == reply.answer;
        if !places.iter().any(|(_, expected)| matches(expected)) {
            violated!("operation {operation} was answered {reply:?}; the model says {expected:?}");
        }
        if is_refusal(reply) {
            return Ok(());
        }
        if !matches(expected) && !is_refusal(expected) {
            violated!("operation {operation} was answered {reply:?}; its first effect was {expected:?}");
        }
        let at = places.iter().find(|(_, reply)| !is_refusal(reply)).map_or(*index, |(index, _)| *index);
        if at <= begun.floor {
            violated!(
                "operation {operation} took place at {at}, and an operation that ended before it began at {}",
                begun.floor
            );
        }
        self.floor = self.floor.max(at);
        Ok(())
    }

    /// A client puts an operation to somebody once more: from now on it may take place.
    pub fn tried_again(&mut self, operation: u64) {
        if let Some(begun) = self.begun.get_mut(&operation) {
            begun.denied = false;
        }
    }

    /// The only attempt at a write was refused. Where the error says "not applied", it must never be committed.
    pub fn write_failed(&mut self, operation: u64, error: &WriteError) -> Result<(), Violation> {
        match error {
            WriteError::Unknown { .. } => Ok(()),
            _ => self.denied(operation, &error.to_string()),
        }
    }

    /// A client was told that its write was not applied.
    pub fn denied(&mut self, operation: u64, why: &str) -> Result<(), Violation> {
        if let Some(begun) = self.begun.get_mut(&operation) {
            if begun.effective {
                violated!("operation {operation} was answered '{why}' and has taken effect");
            }
            begun.denied = true;
        }
        Ok(())
    }

    /// A read was confirmed and served from this state.
    pub fn read_served(&mut self, operation: u64, view: &View) -> Result<(), Violation> {
        let Some(begun) = self.begun.get(&operation) else {
            violated!("operation {operation} was answered before it began")
        };
        let at = view.applied_index();
        if at < begun.floor {
            violated!(
                "stale read: operation {operation} saw {at}, and what ended before it began had seen {}",
                begun.floor
            );
        }
        let key = begun.key.clone().unwrap_or_default();
        self.floor = self.floor.max(at);
        self.value_is_right(&key, view)
    }

    /// A value that a node's store shows is the model's for the index that the store has applied.
    pub fn value_is_right(&self, key: &Bytes, view: &View) -> Result<(), Violation> {
        let at = view.applied_index();
        let shown = match view.get(key) {
            Ok(shown) => shown,
            Err(error) => violated!("a store cannot be read: {error}"),
        };
        let history = self.values.get(key).map(Vec::as_slice).unwrap_or_default();
        let expected =
            history.iter().rev().find(|(since, _)| *since <= at).and_then(|(_, value)| value.clone());
        if shown != expected {
            violated!("key {key:?} at {at} reads {shown:?}; the model says {expected:?}");
        }
        Ok(())
    }

    /// All changes that were committed.
    pub fn changes(&self) -> &Changes<Bytes, Value> {
        &self.changes
    }

    /// The latest place of all operations that have ended.
    pub fn floor(&self) -> u64 {
        self.floor
    }

    /// At a revision that a node's store can still read, a key has what it had; one that is compacted is refused. Gives
    /// whether there was anything to read.
    pub fn past_is_right(&mut self, key: &Bytes, view: &View) -> Result<bool, Violation> {
        let (oldest, newest) = (view.compacted_revision(), view.revision());
        if oldest > 0
            && !matches!(view.get_at(key, oldest - 1), Err(PastError::Compacted { oldest: told }) if told == oldest)
        {
            violated!("revision {} can be read, and {oldest} is the oldest", oldest - 1);
        }
        let revision = self.random.between(oldest, newest.max(oldest + 1));
        if revision > newest {
            return Ok(false);
        }
        let shown = match view.get_at(key, revision) {
            Ok(shown) => shown,
            Err(error) => violated!("revision {revision} of {oldest} to {newest} cannot be read: {error}"),
        };
        let changed = self.changes.range(..=revision).rev().find_map(|(_, changed)| changed.get(key));
        if shown.as_ref() != changed.and_then(Option::as_ref) {
            violated!("key {key:?} at revision {revision} reads {shown:?}; it was {changed:?}");
        }
        Ok(true)
    }

    /// Values of all keys are the model's.
    pub fn all_values_are_right(&self, view: &View) -> Result<(), Violation> {
        self.values.keys().try_for_each(|key| self.value_is_right(key, view))
    }

    /// A node leads. Gives whether that is news.
    pub fn leads(&mut self, node: NodeId, raft: &Raft) -> Result<bool, Violation> {
        let term = raft.term();
        match self.leaders.get(&term) {
            Some(known) if *known == node => return Ok(false),
            Some(known) => violated!("two leaders of term {term}: {known} and {node}"),
            None => drop(self.leaders.insert(term, node)),
        }
        self.disks.elected(node, term, raft.membership())?;
        // The newest committed entry, and some before it.
        let newest = self.committed.len() as u64;
        let samples = (0..8).map(|_| 1 + self.random.below(newest.max(1))).chain([newest]);
        for index in samples.filter(|index| *index > 0 && *index <= newest) {
            let committed = self.committed[index as usize - 1].term;
            let compacted = Index(index) < raft.first_index();
            match raft.term_at(Index(index)) {
                Some(found) if found == committed => {}
                None if compacted => {}
                found => violated!(
                    "leader completeness: {node} leads term {term} and has {found:?} at {index}, committed in {committed}"
                ),
            }
        }
        Ok(true)
    }

    /// The relations that hold on every node at any time.
    pub fn relations_hold(&self, raft: &Raft, store: &Store) -> Result<(), Violation> {
        let (applied, durable) = (store.applied_index(), store.durable_index());
        let (commit, first) = (raft.commit_index().0, raft.first_index().0);
        // A snapshot is in the store before the core hears of it.
        let ahead = applied > commit && applied > self.committed.len() as u64;
        if ahead || durable > applied || first > applied + 1 || commit > raft.last_index().0 {
            violated!(
                "relations of {}: first {first}, flushed {durable}, applied {applied}, commit {commit}, last {}",
                raft.id(),
                raft.last_index()
            );
        }
        Ok(())
    }
}

/// A refusal that the log decided: it had no effect, and is not recorded.
fn is_refusal(reply: &Reply) -> bool {
    matches!(
        reply.answer,
        Some(Answer::SessionExpired(_) | Answer::ReplyTableFull(_) | Answer::RequestMismatch(_))
    )
}

/// The operation that a command belongs to: clients put its number into the fingerprint, or into the value.
fn operation_of(command: &command::Command) -> Option<u64> {
    let fingerprint = match &command.request {
        Some(RequestId::Key(key)) => Some(&key.fingerprint),
        Some(RequestId::Session(session)) => Some(&session.fingerprint),
        None => None,
    };
    let text = match (fingerprint, &command.operation) {
        (Some(fingerprint), _) => fingerprint,
        (None, Some(command::Operation::Put(put))) => &put.value,
        _ => return None,
    };
    std::str::from_utf8(text).ok()?.split(' ').next()?.parse().ok()
}
