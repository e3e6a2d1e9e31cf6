//! The clients: what they ask, of whom, and what they do when they are left guessing.

use super::Micros;
use super::network::Place;
use crate::random::Random;
use balsa_store::command::{
    Clear, Command, Condition, ConditionKind, Delete, IdempotencyKey, Nothing, OpenSession, Operation, Put,
    RequestId, SessionRequest,
};
use bytes::Bytes;

/// How a client makes its writes repeatable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Style {
    /// Not at all: it leaves unknown outcomes alone.
    Plain,
    /// By idempotency keys.
    Keys,
    /// By a session.
    Session,
}

/// What a client asks.
#[derive(Clone, Debug)]
pub enum Ask {
    /// A write.
    Write(Command),
    /// A linearizable read of a key.
    Read(Bytes),
}

/// An operation under way.
#[derive(Clone, Debug)]
pub struct UnderWay {
    /// Its number.
    pub operation: u64,
    /// What is asked.
    pub ask: Ask,
    /// Whom it is put to.
    pub place: Place,
    /// How often it was put to somebody.
    pub attempts: u32,
    /// Tickets rise with every attempt, so that a late answer to an earlier one is known as such.
    pub ticket: u64,
    /// It opens the client's session.
    pub opens_session: bool,
}

/// A client.
#[derive(Debug)]
pub struct Client {
    /// How it writes.
    pub style: Style,
    /// What it is at.
    pub under_way: Option<UnderWay>,
    /// Its session, and the next sequence in it.
    pub session: Option<(u64, u64)>,
    /// Time between an answer and the next question, on average.
    pub think: Micros,
    random: Random,
    keys: u64,
}

/// A client gives up on an operation after this many attempts.
pub const ATTEMPTS_MAX: u32 = 40;

impl Client {
    /// A client that works on so many keys.
    pub fn new(style: Style, keys: u64, think: Micros, random: Random) -> Client {
        Client { style, under_way: None, session: None, think, random, keys }
    }

    /// How long it thinks before its next question.
    pub fn pause(&mut self) -> Micros {
        self.random.between(self.think / 4, self.think * 7 / 4)
    }

    /// How long it waits before it tries again.
    pub fn backoff(&mut self, attempts: u32) -> Micros {
        self.random.between(10_000, 50_000 << attempts.min(5))
    }

    /// Whom to ask.
    pub fn choose(&mut self, places: usize) -> Place {
        self.random.below(places as u64) as Place
    }

    /// The next question; `operation` is its number.
    pub fn next(&mut self, operation: u64) -> (Ask, bool) {
        if self.style == Style::Session && self.session.is_none() {
            let open = Operation::OpenSession(OpenSession {});
            return (Ask::Write(self.command(operation, open, Style::Keys)), true);
        }
        let key = Bytes::from(format!("key/{}", self.random.below(self.keys)));
        let style = self.style;
        let operation_kind = match self.random.below(1000) {
            0..400 => return (Ask::Read(key), false),
            400..860 => {
                let filler = "x".repeat(self.random.below(200) as usize);
                let value = Bytes::from(format!("{operation} {filler}"));
                let condition = (style != Style::Plain && self.random.chance(150)).then(|| self.condition());
                let want_previous = style != Style::Plain && self.random.chance(100);
                let content_type = self.random.chance(100).then(|| "text/plain".to_string());
                Operation::Put(Put { key, value, content_type, condition, want_previous })
            }
            860..990 if style != Style::Plain => {
                let condition = self.random.chance(150).then(|| self.condition());
                Operation::Delete(Delete { key, condition, want_previous: self.random.chance(100) })
            }
            990.. if style != Style::Plain => Operation::Clear(Clear {}),
            _ => return (Ask::Read(key), false),
        };
        (Ask::Write(self.command(operation, operation_kind, style)), false)
    }

    fn condition(&mut self) -> Condition {
        let kind = match self.random.below(3) {
            0 => ConditionKind::Exists(Nothing {}),
            1 => ConditionKind::Absent(Nothing {}),
            _ => ConditionKind::Revision(self.random.below(2_000)),
        };
        Condition { kind: Some(kind) }
    }

    fn command(&mut self, operation: u64, what: Operation, style: Style) -> Command {
        let fingerprint = Bytes::from(operation.to_string());
        let request = match (style, &mut self.session) {
            (Style::Plain, _) => None,
            (Style::Session, Some((session, next))) => {
                let sequence = *next;
                *next += 1;
                let lowest_unfinished = sequence; // one at a time: all before are answered, or given up
                Some(RequestId::Session(SessionRequest {
                    session: *session,
                    sequence,
                    lowest_unfinished,
                    fingerprint,
                }))
            }
            _ => Some(RequestId::Key(IdempotencyKey { key: format!("request-{operation}"), fingerprint })),
        };
        Command { request, operation: Some(what) }
    }
}
