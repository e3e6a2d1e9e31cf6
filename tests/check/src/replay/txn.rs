//! Transactions in a walk: all that one does has one place.

use super::walk::{Contradiction, Walk};
use crate::history::{Outcome, Step, Text, Txn};

impl Walk<'_> {
    /// Whether a transaction's conditions hold now.
    fn txn_holds(&self, txn: &Txn) -> bool {
        txn.conditions.iter().all(|(key, condition)| self.holds_of(condition, self.plan.key(key)))
    }

    /// What a transaction would change now.
    pub(super) fn changes(&self, txn: &Txn) -> impl Iterator<Item = (usize, Option<Text>)> {
        txn.branch(self.txn_holds(txn)).iter().filter_map(move |step| {
            let key = self.plan.key(step.key());
            match step {
                Step::Get { .. } => None,
                Step::Put { value, .. } => Some((key, Some(Text::clone(value)))),
                Step::Delete { .. } => self.state[key].is_some().then_some((key, None)),
            }
        })
    }

    /// Whether what an answered transaction tells is so now.
    pub(super) fn txn_agrees(&self, at: usize, txn: &Txn) -> Result<(), Contradiction> {
        let holds = self.txn_holds(txn);
        if txn.succeeded != Some(holds) {
            let hold = if holds { "hold" } else { "do not hold" };
            return Err(self.no(at, None, format!("its conditions {hold}")));
        }
        for step in txn.done() {
            let key = self.plan.key(step.key());
            let is = self.state[key].as_ref().map(|(value, _)| value);
            let agrees = match step {
                Step::Get { value, .. } => value.as_ref() == is,
                Step::Put { .. } => true,
                Step::Delete { deleted, .. } => deleted.is_none_or(|told| told == is.is_some()),
            };
            if !agrees {
                let now = is.map_or("absent", |value| value);
                return Err(self.no(at, Some(key), format!("{} was {now}", step.key())));
            }
        }
        Ok(())
    }

    /// A transaction that makes this place.
    pub(super) fn write_txn(&mut self, at: usize, txn: &Txn) -> Result<(), Contradiction> {
        let operation = self.plan.operation(at);
        if operation.outcome == Outcome::Ok {
            self.txn_agrees(at, txn)?;
        }
        self.not_before(at, operation.call_ns)?;
        let changes: Vec<_> = self.changes(txn).collect();
        if changes.is_empty() {
            return Err(self.no(at, None, "there was nothing to change".to_owned()));
        }
        self.change(at, &changes)
    }
}
