//! Ranges: `GET` and `DELETE /v1/kv`.
//!
//! A page is bounded in items and in bytes, and says where the next one begins; the cursor holds the revision, so that all
//! pages are of one state. A deletion is done in slices, each at a revision of its own, so that it holds up nobody; a
//! retry of one that is recognised goes through the slices that were done, and on from there.

use super::answer::Answer;
use super::body;
use super::call::{Asked, Call};
use super::history;
use super::json::Writer;
use super::kv::{freshness, refusal};
use super::problem::Failure;
use super::query::{self, Param, Query};
use crate::engine::handle::WriteError;
use axum::body::Body;
use balsa_store::command::{Answer as Applied, DeleteRange, IdempotencyKey, Operation, RequestId};
use balsa_store::{Count, Order, Page, Scan, Values};
use bytes::Bytes;
use std::ops::Bound;

/// Items of a page, at most.
const PAGE_ITEMS_MAX: u64 = 1_000;
/// Bytes of keys and values of a page, about.
const PAGE_BYTES_MAX: usize = 4 << 20;
/// Keys that one call counts, at most.
const COUNT_MAX: u64 = 100_000;
/// Keys that are deleted at one revision.
const SLICE_KEYS: u32 = 1_000;

/// What reads of a range take.
pub(super) const READ: &[Param] = &[
    Param::Prefix,
    Param::Start,
    Param::End,
    Param::Limit,
    Param::Cursor,
    Param::Order,
    Param::KeysOnly,
    Param::CountOnly,
    Param::Revision,
    Param::Consistency,
];

/// What a DELETE of a range takes.
pub(super) const DELETE: &[Param] = &[Param::Prefix, Param::Start, Param::End, Param::All];

/// From its first key to the first beyond.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Span {
    pub(super) start: Bytes,
    pub(super) end: Option<Bytes>,
}

impl Span {
    /// All keys with a prefix.
    pub(super) fn of_prefix(prefix: &str) -> Span {
        let mut end = prefix.as_bytes().to_vec();
        while let Some(last) = end.pop() {
            if last < u8::MAX {
                end.push(last + 1);
                break;
            }
        }
        let end = if end.is_empty() { None } else { Some(Bytes::from(end)) };
        Span { start: Bytes::copy_from_slice(prefix.as_bytes()), end }
    }

    /// As three members say it; `None`: they do not go together.
    pub(super) fn of(prefix: Option<&str>, start: Option<&str>, end: Option<&str>) -> Option<Span> {
        if let Some(prefix) = prefix {
            return (start.is_none() && end.is_none()).then(|| Span::of_prefix(prefix));
        }
        let start = Bytes::copy_from_slice(start.unwrap_or_default().as_bytes());
        Some(Span { start, end: end.map(|end| Bytes::copy_from_slice(end.as_bytes())) })
    }

    fn of_query(query: &Query) -> Result<Span, Failure> {
        Span::of(query.prefix.as_deref(), query.start.as_deref(), query.end.as_deref())
            .ok_or(Failure::Parameters("a range is of a prefix, or from start to end; not both"))
    }

    fn is_everything(&self) -> bool {
        self.start.is_empty() && self.end.is_none()
    }
}

/// Where a page begins.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Cursor {
    revision: u64,
    /// The last key that was given.
    key: Bytes,
}

impl Cursor {
    fn parse(text: &str) -> Option<Cursor> {
        let (revision, key) = text.split_once('.')?;
        let digit = |byte: u8| char::from(byte).to_digit(16);
        if !key.len().is_multiple_of(2) {
            return None;
        }
        let pairs = key.as_bytes().chunks_exact(2);
        let key: Option<Vec<u8>> =
            pairs.map(|pair| Some((digit(pair[0])? * 16 + digit(pair[1])?) as u8)).collect();
        let is_number = !revision.is_empty() && revision.bytes().all(|byte| byte.is_ascii_digit());
        Some(Cursor { revision: revision.parse().ok().filter(|_| is_number)?, key: key?.into() })
    }

    fn text(&self) -> String {
        let key: String = self.key.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{}.{key}", self.revision)
    }
}

/// GET and HEAD.
pub(super) async fn get(call: &Call<'_>) -> Result<Answer, Failure> {
    let query = query::parse(call.parts.uri.query(), READ)?;
    call.refuse_conditions()?;
    let mut span = Span::of_query(&query)?;
    let cursor = match query.cursor.as_deref() {
        None => None,
        Some(text) => Some(
            Cursor::parse(text)
                .ok_or(Failure::Parameters("cursor takes what the page before this one gave"))?,
        ),
    };
    let most = if query.count_only { COUNT_MAX } else { PAGE_ITEMS_MAX };
    let limit = query.limit.unwrap_or(most);
    if limit > most {
        return Err(Failure::Parameters("limit takes 1 to 1000, with count_only 1 to 100000"));
    }
    if query.count_only && query.keys_only {
        return Err(Failure::Parameters("keys_only and count_only do not go together"));
    }
    let at = cursor.as_ref().map(|cursor| cursor.revision).or(query.revision);
    if cursor.is_some() && query.revision.is_some_and(|revision| Some(revision) != at) {
        return Err(Failure::Parameters("cursor is of another revision"));
    }
    let age_ms = freshness(call, query.consistency).await?;
    let view = match at {
        Some(revision) => history::reached(call, revision).await?,
        None => call.state.view(),
    };
    let revision = at.unwrap_or_else(|| view.revision());
    let mut after = Bound::Included(span.start.clone());
    if let Some(cursor) = cursor {
        match query.order {
            Order::Ascending => after = Bound::Excluded(cursor.key),
            Order::Descending => span.end = Some(cursor.key),
        }
    }
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let (order, keys_only, count_only, end) = (query.order, query.keys_only, query.count_only, span.end);
    let read = move || {
        let start = after.as_ref().map(|key| &key[..]);
        let end = end.as_ref().map_or(Bound::Unbounded, |end| Bound::Excluded(&end[..]));
        let values = if keys_only { Values::LeftOut } else { Values::Wanted };
        let scan = Scan { start, end, order, values };
        Ok(match count_only {
            true => written_count(&view.count_at(revision, scan, limit)?, revision),
            false => written(&view.page_at(revision, scan, limit, PAGE_BYTES_MAX)?, keys_only, revision),
        })
    };
    let mut answer = Answer::json(history::read(call, read).await?);
    answer.revision = revision;
    answer.age_ms = age_ms;
    Ok(answer)
}

fn written(page: &Page, keys_only: bool, revision: u64) -> Vec<u8> {
    let mut json = Writer::with_capacity(256 + 128 * page.items.len());
    json.raw("{\"items\":[");
    for (at, (key, value)) in page.items.iter().enumerate() {
        if at > 0 {
            json.raw(",");
        }
        let key = String::from_utf8_lossy(key);
        if keys_only {
            json.key_item(&key, value)
        } else {
            json.item(&key, value)
        };
    }
    json.raw("]");
    write_rest(json, page.more, page.items.last().map(|(key, _)| key), revision)
}

fn written_count(count: &Count, revision: u64) -> Vec<u8> {
    let mut json = Writer::with_capacity(256);
    json.raw("{\"count\":").number(count.keys as u64);
    write_rest(json, count.more, count.last.as_ref(), revision)
}

/// Whether there is more, and where that begins.
fn write_rest(mut json: Writer, more: bool, last: Option<&Bytes>, revision: u64) -> Vec<u8> {
    json.raw(if more { ",\"more\":true" } else { ",\"more\":false" });
    if let Some(key) = last.filter(|_| more) {
        json.raw(",\"cursor\":").string(&Cursor { revision, key: key.clone() }.text());
    }
    json.raw(",\"revision\":").number(revision).raw("}").finish()
}

/// DELETE.
pub(super) async fn delete(call: &Call<'_>, body: &mut Body) -> Result<Answer, Failure> {
    let query = query::parse(call.parts.uri.query(), DELETE)?;
    call.refuse_conditions()?;
    let span = Span::of_query(&query)?;
    if span.is_everything() != query.all {
        return Err(Failure::Parameters(match query.all {
            true => "all=true is for a range that is everything; this one is not",
            false => {
                "this would delete every key; say all=true if you mean it, or give a prefix, or start and end"
            }
        }));
    }
    let Asked { body, request, admitted: _place } = call.read_write(body, body::SMALL_BYTES).await?;
    body::members::<body::Empty>(&body, "empty")?;

    let (mut start, mut total, mut all_replayed) = (span.start, 0, true);
    for slice in 0.. {
        let range = DeleteRange { start, end: span.end.clone(), limit: SLICE_KEYS };
        let id = request.as_ref().map(|request| of_slice(request, slice));
        let (done, replayed) = match call.write(id, Operation::DeleteRange(range)).await {
            Ok((Applied::RangeDeleted(done), replayed)) => (done, replayed),
            Ok((other, replayed)) if slice == 0 => return Err(refusal(other, replayed)),
            Err(failure) if slice == 0 => return Err(failure),
            _ => {
                let why = "some of the keys were deleted, and then a part of it was refused; what is left can be asked for again";
                return Err(WriteError::Unknown { why }.into());
            }
        };
        total += done.deleted;
        all_replayed &= replayed;
        if let Some(next) = done.next {
            start = next;
            continue;
        }
        let mut json = Writer::with_capacity(64);
        json.raw("{\"deleted\":").number(total).raw(",\"revision\":").number(done.revision).raw("}");
        let mut answer = Answer::json(json.finish());
        answer.revision = done.revision;
        answer.replayed = all_replayed;
        return Ok(answer);
    }
    Err(Failure::Misfit)
}

/// How the slices after the first are recognised: by keys that no client can give.
fn of_slice(request: &RequestId, slice: u64) -> RequestId {
    let (name, fingerprint) = match request {
        _ if slice == 0 => return request.clone(),
        RequestId::Key(id) => (id.key.clone(), id.fingerprint.clone()),
        RequestId::Session(id) => {
            (format!("session\0{}:{}", id.session, id.sequence), id.fingerprint.clone())
        }
    };
    RequestId::Key(IdempotencyKey { key: format!("{name}\0{slice}"), fingerprint })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_prefix() {
        let end = |prefix: &str| Span::of_prefix(prefix).end;
        assert_eq!(end("a"), Some(Bytes::from("b")));
        assert_eq!(end("a/"), Some(Bytes::from("a0")));
        assert_eq!(end(""), None);
        assert_eq!(end("\u{10ffff}").as_deref(), Some(&b"\xf4\x8f\xbf\xc0"[..]));
        assert!(Span::of_prefix("").is_everything());
        assert_eq!(Span::of(Some("a"), Some("b"), None), None);
    }

    #[test]
    fn a_cursor_is_read_as_it_is_written() {
        for key in ["", "a", "\u{e9}/b"] {
            let cursor = Cursor { revision: 17, key: Bytes::from(key) };
            assert_eq!(Cursor::parse(&cursor.text()), Some(cursor));
        }
        for text in ["", "1", ".61", "1.6", "1.6g", "x.61", "+1.61", "1.61.61"] {
            assert_eq!(Cursor::parse(text), None, "{text}");
        }
    }
}
