//! Requests about keys: options, then `.await`.

use crate::client::{Client, plain};
use crate::error::{Cause, ReadError, WriteError};
use crate::transport::{Answer, Request, Retry, parse, text};
use balsa_wire::kv::{ClearAnswer, DeleteAnswer, Item, PutAnswer};
use balsa_wire::percent;
use balsa_wire::problem::Code;
use bytes::Bytes;
use reqwest::Method;
use std::future::{Future, IntoFuture};
use std::pin::Pin;

/// What `.await` on a request makes of it.
type Asked<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A raw value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Raw {
    /// The bytes; of a JSON value, its text.
    pub bytes: Bytes,
    /// Their type.
    pub content_type: String,
    /// The revision of the key's last change.
    pub revision: u64,
}

/// A read of one key. `.await` it.
#[derive(Clone, Debug)]
#[must_use = "a request does nothing unless it is awaited"]
pub struct Get {
    client: Client,
    key: String,
    stale: bool,
    revision: Option<u64>,
}

impl Get {
    pub(crate) fn new(client: Client, key: String) -> Get {
        Get { client, key, stale: false, revision: None }
    }

    /// What the asked node has, without asking the others: faster, and perhaps old.
    pub fn stale(mut self) -> Get {
        self.stale = true;
        self
    }

    /// What the key was at a revision of the store; one that has not come yet is waited for.
    pub fn at_revision(mut self, revision: u64) -> Get {
        self.revision = Some(revision);
        self
    }

    /// The value's bytes and type instead of the JSON envelope.
    pub fn raw(self) -> GetRaw {
        GetRaw(self)
    }

    async fn answer(self, raw: bool) -> Result<Option<Answer>, ReadError> {
        let mut query = Vec::new();
        if self.stale {
            query.push("consistency=stale");
        }
        if raw {
            query.push("raw");
        }
        let revision = self.revision.map(|revision| format!("revision={revision}"));
        query.extend(revision.as_deref());
        let target = key_target(&self.key, &query).map_err(|cause| ReadError { cause })?;
        let request = plain(Method::GET, target, Retry::Harmless);
        match self.client.transport().call(&request, self.client.timeout()).await {
            Ok(answer) => Ok(Some(answer)),
            Err((_, cause)) if cause.code() == Some(Code::KeyNotFound) => Ok(None),
            Err((_, cause)) => Err(ReadError { cause }),
        }
    }
}

impl IntoFuture for Get {
    type Output = Result<Option<Item>, ReadError>;
    type IntoFuture = Asked<Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let answer = self.answer(false).await?;
            answer.map(|answer| parse(&answer).map_err(|cause| ReadError { cause })).transpose()
        })
    }
}

/// A read of one key's raw value. `.await` it.
#[derive(Clone, Debug)]
#[must_use = "a request does nothing unless it is awaited"]
pub struct GetRaw(Get);

impl IntoFuture for GetRaw {
    type Output = Result<Option<Raw>, ReadError>;
    type IntoFuture = Asked<Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let Some(answer) = self.0.answer(true).await? else { return Ok(None) };
            let etag = text(&answer.headers, "etag").map(|etag| etag.trim_matches('"'));
            let Some(revision) = etag.and_then(|etag| etag.parse().ok()) else {
                let what = "a value without its revision (ETag)".to_owned();
                return Err(ReadError { cause: Cause::Foreign { endpoint: answer.endpoint, what } });
            };
            let content_type = text(&answer.headers, "content-type").unwrap_or("application/octet-stream");
            Ok(Some(Raw { content_type: content_type.to_owned(), bytes: answer.body, revision }))
        })
    }
}

/// What must hold for a write to be applied.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Condition {
    Revision(u64),
    Exists,
    Absent,
}

/// What PUT and DELETE have in common.
#[derive(Clone, Debug)]
struct Change {
    client: Client,
    key: String,
    condition: Option<Condition>,
    prev: bool,
}

impl Change {
    fn new(client: Client, key: String) -> Change {
        Change { client, key, condition: None, prev: false }
    }

    fn request(&self, method: Method) -> Result<Request, WriteError> {
        let query: &[&str] = if self.prev { &["prev"] } else { &[] };
        let target = key_target(&self.key, query).map_err(WriteError::NotApplied)?;
        let mut request = plain(method, target, Retry::Recognised);
        request.headers.extend(self.condition.map(|condition| match condition {
            Condition::Revision(revision) => ("if-match", format!("\"{revision}\"")),
            Condition::Exists => ("if-match", "*".to_owned()),
            Condition::Absent => ("if-none-match", "*".to_owned()),
        }));
        Ok(request)
    }
}

/// A write of one key. `.await` it.
#[derive(Clone, Debug)]
#[must_use = "a request does nothing unless it is awaited"]
pub struct Put {
    change: Change,
    content_type: String,
    body: Result<Bytes, String>,
}

impl Put {
    pub(crate) fn json(client: Client, key: String, value: Result<Box<str>, serde_json::Error>) -> Put {
        let body = value.map(|value| Bytes::from(format!("{{\"value\":{value}}}")));
        Put {
            change: Change::new(client, key),
            content_type: "application/json".to_owned(),
            body: body.map_err(|error| format!("the value cannot be written as JSON: {error}")),
        }
    }

    pub(crate) fn raw(client: Client, key: String, content_type: String, bytes: Bytes) -> Put {
        // The node would take a body of that type for an envelope.
        let is_json = content_type.split(';').next().is_some_and(|kind| kind.trim() == "application/json");
        let body = if is_json { Err("a JSON value is written with `put`".to_owned()) } else { Ok(bytes) };
        Put { change: Change::new(client, key), content_type, body }
    }

    /// Only where the key's revision is this one.
    pub fn if_revision(mut self, revision: u64) -> Put {
        self.change.condition = Some(Condition::Revision(revision));
        self
    }

    /// Only where the key is absent.
    pub fn if_absent(mut self) -> Put {
        self.change.condition = Some(Condition::Absent);
        self
    }

    /// Only where the key is there.
    pub fn if_exists(mut self) -> Put {
        self.change.condition = Some(Condition::Exists);
        self
    }

    /// Gives what was there before, too.
    pub fn prev(mut self) -> Put {
        self.change.prev = true;
        self
    }
}

impl IntoFuture for Put {
    type Output = Result<PutAnswer, WriteError>;
    type IntoFuture = Asked<Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let mut request = self.change.request(Method::PUT)?;
            request.body = self.body.map_err(|why| WriteError::NotApplied(Cause::Invalid(why)))?;
            request.headers.push(("content-type", self.content_type));
            self.change.client.write(&request).await
        })
    }
}

/// A delete of one key. `.await` it.
#[derive(Clone, Debug)]
#[must_use = "a request does nothing unless it is awaited"]
pub struct Delete(Change);

impl Delete {
    pub(crate) fn new(client: Client, key: String) -> Delete {
        Delete(Change::new(client, key))
    }

    /// Only where the key's revision is this one.
    pub fn if_revision(mut self, revision: u64) -> Delete {
        self.0.condition = Some(Condition::Revision(revision));
        self
    }

    /// Only where the key is there: one that is absent is an error.
    pub fn if_exists(mut self) -> Delete {
        self.0.condition = Some(Condition::Exists);
        self
    }

    /// Gives what was there before, too.
    pub fn prev(mut self) -> Delete {
        self.0.prev = true;
        self
    }
}

impl IntoFuture for Delete {
    type Output = Result<DeleteAnswer, WriteError>;
    type IntoFuture = Asked<Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let request = self.0.request(Method::DELETE)?;
            self.0.client.write(&request).await
        })
    }
}

/// A delete of all keys. `.await` it.
#[derive(Clone, Debug)]
#[must_use = "a request does nothing unless it is awaited"]
pub struct Clear(Client);

impl Clear {
    pub(crate) fn new(client: Client) -> Clear {
        Clear(client)
    }
}

impl IntoFuture for Clear {
    type Output = Result<ClearAnswer, WriteError>;
    type IntoFuture = Asked<Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        let request = plain(Method::POST, "/clear".to_owned(), Retry::Recognised);
        Box::pin(async move { self.0.write(&request).await })
    }
}

/// Path and query of a key.
fn key_target(key: &str, query: &[&str]) -> Result<String, Cause> {
    if key.is_empty() || key == "." || key == ".." {
        return Err(Cause::Invalid(format!("`{key}` has no form in a URL; another key is needed")));
    }
    let mark = if query.is_empty() { "" } else { "?" };
    Ok(format!("/v1/kv/{}{mark}{}", percent::encode_path(key), query.join("&")))
}
