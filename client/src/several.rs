//! Requests about several keys: ranges and transactions.

use crate::client::{Client, plain};
use crate::error::{Cause, ReadError, WriteError};
use crate::transport::{Retry, parse};
use balsa_wire::kv::Item;
use balsa_wire::percent;
use balsa_wire::txn::{
    Condition, KeyOp, Op, PutOp, RangeAnswer, RangeDeleteAnswer, RangeOp, TxnAnswer, TxnRequest,
};
use reqwest::Method;
use serde::Serialize;
use std::future::IntoFuture;
use std::pin::Pin;

type Asked<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A read of a range, page by page, all of one revision. `.await` gives all of its items; [`Range::page`] one page.
#[derive(Clone, Debug)]
#[must_use = "a request does nothing unless it is awaited"]
pub struct Range {
    client: Client,
    query: Vec<(&'static str, String)>,
    cursor: Option<String>,
    is_over: bool,
}

impl Range {
    pub(crate) fn new(client: Client) -> Range {
        Range { client, query: Vec::new(), cursor: None, is_over: false }
    }

    fn with(mut self, name: &'static str, value: impl Into<String>) -> Range {
        self.query.push((name, value.into()));
        self
    }

    /// Keys that begin with this.
    pub fn prefix(self, prefix: impl Into<String>) -> Range {
        self.with("prefix", prefix)
    }

    /// From this key on.
    pub fn start(self, key: impl Into<String>) -> Range {
        self.with("start", key)
    }

    /// Up to this key, without it.
    pub fn end(self, key: impl Into<String>) -> Range {
        self.with("end", key)
    }

    /// The last key first.
    pub fn descending(self) -> Range {
        self.with("order", "desc")
    }

    /// Without the values.
    pub fn keys_only(self) -> Range {
        self.with("keys_only", "true")
    }

    /// At most so many items a page.
    pub fn limit(self, items: u32) -> Range {
        self.with("limit", items.to_string())
    }

    /// As it was at this revision.
    pub fn revision(self, revision: u64) -> Range {
        self.with("revision", revision.to_string())
    }

    /// What the asked node has, without asking the others: faster, and perhaps old.
    pub fn stale(self) -> Range {
        self.with("consistency", "stale")
    }

    /// The next page; `None` after the last.
    pub async fn page(&mut self) -> Result<Option<RangeAnswer>, ReadError> {
        if self.is_over {
            return Ok(None);
        }
        let answer = self.ask(&[]).await?;
        self.cursor.clone_from(&answer.cursor);
        self.is_over = !answer.more;
        Ok(Some(answer))
    }

    /// How many items there are.
    pub async fn count(mut self) -> Result<u64, ReadError> {
        let mut count = 0;
        loop {
            let answer = self.ask(&[("count_only", "true".to_owned())]).await?;
            count += answer.count.unwrap_or_default();
            if !answer.more {
                return Ok(count);
            }
            self.cursor = answer.cursor;
        }
    }

    async fn ask(&self, more: &[(&'static str, String)]) -> Result<RangeAnswer, ReadError> {
        let cursor = self.cursor.iter().map(|cursor| ("cursor", cursor.clone()));
        // The cursor says the revision.
        let query =
            self.query.iter().filter(|(name, _)| self.cursor.is_none() || *name != "revision").cloned();
        let target = target("/v1/kv", query.chain(cursor).chain(more.iter().cloned()));
        let request = plain(Method::GET, target, Retry::Harmless);
        let answered = self.client.transport().call(&request, self.client.timeout()).await;
        let answer = answered.map_err(|(_, cause)| ReadError { cause })?;
        parse(&answer).map_err(|cause| ReadError { cause })
    }
}

impl IntoFuture for Range {
    type Output = Result<Vec<Item>, ReadError>;
    type IntoFuture = Asked<Self::Output>;

    fn into_future(mut self) -> Self::IntoFuture {
        Box::pin(async move {
            let mut items = Vec::new();
            while let Some(page) = self.page().await? {
                items.extend(page.items);
            }
            Ok(items)
        })
    }
}

/// A deletion of a range. `.await` it.
#[derive(Clone, Debug)]
#[must_use = "a request does nothing unless it is awaited"]
pub struct DeleteRange {
    client: Client,
    query: Vec<(&'static str, String)>,
}

impl DeleteRange {
    pub(crate) fn prefix(client: Client, prefix: String) -> DeleteRange {
        // Without one it is refused: `Client::clear` says what it does.
        let query = if prefix.is_empty() { Vec::new() } else { vec![("prefix", prefix)] };
        DeleteRange { client, query }
    }

    pub(crate) fn span(client: Client, start: String, end: String) -> DeleteRange {
        DeleteRange { client, query: vec![("start", start), ("end", end)] }
    }
}

impl IntoFuture for DeleteRange {
    type Output = Result<RangeDeleteAnswer, WriteError>;
    type IntoFuture = Asked<Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let target = target("/v1/kv", self.query.into_iter());
            self.client.write(&plain(Method::DELETE, target, Retry::Recognised)).await
        })
    }
}

/// A transaction: if all conditions hold, what follows [`Txn::then`] methods is done, else what follows [`Txn::otherwise`].
/// `.await` it.
///
/// ```no_run
/// # async fn example(client: &balsa_client::Client) -> Result<(), Box<dyn std::error::Error>> {
/// let moved = client.txn().if_revision("stock/1", 7).put("stock/1", &3).put("cart/9", &1).otherwise().get("stock/1").await?;
/// println!("{}", if moved.succeeded { "done" } else { "somebody was faster" });
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use = "a request does nothing unless it is awaited"]
pub struct Txn {
    client: Client,
    request: TxnRequest,
    otherwise: bool,
    invalid: Option<String>,
}

impl Txn {
    pub(crate) fn new(client: Client) -> Txn {
        Txn { client, request: TxnRequest::default(), otherwise: false, invalid: None }
    }

    /// A transaction as the API has it.
    pub fn request(mut self, request: TxnRequest) -> Txn {
        self.request = request;
        self
    }

    fn condition(mut self, condition: Condition) -> Txn {
        self.request.conditions.push(condition);
        self
    }

    /// The key's revision is this one; 0: it is absent.
    pub fn if_revision(self, key: impl Into<String>, revision: u64) -> Txn {
        self.condition(Condition { key: Some(key.into()), revision: Some(revision), ..Condition::default() })
    }

    /// The key's version is this one; 0: it is absent.
    pub fn if_version(self, key: impl Into<String>, version: u64) -> Txn {
        self.condition(Condition { key: Some(key.into()), version: Some(version), ..Condition::default() })
    }

    /// The key is there.
    pub fn if_exists(self, key: impl Into<String>) -> Txn {
        self.condition(Condition { key: Some(key.into()), exists: Some(true), ..Condition::default() })
    }

    /// The key is not there.
    pub fn if_absent(self, key: impl Into<String>) -> Txn {
        self.condition(Condition { key: Some(key.into()), exists: Some(false), ..Condition::default() })
    }

    /// The key has this JSON value, as this is written, byte for byte.
    pub fn if_value(mut self, key: impl Into<String>, value: &(impl Serialize + ?Sized)) -> Txn {
        match serde_json::value::to_raw_value(value) {
            Ok(value) => {
                let key = Some(key.into());
                self.condition(Condition { key, value: Some(value), ..Condition::default() })
            }
            Err(error) => {
                self.invalid = Some(format!("a value cannot be written as JSON: {error}"));
                self
            }
        }
    }

    /// The lock is held under this token.
    pub fn if_lock(self, name: impl Into<String>, token: u64) -> Txn {
        self.condition(Condition { lock: Some(name.into()), token: Some(token), ..Condition::default() })
    }

    /// What follows is done where the conditions hold; so it is from the start.
    pub fn then(mut self) -> Txn {
        self.otherwise = false;
        self
    }

    /// What follows is done where they do not hold.
    pub fn otherwise(mut self) -> Txn {
        self.otherwise = true;
        self
    }

    /// An operation as the API has it.
    pub fn op(mut self, op: Op) -> Txn {
        let branch = if self.otherwise { &mut self.request.otherwise } else { &mut self.request.then };
        branch.push(op);
        self
    }

    /// Reads a key as it was before the transaction.
    pub fn get(self, key: impl Into<String>) -> Txn {
        self.op(Op::Get(KeyOp { key: key.into() }))
    }

    /// Sets a key.
    pub fn put(mut self, key: impl Into<String>, value: &(impl Serialize + ?Sized)) -> Txn {
        match serde_json::value::to_raw_value(value) {
            Ok(value) => self.op(Op::Put(PutOp { key: key.into(), value: Some(value), ..PutOp::default() })),
            Err(error) => {
                self.invalid = Some(format!("a value cannot be written as JSON: {error}"));
                self
            }
        }
    }

    /// Deletes a key.
    pub fn delete(self, key: impl Into<String>) -> Txn {
        self.op(Op::Delete(KeyOp { key: key.into() }))
    }

    /// Reads keys that begin so, as they were before the transaction.
    pub fn range(self, prefix: impl Into<String>) -> Txn {
        self.op(Op::Range(RangeOp { prefix: Some(prefix.into()), ..RangeOp::default() }))
    }
}

impl IntoFuture for Txn {
    type Output = Result<TxnAnswer, WriteError>;
    type IntoFuture = Asked<Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let invalid = |why: String| WriteError::NotApplied(Cause::Invalid(why));
            if let Some(why) = self.invalid {
                return Err(invalid(why));
            }
            let mut request = plain(Method::POST, "/v1/txn".to_owned(), Retry::Recognised);
            request.body =
                serde_json::to_vec(&self.request).map_err(|error| invalid(error.to_string()))?.into();
            request.headers.push(("content-type", "application/json".to_owned()));
            self.client.write(&request).await
        })
    }
}

/// A path with its query.
fn target(path: &str, query: impl Iterator<Item = (&'static str, String)>) -> String {
    let pairs: Vec<String> =
        query.map(|(name, value)| format!("{name}={}", percent::encode_segment(&value))).collect();
    if pairs.is_empty() { path.to_owned() } else { format!("{path}?{}", pairs.join("&")) }
}
