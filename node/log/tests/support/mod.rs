//! What the tests of the log share: a small log, a model that knows every state it went through, and a script.
#![allow(dead_code, unreachable_pub)] // Each test binary uses a part, and sees it as a private module.

use balsa_log::{
    Folder, Log, LogConfig, LogError, LogIdentity, LogStart, LogWrite, OpenError, Recovered, SimDisk,
};
use balsa_raft::{Entry, EntryKind, HardState, Index, NodeId, Term};
use bytes::Bytes;
use std::path::{Path, PathBuf};

pub const IDENTITY: LogIdentity = LogIdentity { cluster: 0xc1, node: 0xa1 };

/// Segments of 4 KiB for batches: everything happens soon.
pub fn config() -> LogConfig {
    LogConfig { segment_bytes: 8192, max_record_bytes: 600, recycle_segments: 1, salt: 5 }
}

pub fn folder(disk: &SimDisk) -> Folder {
    Folder { disk: disk.shared(), path: PathBuf::from("/node/log") }
}

pub fn path(name: &str) -> PathBuf {
    Path::new("/node/log").join(name)
}

pub fn open(disk: &SimDisk) -> Result<(Log, Recovered), OpenError> {
    Log::open(folder(disk), config(), IDENTITY)
}

/// Says how many cases a test tried, in a line that can be added up.
pub fn tell(what: &str, cases: u64) {
    println!("cases: {cases} ({what})");
}

/// How thorough to be, by an environment variable; the default keeps a test to seconds.
pub fn thoroughness(variable: &str, default: u64) -> u64 {
    std::env::var(variable)
        .map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{variable} is {text}")))
}

/// What a log holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct View {
    pub hard_state: HardState,
    pub start: LogStart,
    pub entries: Vec<Entry>,
}

impl View {
    pub fn of(recovered: &Recovered) -> View {
        let Recovered { hard_state, start, entries, .. } = recovered.clone();
        View { hard_state, start, entries }
    }

    pub fn last(&self) -> Index {
        self.entries.last().map_or(self.start.index, |entry| entry.index)
    }
}

/// The naive model: every state the log was asked to go through, record by record, and which of them is
/// acknowledged. After any crash the log must hold that one or a later one.
#[derive(Clone)]
pub struct Model {
    pub states: Vec<View>,
    pub acknowledged: usize,
    /// The state that a later batch vouches for: damage to the log never loses more, unless the log refuses to open.
    pub vouched: usize,
    term: u64,
    fresh: u8,
}

/// One thing that is done to a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A vote in a new term.
    Vote,
    /// So many entries of so many bytes.
    Append(usize, usize),
    /// Overwrites the last so many entries with one fewer, of a new term, and a vote with them.
    Overwrite(usize),
    Sync,
    Mark,
    /// Gives up entries until so many are left.
    Release(usize),
    /// A snapshot so many entries ahead, and some entries behind it.
    Reset(usize),
    /// A snapshot so many entries back, and some other entries behind it.
    ResetBack(usize),
    Prepare,
}

impl Model {
    pub fn new() -> Model {
        let start = LogStart { index: Index(0), term: Term(0), membership: Bytes::from_static(b"founders") };
        let hard_state = HardState { term: Term(1), vote: Some(NodeId(IDENTITY.node)) };
        let first = View { hard_state, start, entries: Vec::new() };
        let mut model = Model { states: vec![first], acknowledged: 0, vouched: 0, term: 1, fresh: 0 };
        // A log is founded with the first membership in it, all or nothing.
        let mut entries = model.entries(Index(1), 2, 30);
        entries[0].kind = EntryKind::Membership;
        model.states[0].entries = entries;
        model
    }

    pub fn now(&self) -> &View {
        &self.states[self.states.len() - 1]
    }

    pub fn create(&self, disk: &SimDisk) -> Result<Log, LogError> {
        let View { hard_state, start, entries } = self.states[0].clone();
        Log::create(folder(disk), config(), IDENTITY, start, hard_state, &entries)
    }

    pub fn acknowledge_all(&mut self) {
        self.acknowledged = self.states.len() - 1;
    }

    fn entries(&mut self, first: Index, count: usize, bytes: usize) -> Vec<Entry> {
        let entry = |n: usize| Entry {
            index: Index(first.0 + n as u64),
            term: Term(self.term),
            kind: if bytes == 0 { EntryKind::Noop } else { EntryKind::Command },
            data: Bytes::from(vec![self.fresh.wrapping_add(n as u8) | 1; bytes]),
        };
        let entries = (0..count).map(entry).collect();
        self.fresh = self.fresh.wrapping_add(17);
        entries
    }

    fn then(&mut self, change: impl FnOnce(&mut View)) {
        let mut next = self.now().clone();
        change(&mut next);
        self.states.push(next);
    }

    fn append(
        &mut self,
        log: &mut Log,
        hard_state: Option<HardState>,
        reset: Option<&LogStart>,
        entries: &[Entry],
    ) -> Result<(), LogError> {
        if let Some(hard_state) = hard_state {
            self.then(|view| view.hard_state = hard_state);
        }
        if let Some(start) = reset {
            self.then(|view| {
                view.start = start.clone();
                view.entries.clear();
            });
        }
        if let Some(first) = entries.first()
            && first.index <= self.now().last()
        {
            self.then(|view| view.entries.retain(|entry| entry.index < first.index));
        }
        for entry in entries {
            self.then(|view| view.entries.push(entry.clone()));
        }
        log.append(&LogWrite { hard_state, reset, entries })
    }

    fn next_term(&mut self) -> HardState {
        self.term += 1;
        HardState { term: Term(self.term), vote: self.term.is_multiple_of(2).then_some(NodeId(7)) }
    }

    /// Does one step to the log, having noted what it may lead to.
    pub fn step(&mut self, log: &mut Log, step: Step) -> Result<(), LogError> {
        match step {
            Step::Vote => {
                let vote = self.next_term();
                self.append(log, Some(vote), None, &[])
            }
            Step::Append(count, bytes) => {
                let entries = self.entries(self.now().last().next(), count, bytes);
                self.append(log, None, None, &entries)
            }
            Step::Overwrite(count) => {
                let count = count.min(self.now().entries.len());
                let first = Index(self.now().last().0 + 1 - count as u64);
                let vote = self.next_term();
                let entries = self.entries(first, count.saturating_sub(1).max(1), 40);
                self.append(log, Some(vote), None, &entries)
            }
            Step::Reset(distance) | Step::ResetBack(distance) => {
                let last = self.now().last().0;
                let ahead = last + distance as u64;
                let back = last.saturating_sub(distance as u64).max(1);
                let index = Index(if step == Step::Reset(distance) { ahead } else { back });
                let start =
                    LogStart { index, term: Term(self.term), membership: Bytes::from_static(b"others") };
                let entries = self.entries(index.next(), distance % 3, 20);
                self.append(log, None, Some(&start), &entries)
            }
            Step::Sync => self.acknowledged_by(log.sync()),
            Step::Mark => {
                let marked = self.acknowledged_by(log.mark());
                if marked.is_ok() {
                    self.vouched = self.acknowledged;
                }
                marked
            }
            Step::Release(left) => {
                let view = self.now();
                let keep = left.min(view.entries.len());
                let Some(to) = view.entries.len().checked_sub(keep + 1).map(|at| view.entries[at].clone())
                else {
                    return Ok(());
                };
                let start = LogStart { index: to.index, term: to.term, membership: Bytes::from_static(b"m") };
                self.then(|view| {
                    view.start = start.clone();
                    view.entries.retain(|entry| entry.index > start.index);
                });
                self.acknowledged_by(log.release(&start))
            }
            Step::Prepare => log.prepare_next_segment().map(|_| ()),
        }
    }

    fn acknowledged_by(&mut self, result: Result<(), LogError>) -> Result<(), LogError> {
        if result.is_ok() && self.acknowledged < self.states.len() - 1 {
            self.vouched = self.acknowledged;
            self.acknowledge_all();
        }
        result
    }

    /// Checks that a recovered log holds what was acknowledged or a later state, and goes on from there.
    pub fn recovered(&mut self, recovered: &Recovered, context: &str) {
        let view = View::of(recovered);
        let at = self.states[self.acknowledged..].iter().rposition(|state| *state == view);
        let Some(at) = at else {
            panic!(
                "{context}: recovered {view:?}\nwhich is none of the {} states since the acknowledged {:?}",
                self.states.len() - self.acknowledged,
                self.states[self.acknowledged]
            );
        };
        self.states.truncate(self.acknowledged + at + 1);
        self.acknowledge_all();
        self.vouched = self.acknowledged;
    }
}

/// A run through everything that a log does: several segments, recycled ones, each kind of record.
pub fn script() -> Vec<Step> {
    use Step::*;
    vec![
        Vote,
        Append(1, 0),
        Sync,
        Append(3, 100),
        Sync,
        Mark,
        Append(2, 500),
        Append(4, 300),
        Sync,
        Prepare,
        Append(6, 400),
        Sync,
        Overwrite(3),
        Sync,
        Append(8, 250),
        Sync,
        Release(6),
        Append(10, 200),
        Vote,
        Sync,
        Mark,
        Release(2),
        Prepare,
        Overwrite(2),
        Append(9, 590),
        Sync,
        Reset(5),
        Sync,
        ResetBack(2),
        Sync,
        Append(5, 600),
        Sync,
        Release(3),
        Append(12, 333),
        Sync,
        Append(1, 1),
        Mark,
    ]
}

/// Runs a script on a new log until something fails, and returns the model, and the log unless creation failed.
pub fn run(disk: &SimDisk, steps: &[Step]) -> (Model, Option<Log>, Result<(), LogError>) {
    let mut model = Model::new();
    let mut log = match model.create(disk) {
        Ok(log) => log,
        Err(error) => return (model, None, Err(error)),
    };
    for &step in steps {
        if let Err(error) = model.step(&mut log, step) {
            return (model, Some(log), Err(error));
        }
    }
    (model, Some(log), Ok(()))
}
