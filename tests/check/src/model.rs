//! The store as it should be, for the search: one key, or all keys at once where an operation touches all.
//!
//! Texts become small numbers first ([`Words`]), so that a state is a number and comparing it costs nothing. 0 means
//! absent. Does not know time.

use crate::history::{self, Condition, Kind, Operation, Outcome, Text, Txn};
use std::collections::HashMap;
use std::hash::Hash;

/// A store that does one operation after another.
pub trait Model {
    /// All that operations can see.
    type State: Clone + Eq + Hash;

    /// Before the first operation.
    fn initial(&self) -> Self::State;

    /// Does the operation; `None`: no store in this state would have answered so.
    fn step(&mut self, state: &Self::State, operation: usize) -> Option<Self::State>;

    /// Whether the operation is possible in every state and leaves the same one behind, whatever was there.
    fn overwrites(&self, operation: usize) -> bool;

    /// Whether two operations do and tell the same, whatever the state.
    fn is_same(&self, one: usize, other: usize) -> bool;

    /// The state, for people.
    fn show(&self, state: &Self::State) -> String;
}

/// Texts by number; 0 is no text.
#[derive(Debug, Default)]
pub struct Words {
    numbers: HashMap<Text, u32>,
    texts: Vec<Text>,
    appended: HashMap<(u32, u32), u32>,
}

impl Words {
    /// The text's number.
    pub fn number(&mut self, text: &Text) -> u32 {
        if let Some(&number) = self.numbers.get(text) {
            return number;
        }
        self.texts.push(Text::clone(text));
        let number = self.texts.len() as u32;
        self.numbers.insert(Text::clone(text), number);
        number
    }

    /// The text, for people.
    pub fn text(&self, number: u32) -> &str {
        number.checked_sub(1).and_then(|at| self.texts.get(at as usize)).map_or("absent", |text| text)
    }

    fn append(&mut self, before: u32, more: u32) -> u32 {
        if before == 0 {
            return more;
        }
        if let Some(&number) = self.appended.get(&(before, more)) {
            return number;
        }
        let text = Text::from(format!("{}{}", self.text(before), self.text(more)));
        let number = self.number(&text);
        self.appended.insert((before, more), number);
        number
    }
}

/// An operation on one key, in numbers.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Step {
    effect: Effect,
    condition: Test,
    outcome: Outcome,
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Effect {
    Read(u32),
    Put(u32),
    Append(u32),
    Delete(Option<bool>),
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Test {
    None,
    Value(u32),
    Absent,
    Exists,
}

impl Test {
    /// `None`: it names a revision.
    fn new(condition: Option<&Condition>, words: &mut Words) -> Option<Test> {
        Some(match condition {
            None => Test::None,
            Some(Condition::Value(value)) => Test::Value(words.number(value)),
            Some(Condition::Absent) => Test::Absent,
            Some(Condition::Exists) => Test::Exists,
            Some(Condition::Revision(_)) => return None,
        })
    }

    fn holds(self, value: u32) -> bool {
        match self {
            Test::None => true,
            Test::Value(expected) => value == expected,
            Test::Absent => value == 0,
            Test::Exists => value != 0,
        }
    }
}

impl Step {
    /// `None`: it is not about one key, or its condition names a revision, which a search cannot judge.
    fn new(operation: &Operation, words: &mut Words) -> Option<Step> {
        let effect = match &operation.kind {
            Kind::Get { value, .. } => Effect::Read(value.as_ref().map_or(0, |text| words.number(text))),
            Kind::Put { value, .. } => Effect::Put(words.number(value)),
            Kind::Append { value, .. } => Effect::Append(words.number(value)),
            Kind::Delete { deleted, .. } => Effect::Delete(*deleted),
            Kind::Clear { .. } | Kind::Txn(_) => return None,
        };
        let condition = Test::new(operation.condition.as_ref(), words)?;
        Some(Step { effect, condition, outcome: operation.outcome })
    }

    fn apply(self, value: u32, words: &mut Words) -> Option<u32> {
        let holds = self.condition.holds(value);
        match (self.outcome, holds) {
            (Outcome::Ok, false) | (Outcome::ConditionFailed, true) => return None,
            (_, false) => return Some(value),
            (_, true) => {}
        }
        match self.effect {
            Effect::Read(seen) => (seen == value).then_some(value),
            Effect::Put(written) => Some(written),
            Effect::Append(more) => Some(words.append(value, more)),
            Effect::Delete(told) => {
                let consistent = self.outcome != Outcome::Ok || told.is_none_or(|told| told == (value != 0));
                consistent.then_some(0)
            }
        }
    }

    fn overwrites(self) -> bool {
        let blind = match self.effect {
            Effect::Put(_) => true,
            Effect::Delete(told) => self.outcome != Outcome::Ok || told.is_none(),
            Effect::Read(_) | Effect::Append(_) => false,
        };
        blind && matches!(self.condition, Test::None)
    }
}

/// One key.
#[derive(Debug)]
pub struct KeyModel {
    steps: Vec<Step>,
    words: Words,
    /// The longest text read, where a key is only read and appended to: whatever comes before that read is a beginning of
    /// it, whatever comes after begins with it. Saves trying orders of appends that the read refutes anyway.
    longest: Option<Text>,
}

impl KeyModel {
    /// The operations must all be on one key; `None` where one is of a kind that needs more ([`StoreModel`], a replay).
    pub fn new<'a>(operations: impl Iterator<Item = &'a Operation>) -> Option<KeyModel> {
        let mut words = Words::default();
        let steps: Vec<Step> =
            operations.map(|operation| Step::new(operation, &mut words)).collect::<Option<_>>()?;
        let grows = |step: &Step| matches!(step.effect, Effect::Read(_) | Effect::Append(_));
        let read = steps.iter().filter_map(|step| match step.effect {
            Effect::Read(number) if step.outcome == Outcome::Ok => number.checked_sub(1),
            _ => None,
        });
        let longest = read.map(|at| &words.texts[at as usize]).max_by_key(|text| text.len()).cloned();
        let longest = longest.filter(|_| steps.iter().all(grows));
        Some(KeyModel { steps, words, longest })
    }
}

impl Model for KeyModel {
    type State = u32;

    fn initial(&self) -> u32 {
        0
    }

    fn step(&mut self, state: &u32, operation: usize) -> Option<u32> {
        let step = self.steps[operation];
        let next = step.apply(*state, &mut self.words)?;
        if let (Effect::Append(_), Some(longest)) = (step.effect, &self.longest) {
            let text = self.words.text(next);
            if !longest.starts_with(text) && !text.starts_with(&**longest) {
                return None;
            }
        }
        Some(next)
    }

    fn overwrites(&self, operation: usize) -> bool {
        self.steps[operation].overwrites()
    }

    fn is_same(&self, one: usize, other: usize) -> bool {
        self.steps[one] == self.steps[other]
    }

    fn show(&self, state: &u32) -> String {
        self.words.text(*state).to_owned()
    }
}

/// What happens to one key (by its number), or to several.
#[derive(Clone, PartialEq, Debug)]
enum StoreStep {
    Key(usize, Step),
    /// What it told, and whether it was answered.
    Clear(Option<u64>, Outcome),
    Txn(Box<TxnStep>),
}

#[derive(Clone, PartialEq, Debug)]
struct TxnStep {
    conditions: Vec<(usize, Test)>,
    then: Vec<(usize, Effect)>,
    otherwise: Vec<(usize, Effect)>,
    /// What it told, where it was answered.
    succeeded: Option<bool>,
    outcome: Outcome,
}

impl TxnStep {
    fn apply(&self, before: &[u32]) -> Option<Box<[u32]>> {
        let holds = self.conditions.iter().all(|(key, test)| test.holds(before[*key]));
        let answered = self.outcome == Outcome::Ok;
        if answered && self.succeeded.is_some_and(|told| told != holds) {
            return None;
        }
        let mut after: Box<[u32]> = before.into();
        for &(key, effect) in if holds { &self.then } else { &self.otherwise } {
            match effect {
                Effect::Read(seen) if answered && seen != before[key] => return None,
                Effect::Read(_) | Effect::Append(_) => {}
                Effect::Put(value) => after[key] = value,
                Effect::Delete(told) if answered && told.is_some_and(|told| told != (before[key] != 0)) => {
                    return None;
                }
                Effect::Delete(_) => after[key] = 0,
            }
        }
        Some(after)
    }
}

/// All keys at once.
#[derive(Debug)]
pub struct StoreModel {
    steps: Vec<StoreStep>,
    keys: Vec<Text>,
    numbers: HashMap<Text, usize>,
    words: Words,
}

impl StoreModel {
    /// `None` where a condition names a revision.
    pub fn new<'a>(operations: impl Iterator<Item = &'a Operation>) -> Option<StoreModel> {
        let mut model = StoreModel {
            steps: Vec::new(),
            keys: Vec::new(),
            numbers: HashMap::new(),
            words: Words::default(),
        };
        for operation in operations {
            let step = match &operation.kind {
                Kind::Clear { deleted } => StoreStep::Clear(*deleted, operation.outcome),
                Kind::Txn(txn) => model.txn(txn, operation.outcome)?,
                _ => {
                    let step = Step::new(operation, &mut model.words)?;
                    StoreStep::Key(model.number(operation.key()?), step)
                }
            };
            model.steps.push(step);
        }
        Some(model)
    }

    fn number(&mut self, key: &Text) -> usize {
        *self.numbers.entry(Text::clone(key)).or_insert_with(|| {
            self.keys.push(Text::clone(key));
            self.keys.len() - 1
        })
    }

    fn txn(&mut self, txn: &Txn, outcome: Outcome) -> Option<StoreStep> {
        let mut conditions = Vec::new();
        for (key, condition) in &txn.conditions {
            conditions.push((self.number(key), Test::new(Some(condition), &mut self.words)?));
        }
        let (then, otherwise) = (self.effects(&txn.then), self.effects(&txn.otherwise));
        let succeeded = txn.succeeded;
        Some(StoreStep::Txn(Box::new(TxnStep { conditions, then, otherwise, succeeded, outcome })))
    }

    fn effects(&mut self, steps: &[history::Step]) -> Vec<(usize, Effect)> {
        let effect = |step: &history::Step| {
            let effect = match step {
                history::Step::Get { value, .. } => {
                    Effect::Read(value.as_ref().map_or(0, |text| self.words.number(text)))
                }
                history::Step::Put { value, .. } => Effect::Put(self.words.number(value)),
                history::Step::Delete { deleted, .. } => Effect::Delete(*deleted),
            };
            (self.number(step.key()), effect)
        };
        steps.iter().map(effect).collect()
    }
}

impl Model for StoreModel {
    type State = Box<[u32]>;

    fn initial(&self) -> Box<[u32]> {
        vec![0; self.keys.len()].into()
    }

    fn step(&mut self, state: &Box<[u32]>, operation: usize) -> Option<Box<[u32]>> {
        match &self.steps[operation] {
            StoreStep::Txn(txn) => txn.apply(state),
            &StoreStep::Key(key, step) => {
                let value = step.apply(state[key], &mut self.words)?;
                let mut next = state.clone();
                next[key] = value;
                Some(next)
            }
            &StoreStep::Clear(told, outcome) => {
                let count = state.iter().filter(|value| **value != 0).count() as u64;
                let consistent = outcome != Outcome::Ok || told.is_none_or(|told| told == count);
                consistent.then(|| vec![0; state.len()].into())
            }
        }
    }

    fn overwrites(&self, operation: usize) -> bool {
        // A write of one key leaves the others as they were.
        matches!(self.steps[operation], StoreStep::Clear(told, outcome) if outcome != Outcome::Ok || told.is_none())
    }

    fn is_same(&self, one: usize, other: usize) -> bool {
        self.steps[one] == self.steps[other]
    }

    fn show(&self, state: &Box<[u32]>) -> String {
        let there = self.keys.iter().zip(state).filter(|(_, value)| **value != 0);
        let shown: Vec<String> =
            there.map(|(key, value)| format!("{key} = {}", self.words.text(*value))).collect();
        if shown.is_empty() { "no keys".to_owned() } else { shown.join(", ") }
    }
}
