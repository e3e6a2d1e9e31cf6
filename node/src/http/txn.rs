//! `POST /v1/txn`: conditions and operations on several keys at one revision.
//!
//! Each part is read on its own, so that what is wrong is named by its path into the request.

use super::answer::Answer;
use super::body;
use super::call::{Asked, Call};
use super::json::Writer;
use super::kv::refusal;
use super::problem::Failure;
use super::query;
use super::range::Span;
use axum::body::Body;
use balsa_store::command::{
    Answer as Applied, Operation, TXN_RANGE_ITEMS_MAX, Txn, TxnCondition, TxnDone, TxnItem, TxnOp, TxnOpKind,
    TxnPut, TxnRange, TxnRefused, TxnResult, TxnResultKind, TxnTest, TxnValue,
};
use balsa_wire::base64;
use balsa_wire::txn::{Condition, Op, PutOp};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

/// What the envelopes around the values may add, in bytes.
const ENVELOPE_BYTES: usize = 128 << 10;

/// The request, its parts as they came.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Parts {
    #[serde(default, rename = "if")]
    conditions: Vec<Box<RawValue>>,
    #[serde(default)]
    then: Vec<Box<RawValue>>,
    #[serde(default, rename = "else")]
    otherwise: Vec<Box<RawValue>>,
}

/// POST.
pub(super) async fn post(call: &Call<'_>, body: &mut Body) -> Result<Answer, Failure> {
    query::parse(call.parts.uri.query(), &[])?;
    call.refuse_conditions()?;
    let bytes_max = call.state.limits.value_bytes + ENVELOPE_BYTES;
    let Asked { body, request, admitted: _place } = call.read_write(body, bytes_max).await?;
    let parts: Parts =
        body::members(&body, "{\"if\"?: [CONDITION], \"then\"?: [OPERATION], \"else\"?: [OPERATION]}")?;
    let txn = read(call, &parts)?;
    txn.check().map_err(refused)?;
    let ops = (txn.then.clone(), txn.otherwise.clone());
    let (applied, replayed) = call.write(request, Operation::Txn(txn)).await?;
    let Applied::Txn(done) = applied else {
        return Err(refusal(applied, replayed));
    };
    let mut answer = Answer::json(written(&done, if done.succeeded { &ops.0 } else { &ops.1 }));
    answer.revision = done.revision;
    answer.replayed = replayed;
    Ok(answer)
}

fn refused(TxnRefused { path, why }: TxnRefused) -> Failure {
    Failure::Txn { path, why }
}

fn read(call: &Call<'_>, parts: &Parts) -> Result<Txn, Failure> {
    let mut txn = Txn::default();
    for (at, part) in parts.conditions.iter().enumerate() {
        let path = format!("/if/{at}");
        txn.conditions.push(condition(call, part_of(&path, part)?).map_err(|why| at_path(&path, why))?);
    }
    for (branch, from, to) in
        [("then", &parts.then, &mut txn.then), ("else", &parts.otherwise, &mut txn.otherwise)]
    {
        for (at, part) in from.iter().enumerate() {
            let path = format!("/{branch}/{at}");
            let kind = operation(call, part_of(&path, part)?).map_err(|why| at_path(&path, why))?;
            to.push(TxnOp { kind: Some(kind) });
        }
    }
    Ok(txn)
}

fn part_of<T: serde::de::DeserializeOwned>(path: &str, part: &RawValue) -> Result<T, Failure> {
    serde_json::from_str(part.get()).map_err(|error| at_path(path, (String::new(), error.to_string())))
}

/// What is wrong, and where below the part's path.
type Wrong = (String, String);

fn at_path(path: &str, (below, why): Wrong) -> Failure {
    Failure::Txn { path: format!("{path}{below}"), why }
}

fn wrong(below: &str, why: impl Into<String>) -> Wrong {
    (below.to_owned(), why.into())
}

fn key(call: &Call<'_>, below: &str, key: &str) -> Result<Bytes, Wrong> {
    call.check_key(key).map_err(|failure| wrong(below, failure.to_string()))?;
    Ok(Bytes::copy_from_slice(key.as_bytes()))
}

fn condition(call: &Call<'_>, asked: Condition) -> Result<TxnCondition, Wrong> {
    let Condition { key: of_key, revision, version, value, value_base64, exists, lock, token } = asked;
    if let Some(name) = lock {
        let others = revision.is_some() || version.is_some() || value.is_some() || value_base64.is_some();
        return match token {
            Some(token) if of_key.is_none() && exists.is_none() && !others => {
                Ok(TxnCondition { subject: key(call, "/lock", &name)?, test: Some(TxnTest::Lock(token)) })
            }
            _ => Err(wrong("", "a condition of a lock has `lock` and `token`, and nothing else")),
        };
    }
    let Some(name) = of_key else { return Err(wrong("", "it has neither `key` nor `lock`")) };
    let raw = match value_base64 {
        Some(text) => Some(base64::decode(&text).ok_or_else(|| wrong("/value_base64", "it is not base64"))?),
        None => None,
    };
    let json =
        value.map(|value| TxnValue { value: Bytes::copy_from_slice(value.get().as_bytes()), json: true });
    let tests = [
        revision.map(TxnTest::Revision),
        version.map(TxnTest::Version),
        json.map(TxnTest::Value),
        raw.map(|raw| TxnTest::Value(TxnValue { value: raw.into(), json: false })),
        exists.map(TxnTest::Exists),
        token.map(TxnTest::Lock),
    ];
    let mut tests = tests.into_iter().flatten();
    match (tests.next(), tests.next()) {
        (Some(test), None) if !matches!(test, TxnTest::Lock(_)) => {
            Ok(TxnCondition { subject: key(call, "/key", &name)?, test: Some(test) })
        }
        _ => Err(wrong(
            "",
            "a condition of a key has one of `revision`, `version`, `value`, `value_base64` and `exists`",
        )),
    }
}

fn operation(call: &Call<'_>, op: Op) -> Result<TxnOpKind, Wrong> {
    Ok(match op {
        Op::Get(get) => TxnOpKind::Get(key(call, "/get/key", &get.key)?),
        Op::Delete(delete) => TxnOpKind::Delete(key(call, "/delete/key", &delete.key)?),
        Op::Put(put) => TxnOpKind::Put(to_put(call, put)?),
        Op::Range(range) => {
            let span = Span::of(range.prefix.as_deref(), range.start.as_deref(), range.end.as_deref());
            let Some(Span { start, end }) = span else {
                return Err(wrong("/range", "a range is of a prefix, or from start to end; not both"));
            };
            let limit = range.limit.unwrap_or(TXN_RANGE_ITEMS_MAX);
            if !(1..=TXN_RANGE_ITEMS_MAX).contains(&limit) {
                return Err(wrong("/range/limit", format!("it takes 1 to {TXN_RANGE_ITEMS_MAX}")));
            }
            TxnOpKind::Range(TxnRange { start, end, limit })
        }
    })
}

fn to_put(call: &Call<'_>, put: PutOp) -> Result<TxnPut, Wrong> {
    let name = key(call, "/put/key", &put.key)?;
    let (value, content_type) = match (put.value, put.value_base64, put.content_type) {
        (Some(value), None, None) => (Bytes::copy_from_slice(value.get().as_bytes()), None),
        (None, Some(text), content_type) => {
            let raw = base64::decode(&text).ok_or_else(|| wrong("/put/value_base64", "it is not base64"))?;
            let content_type = content_type.unwrap_or_else(|| "application/octet-stream".to_owned());
            if body::is_storable_type(&content_type) {
                (raw.into(), Some(content_type))
            } else {
                return Err(wrong(
                    "/put/content_type",
                    "it takes 1 to 255 visible ASCII characters, not JSON",
                ));
            }
        }
        _ => return Err(wrong("/put", "it takes `value`, or `value_base64` with its `content_type`")),
    };
    let limit = call.state.limits.value_bytes;
    if value.len() > limit {
        return Err(wrong("/put/value", format!("the value is larger than the limit of {limit} bytes")));
    }
    if put.lease == Some(0) {
        return Err(wrong("/put/lease", "leases have numbers from 1"));
    }
    Ok(TxnPut { key: name, value, content_type, lease: put.lease.unwrap_or_default() })
}

fn written(done: &TxnDone, ops: &[TxnOp]) -> Vec<u8> {
    let mut json = Writer::with_capacity(256);
    json.raw(if done.succeeded { "{\"succeeded\":true" } else { "{\"succeeded\":false" });
    json.raw(",\"revision\":").number(done.revision).raw(",\"results\":[");
    for (at, (result, op)) in done.results.iter().zip(ops).enumerate() {
        if at > 0 {
            json.raw(",");
        }
        write_result(&mut json, result, op);
    }
    json.raw("]}").finish()
}

fn write_result(json: &mut Writer, result: &TxnResult, op: &TxnOp) {
    let key = match &op.kind {
        Some(TxnOpKind::Get(key) | TxnOpKind::Delete(key)) => String::from_utf8_lossy(key),
        Some(TxnOpKind::Put(put)) => String::from_utf8_lossy(&put.key),
        _ => "".into(),
    };
    match &result.kind {
        Some(TxnResultKind::Get(got)) => {
            json.raw("{\"get\":");
            match &got.value {
                Some(value) => json.item(&key, value),
                None => json.raw("null"),
            };
            json.raw("}");
        }
        Some(TxnResultKind::Put(_)) => {
            json.raw("{\"put\":{\"key\":").string(&key).raw("}}");
        }
        Some(TxnResultKind::Delete(deleted)) => {
            json.raw("{\"delete\":{\"key\":").string(&key);
            json.raw(if *deleted { ",\"deleted\":true}}" } else { ",\"deleted\":false}}" });
        }
        Some(TxnResultKind::Range(found)) => {
            json.raw("{\"range\":{\"items\":[");
            let items = found.items.iter().filter_map(|TxnItem { key, value }| Some((key, value.as_ref()?)));
            for (at, (key, value)) in items.enumerate() {
                if at > 0 {
                    json.raw(",");
                }
                json.item(&String::from_utf8_lossy(key), value);
            }
            json.raw(if found.more { "],\"more\":true}}" } else { "],\"more\":false}}" });
        }
        None => {
            json.raw("null");
        }
    }
}
