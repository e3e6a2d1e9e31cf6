//! What is asked of each kind of server: the requests of a load, made before it begins. Pure.

use balsa_wire::base64;
use bytes::Bytes;
use hyper::header::{CONTENT_TYPE, HOST, HeaderValue};
use hyper::{HeaderMap, Method, Uri};
use serde::Serialize;

/// What all keys begin with; they are left in the cluster.
const PREFIX: &str = "bench/";

/// What is done.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Op {
    /// A key is overwritten, durably.
    Put,
    /// A key is read, linearizably.
    Get,
}

/// Who is asked.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The handler of [`super::baseline`]: what HTTP alone costs.
    Baseline,
    /// Balsa, by `/v1/kv/`.
    Balsa,
    /// etcd, by its JSON gateway.
    Etcd,
}

impl Kind {
    /// As it is named in reports.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Baseline => "baseline",
            Kind::Balsa => "balsa",
            Kind::Etcd => "etcd",
        }
    }
}

/// A request, ready to be sent.
#[derive(Clone, Debug)]
pub(super) struct Prepared {
    pub(super) method: Method,
    pub(super) uri: Uri,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    /// An answer with a shorter body is not one: etcd answers 200 without a value for a key that is absent.
    pub(super) answer_bytes_min: usize,
}

/// The request for key number `key`, with a value of `value_bytes` where it is a put.
pub(super) fn prepare(
    kind: Kind,
    op: Op,
    host: &str,
    key: usize,
    value_bytes: usize,
) -> Result<Prepared, hyper::http::Error> {
    let name = format!("{PREFIX}{key:05}");
    let text = "v".repeat(value_bytes.saturating_sub(2));
    let (method, path, body) = match (kind, op) {
        (Kind::Balsa | Kind::Baseline, Op::Put) => {
            (Method::PUT, format!("/v1/kv/{name}"), format!("{{\"value\":\"{text}\"}}"))
        }
        (Kind::Balsa | Kind::Baseline, Op::Get) => (Method::GET, format!("/v1/kv/{name}"), String::new()),
        (Kind::Etcd, Op::Put) => {
            let (key, value) =
                (base64::encode(name.as_bytes()), base64::encode(format!("\"{text}\"").as_bytes()));
            (Method::POST, "/v3/kv/put".to_owned(), format!("{{\"key\":\"{key}\",\"value\":\"{value}\"}}"))
        }
        (Kind::Etcd, Op::Get) => {
            let key = base64::encode(name.as_bytes());
            (Method::POST, "/v3/kv/range".to_owned(), format!("{{\"key\":\"{key}\"}}"))
        }
    };
    let mut headers = HeaderMap::new();
    headers.insert(HOST, HeaderValue::try_from(host)?);
    if !body.is_empty() {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    let answer_bytes_min = match (kind, op) {
        (Kind::Baseline, _) => super::baseline::ANSWER.len(),
        (_, Op::Get) => value_bytes,
        (_, Op::Put) => 2,
    };
    Ok(Prepared { method, uri: Uri::try_from(path)?, headers, body: body.into(), answer_bytes_min })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_the_size_that_was_asked_for() {
        let put = prepare(Kind::Balsa, Op::Put, "h:1", 7, 256).unwrap();
        assert_eq!(put.uri.path(), "/v1/kv/bench/00007");
        let envelope = "{\"value\":}".len();
        assert_eq!(put.body.len(), envelope + 256);
        assert_eq!(put.headers[HOST], "h:1");

        let put = prepare(Kind::Etcd, Op::Put, "h:1", 7, 256).unwrap();
        assert_eq!((put.method, put.uri.path()), (Method::POST, "/v3/kv/put"));
        let body: serde_json::Value = serde_json::from_slice(&put.body).unwrap();
        assert_eq!(body["key"], base64::encode(b"bench/00007"));
        assert_eq!(body["value"].as_str().map(str::len), Some(256_usize.div_ceil(3) * 4));
    }

    #[test]
    fn a_get_without_a_value_is_no_answer() {
        for kind in [Kind::Balsa, Kind::Etcd] {
            assert_eq!(prepare(kind, Op::Get, "h:1", 0, 256).unwrap().answer_bytes_min, 256);
        }
        assert!(prepare(Kind::Balsa, Op::Get, "h:1", 0, 256).unwrap().body.is_empty());
    }
}
