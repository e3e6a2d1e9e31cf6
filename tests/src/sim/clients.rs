//! The clients: what they ask, of whom, and what they do when they are left guessing.
//!
//! How they retry is the production client's own logic: [`Course`] decides after each attempt, [`Endpoints`] whom to ask,
//! [`Session`] what to tell of a write's place. Beside those that follow the leader there are some that wander, so that
//! followers have work; and beside those whose writes may be sent again some that never do so after a doubt.

use super::network::Place;
use super::{MILLI, Micros, SECOND};
use crate::random::Random;
use balsa_client::course::Course;
use balsa_client::endpoints::Endpoints;
use balsa_client::session::{Session, Ticket};
use balsa_store::command::{
    AcquireLock, Answer, DeleteRange, GrantLease, KeepLease, ReleaseLock, RevokeLease, Txn, TxnCondition,
    TxnOp, TxnOpKind, TxnPut, TxnTest,
};
use balsa_store::command::{
    Clear, Command, Condition, ConditionKind, Delete, IdempotencyKey, Nothing, OpenSession, Operation, Put,
    RequestId, SessionRequest,
};
use bytes::Bytes;
use std::sync::Arc;
use std::time::Instant;

/// How a client makes its writes repeatable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Style {
    /// Not at all: it leaves unknown outcomes alone.
    Plain,
    /// By idempotency keys.
    Keys,
    /// By a session that it shares with the others of its group.
    Session(usize),
}

/// What a client asks.
#[derive(Clone, Debug)]
pub enum Ask {
    /// A write.
    Write(Operation),
    /// A linearizable read of a key.
    Read(Bytes),
    /// A read of a key as the node that is asked has it.
    StaleRead(Bytes),
}

/// An operation under way.
#[derive(Debug)]
pub struct UnderWay {
    /// Its number.
    pub operation: u64,
    /// What is asked.
    pub ask: Ask,
    /// What to do after each attempt.
    pub course: Course,
    /// Its place in a session.
    pub place_in_session: Option<Ticket>,
    /// It opens this group's session.
    pub opens: Option<usize>,
    /// Whom the last attempt was put to.
    pub place: Place,
    /// How often it was put to somebody.
    pub attempts: u32,
    /// Tickets rise with every attempt, so that a late answer to an earlier one is known as such.
    pub ticket: u64,
    /// It is given up then.
    pub deadline: Micros,
}

/// A client.
#[derive(Debug)]
pub struct Client {
    /// How it writes.
    pub style: Style,
    /// What it is at.
    pub under_way: Option<UnderWay>,
    /// Whom it may ask.
    pub endpoints: Endpoints,
    /// Names its turns: one that was planned earlier is void.
    pub turn: u64,
    /// It asks anybody, whoever leads.
    wanders: bool,
    /// Time between an answer and the next question, on average, while nothing hurries it.
    pub think: Micros,
    random: Random,
    keys: u64,
    /// Leases and tokens that it was given last; some have ended since.
    given: Given,
}

/// Leases, and locks with their tokens.
#[derive(Debug, Default)]
struct Given {
    leases: Vec<u64>,
    locks: Vec<(Bytes, u64)>,
}

/// How many of them a client remembers.
const GIVEN_MAX: usize = 8;

/// A client in a hurry thinks this long at most.
const HURRY: Micros = 40 * MILLI;

impl Client {
    /// The `nth` client, which works on so many keys; there are so many places.
    pub fn new(nth: usize, keys: u64, think: Micros, places: usize, mut random: Random) -> Client {
        let style = match nth % 4 {
            0 => Style::Keys,
            1 => Style::Plain,
            _ => Style::Session(nth / 4),
        };
        let given = (0..places).map(address_of).collect();
        let endpoints = Endpoints::new(given, random.below(places as u64) as usize);
        Client {
            style,
            under_way: None,
            endpoints,
            turn: 0,
            wanders: !nth.is_multiple_of(3),
            think,
            random,
            keys,
            given: Given::default(),
        }
    }

    /// How long it thinks before its next question.
    pub fn pause(&mut self, hurried: bool) -> Micros {
        match hurried {
            true => self.random.below(HURRY),
            false if self.random.chance(30) => self.random.between(10 * SECOND, 60 * SECOND),
            false => self.random.between(self.think / 4, self.think * 7 / 4),
        }
    }

    /// Any 32 bits.
    pub fn draw(&mut self) -> u32 {
        self.random.draw() as u32
    }

    /// Whom to ask.
    pub fn choose(&mut self, places: usize, now: Instant) -> Place {
        match self.wanders {
            true => self.random.below(places as u64) as Place,
            false => place_at(self.endpoints.choose(now)),
        }
    }

    /// The next question; `operation` is its number, `session` its group's.
    pub fn next(&mut self, operation: u64, session: Option<&Arc<Session>>, deadline: Micros) -> UnderWay {
        let opens = match self.style {
            Style::Session(group) if session.is_none() => Some(group),
            _ => None,
        };
        let ask = match opens {
            Some(_) => Ask::Write(Operation::OpenSession(OpenSession {})),
            None => self.ask(operation),
        };
        let write = matches!(ask, Ask::Write(_));
        let place_in_session = session.filter(|_| write).map(Session::ticket);
        let course = Course::new(!write || self.style != Style::Plain);
        UnderWay {
            operation,
            ask,
            course,
            place_in_session,
            opens,
            place: 0,
            attempts: 0,
            ticket: 0,
            deadline,
        }
    }

    fn ask(&mut self, operation: u64) -> Ask {
        let key = Bytes::from(format!("key/{}", self.random.below(self.keys)));
        // What carries no request id is known in the log by its value: only puts may do so.
        let plain = self.style == Style::Plain;
        match self.random.below(1000) {
            0..300 => Ask::Read(key),
            300..360 => Ask::StaleRead(key),
            360..860 if plain || self.random.chance(760) => {
                let bytes = *self.random.pick(&[20, 20, 120, 2_000]);
                let filler = "x".repeat(self.random.below(bytes) as usize);
                let value = Bytes::from(format!("{operation} {filler}"));
                let condition = self.random.chance(200).then(|| self.condition());
                let want_previous = self.random.chance(100);
                let content_type = self.random.chance(100).then(|| "text/plain".to_string());
                Ask::Write(Operation::Put(Put {
                    key,
                    value,
                    content_type,
                    condition,
                    want_previous,
                    ..Put::default()
                }))
            }
            360..860 => Ask::Write(self.several(operation, key)),
            860..990 if !plain => {
                let condition = self.random.chance(200).then(|| self.condition());
                let want_previous = self.random.chance(100);
                Ask::Write(Operation::Delete(Delete { key, condition, want_previous }))
            }
            990.. if !plain => Ask::Write(Operation::Clear(Clear {})),
            _ => Ask::Read(key),
        }
    }

    /// What changes several keys, or ends by itself.
    fn several(&mut self, operation: u64, key: Bytes) -> Operation {
        let other = Bytes::from(format!("key/{}", self.random.below(self.keys)));
        let lease = |client: &mut Client| match client.given.leases.len() {
            0 => 1, // the first entry grants none
            count => client.given.leases[client.random.below(count as u64) as usize],
        };
        let ttl_ms = self.random.between(200, 8_000);
        let value = Bytes::from(format!("{operation} several"));
        match self.random.below(100) {
            0..30 => {
                let condition = match self.random.below(3) {
                    0 => TxnTest::Exists(self.random.chance(500)),
                    1 => TxnTest::Version(self.random.below(4)),
                    _ => TxnTest::Revision(self.random.below(2_000)),
                };
                let lease = if self.random.chance(200) { lease(self) } else { 0 };
                let put = TxnPut { key: key.clone(), value: value.clone(), lease, ..TxnPut::default() };
                let op = |kind| TxnOp { kind: Some(kind) };
                let mut then = vec![op(TxnOpKind::Get(key.clone())), op(TxnOpKind::Put(put))];
                if other != key {
                    let put = TxnPut { key: other.clone(), value, ..TxnPut::default() };
                    then.push(op(TxnOpKind::Put(put)));
                }
                let mut conditions = vec![TxnCondition { subject: key.clone(), test: Some(condition) }];
                if let Some((name, token)) = self.given.locks.last().filter(|_| self.random.chance(300)) {
                    conditions
                        .push(TxnCondition { subject: name.clone(), test: Some(TxnTest::Lock(*token)) });
                }
                let otherwise = vec![op(TxnOpKind::Delete(other)), op(TxnOpKind::Get(key))];
                Operation::Txn(Txn { conditions, then, otherwise })
            }
            30..36 => Operation::DeleteRange(DeleteRange { start: key, end: Some(other), limit: 3 }),
            36..50 => Operation::Put(Put { key, value, ttl_ms, ..Put::default() }),
            50..56 => Operation::Put(Put { key, value, lease: lease(self), ..Put::default() }),
            56..64 => Operation::GrantLease(GrantLease { ttl_ms }),
            64..72 => Operation::KeepLease(KeepLease { lease: lease(self) }),
            72..75 => Operation::RevokeLease(RevokeLease { lease: lease(self), keys_max: 2 }),
            75..90 => {
                let name = Bytes::from(format!("lock/{}", self.random.below(3)));
                let wait_ms = if self.random.chance(700) { self.random.between(500, 20_000) } else { 0 };
                let lease = if self.random.chance(200) { lease(self) } else { 0 };
                let key = if self.random.chance(500) { key } else { Bytes::new() };
                Operation::AcquireLock(AcquireLock { name, lease, ttl_ms, wait_ms, key, value })
            }
            _ => match self.given.locks.pop() {
                Some((name, token)) => Operation::ReleaseLock(ReleaseLock { name, token }),
                None => Operation::GrantLease(GrantLease { ttl_ms }),
            },
        }
    }

    /// A write was answered: what it gave is used later.
    pub fn note(&mut self, operation: &Operation, answer: &Answer) {
        match (operation, answer) {
            (_, Answer::LeaseLasts(lasts)) => self.given.leases.push(lasts.lease),
            (Operation::AcquireLock(asked), Answer::LockPlace(place)) => {
                self.given.leases.push(place.lease);
                self.given.locks.push((asked.name.clone(), place.token));
            }
            _ => {}
        }
        let Given { leases, locks } = &mut self.given;
        leases.drain(..leases.len().saturating_sub(GIVEN_MAX));
        locks.drain(..locks.len().saturating_sub(GIVEN_MAX));
    }

    fn condition(&mut self) -> Condition {
        let kind = match self.random.below(3) {
            0 => ConditionKind::Exists(Nothing {}),
            1 => ConditionKind::Absent(Nothing {}),
            _ => ConditionKind::Revision(self.random.below(2_000)),
        };
        Condition { kind: Some(kind) }
    }
}

impl UnderWay {
    /// The command of the next attempt. A session's place tells anew each time what is finished by then.
    pub fn command(&self, style: Style, operation: &Operation) -> Command {
        let fingerprint = Bytes::from(self.operation.to_string());
        let request = match (&self.place_in_session, style) {
            (Some(place), _) => session_request(place, fingerprint),
            (None, Style::Plain) => None,
            (None, _) => {
                let key = format!("request-{}", self.operation);
                Some(RequestId::Key(IdempotencyKey { key, fingerprint }))
            }
        };
        Command { request, operation: Some(operation.clone()) }
    }
}

/// `NUMBER:SEQ:LOWEST_UNFINISHED`, as the door would read it.
fn session_request(place: &Ticket, fingerprint: Bytes) -> Option<RequestId> {
    let header = place.header();
    let mut numbers = header.split(':').map_while(|number| number.parse().ok());
    let (session, sequence) = (numbers.next()?, numbers.next()?);
    let lowest_unfinished = numbers.next()?;
    Some(RequestId::Session(SessionRequest { session, sequence, lowest_unfinished, fingerprint }))
}

/// The address under which clients know a place.
pub fn address_of(place: Place) -> String {
    format!("{place}:3000")
}

fn place_at(address: &str) -> Place {
    address.split(':').next().and_then(|place| place.parse().ok()).unwrap_or_default()
}
