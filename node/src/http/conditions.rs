//! `If-Match` and `If-None-Match` (RFC 9110 section 13), as far as they are supported; the rest is refused, because a
//! condition that is ignored is a lost update.

use balsa_store::command::{Condition, ConditionKind, Nothing};
use hyper::header::{
    HeaderMap, HeaderName, HeaderValue, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_UNMODIFIED_SINCE,
};

/// Why a condition was refused.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ConditionError {
    /// A header that is not supported on this method.
    #[error("{header} is not supported on {on}; {instead}")]
    Unsupported {
        /// The header.
        header: HeaderName,
        /// The methods.
        on: &'static str,
        /// What would be right.
        instead: &'static str,
    },
    /// Both, or one of them twice.
    #[error("one condition a request: If-Match or If-None-Match, once, without a list")]
    MoreThanOne,
    /// A value that is not supported.
    #[error("{header}: `{value}` is not supported; it takes {right}")]
    Value {
        /// The header.
        header: HeaderName,
        /// As it was sent.
        value: String,
        /// What would be right.
        right: &'static str,
    },
}

/// The condition of a PUT or DELETE.
pub fn of_write(headers: &HeaderMap) -> Result<Option<Condition>, ConditionError> {
    refuse_dates(headers, "PUT and DELETE")?;
    let kind = match (the_one(headers, IF_MATCH)?, the_one(headers, IF_NONE_MATCH)?) {
        (None, None) => return Ok(None),
        (Some(_), Some(_)) => return Err(ConditionError::MoreThanOne),
        (Some(value), None) if value.as_bytes() == b"*" => ConditionKind::Exists(Nothing {}),
        (Some(value), None) => ConditionKind::Revision(
            revision(value)
                .ok_or_else(|| wrong(IF_MATCH, value, "one revision in quotes, as in \"7\", or *"))?,
        ),
        (None, Some(value)) if value.as_bytes() == b"*" => ConditionKind::Absent(Nothing {}),
        (None, Some(value)) => {
            return Err(wrong(IF_NONE_MATCH, value, "* on PUT and DELETE: only where the key is absent"));
        }
    };
    Ok(Some(Condition { kind: Some(kind) }))
}

/// The revision that the asker of a GET already has.
pub fn of_read(headers: &HeaderMap) -> Result<Option<u64>, ConditionError> {
    refuse_dates(headers, "GET")?;
    if headers.contains_key(IF_MATCH) {
        let instead = "ask with If-None-Match";
        return Err(ConditionError::Unsupported { header: IF_MATCH, on: "GET", instead });
    }
    match the_one(headers, IF_NONE_MATCH)? {
        None => Ok(None),
        Some(value) => match revision(value) {
            Some(revision) => Ok(Some(revision)),
            None => Err(wrong(IF_NONE_MATCH, value, "one revision in quotes on GET, as in \"7\"")),
        },
    }
}

/// Refuses every condition, on a call that names no key.
pub fn refuse(headers: &HeaderMap) -> Result<(), ConditionError> {
    for header in [IF_MATCH, IF_NONE_MATCH, IF_MODIFIED_SINCE, IF_UNMODIFIED_SINCE] {
        if headers.contains_key(&header) {
            let instead = "conditions are on keys";
            return Err(ConditionError::Unsupported { header, on: "this call", instead });
        }
    }
    Ok(())
}

/// The `ETag` of a key's state.
pub fn etag(revision: u64) -> HeaderValue {
    let text = format!("\"{revision}\"");
    HeaderValue::try_from(text).unwrap_or_else(|_| unreachable!("digits in quotes are a header value"))
}

fn refuse_dates(headers: &HeaderMap, on: &'static str) -> Result<(), ConditionError> {
    for header in [IF_MODIFIED_SINCE, IF_UNMODIFIED_SINCE] {
        if headers.contains_key(&header) {
            let instead = "revisions are named with If-Match and If-None-Match";
            return Err(ConditionError::Unsupported { header, on, instead });
        }
    }
    Ok(())
}

fn the_one(headers: &HeaderMap, name: HeaderName) -> Result<Option<&HeaderValue>, ConditionError> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (value, None) => Ok(value),
        (_, Some(_)) => Err(ConditionError::MoreThanOne),
    }
}

/// `"N"`, written as [`etag`] writes it. Revision 0 names no state of a key: it would read as "absent".
fn revision(value: &HeaderValue) -> Option<u64> {
    let digits = value.as_bytes().strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    if digits.first() == Some(&b'0') || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

fn wrong(header: HeaderName, value: &HeaderValue, right: &'static str) -> ConditionError {
    ConditionError::Value { header, value: String::from_utf8_lossy(value.as_bytes()).into_owned(), right }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn writes() {
        let kind = |pairs: &[_]| of_write(&headers(pairs)).map(|condition| condition.and_then(|c| c.kind));
        assert_eq!(kind(&[]), Ok(None));
        assert_eq!(kind(&[("if-match", "\"7\"")]), Ok(Some(ConditionKind::Revision(7))));
        assert_eq!(kind(&[("if-match", "*")]), Ok(Some(ConditionKind::Exists(Nothing {}))));
        assert_eq!(kind(&[("if-none-match", "*")]), Ok(Some(ConditionKind::Absent(Nothing {}))));
        let largest = "\"18446744073709551615\"";
        assert_eq!(kind(&[("if-match", largest)]), Ok(Some(ConditionKind::Revision(u64::MAX))));
        for pairs in [
            &[("if-match", "7")][..],
            &[("if-match", "\"7")],
            &[("if-match", "\"\"")],
            &[("if-match", "\"0\"")],
            &[("if-match", "\"07\"")],
            &[("if-match", "\"+7\"")],
            &[("if-match", "\"-1\"")],
            &[("if-match", "\"18446744073709551616\"")],
            &[("if-match", "W/\"7\"")],
            &[("if-match", "\"7\", \"8\"")],
            &[("if-match", "\"7\""), ("if-match", "\"8\"")],
            &[("if-match", "\"7\""), ("if-none-match", "*")],
            &[("if-none-match", "\"7\"")],
            &[("if-match", "")],
            &[("if-unmodified-since", "Sat, 29 Oct 1994 19:43:31 GMT")],
        ] {
            assert!(of_write(&headers(pairs)).is_err(), "{pairs:?}");
        }
    }

    #[test]
    fn reads() {
        assert_eq!(of_read(&headers(&[])), Ok(None));
        assert_eq!(of_read(&headers(&[("if-none-match", "\"12\"")])), Ok(Some(12)));
        for pairs in [
            &[("if-none-match", "*")][..],
            &[("if-none-match", "W/\"12\"")],
            &[("if-none-match", "\"12\",\"13\"")],
            &[("if-none-match", "\"12\""), ("if-none-match", "\"13\"")],
            &[("if-match", "\"12\"")],
            &[("if-modified-since", "Sat, 29 Oct 1994 19:43:31 GMT")],
        ] {
            assert!(of_read(&headers(pairs)).is_err(), "{pairs:?}");
        }
    }

    #[test]
    fn an_etag_is_read_as_it_is_written() {
        for n in [1, 7, 10, u64::MAX] {
            assert_eq!(revision(&etag(n)), Some(n));
        }
    }
}
