//! What clients did and what they were told.
//!
//! Times are in nanoseconds of one clock, whatever its zero: that of the process that recorded them. Does not know where
//! a history came from.

use std::sync::Arc;

/// A key or a value. Values are compared as they are written, byte for byte.
pub type Text = Arc<str>;

/// All operations on a store, in any order.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// The revision at which the store was empty and the history begins.
    pub from_revision: u64,
    /// Every operation that may have changed the store since then, and any that read it.
    pub operations: Vec<Operation>,
}

/// One operation of one client.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Operation {
    /// Who did it; only for people to read.
    pub client: u64,
    /// What was asked and, where it was answered, what the answer was.
    pub kind: Kind,
    /// What had to hold of the key for the operation to be done.
    pub condition: Option<Condition>,
    /// When it was called.
    pub call_ns: u64,
    /// When the answer came; `None` where none came.
    pub return_ns: Option<u64>,
    /// What the client knows of it.
    pub outcome: Outcome,
    /// The store's revision right after it took place. A write that changed the store made this revision.
    pub revision: Option<u64>,
    /// The revision of the key's state that a read or a failed condition saw; 0: absent.
    pub key_revision: Option<u64>,
}

/// What was asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Reads a key.
    Get {
        /// Which.
        key: Text,
        /// What was read; `None`: the key was absent.
        value: Option<Text>,
    },
    /// Writes a key.
    Put {
        /// Which.
        key: Text,
        /// What.
        value: Text,
    },
    /// Writes what is there (nothing, if absent) followed by more text. Not an operation of Balsa; others' histories
    /// have it.
    Append {
        /// Which key.
        key: Text,
        /// What to add.
        value: Text,
    },
    /// Deletes a key.
    Delete {
        /// Which.
        key: Text,
        /// Whether there was anything to delete; `None`: the answer did not say.
        deleted: Option<bool>,
    },
    /// Deletes all keys.
    Clear {
        /// How many there were; `None`: the answer did not say.
        deleted: Option<u64>,
    },
    /// Does several things in one instant, or others.
    Txn(Txn),
}

/// A transaction: what it asked and, where it was answered, what was done.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Txn {
    /// All must hold for `then` to be done, each of its key.
    pub conditions: Vec<(Text, Condition)>,
    /// Done where they hold. Reads see what was there before the transaction; a key is written once at most.
    pub then: Vec<Step>,
    /// Done where they do not.
    pub otherwise: Vec<Step>,
    /// Whether they held; `None`: nobody was told.
    pub succeeded: Option<bool>,
}

/// A part of a transaction; what it tells counts only if it was done and answered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// Reads a key.
    Get {
        /// Which.
        key: Text,
        /// What was read; `None`: the key was absent.
        value: Option<Text>,
    },
    /// Writes a key.
    Put {
        /// Which.
        key: Text,
        /// What.
        value: Text,
    },
    /// Deletes a key.
    Delete {
        /// Which.
        key: Text,
        /// Whether there was anything to delete; `None`: the answer did not say.
        deleted: Option<bool>,
    },
}

impl Txn {
    /// What is done, if its conditions hold or not.
    pub fn branch(&self, succeeded: bool) -> &[Step] {
        if succeeded { &self.then } else { &self.otherwise }
    }

    /// What the answer says was done.
    pub fn done(&self) -> &[Step] {
        self.succeeded.map_or(&[], |succeeded| self.branch(succeeded))
    }

    /// All that may be done.
    pub fn steps(&self) -> impl Iterator<Item = &Step> {
        self.then.iter().chain(&self.otherwise)
    }

    /// All keys that it names, perhaps more than once.
    pub fn keys(&self) -> impl Iterator<Item = &Text> {
        self.conditions.iter().map(|(key, _)| key).chain(self.steps().map(Step::key))
    }
}

impl Txn {
    fn describe(&self, answered: bool) -> String {
        let conditions: Vec<String> = self
            .conditions
            .iter()
            .map(|(key, condition)| format!("{key} {}", condition.describe()))
            .collect();
        let told = match self.succeeded.filter(|_| answered) {
            Some(true) => " -> held",
            Some(false) => " -> did not hold",
            None => "",
        };
        let steps = |steps: &[Step]| steps.iter().map(Step::describe).collect::<Vec<_>>().join(", ");
        format!(
            "txn if [{}]{told} then [{}] else [{}]",
            conditions.join(", "),
            steps(&self.then),
            steps(&self.otherwise)
        )
    }
}

impl Step {
    /// Its key.
    pub fn key(&self) -> &Text {
        match self {
            Step::Get { key, .. } | Step::Put { key, .. } | Step::Delete { key, .. } => key,
        }
    }

    fn describe(&self) -> String {
        match self {
            Step::Get { key, value } => format!("get {key} -> {}", value.as_deref().unwrap_or("absent")),
            Step::Put { key, value } => format!("put {key} = {value}"),
            Step::Delete { key, .. } => format!("delete {key}"),
        }
    }
}

impl Condition {
    fn describe(&self) -> String {
        match self {
            Condition::Value(value) => format!("= {value}"),
            Condition::Absent => "absent".to_owned(),
            Condition::Exists => "there".to_owned(),
            Condition::Revision(revision) => format!("revision {revision}"),
        }
    }
}

/// What must hold of the key before the operation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Condition {
    /// It has this value.
    Value(Text),
    /// It is absent.
    Absent,
    /// It is there.
    Exists,
    /// Its revision is this one.
    Revision(u64),
}

/// What the client knows of an operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Done and answered.
    Ok,
    /// The condition did not hold at some instant of the operation, and nothing was changed.
    ConditionFailed,
    /// It never took place: refused, overloaded, not sent.
    NotApplied,
    /// It may have taken place at any time after its call, or never.
    Unknown,
}

impl Operation {
    /// The key it is about; `None`: several or all of them.
    pub fn key(&self) -> Option<&Text> {
        match &self.kind {
            Kind::Get { key, .. }
            | Kind::Put { key, .. }
            | Kind::Append { key, .. }
            | Kind::Delete { key, .. } => Some(key),
            Kind::Clear { .. } | Kind::Txn(_) => None,
        }
    }

    /// Whether it can change the store.
    pub fn is_write(&self) -> bool {
        !matches!(self.kind, Kind::Get { .. })
    }

    /// Whether the checks need look at it: it may have changed something, or tells something.
    pub fn counts(&self) -> bool {
        match self.outcome {
            Outcome::Ok | Outcome::ConditionFailed => true,
            Outcome::NotApplied => false,
            Outcome::Unknown => self.is_write(),
        }
    }

    /// Whether its outcome is known.
    pub fn is_decided(&self) -> bool {
        matches!(self.outcome, Outcome::Ok | Outcome::ConditionFailed)
    }

    /// In a few words, for people: `put a = 1`.
    pub fn describe(&self) -> String {
        let answered = self.outcome == Outcome::Ok;
        let mut text = match &self.kind {
            Kind::Get { key, value } if answered => {
                format!("get {key} -> {}", value.as_deref().unwrap_or("absent"))
            }
            Kind::Get { key, .. } => format!("get {key}"),
            Kind::Put { key, value } => format!("put {key} = {value}"),
            Kind::Append { key, value } => format!("append {key} += {value}"),
            Kind::Delete { key, deleted } => {
                let told = match deleted {
                    Some(true) if answered => " -> deleted",
                    Some(false) if answered => " -> was absent",
                    _ => "",
                };
                format!("delete {key}{told}")
            }
            Kind::Clear { deleted } => match deleted {
                Some(count) if answered => format!("clear -> {count}"),
                _ => "clear".to_owned(),
            },
            Kind::Txn(txn) => txn.describe(answered),
        };
        if let Some(condition) = &self.condition {
            text += &format!(" if {}", condition.describe());
        }
        match self.outcome {
            Outcome::Ok => {}
            Outcome::ConditionFailed => text += " -> condition failed",
            Outcome::NotApplied => text += " -> not applied",
            Outcome::Unknown => text += " -> unknown",
        }
        if let Some(revision) = self.revision {
            text += &format!(" @{revision}");
        }
        text
    }
}

/// Operations that were answered must have been called before.
pub(crate) fn is_ordered(operation: &Operation) -> bool {
    operation.return_ns.is_none_or(|returned| returned >= operation.call_ns)
}
