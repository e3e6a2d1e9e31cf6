//! The log against a naive model: plain vectors, searched from end to end.

use super::Log;
use crate::membership::Membership;
use crate::persist::Pipeline;
use crate::ready::{PersistToken, SnapshotMeta};
use crate::types::{Entry, EntryKind, Index, NodeId, Term};
use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use std::sync::Arc;

/// What is done to a log. Numbers are taken modulo what makes sense at that point.
#[derive(Clone, Copy, Debug)]
enum Step {
    Append { higher_term: bool, membership: bool },
    Truncate(u64),
    Commit(u64),
    Persist,
    Complete(u64),
    Apply(usize),
    Applied(u64),
    Compact(u64),
    Install { ahead: u64, matching: bool },
}

fn step() -> impl Strategy<Value = Step> {
    let n = || any::<u64>();
    prop_oneof![
        6 => (any::<bool>(), prop::bool::weighted(0.2)).prop_map(|(higher_term, membership)| Step::Append { higher_term, membership }),
        2 => n().prop_map(Step::Truncate),
        3 => n().prop_map(Step::Commit),
        4 => Just(Step::Persist),
        4 => n().prop_map(Step::Complete),
        3 => (0..200usize).prop_map(Step::Apply),
        3 => n().prop_map(Step::Applied),
        2 => n().prop_map(Step::Compact),
        1 => (n(), any::<bool>()).prop_map(|(ahead, matching)| Step::Install { ahead, matching }),
    ]
}

/// Everything that was ever appended and not truncated, by index; nothing is ever really dropped. A write
/// under way is a list of the entries it holds; the disk is what completed writes left there.
#[derive(Default)]
struct Model {
    entries: Vec<Entry>,
    compacted: usize,
    commit: usize,
    applied: usize,
    handed_out: usize,
    term: u64,
    disk: Vec<Entry>,
    writes: Vec<(PersistToken, Option<usize>, Vec<Entry>)>,
}

impl Model {
    /// How far the disk holds what the log holds.
    fn stable(&self) -> usize {
        self.disk.iter().zip(&self.entries).take_while(|(a, b)| a == b).count()
    }

    fn membership_at(&self, index: usize) -> Membership {
        let kind = |entry: &&Entry| entry.kind == EntryKind::Membership;
        let newest = self.entries[..index].iter().rev().find(kind);
        newest.map_or(Membership::default(), |entry| Membership::decode(&entry.data).expect("encoded above"))
    }
}

fn entry(index: usize, term: u64, membership: bool) -> Entry {
    let kind = if membership { EntryKind::Membership } else { EntryKind::Command };
    let data = if membership {
        Membership::of_voters([NodeId(index as u64)]).encode()
    } else {
        Bytes::from(vec![0; index % 7])
    };
    Entry { index: Index(index as u64), term: Term(term), kind, data }
}

struct Pair {
    log: Log,
    pipeline: Pipeline,
    model: Model,
}

impl Pair {
    fn new() -> Pair {
        let blank = SnapshotMeta { index: Index::ZERO, term: Term(0), membership: Arc::default() };
        let log = Log::new(blank, Vec::new(), Index::ZERO).expect("a blank log");
        Pair { log, pipeline: Pipeline::default(), model: Model { term: 1, ..Model::default() } }
    }

    fn run(&mut self, step: Step) {
        let model = &mut self.model;
        let last = model.entries.len();
        match step {
            Step::Append { higher_term, membership } => {
                model.term += u64::from(higher_term);
                let entry = entry(last + 1, model.term, membership);
                assert_eq!(self.log.append(entry.clone()), membership);
                model.entries.push(entry);
            }
            Step::Truncate(n) if last > model.commit => {
                let from = model.commit + 1 + (n as usize % (last - model.commit));
                let rolls_back =
                    model.entries[from - 1..].iter().any(|entry| entry.kind == EntryKind::Membership);
                assert_eq!(self.log.truncate(Index(from as u64)), rolls_back);
                self.pipeline.truncate(Index(from as u64));
                model.entries.truncate(from - 1);
                // As in Raft: what takes its place is of a higher term.
                model.term += 1;
            }
            Step::Commit(n) => {
                let to = n as usize % (last + 2);
                assert_eq!(self.log.commit_to(Index(to as u64)), to.min(last) > model.commit);
                model.commit = model.commit.max(to.min(last));
            }
            Step::Persist => {
                let entries = self.log.take_unsent();
                let range =
                    entries.first().zip(entries.last()).map(|(first, last)| (first.index, last.index));
                let token = self.pipeline.begin(range, false, 0);
                model.writes.push((token, None, entries));
            }
            Step::Complete(n) if !model.writes.is_empty() => {
                let count = 1 + n as usize % model.writes.len();
                let mut token = PersistToken(0);
                for (written, snapshot, entries) in model.writes.drain(..count) {
                    token = written;
                    if let Some(snapshot) = snapshot {
                        model.disk = model.entries[..snapshot].to_vec();
                    }
                    for entry in entries {
                        model.disk.truncate(entry.index.0 as usize - 1);
                        model.disk.push(entry);
                    }
                }
                if let Some(stable) = self.pipeline.complete(token).stable {
                    self.log.stable_to(stable);
                }
            }
            Step::Apply(max_bytes) => {
                let given = self.log.take_apply(max_bytes);
                let until = model.commit.min(model.stable());
                let from = model.handed_out;
                assert_eq!(given, model.entries[from..from + given.len()]);
                model.handed_out += given.len();
                assert!(model.handed_out <= until);
                let outstanding: usize =
                    model.entries[model.applied..model.handed_out].iter().map(Entry::size_bytes).sum();
                let one = model.handed_out - model.applied == 1;
                assert!(given.is_empty() || outstanding <= max_bytes || one, "{outstanding} of {max_bytes}");
                let nothing_outstanding = model.applied == from;
                assert!(!given.is_empty() || !nothing_outstanding || from == until || max_bytes == 0);
            }
            Step::Applied(n) => {
                let to = n as usize % (model.handed_out + 1);
                self.log.applied_to(Index(to as u64));
                model.applied = model.applied.max(to);
            }
            Step::Compact(n) => {
                let to = n as usize % (model.applied + 1);
                self.log.compact(Index(to as u64));
                model.compacted = model.compacted.max(to);
            }
            Step::Install { ahead, matching } => self.install(ahead, matching),
            Step::Truncate(_) | Step::Complete(_) => {}
        }
    }

    fn install(&mut self, ahead: u64, matching: bool) {
        let model = &mut self.model;
        let index = model.commit + 1 + ahead as usize % 5;
        let keeps = matching && index <= model.entries.len();
        if !keeps {
            // The snapshot's history is another one from the commit index on.
            model.term += 1;
            model.entries.truncate(model.commit);
            while model.entries.len() < index {
                let entry = entry(model.entries.len() + 1, model.term, false);
                model.entries.push(entry);
            }
        }
        let membership = Arc::new(model.membership_at(index));
        let meta =
            SnapshotMeta { index: Index(index as u64), term: model.entries[index - 1].term, membership };
        self.log.install_snapshot(&meta);
        self.pipeline.truncate(Index::ZERO);
        (model.compacted, model.commit, model.applied, model.handed_out) = (index, index, index, index);
        // The state is durable; the log's new beginning is a write.
        model.disk = model.entries[..index].to_vec();
        let entries = self.log.take_unsent();
        assert_eq!(entries, model.entries[index..]);
        let range = entries.first().zip(entries.last()).map(|(first, last)| (first.index, last.index));
        let token = self.pipeline.begin(range, false, 0);
        // Whatever earlier writes put there, this one begins anew.
        model.writes.iter_mut().for_each(|(_, snapshot, entries)| {
            *snapshot = None;
            entries.clear();
        });
        model.writes.push((token, Some(index), entries));
    }

    fn compare(&self) {
        let (log, model) = (&self.log, &self.model);
        log.check();
        let index = |n: usize| Index(n as u64);
        assert_eq!(log.last(), index(model.entries.len()));
        assert_eq!((log.compacted(), log.first()), (index(model.compacted), index(model.compacted + 1)));
        assert_eq!((log.commit(), log.applied()), (index(model.commit), index(model.applied)));
        assert_eq!(log.stable(), index(model.stable().max(model.compacted)));
        assert_eq!(log.last_term(), model.entries.last().map_or(Term(0), |entry| entry.term));
        assert_eq!(
            log.bytes(),
            model.entries[model.compacted..].iter().map(Entry::size_bytes).sum::<usize>()
        );
        assert_eq!(**log.membership(), model.membership_at(model.entries.len()));
        for at in 0..=model.entries.len() + 1 {
            let term = match at {
                0 => (model.compacted == 0).then_some(Term(0)),
                _ if at < model.compacted => None,
                _ => model.entries.get(at - 1).map(|entry| entry.term),
            };
            assert_eq!(log.term_at(index(at)), term, "term at {at}");
            let meta = log.snapshot_meta_at(index(at)).map(|meta| (*meta.membership).clone());
            assert_eq!(meta, term.map(|_| model.membership_at(at)), "membership at {at}");
        }
        for term in (0..=model.term).map(Term) {
            for at in model.compacted + 1..=model.entries.len() {
                let below = model.entries[..at]
                    .iter()
                    .rposition(|entry| entry.term <= term)
                    .map_or(0, |found| found + 1);
                assert_eq!(log.last_with_term_at_most(index(at), term), index(below.max(model.compacted)));
            }
        }
        for from in model.compacted + 1..=model.entries.len() {
            let (entries, bytes) = log.entries_from(index(from), 100);
            assert!(!entries.is_empty());
            assert_eq!(entries, model.entries[from - 1..from - 1 + entries.len()]);
            assert_eq!(bytes, entries.iter().map(Entry::size_bytes).sum::<usize>());
            assert!(bytes <= 100 || entries.len() == 1);
        }
    }
}

proptest! {
    #[test]
    fn the_log_is_as_its_naive_model(steps in vec(step(), 1..60)) {
        let mut pair = Pair::new();
        for step in steps {
            pair.run(step);
            pair.compare();
        }
    }
}

/// Each relation on its own is enough to stop the node.
#[test]
fn the_check_sees_every_relation_that_is_broken() {
    let snapshot = SnapshotMeta { index: Index(1), term: Term(1), membership: Arc::default() };
    let entries = (2..=5).map(|index| entry(index, 1, false)).collect();
    let mut sound = Log::new(snapshot, entries, Index(2)).expect("a log without memberships");
    (sound.handed_out, sound.commit) = (Index(3), Index(4));
    (sound.stable, sound.unsent) = (Index(4), Index(5));
    sound.check();
    type Breaks = fn(&mut Log);
    let broken: [(&str, Breaks); 7] = [
        ("compacted <= applied", |log| log.applied = Index(0)),
        ("applied <= handed out", |log| log.applied = Index(4)),
        ("handed out <= commit", |log| log.commit = Index(2)),
        ("handed out <= stable", |log| log.stable = Index(2)),
        ("commit <= last", |log| log.commit = Index(6)),
        ("stable < unsent", |log| log.stable = Index(5)),
        ("unsent <= last + 1", |log| log.unsent = Index(7)),
    ];
    for (relation, breaks) in broken {
        let mut log = sound.clone();
        breaks(&mut log);
        assert!(std::panic::catch_unwind(|| log.check()).is_err(), "nothing says that {relation} is broken");
    }
}

/// What was handed out before a snapshot is never reported applied, and takes no room from what follows.
#[test]
fn a_snapshot_gives_the_room_back_that_was_handed_out() {
    let mut log = Pair::new().log;
    (1..=4).for_each(|index| assert!(!log.append(entry(index, 1, false))));
    assert_eq!(log.take_unsent().len(), 4);
    log.stable_to(Index(4));
    log.commit_to(Index(2));
    assert_eq!(log.take_apply(usize::MAX).len(), 2);
    log.install_snapshot(&SnapshotMeta { index: Index(9), term: Term(2), membership: Arc::default() });
    log.append(entry(10, 2, false));
    assert_eq!(log.take_unsent().len(), 1);
    log.stable_to(Index(10));
    log.commit_to(Index(10));
    assert_eq!(log.take_apply(1), [entry(10, 2, false)]);
}
