//! The store as it should be, in the simplest way: the oracle of tests and of the simulator.
//!
//! Plain ordered maps, everything in memory, nothing shared with the store but the commands. Slow and obviously right;
//! where it and the store differ, one of them is wrong.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::command::{
    Answer, ClearDone, Command, Compact, Condition, ConditionKind, DeleteDone, Nothing, Operation,
    PreconditionFailed, PutDone, Reply, RequestId, SessionOpened, SetFeatureLevel, Value,
};
use crate::config::StoreConfig;

/// The store as it should be.
#[derive(Debug, Clone)]
pub struct Model {
    config: StoreConfig,
    /// Keys that are there.
    pub keys: BTreeMap<Bytes, Value>,
    /// By key and revision: what it had from then on; `None`: it was not there. What nobody can read any more is dropped.
    pub past: BTreeMap<Bytes, BTreeMap<u64, Option<Value>>>,
    /// The store's revision.
    pub revision: u64,
    /// The oldest readable revision.
    pub compacted: u64,
    /// Cluster time, in milliseconds.
    pub time_ms: u64,
    /// The feature level.
    pub feature_level: u32,
    /// Recorded replies by idempotency key.
    pub replies: BTreeMap<String, Recorded>,
    /// Open sessions by number.
    pub sessions: BTreeMap<u64, ModelSession>,
    /// No reply expires before this moment of cluster time.
    replies_due_ms: u64,
}

/// A recorded reply.
#[derive(Debug, Clone, PartialEq)]
pub struct Recorded {
    /// Of the request.
    pub fingerprint: Bytes,
    /// When, in milliseconds of cluster time.
    pub recorded_ms: u64,
    /// What was answered.
    pub reply: Reply,
}

/// An open session.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ModelSession {
    /// When it was last used, in milliseconds of cluster time.
    pub used_ms: u64,
    /// Highest lowest-unfinished seen.
    pub lowest_unfinished: u64,
    /// Recorded replies by sequence.
    pub replies: BTreeMap<u64, Recorded>,
}

impl Model {
    /// The state before the first entry.
    pub fn new(config: StoreConfig) -> Self {
        Self {
            config,
            keys: BTreeMap::new(),
            past: BTreeMap::new(),
            revision: 0,
            compacted: 0,
            time_ms: 0,
            feature_level: 0,
            replies: BTreeMap::new(),
            sessions: BTreeMap::new(),
            replies_due_ms: 0,
        }
    }

    /// Applies a command with its stamp.
    pub fn apply(&mut self, index: u64, time_ms: u64, command: &Command) -> Reply {
        let now_ms = self.time_ms.max(time_ms);
        self.time_ms = now_ms;
        if now_ms >= self.replies_due_ms {
            let ttl_ms = self.config.reply_ttl_ms;
            self.replies.retain(|_, recorded| recorded.recorded_ms + ttl_ms > now_ms);
            let oldest = self.replies.values().map(|recorded| recorded.recorded_ms).min();
            self.replies_due_ms = oldest.unwrap_or(now_ms) + ttl_ms; // one recorded later expires later
        }
        self.sessions.retain(|_, session| session.used_ms + self.config.session_ttl_ms > now_ms);

        let refused = match &command.request {
            None => None,
            Some(RequestId::Key(id)) => match self.replies.get(&id.key) {
                Some(recorded) => Some(recorded.answer_to(&id.fingerprint)),
                None if self.replies.len() >= self.config.reply_limit => {
                    Some(answer(Answer::ReplyTableFull(Nothing {})))
                }
                None => None,
            },
            Some(RequestId::Session(id)) => {
                let recorded: usize = self.sessions.values().map(|session| session.replies.len()).sum();
                match self.sessions.get_mut(&id.session) {
                    None => Some(answer(Answer::SessionExpired(Nothing {}))),
                    Some(session) => {
                        let before = session.replies.len();
                        session.used_ms = now_ms;
                        session.lowest_unfinished = session.lowest_unfinished.max(id.lowest_unfinished);
                        session.replies = session.replies.split_off(&session.lowest_unfinished);
                        let recorded = recorded - (before - session.replies.len());
                        match session.replies.get(&id.sequence) {
                            _ if id.sequence < session.lowest_unfinished => {
                                Some(answer(Answer::SessionExpired(Nothing {})))
                            }
                            Some(recorded) => Some(recorded.answer_to(&id.fingerprint)),
                            None if recorded >= self.config.session_reply_limit => {
                                Some(answer(Answer::ReplyTableFull(Nothing {})))
                            }
                            None => None,
                        }
                    }
                }
            }
        };
        if let Some(reply) = refused {
            return reply;
        }

        let Some(operation) = &command.operation else { panic!("a command without an operation") };
        let reply = answer(self.operate(index, operation));
        if matches!(&reply.answer, Some(Answer::ReplyTableFull(_))) {
            return reply;
        }
        match &command.request {
            None => {}
            Some(RequestId::Key(id)) => {
                let fingerprint = id.fingerprint.clone();
                let recorded = Recorded { fingerprint, recorded_ms: now_ms, reply: reply.clone() };
                self.replies.insert(id.key.clone(), recorded);
            }
            Some(RequestId::Session(id)) => {
                let fingerprint = id.fingerprint.clone();
                let recorded = Recorded { fingerprint, recorded_ms: now_ms, reply: reply.clone() };
                if let Some(session) = self.sessions.get_mut(&id.session) {
                    session.replies.insert(id.sequence, recorded);
                }
            }
        }
        reply
    }

    /// What a key had at a revision; not for what is compacted.
    pub fn value_at(&self, key: &[u8], revision: u64) -> Option<&Value> {
        self.past.get(key)?.range(..=revision).next_back()?.1.as_ref()
    }

    /// Changes above a revision, by revision and key; not for what is compacted.
    pub fn changes_above(&self, after: u64) -> BTreeMap<(u64, Bytes), Option<Value>> {
        let mut changes = BTreeMap::new();
        for (key, past) in &self.past {
            let above =
                past.range(after + 1..).map(|(revision, value)| ((*revision, key.clone()), value.clone()));
            changes.extend(above);
        }
        changes
    }

    fn remember(&mut self, key: &Bytes, value: Option<Value>) {
        self.past.entry(key.clone()).or_default().insert(self.revision, value);
    }

    fn operate(&mut self, index: u64, operation: &Operation) -> Answer {
        match operation {
            Operation::Put(put) => {
                let current = self.keys.get(&put.key).cloned();
                if let Some(failed) = unmet(&put.condition, current.as_ref()) {
                    return failed;
                }
                self.revision += 1;
                let value = Value {
                    value: put.value.clone(),
                    content_type: put.content_type.clone(),
                    revision: self.revision,
                    create_revision: current.as_ref().map_or(self.revision, |value| value.create_revision),
                    version: current.as_ref().map_or(1, |value| value.version + 1),
                };
                self.remember(&put.key, Some(value.clone()));
                self.keys.insert(put.key.clone(), value);
                Answer::Put(PutDone {
                    revision: self.revision,
                    previous: current.filter(|_| put.want_previous),
                })
            }
            Operation::Delete(delete) => {
                let current = self.keys.get(&delete.key).cloned();
                if let Some(failed) = unmet(&delete.condition, current.as_ref()) {
                    return failed;
                }
                if self.keys.remove(&delete.key).is_some() {
                    self.revision += 1;
                    self.remember(&delete.key, None);
                }
                Answer::Delete(DeleteDone {
                    deleted: current.is_some(),
                    revision: self.revision,
                    previous: current.filter(|_| delete.want_previous),
                })
            }
            Operation::Clear(_) => {
                let deleted = self.keys.len() as u64;
                self.revision += u64::from(deleted > 0);
                for key in std::mem::take(&mut self.keys).into_keys() {
                    self.remember(&key, None);
                }
                Answer::Clear(ClearDone { deleted, revision: self.revision })
            }
            Operation::OpenSession(_) => {
                if self.sessions.len() >= self.config.session_limit {
                    return Answer::ReplyTableFull(Nothing {});
                }
                let session = ModelSession { used_ms: self.time_ms, ..ModelSession::default() };
                self.sessions.insert(index, session);
                Answer::SessionOpened(SessionOpened { session: index })
            }
            Operation::Compact(compact) => {
                self.compacted = compact.revision.min(self.revision).max(self.compacted);
                for past in self.past.values_mut() {
                    let oldest =
                        past.range(..=self.compacted).next_back().map_or(0, |(revision, _)| *revision);
                    *past = past.split_off(&oldest);
                }
                Answer::Compacted(Compact { revision: self.compacted })
            }
            Operation::SetFeatureLevel(set) => {
                self.feature_level = self.feature_level.max(set.level);
                Answer::FeatureLevel(SetFeatureLevel { level: self.feature_level })
            }
        }
    }
}

impl Recorded {
    fn answer_to(&self, fingerprint: &Bytes) -> Reply {
        if self.fingerprint == fingerprint {
            Reply { answer: self.reply.answer.clone(), replayed: true }
        } else {
            answer(Answer::RequestMismatch(Nothing {}))
        }
    }
}

fn answer(answer: Answer) -> Reply {
    Reply { answer: Some(answer), replayed: false }
}

fn unmet(condition: &Option<Condition>, current: Option<&Value>) -> Option<Answer> {
    let current_revision = current.map_or(0, |value| value.revision);
    let holds = match condition.as_ref()?.kind.as_ref()? {
        ConditionKind::Revision(revision) => current.is_some() && current_revision == *revision,
        ConditionKind::Exists(_) => current.is_some(),
        ConditionKind::Absent(_) => current.is_none(),
    };
    (!holds).then_some(Answer::PreconditionFailed(PreconditionFailed { current_revision }))
}
