//! One request on its way: what handlers share of asking the engine, reading bodies and keeping bounds.

use super::body;
use super::conditions;
use super::in_flight::Admitted;
use super::problem::Failure;
use super::request_id;
use super::state::Shared;
use crate::engine::handle::{AdminReply, AdminRequest, ReadError};
use axum::body::Body;
use balsa_store::View;
use balsa_store::command::{self, Command, Operation, RequestId};
use bytes::Bytes;
use hyper::http::request::Parts;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long after the deadline the door still waits for the engine, which answers by the deadline unless it hangs.
const GRACE: Duration = Duration::from_secs(1);

/// A write's body, and how a retry of it is recognised. It keeps its place among the writes in flight.
pub(super) struct Asked<'a> {
    pub(super) body: Bytes,
    pub(super) request: Option<RequestId>,
    pub(super) admitted: Admitted<'a>,
}

/// A request and what it may reach.
pub(super) struct Call<'a> {
    pub(super) state: &'a Arc<Shared>,
    pub(super) parts: &'a Parts,
    /// When its head was there.
    pub(super) started: Instant,
}

impl Call<'_> {
    /// When it is answered at the latest.
    pub(super) fn deadline(&self) -> Instant {
        self.started + self.state.limits.request_timeout
    }

    /// Checks a key's length.
    pub(super) fn check_key(&self, key: &str) -> Result<(), Failure> {
        let limit_bytes = self.state.limits.key_bytes;
        match key.len() {
            0 => Err(Failure::KeyEmpty { limit_bytes }),
            bytes if bytes > limit_bytes => Err(Failure::KeyTooLong { bytes, limit_bytes }),
            _ => Ok(()),
        }
    }

    /// Takes a place among the writes in flight.
    pub(super) fn admit(&self, bytes: usize) -> Result<Admitted<'_>, Failure> {
        self.state.in_flight.admit(bytes).map_err(Failure::InFlight)
    }

    /// Reads the body.
    pub(super) async fn read_body(&self, body: &mut Body, limit_bytes: usize) -> Result<Bytes, Failure> {
        Ok(body::read(body, limit_bytes, self.started, self.state.limits.request_timeout).await?)
    }

    /// Takes a write in, whose body is no longer than this.
    pub(super) async fn read_write(&self, body: &mut Body, limit_bytes: usize) -> Result<Asked<'_>, Failure> {
        let claim = request_id::claim(&self.parts.headers)?;
        let admitted = self.admit(body::size_max(body, limit_bytes))?;
        let body = self.read_body(body, limit_bytes).await?;
        let request = claim.map(|claim| claim.into_request_id(self.parts, &body));
        Ok(Asked { body, request, admitted })
    }

    /// Waits until this node's published state shows what is looked for; `None`: it has not by `deadline`.
    pub(super) async fn wait_for<T>(
        &self,
        deadline: Instant,
        mut look: impl FnMut(View) -> Option<T>,
    ) -> Option<T> {
        if let Some(found) = look(self.state.view()) {
            return Some(found);
        }
        let listener = self.state.hub.published().listen();
        let waiting = async {
            loop {
                let mut published = pin!(listener.next());
                published.as_mut().enable();
                if let Some(found) = look(self.state.view()) {
                    return found;
                }
                published.await;
            }
        };
        tokio::time::timeout_at(tokio::time::Instant::from_std(deadline), waiting).await.ok()
    }

    /// Refuses conditions on a call that has no key.
    pub(super) fn refuse_conditions(&self) -> Result<(), Failure> {
        Ok(conditions::refuse(&self.parts.headers)?)
    }

    /// Waits until a read that starts now may be served from the store.
    pub(super) async fn confirm_read(&self) -> Result<(), Failure> {
        match self.within_grace(self.state.handle.confirm_read(self.deadline())).await {
            Ok(confirmed) => Ok(confirmed?),
            Err(Failure::Hangs) => Err(ReadError::NotConfirmed.into()),
            Err(failure) => Err(failure),
        }
    }

    /// Proposes a command; gives what applying it gave, and whether that was recorded earlier.
    pub(super) async fn write(
        &self,
        request: Option<RequestId>,
        operation: Operation,
    ) -> Result<(command::Answer, bool), Failure> {
        let command = Command { request, operation: Some(operation) };
        let proposed = Instant::now();
        let reply = self.within_grace(self.state.handle.write(&command, self.deadline())).await;
        self.state.in_flight.took(proposed.elapsed());
        let reply = reply??;
        let answer = reply.answer.ok_or(Failure::Misfit)?;
        Ok((answer, reply.replayed))
    }

    /// As [`Call::write`], for what is done when the request's own time may be over.
    pub(super) async fn write_late(&self, operation: Operation) -> Result<(), Failure> {
        let command = Command { request: None, operation: Some(operation) };
        let deadline = Instant::now() + self.state.limits.request_timeout;
        let latest = tokio::time::Instant::from_std(deadline + GRACE);
        let written = tokio::time::timeout_at(latest, self.state.handle.write(&command, deadline)).await;
        written.map_err(|_| Failure::Hangs)??;
        Ok(())
    }

    /// A write that is all in its head: the body, if there is one, says nothing.
    pub(super) async fn write_without_body(
        &self,
        body: &mut Body,
        operation: Operation,
    ) -> Result<(command::Answer, bool), Failure> {
        let Asked { body, request, admitted: _place } = self.read_write(body, body::SMALL_BYTES).await?;
        body::members::<body::Empty>(&body, "empty")?;
        self.write(request, operation).await
    }

    /// Changes the membership or the leader.
    pub(super) async fn admin(&self, request: AdminRequest) -> Result<AdminReply, Failure> {
        Ok(self.within_grace(self.state.handle.admin(request, self.deadline())).await??)
    }

    async fn within_grace<T>(&self, asked: impl Future<Output = T>) -> Result<T, Failure> {
        let latest = tokio::time::Instant::from_std(self.deadline() + GRACE);
        tokio::time::timeout_at(latest, asked).await.map_err(|_| Failure::Hangs)
    }
}
