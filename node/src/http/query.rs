//! Query parameters: percent-decoded, `+` is `+`, unknown ones refused by name, each at most once.

use balsa_store::Order;
use balsa_wire::percent::{self, DecodeError};

/// A parameter that some call knows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Param {
    /// `?prev`: the answer to a write carries what was there before.
    Prev,
    /// `?raw`: the value's bytes instead of the JSON envelope.
    Raw,
    /// `?consistency=linearizable|stale`.
    Consistency,
    /// `?revision=N`: the state at that revision.
    Revision,
    /// `?key=KEY`: what is watched.
    Key,
    /// `?prefix=PREFIX`: likewise, all keys that begin so.
    Prefix,
    /// `?from=N`: a watch begins at that revision.
    From,
    /// `?events=put|delete`: a watch of these only.
    Events,
    /// `?start=KEY`: the first key of a range.
    Start,
    /// `?end=KEY`: the first key beyond a range.
    End,
    /// `?limit=N`: so many items at most.
    Limit,
    /// `?cursor=CURSOR`: where the page before ended.
    Cursor,
    /// `?order=asc|desc`.
    Order,
    /// `?keys_only`: without values.
    KeysOnly,
    /// `?count_only`: how many, and nothing else.
    CountOnly,
    /// `?all`: everything is meant.
    All,
    /// `?ttl=TIME`: the key ends after so long.
    Ttl,
    /// `?lease=N`: the key ends with that lease.
    Lease,
    /// `?token=N`: under which a lock is held.
    Token,
    /// `?after=TEXT`: where the list before ended.
    After,
    /// `?verbose`: what was checked.
    Verbose,
}

impl Param {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Param::Prev => "prev",
            Param::Raw => "raw",
            Param::Consistency => "consistency",
            Param::Revision => "revision",
            Param::Key => "key",
            Param::Prefix => "prefix",
            Param::From => "from",
            Param::Events => "events",
            Param::Start => "start",
            Param::End => "end",
            Param::Limit => "limit",
            Param::Cursor => "cursor",
            Param::Order => "order",
            Param::KeysOnly => "keys_only",
            Param::CountOnly => "count_only",
            Param::All => "all",
            Param::Ttl => "ttl",
            Param::Lease => "lease",
            Param::Token => "token",
            Param::After => "after",
            Param::Verbose => "verbose",
        }
    }
}

/// How fresh a read must be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Consistency {
    /// Confirmed by a quorum.
    #[default]
    Linearizable,
    /// This node's state, whatever its age.
    Stale,
}

/// Which events a watch is of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Events {
    /// That a key was set.
    Puts,
    /// That one was deleted.
    Deletes,
}

/// The parameters of a request.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Query {
    /// See [`Param::Prev`].
    pub prev: bool,
    /// See [`Param::Raw`].
    pub raw: bool,
    /// See [`Param::Consistency`].
    pub consistency: Consistency,
    /// See [`Param::Revision`].
    pub revision: Option<u64>,
    /// See [`Param::Key`].
    pub key: Option<String>,
    /// See [`Param::Prefix`].
    pub prefix: Option<String>,
    /// See [`Param::From`]; from 1.
    pub from: Option<u64>,
    /// See [`Param::Events`].
    pub events: Option<Events>,
    /// See [`Param::Start`].
    pub start: Option<String>,
    /// See [`Param::End`].
    pub end: Option<String>,
    /// See [`Param::Limit`]; from 1.
    pub limit: Option<u64>,
    /// See [`Param::Cursor`].
    pub cursor: Option<String>,
    /// See [`Param::Order`].
    pub order: Order,
    /// See [`Param::KeysOnly`].
    pub keys_only: bool,
    /// See [`Param::CountOnly`].
    pub count_only: bool,
    /// See [`Param::All`].
    pub all: bool,
    /// See [`Param::Ttl`]; as it was written.
    pub ttl: Option<String>,
    /// See [`Param::Lease`]; from 1.
    pub lease: Option<u64>,
    /// See [`Param::Token`]; from 1.
    pub token: Option<u64>,
    /// See [`Param::After`].
    pub after: Option<String>,
    /// See [`Param::Verbose`].
    pub verbose: bool,
}

/// Why a query was refused.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum QueryError {
    /// Not known on this call.
    #[error("unknown query parameter `{name}`; {known}")]
    Unknown {
        /// As it was sent, decoded.
        name: String,
        /// Which ones this call knows.
        known: String,
    },
    /// Given twice.
    #[error("the query parameter `{name}` is given twice")]
    Twice {
        /// Its name.
        name: &'static str,
    },
    /// A value it does not take.
    #[error("the query parameter `{name}` does not take `{value}`; it takes {right}")]
    Value {
        /// Its name.
        name: &'static str,
        /// As it was sent, decoded.
        value: String,
        /// What would be right.
        right: &'static str,
    },
    /// Not decodable.
    #[error("the query cannot be decoded: {0}")]
    Malformed(#[from] DecodeError),
}

/// Reads `query` (what follows the `?`), of a call that knows `allowed`.
pub fn parse(query: Option<&str>, allowed: &[Param]) -> Result<Query, QueryError> {
    let mut parsed = Query::default();
    let Some(query) = query else {
        return Ok(parsed);
    };
    let mut seen: Vec<Param> = Vec::new();
    for part in query.split('&').filter(|part| !part.is_empty()) {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        let (name, value) = (percent::decode(name)?, percent::decode(value)?);
        let Some(param) = allowed.iter().copied().find(|param| param.name() == name) else {
            return Err(QueryError::Unknown { name: name.into_owned(), known: known(allowed) });
        };
        if seen.contains(&param) {
            return Err(QueryError::Twice { name: param.name() });
        }
        seen.push(param);
        match param {
            Param::Prev => parsed.prev = flag(param, &value)?,
            Param::Raw => parsed.raw = flag(param, &value)?,
            Param::Verbose => parsed.verbose = flag(param, &value)?,
            Param::Start => parsed.start = Some(value.into_owned()),
            Param::End => parsed.end = Some(value.into_owned()),
            Param::Limit => parsed.limit = Some(number(param, &value)?),
            Param::Cursor => parsed.cursor = Some(value.into_owned()),
            Param::Order => parsed.order = order(&value)?,
            Param::KeysOnly => parsed.keys_only = flag(param, &value)?,
            Param::CountOnly => parsed.count_only = flag(param, &value)?,
            Param::All => parsed.all = flag(param, &value)?,
            Param::Ttl => parsed.ttl = Some(value.into_owned()),
            Param::Lease => parsed.lease = Some(number(param, &value)?),
            Param::Token => parsed.token = Some(number(param, &value)?),
            Param::After => parsed.after = Some(value.into_owned()),
            Param::Consistency => parsed.consistency = consistency(&value)?,
            Param::Revision => parsed.revision = Some(number(param, &value)?),
            Param::Key => parsed.key = Some(value.into_owned()),
            Param::Prefix => parsed.prefix = Some(value.into_owned()),
            Param::From => parsed.from = Some(number(param, &value)?),
            Param::Events => parsed.events = Some(events(&value)?),
        }
    }
    Ok(parsed)
}

fn flag(param: Param, value: &str) -> Result<bool, QueryError> {
    match value {
        "" | "true" => Ok(true),
        "false" => Ok(false),
        other => {
            let right = "no value, true or false";
            Err(QueryError::Value { name: param.name(), value: other.to_owned(), right })
        }
    }
}

fn consistency(value: &str) -> Result<Consistency, QueryError> {
    match value {
        "linearizable" => Ok(Consistency::Linearizable),
        "stale" => Ok(Consistency::Stale),
        other => {
            let right = "linearizable or stale";
            Err(QueryError::Value { name: "consistency", value: other.to_owned(), right })
        }
    }
}

/// A revision: from 1.
fn number(param: Param, value: &str) -> Result<u64, QueryError> {
    match value.parse() {
        Ok(number) if number > 0 && value.bytes().all(|byte| byte.is_ascii_digit()) => Ok(number),
        _ => {
            let right = match param {
                Param::Revision | Param::From => "a revision, from 1",
                _ => "a number, from 1",
            };
            Err(QueryError::Value { name: param.name(), value: value.to_owned(), right })
        }
    }
}

fn events(value: &str) -> Result<Events, QueryError> {
    match value {
        "put" => Ok(Events::Puts),
        "delete" => Ok(Events::Deletes),
        other => {
            let right = "put or delete; without it a watch is of both";
            Err(QueryError::Value { name: "events", value: other.to_owned(), right })
        }
    }
}

fn order(value: &str) -> Result<Order, QueryError> {
    match value {
        "asc" => Ok(Order::Ascending),
        "desc" => Ok(Order::Descending),
        other => Err(QueryError::Value { name: "order", value: other.to_owned(), right: "asc or desc" }),
    }
}

fn known(allowed: &[Param]) -> String {
    if allowed.is_empty() {
        return "this call takes none".to_owned();
    }
    let names: Vec<&str> = allowed.iter().map(|param| param.name()).collect();
    format!("this call takes: {}", names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    const READ: &[Param] = &[Param::Raw, Param::Consistency, Param::Revision];

    #[test]
    fn what_is_known() {
        let stale = Query { consistency: Consistency::Stale, ..Query::default() };
        for (query, expected) in [
            (None, Query::default()),
            (Some(""), Query::default()),
            (Some("&&"), Query::default()),
            (Some("raw"), Query { raw: true, ..Query::default() }),
            (Some("raw=true"), Query { raw: true, ..Query::default() }),
            (Some("raw=false"), Query::default()),
            (Some("consistency=stale"), stale.clone()),
            (Some("consistency=%73tale&raw="), Query { raw: true, ..stale }),
            (Some("consistency=linearizable"), Query::default()),
            (Some("revision=17"), Query { revision: Some(17), ..Query::default() }),
        ] {
            assert_eq!(parse(query, READ), Ok(expected), "{query:?}");
        }
    }

    #[test]
    fn what_is_not() {
        for (query, says) in [
            ("foo=1", "unknown query parameter `foo`; this call takes: raw, consistency, revision"),
            ("prev", "unknown query parameter `prev`"),
            ("Raw", "unknown query parameter `Raw`"),
            ("a+b=1", "unknown query parameter `a+b`"),
            ("=1", "unknown query parameter ``"),
            ("raw&raw", "`raw` is given twice"),
            ("raw=yes", "`raw` does not take `yes`"),
            ("consistency=lease", "`consistency` does not take `lease`"),
            ("consistency", "`consistency` does not take ``"),
            ("raw=%", "cannot be decoded"),
            ("revision=0", "`revision` does not take `0`"),
            ("revision=+1", "`revision` does not take `+1`"),
            ("revision=18446744073709551616", "it takes a revision, from 1"),
        ] {
            let error = parse(Some(query), READ).unwrap_err().to_string();
            assert!(error.contains(says), "{query}: {error}");
        }
        assert!(parse(Some("x"), &[]).unwrap_err().to_string().contains("this call takes none"));
    }
}
