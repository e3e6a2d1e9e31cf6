//! Reading bodies within their bounds, and finding the value in them.
//!
//! Invariants: a body never takes more memory than its limit; a value is a slice of the body as it came, never copied
//! and never rewritten.

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Body as _;
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, EXPECT, HeaderMap};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// What the envelope `{"value": …}` may add to the largest value, in bytes.
const ENVELOPE_BYTES: usize = 1024;

/// The largest body of requests that carry no value, in bytes.
pub(super) const SMALL_BYTES: usize = 16 * 1024;

/// How much of the body of a refused request is still taken, in bytes; and for how long.
const DRAIN_BYTES: u64 = 16 << 20;
const DRAIN_TIME: Duration = Duration::from_secs(1);

/// Why a body was refused.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BodyError {
    /// Over its bound.
    #[error("the {what} is larger than the limit of {limit_bytes} bytes")]
    TooLarge {
        /// The body or the value.
        what: &'static str,
        /// The bound.
        limit_bytes: usize,
    },
    /// It broke off.
    #[error("the body ended before it was complete")]
    Incomplete,
    /// It did not arrive in time.
    #[error("the body did not arrive within {ms} ms")]
    Late {
        /// The request timeout.
        ms: u128,
    },
    /// Not the JSON it should be.
    #[error("the body is not {expected}: {why}")]
    Json {
        /// What it should be.
        expected: &'static str,
        /// What was found.
        why: String,
    },
    /// A member that is not known here.
    #[error("the body is not {expected}: {why}")]
    UnknownMember {
        /// What it should be.
        expected: &'static str,
        /// Which member.
        why: String,
    },
    /// A form.
    #[error(
        "a form is not a value; curl -d sends a form type unless told otherwise: curl -X PUT -H 'Content-Type: \
         application/json' -d '{{\"value\": \"text\"}}' http://HOST/v1/kv/KEY"
    )]
    Form,
    /// A content encoding.
    #[error("a body with Content-Encoding is not supported; send it as it is")]
    Encoded,
    /// A content type that is not text.
    #[error("Content-Type takes up to {CONTENT_TYPE_BYTES_MAX} visible ASCII characters, once")]
    ContentType,
}

/// The longest content type that is stored, in bytes.
const CONTENT_TYPE_BYTES_MAX: usize = 255;

/// The most that `body` may turn out to have: what it says, or `limit` where it does not say.
pub(super) fn size_max(body: &Body, limit: usize) -> usize {
    let said = body.size_hint().upper().map_or(limit, |upper| usize::try_from(upper).unwrap_or(usize::MAX));
    said.min(limit)
}

/// Reads all of `body`, which must have at most `limit_bytes` and arrive within `timeout` of `started`.
pub(super) async fn read(
    body: &mut Body,
    limit_bytes: usize,
    started: std::time::Instant,
    timeout: Duration,
) -> Result<Bytes, BodyError> {
    if body.size_hint().lower() > limit_bytes as u64 {
        return Err(BodyError::TooLarge { what: "body", limit_bytes });
    }
    if body.is_end_stream() {
        return Ok(Bytes::new());
    }
    let reading = async {
        let mut whole = Bytes::new();
        let mut joined = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(|_| BodyError::Incomplete)?.into_data() else {
                continue; // trailers
            };
            if whole.len() + joined.len() + data.len() > limit_bytes {
                return Err(BodyError::TooLarge { what: "body", limit_bytes });
            }
            if whole.is_empty() && joined.is_empty() {
                whole = data; // a body that came in one piece is not copied
            } else {
                if joined.is_empty() {
                    joined.reserve(size_max(body, limit_bytes).max(whole.len() + data.len()));
                    joined.extend_from_slice(&std::mem::take(&mut whole));
                }
                joined.extend_from_slice(&data);
            }
        }
        Ok(if joined.is_empty() { whole } else { joined.freeze() })
    };
    match timeout_at(Instant::from_std(started + timeout), reading).await {
        Err(_) => Err(BodyError::Late { ms: timeout.as_millis() }),
        Ok(read) => read,
    }
}

/// Takes and forgets what is left of the body of a refused request, within bounds: a sender that is cut off while it
/// sends would read that the connection broke, not the answer. One that waits to be told to go on
/// (`Expect: 100-continue`) is not cut off, and taking the body would tell it to.
pub(super) async fn drain(body: &mut Body, headers: &HeaderMap) {
    if body.is_end_stream() || body.size_hint().lower() > DRAIN_BYTES || headers.contains_key(EXPECT) {
        return;
    }
    let draining = async {
        let mut drained: u64 = 0;
        while let Some(Ok(frame)) = body.frame().await {
            drained += frame.data_ref().map_or(0, |data| data.len() as u64);
            if drained > DRAIN_BYTES {
                return;
            }
        }
    };
    // Late or not, the answer is the same.
    let _ = tokio::time::timeout(DRAIN_TIME, draining).await;
}

/// What the body of a PUT is taken for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Dialect {
    /// At the root: JSON whatever it says it is.
    Root,
    /// At `/v1/kv`: what its content type says.
    Full,
}

/// A value from a body.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewValue {
    /// Its bytes, a slice of the body.
    pub value: Bytes,
    /// `None`: it is JSON.
    pub content_type: Option<String>,
}

/// How the value lies in a body.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Format {
    /// In the member `value` of a JSON object.
    Json,
    /// It is the body, with this type.
    Raw(String),
}

impl Format {
    /// The largest body with a value of at most so many bytes.
    pub(super) fn body_bytes_max(&self, value_bytes_max: usize) -> usize {
        match self {
            Format::Json => value_bytes_max + ENVELOPE_BYTES,
            Format::Raw(_) => value_bytes_max,
        }
    }
}

/// Says how the value lies in a body with these headers.
pub fn format(dialect: Dialect, headers: &HeaderMap) -> Result<Format, BodyError> {
    if headers.get_all(CONTENT_ENCODING).iter().any(|encoding| encoding != "identity") {
        return Err(BodyError::Encoded);
    }
    if dialect == Dialect::Root {
        return Ok(Format::Json);
    }
    let mut types = headers.get_all(CONTENT_TYPE).iter();
    let (Some(content_type), None) = (types.next(), types.next()) else {
        let none = !headers.contains_key(CONTENT_TYPE);
        return if none {
            Ok(Format::Raw("application/octet-stream".to_owned()))
        } else {
            Err(BodyError::ContentType)
        };
    };
    let text = content_type.to_str().map_err(|_| BodyError::ContentType)?.trim();
    if text.is_empty() || text.len() > CONTENT_TYPE_BYTES_MAX {
        return Err(BodyError::ContentType);
    }
    let essence = text.split(';').next().unwrap_or(text).trim();
    if essence.eq_ignore_ascii_case("application/json") {
        return Ok(Format::Json);
    }
    if ["application/x-www-form-urlencoded", "multipart/form-data"]
        .iter()
        .any(|f| essence.eq_ignore_ascii_case(f))
    {
        return Err(BodyError::Form);
    }
    Ok(Format::Raw(text.to_owned()))
}

/// Whether a raw value may have this type.
pub fn is_storable_type(text: &str) -> bool {
    let essence = text.split(';').next().unwrap_or(text).trim();
    (1..=CONTENT_TYPE_BYTES_MAX).contains(&text.len())
        && text.bytes().all(|byte| (b' '..=b'~').contains(&byte))
        && !essence.is_empty()
        && !essence.eq_ignore_ascii_case("application/json")
}

/// The value in `body`, of at most `limit_bytes`.
pub fn value(format: Format, body: &Bytes, limit_bytes: usize) -> Result<NewValue, BodyError> {
    let (value, content_type) = match format {
        Format::Raw(content_type) => (body.clone(), Some(content_type)),
        Format::Json => (body.slice_ref(envelope(body)?.get().as_bytes()), None),
    };
    if value.len() > limit_bytes {
        return Err(BodyError::TooLarge { what: "value", limit_bytes });
    }
    Ok(NewValue { value, content_type })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope<'a> {
    #[serde(borrow)]
    value: &'a RawValue,
}

fn envelope(body: &[u8]) -> Result<&RawValue, BodyError> {
    let envelope: Envelope<'_> = object(body, "{\"value\": JSON}")?;
    Ok(envelope.value)
}

/// A body of JSON members that are all known; an empty one is as `{}`.
pub fn members<T: DeserializeOwned>(body: &[u8], expected: &'static str) -> Result<T, BodyError> {
    object(if body.trim_ascii().is_empty() { b"{}" } else { body }, expected)
}

/// A JSON object. Serde alone would take an array of the members' values, too.
fn object<'a, T: Deserialize<'a>>(body: &'a [u8], expected: &'static str) -> Result<T, BodyError> {
    let parsed = serde_json::from_slice(body).map_err(|error| not_json(expected, &error))?;
    if body.trim_ascii_start().first() == Some(&b'[') {
        return Err(BodyError::Json { expected, why: "it is an array".to_owned() });
    }
    Ok(parsed)
}

/// No members at all.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Empty {}

fn not_json(expected: &'static str, error: &serde_json::Error) -> BodyError {
    let why = error.to_string();
    // serde tells an unknown member from other wrong data only in words; a test holds it to them.
    if error.is_data() && why.starts_with("unknown field") {
        BodyError::UnknownMember { expected, why }
    } else {
        BodyError::Json { expected, why }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderValue;

    fn json(body: &str) -> Result<String, BodyError> {
        let body = Bytes::copy_from_slice(body.as_bytes());
        value(Format::Json, &body, 100).map(|new| String::from_utf8(new.value.to_vec()).unwrap())
    }

    #[test]
    fn a_json_value_is_kept_byte_for_byte() {
        for value in [
            "1",
            "18446744073709551617",
            "1.0",
            "1e400",
            "-0",
            "null",
            "\"\"",
            "\"\\u00e9\\/\"",
            "{\"b\":1, \"a\" : [ ] ,\"b\":2}",
            "[\n1\n]",
        ] {
            assert_eq!(json(&format!("{{\"value\":{value}}}")), Ok(value.to_owned()));
            assert_eq!(json(&format!(" {{ \"value\" : {value} }} \n")), Ok(value.to_owned()));
        }
    }

    #[test]
    fn what_is_no_envelope() {
        for body in [
            "",
            "{",
            "{}",
            "1",
            "[]",
            "[1]",
            "null",
            "{\"value\":}",
            "{\"value\":1}x",
            "{\"value\":1,\"value\":2}",
            "value=1",
        ] {
            assert!(matches!(json(body), Err(BodyError::Json { .. })), "{body}: {:?}", json(body));
        }
        let Err(BodyError::UnknownMember { why, .. }) = json("{\"value\":1,\"ttl\":2}") else {
            panic!("{:?}", json("{\"value\":1,\"ttl\":2}"));
        };
        assert!(why.contains("`ttl`"), "{why}");
        let not_utf8 = Bytes::from_static(b"{\"value\":\"\xFF\"}");
        assert!(matches!(value(Format::Json, &not_utf8, 100), Err(BodyError::Json { .. })));
        let at_limit = "1".repeat(100);
        assert_eq!(json(&format!("{{\"value\":{at_limit}}}")), Ok(at_limit.clone()));
        let error = json(&format!("{{\"value\":{at_limit}1}}"));
        assert_eq!(error, Err(BodyError::TooLarge { what: "value", limit_bytes: 100 }));
    }

    #[test]
    fn formats() {
        let of = |dialect, content_type: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            if let Some(content_type) = content_type {
                headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
            }
            format(dialect, &headers)
        };
        let form = "application/x-www-form-urlencoded";
        for content_type in [None, Some(form), Some("text/plain"), Some("application/json")] {
            assert_eq!(of(Dialect::Root, content_type), Ok(Format::Json));
        }
        let raw = |t: &str| Ok(Format::Raw(t.to_owned()));
        for (content_type, expected) in [
            (None, raw("application/octet-stream")),
            (Some("application/json"), Ok(Format::Json)),
            (Some("Application/JSON; charset=utf-8"), Ok(Format::Json)),
            (Some("text/plain; charset=utf-8"), raw("text/plain; charset=utf-8")),
            (Some("application/merge-patch+json"), raw("application/merge-patch+json")),
            (Some(form), Err(BodyError::Form)),
            (Some("multipart/form-data; boundary=x"), Err(BodyError::Form)),
            (Some(""), Err(BodyError::ContentType)),
        ] {
            assert_eq!(of(Dialect::Full, content_type), expected, "{content_type:?}");
        }
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        assert_eq!(format(Dialect::Root, &headers), Err(BodyError::Encoded));
    }

    #[test]
    fn members_are_all_known() {
        for body in ["", " \n", "{}", " { } "] {
            assert!(members::<Empty>(body.as_bytes(), "empty").is_ok(), "{body:?}");
        }
        for body in ["[", "[]", "1", "x=1"] {
            assert!(
                matches!(members::<Empty>(body.as_bytes(), "empty"), Err(BodyError::Json { .. })),
                "{body:?}"
            );
        }
        let unknown = members::<Empty>(b"{\"a\":1}", "empty");
        assert!(matches!(unknown, Err(BodyError::UnknownMember { .. })), "{unknown:?}");
    }
}
