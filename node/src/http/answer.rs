//! An answer before it is HTTP: what handlers decide, without the headers that every answer has.

use super::conditions::etag;
use super::headers::{APPLIED_AGE_MS, IDEMPOTENCY_REPLAYED, StatusHeaders};
use super::relay;
use super::watch::Pieces;
use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HeaderName, HeaderValue, RETRY_AFTER,
    VARY, X_CONTENT_TYPE_OPTIONS,
};

/// Tells proxies that know it to pass on what comes as it comes.
const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// What a handler answers.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) content_type: Option<HeaderValue>,
    pub(super) body: Bytes,
    /// A body that comes bit by bit, in place of that.
    pub(super) stream: Option<Pieces>,
    /// The revision the answer is of; 0: none. The header tells this or the node's, whichever is newer.
    pub(super) revision: u64,
    /// The key's revision.
    pub(super) etag: Option<u64>,
    /// The representation was chosen by `Accept`.
    pub(super) vary_accept: bool,
    /// It is a recorded answer.
    pub(super) replayed: bool,
    /// A stale read's age, in milliseconds.
    pub(super) age_ms: Option<u64>,
    /// Ask again soon.
    pub(super) retry_after: bool,
    /// The methods of the route.
    pub(super) allow: Option<&'static str>,
    /// The body is a user's bytes under a user's type: no browser may run it as a page of ours.
    pub(super) user_content: bool,
}

impl Answer {
    /// An empty one.
    pub(super) fn new(status: StatusCode) -> Answer {
        Answer {
            status,
            content_type: None,
            body: Bytes::new(),
            stream: None,
            revision: 0,
            etag: None,
            vary_accept: false,
            replayed: false,
            age_ms: None,
            retry_after: false,
            allow: None,
            user_content: false,
        }
    }

    /// 200 with JSON.
    pub(super) fn json(body: Vec<u8>) -> Answer {
        Answer {
            content_type: Some(HeaderValue::from_static("application/json")),
            body: body.into(),
            ..Answer::new(StatusCode::OK)
        }
    }

    /// 200 with text.
    pub(super) fn text(content_type: &'static str, body: impl Into<Bytes>) -> Answer {
        Answer {
            content_type: Some(HeaderValue::from_static(content_type)),
            body: body.into(),
            ..Answer::new(StatusCode::OK)
        }
    }

    /// As the bytes of the last answer on a connection where no request could be read; see [`Answer::into_response`].
    pub(super) fn into_farewell(self, status: &StatusHeaders, node_revision: u64) -> Vec<u8> {
        let body = self.body.clone();
        let response = self.into_response(status, node_revision);
        let mut bytes = format!("HTTP/1.1 {}\r\n", response.status()).into_bytes();
        for (name, value) in response.headers() {
            for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
                bytes.extend_from_slice(part);
            }
        }
        let length = format!("content-length: {}\r\nconnection: close\r\n\r\n", body.len());
        bytes.extend_from_slice(length.as_bytes());
        bytes.extend_from_slice(&body);
        bytes
    }

    /// As HTTP, on a node with this status, whose store is at `node_revision`.
    pub(super) fn into_response(self, status: &StatusHeaders, node_revision: u64) -> Response {
        let is_stream = self.stream.is_some();
        let mut response = match self.stream {
            None => Response::new(Body::from(self.body)),
            Some(pieces) => relay::response(pieces),
        };
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        status.put_on(headers, node_revision.max(self.revision));
        if let Some(content_type) = self.content_type {
            headers.insert(CONTENT_TYPE, content_type);
        }
        if let Some(revision) = self.etag {
            headers.insert(ETAG, etag(revision));
        }
        if self.vary_accept {
            headers.insert(VARY, HeaderValue::from_static("Accept"));
            // Whoever stores it must ask again: the key may have changed.
            headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        }
        if is_stream {
            headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
            headers.insert(ACCEL_BUFFERING, HeaderValue::from_static("no"));
        }
        if self.replayed {
            headers.insert(IDEMPOTENCY_REPLAYED, HeaderValue::from_static("true"));
        }
        if let Some(age_ms) = self.age_ms {
            headers.insert(APPLIED_AGE_MS, HeaderValue::from(age_ms));
        }
        if self.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if let Some(allow) = self.allow {
            headers.insert(ALLOW, HeaderValue::from_static(allow));
        }
        if self.user_content {
            headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static("sandbox; default-src 'none'"));
            headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        }
        response
    }
}
