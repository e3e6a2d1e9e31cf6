//! Histories that are linearizable because they were: operations are done one after another on a real store, and then
//! given calls and answers around their instants, so that they overlap.
//!
//! For tests and for measuring the checker. Equal options give equal histories.

use crate::history::{Condition, History, Kind, Operation, Outcome, Step, Text, Txn};
use std::collections::BTreeMap;

/// What to generate.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Chooses everything.
    pub seed: u64,
    /// How many operations.
    pub operations: usize,
    /// On how many keys.
    pub keys: u64,
    /// By how many clients at once; at least 1.
    pub clients: usize,
    /// Of a thousand, how many get no answer. Every other one of these took place.
    pub unknown_per_mille: u64,
    /// Whether answers tell revisions, and conditions may name them.
    pub revisions: bool,
    /// Of a thousand, how many are clears.
    pub clears_per_mille: u64,
    /// Of a thousand, how many are transactions.
    pub txns_per_mille: u64,
}

/// SplitMix64 (Steele, Lea and Flood, 2014).
#[derive(Clone, Copy, Debug)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }
}

/// Nanoseconds between two operations' instants.
const STEP_NS: u64 = 1_000;

struct Run {
    random: Random,
    options: Options,
    store: BTreeMap<Text, (Text, u64)>,
    revision: u64,
    written: u64,
}

/// Generates one.
pub fn generate(options: Options) -> History {
    let mut run =
        Run { random: Random(options.seed), options, store: BTreeMap::new(), revision: 0, written: 0 };
    // When each client is free again.
    let mut clients: Vec<(u64, u64)> = (0..options.clients.max(1) as u64).map(|client| (client, 0)).collect();
    let mut operations = Vec::with_capacity(options.operations);
    let mut instant_ns = 0;
    while operations.len() < options.operations {
        instant_ns += STEP_NS;
        let at = run.random.below(clients.len() as u64) as usize;
        let (client, free_ns) = clients[at];
        if free_ns > instant_ns {
            continue;
        }
        let spread_ns = STEP_NS * options.clients as u64;
        let call_ns = instant_ns - run.random.below(spread_ns.min(instant_ns - free_ns) + 1);
        let return_ns = instant_ns + run.random.below(spread_ns);
        let mut operation = run.ask(client, call_ns);
        if run.random.below(1_000) < options.unknown_per_mille {
            if run.random.below(2) == 0 {
                run.answer(&mut operation.clone());
            }
            operation.outcome = Outcome::Unknown;
            clients[at] = (client + options.clients as u64, return_ns);
        } else {
            run.answer(&mut operation);
            operation.return_ns = Some(return_ns);
            clients[at].1 = return_ns + 1;
        }
        operations.push(operation);
    }
    History { from_revision: 0, operations }
}

impl Run {
    fn key(&mut self) -> Text {
        Text::from(format!("k{}", self.random.below(self.options.keys)))
    }

    fn value(&mut self) -> Text {
        self.written += 1;
        Text::from(self.written.to_string())
    }

    fn condition(&mut self, key: &Text, of: u64) -> Option<Condition> {
        let there = self.store.get(key).cloned();
        match (self.random.below(of), there) {
            (0, _) => Some(Condition::Absent),
            (1, _) => Some(Condition::Exists),
            (2, Some((value, _))) => Some(Condition::Value(value)),
            (3, Some((_, revision))) if self.options.revisions => {
                Some(Condition::Revision(revision - self.random.below(2)))
            }
            _ => None,
        }
    }

    /// A key is written once at most.
    fn steps(&mut self) -> Vec<Step> {
        let mut steps: Vec<Step> = Vec::new();
        for _ in 0..self.random.below(4) {
            let key = self.key();
            if steps.iter().any(|step| *step.key() == key) {
                continue;
            }
            steps.push(match self.random.below(3) {
                0 => Step::Get { key, value: None },
                1 => Step::Put { key, value: self.value() },
                _ => Step::Delete { key, deleted: None },
            });
        }
        steps
    }

    fn txn(&mut self) -> Txn {
        let mut conditions = Vec::new();
        for _ in 0..self.random.below(3) {
            let key = self.key();
            conditions.extend(self.condition(&key, 4).map(|condition| (key, condition)));
        }
        Txn { conditions, then: self.steps(), otherwise: self.steps(), succeeded: None }
    }

    fn holds(&self, key: &Text, condition: &Condition) -> bool {
        let now = self.store.get(key);
        match condition {
            Condition::Absent => now.is_none(),
            Condition::Exists => now.is_some(),
            Condition::Value(value) => now.is_some_and(|(is, _)| is == value),
            Condition::Revision(revision) => now.map_or(0, |(_, seen)| *seen) == *revision,
        }
    }

    /// Does a transaction, and notes its answer.
    fn answer_txn(&mut self, txn: &mut Txn) {
        let holds = txn.conditions.iter().all(|(key, condition)| self.holds(key, condition));
        txn.succeeded = Some(holds);
        let before = self.store.clone();
        let next = self.revision + 1;
        for step in if holds { &mut txn.then } else { &mut txn.otherwise } {
            match step {
                Step::Get { key, value } => *value = before.get(key).map(|(value, _)| Text::clone(value)),
                Step::Put { key, value } => {
                    self.store.insert(Text::clone(key), (Text::clone(value), next));
                    self.revision = next;
                }
                Step::Delete { key, deleted } => {
                    *deleted = Some(self.store.remove(key).is_some());
                    if *deleted == Some(true) {
                        self.revision = next;
                    }
                }
            }
        }
    }

    fn ask(&mut self, client: u64, call_ns: u64) -> Operation {
        let (key, value) = (self.key(), self.value());
        let (clears, txns) = (self.options.clears_per_mille, self.options.txns_per_mille);
        let kind = match self.random.below(1_000) {
            part if part < clears => Kind::Clear { deleted: None },
            part if part < clears + txns => Kind::Txn(self.txn()),
            part if part < 500 => Kind::Get { key, value: None },
            part if part < 900 => Kind::Put { key, value },
            _ => Kind::Delete { key, deleted: None },
        };
        let mut operation = Operation {
            client,
            kind,
            condition: None,
            call_ns,
            return_ns: None,
            outcome: Outcome::Ok,
            revision: None,
            key_revision: None,
        };
        if let Kind::Put { key, .. } | Kind::Delete { key, .. } = &operation.kind {
            operation.condition = self.condition(key, 8);
        }
        operation
    }

    /// Does it, and notes the answer.
    fn answer(&mut self, operation: &mut Operation) {
        let now = operation.key().and_then(|key| self.store.get(key)).cloned();
        let seen = now.as_ref().map_or(0, |(_, revision)| *revision);
        let holds = match (&operation.condition, operation.key()) {
            (Some(condition), Some(key)) => self.holds(key, condition),
            _ => true,
        };
        let mut looked = false;
        if holds {
            let before = self.revision;
            match &mut operation.kind {
                Kind::Get { value, .. } => {
                    *value = now.map(|(value, _)| value);
                    looked = true;
                }
                Kind::Put { key, value } | Kind::Append { key, value } => {
                    self.revision += 1;
                    self.store.insert(Text::clone(key), (Text::clone(value), self.revision));
                }
                Kind::Delete { key, deleted } => {
                    *deleted = Some(self.store.remove(key).is_some());
                    self.revision = before + u64::from(now.is_some());
                }
                Kind::Clear { deleted } => {
                    *deleted = Some(self.store.len() as u64);
                    self.revision = before + u64::from(!self.store.is_empty());
                    self.store.clear();
                }
                Kind::Txn(txn) => self.answer_txn(txn),
            }
        } else {
            operation.outcome = Outcome::ConditionFailed;
            looked = true;
        }
        if self.options.revisions {
            operation.key_revision = looked.then_some(seen);
            // Some of those that looked tell the exact revision as well, as a simulator can.
            if !looked || self.random.below(4) == 0 {
                operation.revision = Some(self.revision);
            }
        }
    }
}
