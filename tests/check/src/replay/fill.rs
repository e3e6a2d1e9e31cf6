//! Revisions that no answer tells: which write of unknown outcome made them?
//!
//! Those that could have are tried, the one called last first (what is not answered takes place soon or never), and
//! taken back when anything contradicts. Behind the last revision that anything tells of, unknown writes are left out until
//! a key that somebody saw absent can only have been deleted by one of them.

use super::walk::{Contradiction, Walk};
use crate::history::{Condition, Kind, Operation, Step};

/// Nothing happened any more.
const NONE: usize = usize::MAX;

/// A missing revision, and who may have made it.
#[derive(Debug)]
pub(super) struct Choice {
    place: usize,
    now_ns: u64,
    notes: usize,
    order: usize,
    /// Those not tried yet; the next is the last.
    left: Vec<usize>,
}

impl Walk<'_> {
    /// Fills the place with an unknown write.
    pub(super) fn fill(&mut self) -> Result<(), Contradiction> {
        let mut left = self.candidates();
        if self.place >= self.plan.end {
            left.retain(|&at| self.may_explain_an_absence(at));
            left.push(NONE);
        }
        let Some(first) = left.pop() else {
            return Err(self.nobody());
        };
        let (place, now_ns, order) = (self.place, self.now_ns, self.order.len());
        self.choices.push(Choice { place, now_ns, notes: self.notes(), order, left });
        self.take(first)
    }

    fn take(&mut self, at: usize) -> Result<(), Contradiction> {
        if at == NONE {
            // The walk goes on behind this place.
            self.place = self.plan.writes.len() - 1;
            return Ok(());
        }
        self.make_used(at);
        self.write(at)
    }

    /// Whether the write deletes, or makes deletable, what somebody saw absent.
    fn may_explain_an_absence(&self, at: usize) -> bool {
        let plan = self.plan;
        let wanted = |key: usize| self.state[key].is_some() && self.left_absent(key).next().is_some();
        let deletes_wanted = |step: &Step| match step {
            Step::Delete { key, .. } => wanted(plan.key(key)),
            _ => false,
        };
        // Whatever is written may make the conditions of a transaction hold, or not, that deletes it then.
        if plan.unknown.iter().any(|&other| match &plan.operation(other).kind {
            Kind::Txn(txn) => !self.used.contains(&other) && txn.steps().any(deletes_wanted),
            _ => false,
        }) {
            return true;
        }
        let key = plan.key_of[at];
        match &plan.operation(at).kind {
            // None of those that are left deletes what is wanted.
            Kind::Txn(txn) => txn.steps().any(|step| match step {
                Step::Put { key, .. } => {
                    let key = plan.key(key);
                    wanted(key) && plan.unknown.iter().any(|&other| self.waits_for_a_value(other, key))
                }
                _ => false,
            }),
            Kind::Clear { .. } => (0..self.state.len()).any(wanted),
            Kind::Delete { .. } => wanted(key),
            _ => wanted(key) && plan.unknown.iter().any(|&other| self.waits_for_a_value(other, key)),
        }
    }

    fn waits_for_a_value(&self, at: usize, key: usize) -> bool {
        let operation = self.plan.operation(at);
        matches!(operation.kind, Kind::Delete { .. })
            && matches!(operation.condition, Some(Condition::Value(_) | Condition::Revision(_)))
            && self.plan.key_of[at] == key
            && !self.used.contains(&at)
    }

    /// Goes back to the last choice that leaves another, and takes that; `None` if there is none. Where it fits, the place
    /// after it is next.
    pub(super) fn choose_again(&mut self) -> Option<Result<(), Contradiction>> {
        while let Some(mut choice) = self.choices.pop() {
            self.take_back(choice.notes);
            (self.place, self.now_ns) = (choice.place, choice.now_ns);
            self.order.truncate(choice.order);
            let Some(next) = choice.left.pop() else { continue };
            self.choices.push(choice);
            let fits = self.take(next).and_then(|()| self.look());
            if fits.is_ok() {
                self.place += 1;
            }
            return Some(fits);
        }
        None
    }

    /// The unknown writes that may have made this place, the best last.
    fn candidates(&self) -> Vec<usize> {
        let plan = self.plan;
        let due_ns = plan.due_ns[self.place];
        let called = plan.unknown.partition_point(|&at| plan.operation(at).call_ns <= due_ns);
        let seen = &plan.seen_keys[self.place];
        // Nobody looked at the key as it was after this place.
        let is_unseen = |key: usize| {
            let looked = self.state[key].as_ref().and_then(|(_, made)| plan.lookers.get(&(key, *made)));
            looked.is_none_or(|lookers| lookers.max_call_ns <= due_ns)
        };
        let fits = |at: usize, operation: &Operation| {
            let key = plan.key_of[at];
            if plan.reserved.get(&at).is_some_and(|place| *place != self.place) {
                return false;
            }
            if let Kind::Txn(txn) = &operation.kind {
                let changes: Vec<usize> = self.changes(txn).map(|(key, _)| key).collect();
                let makes_what_was_seen = seen.iter().all(|seen| changes.contains(seen));
                return !changes.is_empty() && makes_what_was_seen && changes.into_iter().all(is_unseen);
            }
            if seen.iter().any(|seen| *seen != key) {
                return false;
            }
            match operation.kind {
                Kind::Clear { .. } => return self.state.iter().any(Option::is_some),
                Kind::Delete { .. } if self.state[key].is_none() => return false,
                _ => {}
            }
            self.holds(operation, key) && is_unseen(key)
        };
        let unknown = plan.unknown[..called].iter().copied();
        unknown.filter(|at| !self.used.contains(at) && fits(*at, plan.operation(*at))).collect()
    }
}
