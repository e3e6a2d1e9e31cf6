//! What clients ask, hear, and do when they hear nothing.

use super::*;

impl World {
    pub(super) fn client_turn(&mut self, client: usize) -> Result<(), Violation> {
        let places = self.nodes.len();
        if self.clients[client].under_way.is_none() {
            let operation = self.next_operation;
            self.next_operation += 1;
            let (ask, opens_session) = self.clients[client].next(operation);
            let key = match &ask {
                Ask::Read(key) => Some(key.clone()),
                Ask::Write(_) => None,
            };
            let repeatable = matches!(&ask, Ask::Write(command) if command.request.is_some());
            self.oracle.begin(operation, key, repeatable);
            let under_way = UnderWay { operation, ask, place: 0, attempts: 0, ticket: 0, opens_session };
            self.clients[client].under_way = Some(under_way);
        }
        let place = self.clients[client].choose(places);
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        let Some(under_way) = &mut self.clients[client].under_way else { return Ok(()) };
        under_way.place = place;
        under_way.ticket = ticket;
        under_way.attempts += 1;
        let ask = under_way.ask.clone();
        self.oracle.tried_again(under_way.operation);
        if self.nodes[place].process.is_none() || self.nodes[place].paused_until > self.now {
            return self.refused(client); // no connection: nothing was said
        }
        self.tickets.insert(ticket, client);
        self.plan((DEADLINE_MS + 500) * MILLI, Happening::Timeout { client, ticket });
        let deadline_ms = self.nodes[place].clock_ms(self.now) + DEADLINE_MS;
        match ask {
            Ask::Write(command) => {
                let repeatable = command.request.is_some();
                let command = command::encode(&command);
                self.give(place, Event::Write { ticket, command, repeatable, deadline_ms })
            }
            Ask::Read(_) => self.give(place, Event::Read { ticket, deadline_ms }),
        }
    }

    /// The client hears nothing (its node is paused, say).
    pub(super) fn client_timeout(&mut self, client: usize, ticket: u64) -> Result<(), Violation> {
        if self.tickets.remove(&ticket).is_some() {
            self.report.saw("client timeout");
            self.unknown(client)?;
        }
        Ok(())
    }

    /// Whoever waits for this ticket, if anybody still does.
    pub(super) fn take_ticket(&mut self, ticket: u64) -> Option<(usize, UnderWay)> {
        let client = self.tickets.remove(&ticket)?;
        let under_way = self.clients[client].under_way.clone()?;
        Some((client, under_way))
    }

    pub(super) fn write_answered(
        &mut self,
        ticket: u64,
        answer: Result<Reply, WriteError>,
    ) -> Result<(), Violation> {
        let Some((client, under_way)) = self.take_ticket(ticket) else { return Ok(()) };
        match answer {
            Ok(reply) => {
                self.oracle.write_answered(under_way.operation, &reply)?;
                if let Some(time) = self.all_doomed.take() {
                    self.report.saw("all down just after an answer");
                    self.ends_after(0, move |world| world.take_all_down(time))?;
                }
                match &reply.answer {
                    Some(Answer::SessionOpened(opened)) if under_way.opens_session => {
                        self.clients[client].session = Some((opened.session, 1));
                    }
                    Some(Answer::SessionExpired(_)) => {
                        self.report.saw("session expired");
                        self.clients[client].session = None;
                    }
                    Some(Answer::PreconditionFailed(_)) => self.report.saw("precondition failed"),
                    _ => {}
                }
                self.trace.line(self.now, format_args!("operation {} written", under_way.operation));
                self.completed(client);
                Ok(())
            }
            Err(error) => {
                self.trace.line(self.now, format_args!("operation {} failed: {error}", under_way.operation));
                if matches!(error, WriteError::Overwritten) {
                    self.report.saw("write overwritten");
                }
                self.oracle.write_failed(under_way.operation, &error, under_way.attempts > 1)?;
                match error {
                    WriteError::Unknown { .. } => self.unknown(client),
                    _ => self.refused(client),
                }
            }
        }
    }

    pub(super) fn read_answered(
        &mut self,
        place: Place,
        ticket: u64,
        confirmed: bool,
    ) -> Result<(), Violation> {
        let Some((client, under_way)) = self.take_ticket(ticket) else { return Ok(()) };
        if !confirmed {
            self.report.saw("read not confirmed");
            return self.refused(client);
        }
        let view = self.process(place).reader.view();
        self.oracle.read_served(under_way.operation, &view)?;
        self.trace.line(
            self.now,
            format_args!("operation {} read at {}", under_way.operation, view.applied_index()),
        );
        self.completed(client);
        Ok(())
    }

    pub(super) fn completed(&mut self, client: usize) {
        self.report.operations += 1;
        self.clients[client].under_way = None;
        let pause = self.clients[client].pause();
        self.plan(pause, Happening::Client { client });
    }

    /// Nothing was applied: try again, but a write without a request id is given up (its denial is checked).
    pub(super) fn refused(&mut self, client: usize) -> Result<(), Violation> {
        self.retry_unless(client, |under_way| match &under_way.ask {
            Ask::Write(command) => command.request.is_none() || under_way.attempts >= ATTEMPTS_MAX,
            Ask::Read(_) => under_way.attempts >= ATTEMPTS_MAX,
        })
    }

    /// Nobody knows what became of it.
    pub(super) fn unknown(&mut self, client: usize) -> Result<(), Violation> {
        self.report.saw("outcome unknown");
        self.refused(client)
    }

    pub(super) fn retry_unless(
        &mut self,
        client: usize,
        give_up: impl Fn(&UnderWay) -> bool,
    ) -> Result<(), Violation> {
        let Some(under_way) = &self.clients[client].under_way else { return Ok(()) };
        if give_up(under_way) {
            self.clients[client].under_way = None;
            let pause = self.clients[client].pause();
            self.plan(pause, Happening::Client { client });
        } else {
            let attempts = under_way.attempts;
            self.report.saw("client retry");
            let backoff = self.clients[client].backoff(attempts);
            self.plan(backoff, Happening::Client { client });
        }
        Ok(())
    }
}
