//! Sorts operations into their places.

use crate::history::{Condition, History, Kind, Operation, Outcome, Step, Text};
use crate::verdict::{Verdict, Violation};
use std::collections::HashMap;

/// Those that looked at one state of one key.
#[derive(Debug, Default)]
pub(super) struct Lookers {
    pub(super) operations: Vec<usize>,
    /// The latest call: the key's next change comes after it.
    pub(super) max_call_ns: u64,
}

/// Every operation at its place. Places are revisions, counted from where the history begins; keys are numbers.
#[derive(Debug)]
pub(super) struct Plan<'a> {
    pub(super) history: &'a History,
    /// An operation's key; `usize::MAX` where it has several.
    pub(super) key_of: Vec<usize>,
    pub(super) keys: Vec<Text>,
    pub(super) numbers: HashMap<&'a Text, usize>,
    /// By place: the write that made it, if an answer told. Place 0 is the beginning.
    pub(super) writes: Vec<Option<usize>>,
    /// By place: what told to have looked exactly there.
    pub(super) exact: Vec<Vec<usize>>,
    /// By key and the place of its state.
    pub(super) lookers: HashMap<(usize, usize), Lookers>,
    /// By place: the keys whose state of this place somebody saw; several only where a transaction may have made it.
    pub(super) seen_keys: Vec<Vec<usize>>,
    /// By key, in order of call: what saw it absent and does not tell where.
    pub(super) absent: Vec<Vec<usize>>,
    /// Writes of unknown outcome, in order of call.
    pub(super) unknown: Vec<usize>,
    /// Those that alone can have written what was seen at a place.
    pub(super) reserved: HashMap<usize, usize>,
    /// By key: whether a write of unknown outcome could change it.
    pub(super) is_open: Vec<bool>,
    /// By key: from when on a write of unknown outcome could delete it.
    pub(super) may_vanish_ns: Vec<u64>,
    /// By place: the latest call among all known at or before it.
    pub(super) known_ns: Vec<u64>,
    /// By place: the earliest answer among all at or after it.
    pub(super) due_ns: Vec<u64>,
    /// By key, ascending: places of deletions.
    pub(super) deletions: Vec<Vec<usize>>,
    /// Places of clears, ascending.
    pub(super) clears: Vec<usize>,
    /// Places that no answer tells of.
    pub(super) gaps: usize,
    /// The first place of which nothing at all tells. From here on there is one for each unknown write that is left, to
    /// be used only where a deletion explains what is absent in the end.
    pub(super) end: usize,
}

impl<'a> Plan<'a> {
    pub(super) fn new(history: &'a History) -> Result<Plan<'a>, Box<Verdict>> {
        let operations = &history.operations;
        let mut plan = Plan {
            history,
            key_of: vec![usize::MAX; operations.len()],
            keys: Vec::new(),
            numbers: HashMap::new(),
            writes: vec![None],
            exact: Vec::new(),
            lookers: HashMap::new(),
            seen_keys: Vec::new(),
            absent: Vec::new(),
            unknown: Vec::new(),
            reserved: HashMap::new(),
            is_open: Vec::new(),
            may_vanish_ns: Vec::new(),
            known_ns: Vec::new(),
            due_ns: Vec::new(),
            deletions: Vec::new(),
            clears: Vec::new(),
            gaps: 0,
            end: 0,
        };
        plan.number_keys();
        plan.find_unknown();
        plan.place_writes()?;
        plan.place_lookers()?;
        plan.reserve();
        plan.end = plan.writes.len();
        let places = plan.end + plan.unknown.len() - plan.gaps;
        plan.writes.resize(places, None);
        plan.exact.resize(places, Vec::new());
        plan.seen_keys.resize(places, Vec::new());
        plan.find_times();
        Ok(plan)
    }

    fn number_keys(&mut self) {
        for (at, operation) in self.history.operations.iter().enumerate() {
            if let Some(key) = operation.key() {
                self.key_of[at] = self.number(key);
            }
            if let Kind::Txn(txn) = &operation.kind {
                txn.keys().for_each(|key| _ = self.number(key));
            }
        }
        self.absent = vec![Vec::new(); self.keys.len()];
        self.deletions = vec![Vec::new(); self.keys.len()];
    }

    /// A key's number, which it gets when it is first met.
    fn number(&mut self, key: &'a Text) -> usize {
        *self.numbers.entry(key).or_insert_with(|| {
            self.keys.push(Text::clone(key));
            self.keys.len() - 1
        })
    }

    /// The number of a key that some operation has.
    pub(super) fn key(&self, key: &Text) -> usize {
        self.numbers.get(key).copied().unwrap_or(usize::MAX)
    }

    fn find_unknown(&mut self) {
        self.is_open = vec![false; self.keys.len()];
        self.may_vanish_ns = vec![u64::MAX; self.keys.len()];
        for (at, operation) in self.history.operations.iter().enumerate() {
            if operation.outcome == Outcome::Unknown && operation.is_write() {
                self.unknown.push(at);
                if let Kind::Txn(txn) = &operation.kind {
                    for step in txn.steps() {
                        let key = self.key(step.key());
                        self.is_open[key] |= !matches!(step, Step::Get { .. });
                        if let Step::Delete { .. } = step {
                            self.may_vanish_ns[key] = operation.call_ns.min(self.may_vanish_ns[key]);
                        }
                    }
                    continue;
                }
                let keys = match self.key_of[at] {
                    usize::MAX => 0..self.keys.len(),
                    key => key..key + 1,
                };
                self.is_open[keys.clone()].fill(true);
                if matches!(operation.kind, Kind::Delete { .. } | Kind::Clear { .. }) {
                    for from_ns in &mut self.may_vanish_ns[keys] {
                        *from_ns = operation.call_ns.min(*from_ns);
                    }
                }
            }
        }
        self.unknown.sort_by_key(|&at| self.history.operations[at].call_ns);
    }

    /// Whether the write changed the store.
    fn changes(operation: &Operation) -> bool {
        operation.outcome == Outcome::Ok
            && match &operation.kind {
                Kind::Put { .. } | Kind::Append { .. } => true,
                Kind::Delete { deleted, .. } => *deleted == Some(true),
                Kind::Clear { deleted } => deleted.is_some_and(|count| count > 0),
                Kind::Txn(txn) => txn.done().iter().any(|step| match step {
                    Step::Get { .. } => false,
                    Step::Put { .. } => true,
                    Step::Delete { deleted, .. } => *deleted == Some(true),
                }),
                Kind::Get { .. } => false,
            }
    }

    fn place_writes(&mut self) -> Result<(), Box<Verdict>> {
        let operations = &self.history.operations;
        let mut placed: Vec<(u64, usize)> = Vec::new();
        for (at, operation) in operations.iter().enumerate().filter(|(_, one)| Self::changes(one)) {
            placed.push((operation.revision.unwrap_or(0), at));
        }
        placed.sort_unstable();
        let mut gaps = 0;
        for (revision, at) in placed {
            let Some(place) = revision.checked_sub(self.history.from_revision).filter(|place| *place > 0)
            else {
                let why = format!("revision {revision} was there before the history began");
                return Err(self.violation(at, why));
            };
            let due = self.writes.len() as u64;
            if place < due {
                let why = format!("two writes made revision {revision}");
                return Err(self.violation(at, why));
            }
            gaps += place - due;
            if gaps > self.unknown.len() as u64 {
                let why = format!(
                    "by revision {revision}, {gaps} revisions were made by nobody who was answered, but only {} writes \
                     are of unknown outcome: something was applied more than once",
                    self.unknown.len()
                );
                return Err(self.violation(at, why));
            }
            self.writes.resize(place as usize, None);
            self.writes.push(Some(at));
        }
        // What is seen beyond the last known write was made by unknown ones, too.
        let seen = operations.iter().filter(|operation| operation.is_decided());
        let seen = seen.flat_map(|operation| [operation.revision, operation.key_revision]);
        let last = seen.flatten().max().unwrap_or(0).saturating_sub(self.history.from_revision);
        let more = (last + 1).saturating_sub(self.writes.len() as u64);
        if gaps + more > self.unknown.len() as u64 {
            let by_revision =
                |at: &usize| operations[*at].revision.max(operations[*at].key_revision).unwrap_or_default();
            let at = (0..operations.len()).filter(|&at| operations[at].is_decided()).max_by_key(by_revision);
            let why = format!("it saw revision {}, which nobody made", last + self.history.from_revision);
            return Err(self.violation(at.unwrap_or_default(), why));
        }
        self.writes.resize(self.writes.len() + more as usize, None);
        self.gaps = (gaps + more) as usize;
        for place in 1..self.writes.len() {
            let Some(at) = self.writes[place] else { continue };
            match &operations[at].kind {
                Kind::Delete { .. } => self.deletions[self.key_of[at]].push(place),
                Kind::Clear { .. } => self.clears.push(place),
                Kind::Txn(txn) => {
                    for step in txn.done() {
                        if let Step::Delete { key, deleted: Some(true) } = step {
                            let key = self.key(key);
                            self.deletions[key].push(place);
                        }
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn place_lookers(&mut self) -> Result<(), Box<Verdict>> {
        let places = self.writes.len();
        self.exact = vec![Vec::new(); places];
        self.seen_keys = vec![Vec::new(); places];
        let mut wrong = None;
        for (at, operation) in self.history.operations.iter().enumerate() {
            if !operation.is_decided() || Self::changes(operation) {
                continue;
            }
            let place = |revision: u64| {
                let place = revision.checked_sub(self.history.from_revision)? as usize;
                (place < places).then_some(place)
            };
            let key = self.key_of[at];
            let absurd = match (&operation.kind, operation.outcome, operation.key_revision) {
                (Kind::Get { value, .. }, _, Some(seen)) => value.is_some() != (seen > 0),
                (_, Outcome::ConditionFailed, Some(0)) => {
                    matches!(operation.condition, Some(Condition::Absent | Condition::Revision(0)))
                }
                _ => false,
            };
            if absurd {
                wrong = Some((at, "its answer contradicts itself".to_owned()));
                continue;
            }
            if let Some(seen) = operation.key_revision.filter(|seen| *seen > 0) {
                let Some(seen) = place(seen).filter(|seen| *seen > 0) else {
                    wrong = Some((at, "it saw a revision from before the history began".to_owned()));
                    continue;
                };
                if !self.seen_keys[seen].contains(&key) {
                    if !self.seen_keys[seen].is_empty() && !self.may_be_a_txn(seen) {
                        wrong = Some((at, format!("revision {} was seen on two keys", self.revision(seen))));
                        continue;
                    }
                    self.seen_keys[seen].push(key);
                }
                let lookers = self.lookers.entry((key, seen)).or_default();
                lookers.operations.push(at);
                lookers.max_call_ns = lookers.max_call_ns.max(operation.call_ns);
            } else if operation.revision.is_none() {
                self.absent[key].push(at);
            }
            if let Some(revision) = operation.revision {
                match place(revision) {
                    Some(place) => self.exact[place].push(at),
                    None => wrong = Some((at, format!("revision {revision} was not there"))),
                }
            }
        }
        // Those that looked at one place hold up one another as little as they can in order of call.
        for lookers in self.absent.iter_mut().chain(&mut self.exact) {
            lookers.sort_by_key(|&at| self.history.operations[at].call_ns);
        }
        wrong.map_or(Ok(()), |(at, why)| Err(self.violation(at, why)))
    }

    fn may_be_a_txn(&self, place: usize) -> bool {
        let is_txn = |at: usize| matches!(self.history.operations[at].kind, Kind::Txn(_));
        match self.writes[place] {
            Some(at) => is_txn(at),
            None => self.unknown.iter().any(|&at| is_txn(at)),
        }
    }

    /// What was read where no answer tells of a write, and only one unknown write can have written.
    fn reserve(&mut self) {
        let operations = &self.history.operations;
        let mut puts: HashMap<(usize, &Text), Option<usize>> = HashMap::new();
        for &at in &self.unknown {
            let mut put = |key: usize, value| {
                let only = puts.entry((key, value)).or_insert(Some(at));
                *only = only.filter(|only| *only == at);
            };
            match &operations[at].kind {
                Kind::Put { value, .. } => put(self.key_of[at], value),
                Kind::Txn(txn) => txn.steps().for_each(|step| {
                    if let Step::Put { key, value } = step {
                        put(self.key(key), value);
                    }
                }),
                _ => {}
            }
        }
        for ((key, place), lookers) in &self.lookers {
            let read = lookers.operations.iter().find_map(|&at| match &operations[at].kind {
                Kind::Get { value, .. } => value.as_ref(),
                _ => None,
            });
            if self.writes[*place].is_none()
                && let Some(value) = read
                && let Some(&Some(at)) = puts.get(&(*key, value))
            {
                self.reserved.insert(at, *place);
            }
        }
    }

    fn find_times(&mut self) {
        let operations = &self.history.operations;
        let returned = |at: usize| operations[at].return_ns.unwrap_or(u64::MAX);
        let places = self.writes.len();
        self.known_ns = vec![0; places];
        self.due_ns = vec![u64::MAX; places];
        for place in 0..places {
            if let Some(at) = self.writes[place] {
                self.known_ns[place] = operations[at].call_ns;
                self.due_ns[place] = returned(at);
            }
            for &at in &self.exact[place] {
                self.due_ns[place] = self.due_ns[place].min(returned(at));
            }
        }
        for ((_, place), lookers) in &self.lookers {
            for &at in &lookers.operations {
                self.due_ns[*place] = self.due_ns[*place].min(returned(at));
            }
        }
        for place in 1..places {
            self.known_ns[place] = self.known_ns[place].max(self.known_ns[place - 1]);
        }
        for place in (1..places).rev() {
            self.due_ns[place - 1] = self.due_ns[place - 1].min(self.due_ns[place]);
        }
    }

    pub(super) fn revision(&self, place: usize) -> u64 {
        self.history.from_revision + place as u64
    }

    pub(super) fn operation(&self, at: usize) -> &'a Operation {
        &self.history.operations[at]
    }

    /// Whether the key may be deleted behind this place, early enough to be seen absent until `by_ns`.
    pub(super) fn may_be_deleted(&self, key: usize, behind: usize, by_ns: u64) -> bool {
        let next = |places: &[usize]| {
            let at = places.partition_point(|place| *place <= behind);
            places.get(at).is_some_and(|place| self.known_ns[*place] <= by_ns)
        };
        self.may_vanish_ns[key] <= by_ns || next(&self.deletions[key]) || next(&self.clears)
    }

    fn violation(&self, misfit: usize, why: String) -> Box<Verdict> {
        let operation = &self.history.operations[misfit];
        let why = format!("`{}`: {why}", operation.describe());
        Box::new(Verdict::Violation(Box::new(Violation {
            why,
            key: operation.key().cloned(),
            order: Vec::new(),
            state: "nothing was replayed".to_owned(),
            misfit,
        })))
    }
}
