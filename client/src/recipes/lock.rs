//! A lock: fair, with a fencing token, lost at once when its lease is.

use super::keeper::{Keeper, Shared, in_background};
use super::session::Session;
use crate::client::{Client, plain};
use crate::error::{Cause, WriteError};
use crate::transport::{Retry, parse};
use balsa_wire::duration::format_ms;
use balsa_wire::leases::{AcquireLock, LockAnswer};
use balsa_wire::percent;
use reqwest::Method;
use serde::Serialize;
use std::future::IntoFuture;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a lock lasts without a sign of life, unless it is said.
const TTL: Duration = Duration::from_secs(10);
/// How much longer than its wait a request may take.
const GRACE: Duration = Duration::from_secs(5);

/// Asks for a lock. `.await` it: it gives a [`Lock`], or says that another holds it (`Code::LockBusy`).
#[derive(Clone, Debug)]
#[must_use = "a request does nothing unless it is awaited"]
pub struct LockRequest {
    client: Client,
    name: String,
    asked: AcquireLock,
    ttl: Duration,
    wait: Duration,
    session: Option<Shared>,
    invalid: Option<String>,
}

impl LockRequest {
    pub(crate) fn new(client: Client, name: String) -> LockRequest {
        let (asked, ttl, wait) = (AcquireLock::default(), TTL, Duration::ZERO);
        LockRequest { client, name, asked, ttl, wait, session: None, invalid: None }
    }

    /// How long it lasts without a sign of life: so long it stays with a holder that died. Default 10 s.
    pub fn ttl(mut self, ttl: Duration) -> LockRequest {
        self.ttl = ttl;
        self
    }

    /// How long to wait for it, up to 10 minutes. Default: not at all.
    pub fn wait(mut self, wait: Duration) -> LockRequest {
        self.wait = wait;
        self
    }

    /// It ends with this session, not with a lease of its own.
    pub fn session(mut self, session: &Session) -> LockRequest {
        self.session = Some(session.keeper());
        self
    }

    /// While it is held, this key has this value: for who looks or watches.
    pub fn show(mut self, key: impl Into<String>, value: &(impl Serialize + ?Sized)) -> LockRequest {
        self.asked.key = Some(key.into());
        match serde_json::value::to_raw_value(value) {
            Ok(value) => self.asked.value = Some(value),
            Err(error) => self.invalid = Some(format!("the value cannot be written as JSON: {error}")),
        }
        self
    }

    async fn acquire(mut self) -> Result<Lock, WriteError> {
        let invalid = |why: String| WriteError::NotApplied(Cause::Invalid(why));
        if let Some(why) = self.invalid {
            return Err(invalid(why));
        }
        match &self.session {
            Some(keeper) => self.asked.lease = Some(keeper.lease()),
            None => self.asked.ttl = Some(format_ms(ms(self.ttl))),
        }
        self.asked.wait = (!self.wait.is_zero()).then(|| format_ms(ms(self.wait)));
        let mut request = plain(Method::POST, target(&self.name), Retry::Recognised);
        request.body = serde_json::to_vec(&self.asked).map_err(|error| invalid(error.to_string()))?.into();
        request.headers.push(("content-type", "application/json".to_owned()));
        request.patience = self.wait;
        let timeout = self.client.timeout().max(self.wait + GRACE);
        let mut begun = Instant::now();
        let answered = self.client.transport().call(&request, timeout).await;
        let answer = answered.map_err(|(outcome, cause)| WriteError::of(outcome, cause))?;
        let held: LockAnswer = parse(&answer).map_err(WriteError::Applied)?;
        let keeper = match self.session {
            Some(keeper) => keeper,
            None => {
                if !self.wait.is_zero() {
                    // The lease began with the lock, and nobody here knows when that was.
                    begun = Instant::now();
                    self.client.keep_lease(held.lease).await?;
                }
                Arc::new(Keeper::start(self.client.clone(), held.lease, self.ttl, begun))
            }
        };
        Ok(Lock { client: self.client, name: self.name, token: held.token, keeper, is_released: false })
    }
}

impl IntoFuture for LockRequest {
    type Output = Result<Lock, WriteError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.acquire())
    }
}

/// A lock that is held. Dropped, it is released in the background.
#[derive(Debug)]
pub struct Lock {
    client: Client,
    name: String,
    token: u64,
    keeper: Shared,
    is_released: bool,
}

impl Lock {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The fencing token: higher than that of any holder before. Writes can be conditioned on it
    /// ([`crate::Txn::if_lock`]), here and wherever somebody remembers the highest that was seen.
    pub fn token(&self) -> u64 {
        self.token
    }

    /// The lease that it ends with.
    pub fn lease(&self) -> u64 {
        self.keeper.lease()
    }

    /// Whether the lock cannot be relied on any more.
    pub fn is_lost(&self) -> bool {
        self.keeper.is_lost()
    }

    /// Resolves once the lock cannot be relied on any more.
    pub fn lost(&self) -> impl Future<Output = ()> + Send + 'static + use<> {
        self.keeper.lost()
    }

    /// Releases it, and waits until that is done.
    pub async fn release(mut self) -> Result<(), WriteError> {
        self.is_released = true;
        self.client.release_lock(&self.name, self.token).await.map(drop)
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        if self.is_released {
            return;
        }
        let (client, name, token) = (self.client.clone(), std::mem::take(&mut self.name), self.token);
        in_background(async move {
            let _ = client.release_lock(&name, token).await; // else it ends with its lease
        });
    }
}

/// The path of a lock.
pub(crate) fn target(name: &str) -> String {
    format!("/v1/locks/{}", percent::encode_path(name))
}

pub(crate) fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
