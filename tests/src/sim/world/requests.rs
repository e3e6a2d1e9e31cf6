//! What clients ask, hear, and do when they hear nothing.

use super::*;
use balsa_client::Cause;
use balsa_client::course::{Attempt, Standing as EndpointStanding, Step};
use balsa_client::session::Session;
use balsa_client::wire::problem::{Code, Outcome};
use balsa_node::engine::handle::ReadError;
use balsa_node::http::problem::Failure;
use std::time::{Duration, Instant};

/// What reaches a node: it may do so when its client is elsewhere already.
pub(super) enum Asked {
    Write { command: Bytes, repeatable: bool },
    Read,
    StaleRead(Bytes),
}

/// The least that clients do.
const OPERATIONS_AN_HOUR: u64 = 13_000;
const HOUR: Micros = 3_600 * SECOND;

/// What becomes of an operation whose attempt ended without an answer from the log.
enum Ending {
    /// A node said so.
    Failed(Failure),
    /// There was no connection.
    NotSent,
    /// It was sent, and nothing was heard.
    Broken,
}

impl World {
    /// A moment of simulated time for logic that counts in instants.
    fn instant(&self) -> Instant {
        self.epoch + Duration::from_micros(self.now)
    }

    pub(super) fn is_rush(&self) -> bool {
        self.now < self.rush_until
    }

    /// Long outages, or clients that think long, leave an hour with little work: it is made up for when answers come.
    fn is_behind(&self) -> bool {
        self.report.operations * HOUR < self.now * OPERATIONS_AN_HOUR
    }

    /// A client begins an operation, or tries the one it is at once more.
    pub(super) fn client_turn(&mut self, client: usize, turn: u64) -> Result<(), Violation> {
        if self.clients[client].turn != turn {
            return Ok(()); // it was hurried
        }
        if self.clients[client].under_way.is_none() {
            if self.quiet {
                return Ok(());
            }
            self.begin(client);
        }
        let (places, instant) = (self.nodes.len(), self.instant());
        let place = self.clients[client].choose(places, instant);
        self.next_ticket += 1;
        let ticket = self.next_ticket;
        let Some(under_way) = &mut self.clients[client].under_way else { return Ok(()) };
        (under_way.place, under_way.ticket) = (place, ticket);
        under_way.attempts += 1;
        self.oracle.tried_again(under_way.operation);
        if self.nodes[place].process.is_none() {
            return self.attempt_ended(client, Ending::NotSent);
        }
        self.tickets.insert(ticket, client);
        let style = self.clients[client].style;
        let Some(under_way) = &self.clients[client].under_way else { return Ok(()) };
        let asked = match &under_way.ask {
            Ask::Write(operation) => {
                let command = under_way.command(style, operation);
                Asked::Write { repeatable: command.request.is_some(), command: command::encode(&command) }
            }
            Ask::Read(_) => Asked::Read,
            Ask::StaleRead(key) => Asked::StaleRead(key.clone()),
        };
        let life = self.nodes[place].life;
        let delay = self.random.between(30, 400);
        self.plan(delay, Happening::Request { place, life, ticket, asked });
        let patience = self.random.between(self.patience / 2, self.patience);
        self.plan(patience, Happening::Timeout { client, ticket });
        Ok(())
    }

    fn begin(&mut self, client: usize) {
        let operation = self.next_operation;
        self.next_operation += 1;
        let deadline = self.now + OPERATION_DEADLINE;
        let session = match self.clients[client].style {
            Style::Session(group) => self.sessions[group].clone(),
            _ => None,
        };
        let under_way = self.clients[client].next(operation, session.as_ref(), deadline);
        let (key, repeatable) = match &under_way.ask {
            Ask::Read(key) | Ask::StaleRead(key) => (Some(key.clone()), true),
            Ask::Write(_) => (None, self.clients[client].style != Style::Plain),
        };
        self.trace.line(self.now, format_args!("client {client} begins {operation}: {:?}", under_way.ask));
        self.oracle.begin(operation, key, repeatable);
        self.clients[client].under_way = Some(under_way);
    }

    /// An attempt reaches its node.
    pub(super) fn request(
        &mut self,
        place: Place,
        life: u64,
        ticket: u64,
        asked: Asked,
    ) -> Result<(), Violation> {
        if !self.is_current(place, life) {
            return Ok(()); // the client heard of the end of the process
        }
        let Some(Happening::Request { asked, .. }) =
            self.postponed(place, Happening::Request { place, life, ticket, asked })
        else {
            return Ok(());
        };
        let deadline_ms = self.nodes[place].clock_ms(self.now) + DEADLINE_MS;
        match asked {
            Asked::Write { command, repeatable } => {
                if !self.tickets.contains_key(&ticket) {
                    self.report.saw("write arrived late");
                }
                self.give(place, Event::Write { ticket, command, repeatable, deadline_ms })
            }
            Asked::Read => self.give(place, Event::Read { ticket, deadline_ms }),
            Asked::StaleRead(key) => {
                let view = self.process(place).reader.view();
                self.oracle.value_is_right(&key, &view)?;
                self.report.saw("stale read");
                if self.oracle.past_is_right(&key, &view)? {
                    self.report.saw("read of the past");
                }
                if let Some(client) = self.tickets.remove(&ticket) {
                    self.completed(client, place);
                }
                Ok(())
            }
        }
    }

    /// The client hears nothing (its node is paused, say).
    pub(super) fn client_timeout(&mut self, client: usize, ticket: u64) -> Result<(), Violation> {
        if self.tickets.remove(&ticket).is_some() {
            self.report.saw("client timeout");
            return self.attempt_ended(client, Ending::Broken);
        }
        Ok(())
    }

    /// A process ended: whoever waited for it hears that the connection broke.
    pub(super) fn connections_broke(&mut self, place: Place) -> Result<(), Violation> {
        for client in 0..self.clients.len() {
            let waits = self.clients[client].under_way.as_ref().filter(|under_way| under_way.place == place);
            let ticket = waits.map(|under_way| under_way.ticket);
            if ticket.is_some_and(|ticket| self.tickets.remove(&ticket).is_some()) {
                self.attempt_ended(client, Ending::Broken)?;
            }
        }
        Ok(())
    }

    pub(super) fn write_answered(
        &mut self,
        ticket: u64,
        answer: Result<Reply, WriteError>,
    ) -> Result<(), Violation> {
        let Some(client) = self.tickets.remove(&ticket) else { return Ok(()) };
        let Some(under_way) = &self.clients[client].under_way else { return Ok(()) };
        let (operation, attempts, place) = (under_way.operation, under_way.attempts, under_way.place);
        let opens = under_way.opens;
        let reply = match answer {
            Ok(reply) => reply,
            Err(error) => {
                if matches!(error, WriteError::Overwritten) {
                    self.report.saw("write overwritten");
                }
                if attempts == 1 {
                    self.oracle.write_failed(operation, &error)?;
                }
                return self.attempt_ended(client, Ending::Failed(Failure::Write(error)));
            }
        };
        self.oracle.write_answered(operation, &reply)?;
        if let Some(time) = self.all_doomed.take() {
            self.report.saw("all down just after an answer");
            self.ends_after(0, move |world| world.take_all_down(time))?;
        }
        match &reply.answer {
            Some(Answer::SessionExpired(_)) => {
                self.report.saw("session expired");
                return self.attempt_ended(client, Ending::Failed(Failure::SessionExpired));
            }
            Some(Answer::ReplyTableFull(_)) => {
                self.report.saw("reply table full");
                return self.attempt_ended(client, Ending::Failed(Failure::ReplyTableFull));
            }
            Some(Answer::SessionOpened(opened)) => {
                if let Some(group) = opens {
                    self.sessions[group] = Some(Session::new(opened.session));
                }
            }
            Some(Answer::PreconditionFailed(_)) => self.report.saw("precondition failed"),
            Some(answer) if answer.is_refusal() => self.report.saw("lease, lock or transaction refused"),
            Some(answer) => {
                if let Some(under_way) = &self.clients[client].under_way
                    && let Ask::Write(operation) = &under_way.ask
                {
                    let operation = operation.clone();
                    self.clients[client].note(&operation, answer);
                }
            }
            _ => {}
        }
        self.trace.line(self.now, format_args!("client {client} hears that {operation} is done: {reply:?}"));
        self.completed(client, place);
        Ok(())
    }

    pub(super) fn read_answered(
        &mut self,
        place: Place,
        ticket: u64,
        confirmed: Result<(), ReadError>,
    ) -> Result<(), Violation> {
        if self.proof_answered(place, ticket, &confirmed)? {
            return Ok(());
        }
        let Some(client) = self.tickets.remove(&ticket) else { return Ok(()) };
        let Some(under_way) = &self.clients[client].under_way else { return Ok(()) };
        let operation = under_way.operation;
        if let Err(error) = confirmed {
            self.report.saw("read not confirmed");
            return self.attempt_ended(client, Ending::Failed(Failure::Read(error)));
        }
        let view = self.process(place).reader.view();
        self.oracle.read_served(operation, &view)?;
        let at = view.applied_index();
        self.trace.line(self.now, format_args!("client {client} hears {operation}: read at {at}"));
        self.completed(client, place);
        Ok(())
    }

    fn completed(&mut self, client: usize, place: Place) {
        self.report.operations += 1;
        let leader = self.nodes[place].raft().and_then(|raft| raft.leader());
        let hint = leader.and_then(|leader| self.place_of(leader)).map(address_of);
        let instant = self.instant();
        let endpoints = &mut self.clients[client].endpoints;
        endpoints.answered(&address_of(place), hint.as_deref(), instant);
        self.finished(client);
    }

    fn finished(&mut self, client: usize) {
        self.clients[client].under_way = None;
        self.next_turn(client);
    }

    /// A client that is at nothing begins something, in a while.
    pub(super) fn next_turn(&mut self, client: usize) {
        let hurried = self.is_rush() || self.is_behind();
        let pause = self.clients[client].pause(hurried);
        self.clients[client].turn += 1;
        let turn = self.clients[client].turn;
        self.plan(pause, Happening::Client { client, turn });
    }

    /// An attempt gave no answer from the log: the client's own logic says what follows.
    fn attempt_ended(&mut self, client: usize, ending: Ending) -> Result<(), Violation> {
        let (instant, random) = (self.instant(), self.clients[client].draw());
        let Some(under_way) = &mut self.clients[client].under_way else { return Ok(()) };
        let (operation, place) = (under_way.operation, under_way.place);
        let writes = matches!(under_way.ask, Ask::Write(_));
        let attempt = match ending {
            Ending::Failed(failure) => Attempt::Problem(Box::new(failure.problem(writes))),
            Ending::NotSent => Attempt::NotSent(Cause::Deadline),
            Ending::Broken => Attempt::Broken(Cause::Deadline),
        };
        let mut step = under_way.course.after(attempt, random);
        if self.now >= under_way.deadline && matches!(step, Step::Retry { .. } | Step::NewSession) {
            let (outcome, cause) = under_way.course.deadline();
            step = Step::Fail { outcome, cause };
        }
        match step {
            Step::Done => self.finished(client),
            Step::Retry { wait, endpoint } => {
                match endpoint {
                    EndpointStanding::Failed => {
                        self.clients[client].endpoints.failed(&address_of(place), instant)
                    }
                    EndpointStanding::Declined => self.clients[client].endpoints.declined(&address_of(place)),
                }
                self.report.saw("client retry");
                let wait = wait.as_micros() as Micros;
                let turn = self.clients[client].turn;
                self.plan(wait.max(MILLI), Happening::Client { client, turn });
            }
            Step::NewSession => {
                // Nothing of it was sent in the old session. The group opens another; this write is given up.
                self.forget_session(client);
                self.oracle.denied(operation, "session expired")?;
                self.finished(client);
            }
            Step::Fail { outcome, cause } => {
                self.trace.line(
                    self.now,
                    format_args!("client {client} gives {operation} up: {outcome:?}, {cause}"),
                );
                match outcome {
                    Outcome::NotApplied => {
                        self.report.saw("given up, not applied");
                        if writes {
                            self.oracle.denied(operation, "not applied")?;
                        }
                    }
                    _ => self.report.saw("outcome unknown"),
                }
                if cause.code() == Some(Code::SessionExpired) {
                    self.forget_session(client);
                }
                self.finished(client);
            }
        }
        Ok(())
    }

    /// The session of a client's group is gone, unless the group has another already.
    fn forget_session(&mut self, client: usize) {
        let Some(under_way) = &self.clients[client].under_way else { return };
        let gone = under_way.place_in_session.as_ref().map(|place| place.session());
        if let Style::Session(group) = self.clients[client].style
            && self.sessions[group].as_ref().map(|session| session.number()) == gone
        {
            self.sessions[group] = None;
        }
    }
}
