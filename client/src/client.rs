//! The client: how it is built, and what can be asked.

use crate::endpoints::Endpoints;
use crate::error::{BuildError, ReadError, WriteError};
use crate::recipes::{Election, LockRequest, Session, lock_target};
use crate::request::{Clear, Delete, Get, Put};
use crate::several::{DeleteRange, Range, Txn};
use crate::transport::{Request, Retry, Transport, parse, random};
use crate::watch::Watch;
use balsa_wire::cluster::{AddMember, ClusterAnswer, MembershipAnswer, Role, TransferLeadership};
use balsa_wire::history::{CompactAnswer, CompactRequest};
use balsa_wire::leases::{LeaseAnswer, LeaseState, LeasesAnswer, LockState, ReleaseAnswer, RevokeAnswer};
use balsa_wire::problem::Code;
use bytes::Bytes;
use reqwest::Method;
use serde::Serialize;
use std::sync::Arc;
use std::time::Duration;

/// The default deadline of a call.
const TIMEOUT: Duration = Duration::from_secs(10);

/// How the cluster tells the retry of a write from another write.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ExactlyOnce {
    /// By a session, opened with the first write: best for clients that live.
    #[default]
    Session,
    /// By a random idempotency key on each write: one round trip less, best for a single write.
    IdempotencyKey,
}

/// A client of one cluster. Cloning it is cheap; clones share endpoints, connections and session.
#[derive(Clone, Debug)]
pub struct Client {
    transport: Arc<Transport>,
    timeout: Duration,
}

/// Builds a [`Client`].
///
/// ```
/// # fn main() -> Result<(), balsa_client::BuildError> {
/// use std::time::Duration;
/// let client = balsa_client::Client::builder()
///     .endpoints(["http://10.0.0.1:3000", "10.0.0.2:3000"])
///     .timeout(Duration::from_secs(5))
///     .build()?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Builder {
    endpoints: Vec<String>,
    timeout: Duration,
    exactly_once: ExactlyOnce,
}

impl Builder {
    /// Adds endpoints: `http://HOST:PORT` or `HOST:PORT`. One is enough; with more, one that is down is not noticed.
    pub fn endpoints<T: Into<String>>(mut self, endpoints: impl IntoIterator<Item = T>) -> Builder {
        self.endpoints.extend(endpoints.into_iter().map(Into::into));
        self
    }

    /// The deadline of each call, over all its retries. Default 10 s.
    pub fn timeout(mut self, timeout: Duration) -> Builder {
        self.timeout = timeout;
        self
    }

    /// What makes retries of writes safe. Default: a session.
    pub fn exactly_once(mut self, by: ExactlyOnce) -> Builder {
        self.exactly_once = by;
        self
    }

    /// Builds it; connects to nobody yet.
    pub fn build(self) -> Result<Client, BuildError> {
        let mut addresses: Vec<String> = Vec::new();
        for endpoint in &self.endpoints {
            let address = address(endpoint)?;
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        if addresses.is_empty() {
            return Err(BuildError::NoEndpoint);
        }
        // Clients that start together do not all ask the same node.
        let start = usize::try_from(random()).unwrap_or(0);
        let transport = Transport::new(Endpoints::new(addresses, start), self.timeout, self.exactly_once);
        let transport = transport.map_err(BuildError::Http)?;
        Ok(Client { transport: Arc::new(transport), timeout: self.timeout })
    }
}

impl Client {
    /// Sets out to build a client.
    pub fn builder() -> Builder {
        Builder { endpoints: Vec::new(), timeout: TIMEOUT, exactly_once: ExactlyOnce::default() }
    }

    /// A client with default settings. `endpoints`: separated by commas.
    pub fn connect(endpoints: &str) -> Result<Client, BuildError> {
        let given = endpoints.split(',').map(str::trim).filter(|endpoint| !endpoint.is_empty());
        Client::builder().endpoints(given).build()
    }

    /// Reads a key: what it is now, confirmed by a quorum; `None`: absent.
    pub fn get(&self, key: impl Into<String>) -> Get {
        Get::new(self.clone(), key.into())
    }

    /// Writes a key: `value` as JSON.
    pub fn put(&self, key: impl Into<String>, value: &(impl Serialize + ?Sized)) -> Put {
        Put::json(self.clone(), key.into(), serde_json::value::to_raw_value(value).map(Box::<str>::from))
    }

    /// Writes a key: bytes with their type, as in `text/plain`.
    pub fn put_raw(&self, key: impl Into<String>, content_type: &str, bytes: impl Into<Bytes>) -> Put {
        Put::raw(self.clone(), key.into(), content_type.to_owned(), bytes.into())
    }

    /// Deletes a key; one that is absent too.
    pub fn delete(&self, key: impl Into<String>) -> Delete {
        Delete::new(self.clone(), key.into())
    }

    /// Watches a key: what becomes of it from now on, or from an earlier revision on.
    ///
    /// ```no_run
    /// # async fn example(client: balsa_client::Client) -> Result<(), balsa_client::WatchError> {
    /// use balsa_client::WatchEvent;
    ///
    /// let mut watch = client.watch_key("app/config");
    /// loop {
    ///     match watch.next().await? {
    ///         WatchEvent::Put { item, .. } => println!("{} at revision {}", item.key, item.revision),
    ///         WatchEvent::Delete { key, .. } => println!("{key} is gone"),
    ///         WatchEvent::Progress { revision } => println!("nothing else up to {revision}"),
    ///     }
    /// }
    /// # }
    /// ```
    pub fn watch_key(&self, key: &str) -> Watch {
        Watch::of_key(self.clone(), key)
    }

    /// As [`Client::watch_key`], for all keys that begin so; all keys, where `prefix` is empty.
    pub fn watch_prefix(&self, prefix: &str) -> Watch {
        Watch::of_prefix(self.clone(), prefix)
    }

    /// Forgets what is needed only to read revisions below this one.
    pub async fn compact(&self, revision: u64) -> Result<CompactAnswer, WriteError> {
        let mut request = plain(Method::POST, "/v1/compact".to_owned(), Retry::Recognised);
        request.body = serde_json::to_vec(&CompactRequest { revision }).unwrap_or_default().into();
        self.write(&request).await
    }

    /// Deletes all keys.
    pub fn clear(&self) -> Clear {
        Clear::new(self.clone())
    }

    /// Reads a range: all keys, unless its methods say less.
    pub fn range(&self) -> Range {
        Range::new(self.clone())
    }

    /// Deletes all keys that begin so, in slices; an empty prefix is refused.
    pub fn delete_prefix(&self, prefix: impl Into<String>) -> DeleteRange {
        DeleteRange::prefix(self.clone(), prefix.into())
    }

    /// Deletes keys from `start` up to and without `end`, in slices.
    pub fn delete_range(&self, start: impl Into<String>, end: impl Into<String>) -> DeleteRange {
        DeleteRange::span(self.clone(), start.into(), end.into())
    }

    /// A transaction: conditions and operations on several keys at one revision.
    pub fn txn(&self) -> Txn {
        Txn::new(self.clone())
    }

    /// A lease that is kept alive in the background, for keys and locks that shall end with it.
    pub async fn session(&self, ttl: Duration) -> Result<Session, WriteError> {
        Session::open(self.clone(), ttl).await
    }

    /// Asks for a lock.
    pub fn lock(&self, name: impl Into<String>) -> LockRequest {
        LockRequest::new(self.clone(), name.into())
    }

    /// An election among the candidates of one name.
    pub fn election(&self, name: impl Into<String>) -> Election {
        Election::new(self.clone(), name.into())
    }

    /// Grants a lease, which nobody keeps alive by itself; see [`Client::session`].
    pub async fn grant_lease(&self, ttl: Duration) -> Result<LeaseAnswer, WriteError> {
        let mut request = plain(Method::POST, "/v1/leases".to_owned(), Retry::Recognised);
        request.body = format!("{{\"ttl\":\"{}ms\"}}", ttl.as_millis()).into();
        request.headers.push(("content-type", "application/json".to_owned()));
        self.write(&request).await
    }

    /// A sign of life: the lease lasts its whole time from now.
    pub async fn keep_lease(&self, lease: u64) -> Result<LeaseAnswer, WriteError> {
        self.keep_lease_within(lease, self.timeout).await
    }

    pub(crate) async fn keep_lease_within(
        &self,
        lease: u64,
        timeout: Duration,
    ) -> Result<LeaseAnswer, WriteError> {
        // Once more is as good as once.
        let request = plain(Method::POST, format!("/v1/leases/{lease}/keepalive"), Retry::Harmless);
        let answered = self.transport.call(&request, timeout).await;
        let answer = answered.map_err(|(outcome, cause)| WriteError::of(outcome, cause))?;
        parse(&answer).map_err(WriteError::Applied)
    }

    /// Ends a lease, with its keys and locks.
    pub async fn revoke_lease(&self, lease: u64) -> Result<RevokeAnswer, WriteError> {
        self.write(&plain(Method::DELETE, format!("/v1/leases/{lease}"), Retry::Recognised)).await
    }

    /// A lease and its keys; `None`: it has ended, or never was.
    pub async fn lease(&self, lease: u64) -> Result<Option<LeaseState>, ReadError> {
        match self.read(format!("/v1/leases/{lease}")).await {
            Ok(state) => Ok(Some(state)),
            Err(ReadError { cause }) if cause.code() == Some(Code::LeaseNotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Leases with numbers above `after`, in order.
    pub async fn leases(&self, after: Option<u64>) -> Result<LeasesAnswer, ReadError> {
        self.read(after.map_or("/v1/leases".to_owned(), |after| format!("/v1/leases?after={after}"))).await
    }

    /// Who holds a lock, and how many wait for it.
    pub async fn lock_state(&self, name: &str) -> Result<LockState, ReadError> {
        self.read(lock_target(name)).await
    }

    /// Releases a lock, or a place in its queue, by its token.
    pub async fn release_lock(&self, name: &str, token: u64) -> Result<ReleaseAnswer, WriteError> {
        let target = format!("{}?token={token}", lock_target(name));
        self.write(&plain(Method::DELETE, target, Retry::Recognised)).await
    }

    /// Sends a read and reads its answer.
    async fn read<T: serde::de::DeserializeOwned>(&self, target: String) -> Result<T, ReadError> {
        let answered = self.transport.call(&plain(Method::GET, target, Retry::Harmless), self.timeout).await;
        let answer = answered.map_err(|(_, cause)| ReadError { cause })?;
        parse(&answer).map_err(|cause| ReadError { cause })
    }

    /// What the cluster is doing, as its leader says, who alone knows who lags and who answers; where no leader can be
    /// asked, as any node says.
    pub async fn status(&self) -> Result<ClusterAnswer, ReadError> {
        let first = self.look().await?;
        if first.role == Role::Leader || first.leader.is_none() {
            return Ok(first);
        }
        // The answer named the leader, who is asked first from now on.
        match self.look().await {
            Ok(second) if second.role == Role::Leader => Ok(second),
            _ => Ok(first),
        }
    }

    /// What one node says.
    async fn look(&self) -> Result<ClusterAnswer, ReadError> {
        let request = plain(Method::GET, "/v1/cluster".to_owned(), Retry::Harmless);
        let answered = self.transport.call(&request, self.timeout).await;
        let answer = answered.map_err(|(_, cause)| ReadError { cause })?;
        parse(&answer).map_err(|cause| ReadError { cause })
    }

    /// Takes a node in, as a learner.
    pub async fn add_member(&self, member: &AddMember) -> Result<MembershipAnswer, WriteError> {
        self.change(Method::POST, "/v1/cluster/members".to_owned(), member).await
    }

    /// Makes a learner that has caught up a voter. `id`: its identity, in hexadecimal digits.
    pub async fn promote_member(&self, id: &str) -> Result<MembershipAnswer, WriteError> {
        let target = format!("/v1/cluster/members/{}/promote", balsa_wire::percent::encode_segment(id));
        self.change(Method::POST, target, &Nothing {}).await
    }

    /// Takes a member out. `id`: its identity, in hexadecimal digits.
    pub async fn remove_member(&self, id: &str) -> Result<MembershipAnswer, WriteError> {
        let target = format!("/v1/cluster/members/{}", balsa_wire::percent::encode_segment(id));
        self.change(Method::DELETE, target, &Nothing {}).await
    }

    /// Hands leadership over, to member `to`, or to the voter that is furthest.
    pub async fn transfer_leadership(&self, to: Option<&str>) -> Result<MembershipAnswer, WriteError> {
        let body = TransferLeadership { to: to.map(str::to_owned) };
        self.change(Method::POST, "/v1/cluster/transfer-leadership".to_owned(), &body).await
    }

    async fn change(
        &self,
        method: Method,
        target: String,
        body: &impl Serialize,
    ) -> Result<MembershipAnswer, WriteError> {
        let mut request = plain(method, target, Retry::Unsafe);
        request.body = match serde_json::to_vec(body) {
            Ok(body) => body.into(),
            Err(error) => return Err(WriteError::NotApplied(crate::Cause::Invalid(error.to_string()))),
        };
        self.write(&request).await
    }

    /// Sends a write and reads its answer.
    pub(crate) async fn write<T: serde::de::DeserializeOwned>(
        &self,
        request: &Request,
    ) -> Result<T, WriteError> {
        let answered = self.transport.call(request, self.timeout).await;
        let answer = answered.map_err(|(outcome, cause)| WriteError::of(outcome, cause))?;
        parse(&answer).map_err(WriteError::Applied)
    }

    pub(crate) fn transport(&self) -> &Arc<Transport> {
        &self.transport
    }

    pub(crate) fn timeout(&self) -> Duration {
        self.timeout
    }
}

/// An empty body.
#[derive(Serialize)]
struct Nothing {}

/// A request without headers and body.
pub(crate) fn plain(method: Method, target: String, retry: Retry) -> Request {
    Request { method, target, headers: Vec::new(), body: Bytes::new(), retry, patience: Duration::ZERO }
}

/// `host:port` of an endpoint.
fn address(endpoint: &str) -> Result<String, BuildError> {
    let wrong = || BuildError::Endpoint(endpoint.to_owned());
    let rest = endpoint.strip_prefix("http://").unwrap_or(endpoint).trim_end_matches('/');
    let (host, port) = rest.rsplit_once(':').ok_or_else(wrong)?;
    let valid = !host.is_empty()
        && !host.contains(['/', '@', '?', '#', ' '])
        && (!host.contains(':') || (host.starts_with('[') && host.ends_with(']')))
        && port.parse::<u16>().is_ok_and(|port| port != 0);
    if valid { Ok(rest.to_owned()) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for (endpoint, expected) in [
            ("http://a:3000", Some("a:3000")),
            ("http://a:3000/", Some("a:3000")),
            ("a.b.c:3000", Some("a.b.c:3000")),
            ("[::1]:3000", Some("[::1]:3000")),
            ("", None),
            ("a", None),
            ("a:", None),
            ("a:0", None),
            ("a:70000", None),
            (":3000", None),
            ("::1:3000", None),
            ("https://a:3000", None),
            ("http://a:3000/path", None),
            ("http://user@a:3000", None),
        ] {
            assert_eq!(address(endpoint).ok().as_deref(), expected, "{endpoint}");
        }
    }

    #[test]
    fn endpoints_are_checked() {
        assert_eq!(Client::connect(" , ").unwrap_err(), BuildError::NoEndpoint);
        assert_eq!(Client::connect("a:1,b").unwrap_err(), BuildError::Endpoint("b".into()));
        assert!(Client::connect("a:1, http://b:2,").is_ok());
    }
}
