//! How a write is told from its retry: `Idempotency-Key`, or `Balsa-Session`, with a fingerprint of the request.
//!
//! The fingerprint is kept in the reply tables, in snapshots and on disk: its definition never changes within a
//! command version. It covers what the answer depends on, each part with its length, so that no two different
//! requests run together into the same bytes.

use balsa_store::command::{IdempotencyKey, RequestId, SessionRequest};
use bytes::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderName, IF_MATCH, IF_NONE_MATCH};
use hyper::http::request::Parts;
use xxhash_rust::xxh3::Xxh3;

const KEY: HeaderName = HeaderName::from_static(balsa_wire::header::IDEMPOTENCY_KEY);
const SESSION: HeaderName = HeaderName::from_static(balsa_wire::header::SESSION);

/// The longest `Idempotency-Key`, in bytes.
const KEY_BYTES_MAX: usize = 255;

/// Why the headers that make a write safe to retry were refused.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RequestIdError {
    /// Not an idempotency key.
    #[error("Idempotency-Key takes 1 to {KEY_BYTES_MAX} visible ASCII characters")]
    Key,
    /// Not a place in a session.
    #[error(
        "Balsa-Session takes NUMBER:SEQ:LOWEST_UNFINISHED, as in 12:3:2: three decimal numbers, SEQ from 1, \
         LOWEST_UNFINISHED from 1 to SEQ"
    )]
    Session,
    /// More than one.
    #[error("one of Idempotency-Key and Balsa-Session, once")]
    MoreThanOne,
    /// Not on this call.
    #[error("this call does not take {header}: its answer is not recorded")]
    NotHere {
        /// Which.
        header: HeaderName,
    },
}

/// What the headers say; the fingerprint is added once the body is there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Claim {
    /// `Idempotency-Key`.
    Key(String),
    /// `Balsa-Session`.
    Session {
        /// The session's number.
        session: u64,
        /// The request's number in it.
        sequence: u64,
        /// All below are answered.
        lowest_unfinished: u64,
    },
}

/// Reads the headers.
pub fn claim(headers: &HeaderMap) -> Result<Option<Claim>, RequestIdError> {
    let mut keys = headers.get_all(KEY).iter();
    let mut sessions = headers.get_all(SESSION).iter();
    let (key, session) = (keys.next(), sessions.next());
    if keys.next().is_some() || sessions.next().is_some() || (key.is_some() && session.is_some()) {
        return Err(RequestIdError::MoreThanOne);
    }
    if let Some(key) = key {
        let bytes = key.as_bytes();
        let valid = (1..=KEY_BYTES_MAX).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic);
        let text = key.to_str().ok().filter(|_| valid).ok_or(RequestIdError::Key)?;
        return Ok(Some(Claim::Key(text.to_owned())));
    }
    let Some(session) = session else {
        return Ok(None);
    };
    let text = session.to_str().map_err(|_| RequestIdError::Session)?;
    let mut numbers = text.split(':').map(number);
    let (Some(Some(session)), Some(Some(sequence)), Some(Some(lowest_unfinished)), None) =
        (numbers.next(), numbers.next(), numbers.next(), numbers.next())
    else {
        return Err(RequestIdError::Session);
    };
    if !(1..=sequence).contains(&lowest_unfinished) {
        return Err(RequestIdError::Session);
    }
    Ok(Some(Claim::Session { session, sequence, lowest_unfinished }))
}

/// Refuses the headers on a call whose answer is not recorded: a promise that cannot be kept must not be taken.
pub fn refuse(headers: &HeaderMap) -> Result<(), RequestIdError> {
    for header in [KEY, SESSION] {
        if headers.contains_key(&header) {
            return Err(RequestIdError::NotHere { header });
        }
    }
    Ok(())
}

impl Claim {
    /// The claim with the request's fingerprint, for the log.
    pub fn into_request_id(self, request: &Parts, body: &[u8]) -> RequestId {
        let fingerprint = fingerprint(request, body);
        match self {
            Claim::Key(key) => RequestId::Key(IdempotencyKey { key, fingerprint }),
            Claim::Session { session, sequence, lowest_unfinished } => {
                RequestId::Session(SessionRequest { session, sequence, lowest_unfinished, fingerprint })
            }
        }
    }
}

/// XXH3-128 over method, target, content type, conditions and body.
fn fingerprint(request: &Parts, body: &[u8]) -> Bytes {
    let header = |name| request.headers.get(name).map_or(&b""[..], |value| value.as_bytes());
    let target = request.uri.path_and_query().map_or("", |target| target.as_str());
    let mut hash = Xxh3::new();
    for part in [
        request.method.as_str().as_bytes(),
        target.as_bytes(),
        header(CONTENT_TYPE),
        header(IF_MATCH),
        header(IF_NONE_MATCH),
        body,
    ] {
        hash.update(&(part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    Bytes::copy_from_slice(&hash.digest128().to_le_bytes())
}

fn number(text: &str) -> Option<u64> {
    // `parse` alone would take a sign.
    text.parse().ok().filter(|_| text.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::Request;
    use hyper::header::HeaderValue;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    #[test]
    fn claims() {
        let longest = "k".repeat(255);
        assert_eq!(claim(&headers(&[])), Ok(None));
        for key in ["a", "~!\"#", &longest] {
            let claimed = claim(&headers(&[("idempotency-key", key)]));
            assert_eq!(claimed, Ok(Some(Claim::Key(key.to_owned()))));
        }
        let session = Claim::Session { session: 12, sequence: 3, lowest_unfinished: 2 };
        assert_eq!(claim(&headers(&[("balsa-session", "12:3:2")])), Ok(Some(session)));
    }

    #[test]
    fn what_is_no_claim() {
        let too_long = "k".repeat(256);
        for pairs in [
            &[("idempotency-key", "")][..],
            &[("idempotency-key", "a b")],
            &[("idempotency-key", "é")],
            &[("idempotency-key", too_long.as_str())],
            &[("idempotency-key", "a"), ("idempotency-key", "a")],
            &[("idempotency-key", "a"), ("balsa-session", "1:1:1")],
            &[("balsa-session", "1:1:1"), ("balsa-session", "1:2:1")],
            &[("balsa-session", "")],
            &[("balsa-session", "1:1")],
            &[("balsa-session", "1:1:1:1")],
            &[("balsa-session", "1:0:0")],
            &[("balsa-session", "1:1:0")],
            &[("balsa-session", "1:1:2")],
            &[("balsa-session", "+1:1:1")],
            &[("balsa-session", "1: 1:1")],
            &[("balsa-session", "18446744073709551616:1:1")],
        ] {
            assert!(claim(&headers(pairs)).is_err(), "{pairs:?}");
        }
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn a_fingerprint_tells_requests_apart_by_every_part() {
        let parts = |method: &str, target: &str, header: &[(&str, &str)]| {
            let mut request = Request::builder().method(method).uri(target);
            for (name, value) in header {
                request = request.header(*name, *value);
            }
            request.body(()).unwrap().into_parts().0
        };
        let json = &[("content-type", "application/json")][..];
        let all = [
            fingerprint(&parts("PUT", "/a", json), b"1"),
            fingerprint(&parts("DELETE", "/a", json), b"1"),
            fingerprint(&parts("PUT", "/b", json), b"1"),
            fingerprint(&parts("PUT", "/a?prev", json), b"1"),
            fingerprint(&parts("PUT", "/a", &[]), b"1"),
            fingerprint(&parts("PUT", "/a", &[("if-match", "*")]), b"1"),
            fingerprint(&parts("PUT", "/a", &[("if-none-match", "*")]), b"1"),
            fingerprint(&parts("PUT", "/a", json), b"2"),
            fingerprint(&parts("PUT", "/a", json), b""),
        ];
        for (at, one) in all.iter().enumerate() {
            assert_eq!(one.len(), 16);
            assert!(!all[at + 1..].contains(one), "{at}");
        }
        // It is kept on disk: its definition never changes.
        assert_eq!(hex(&all[0]), "54be5672e0e2a2942c15c9c8726fb5e1");
        // Where it was sent does not matter, nor other headers.
        let again = fingerprint(&parts("PUT", "http://other:3000/a", &[json[0], ("host", "h")]), b"1");
        assert_eq!(again, all[0]);
    }
}
