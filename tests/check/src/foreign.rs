//! Histories of others, in their own formats: the register logs and key-value histories that porcupine tests with.
//!
//! Both are lines of events in the order in which they happened; a line's number is its time. An event without an answer
//! is of unknown outcome.

use crate::history::{Condition, History, Kind, Operation, Outcome, Text};
use crate::json_lines::FormatError;
use std::collections::BTreeMap;

/// One event of a log.
struct Event {
    client: u64,
    what: What,
    kind: Kind,
    condition: Option<Condition>,
}

#[derive(Clone, Copy, PartialEq)]
enum What {
    Called,
    Done,
    /// It never took place or, with a condition, its condition did not hold.
    Failed,
    Unknown,
}

/// A log of one register by Jepsen: `INFO  jepsen.util - 2 :invoke :cas [1 0]`.
pub fn register(text: &str) -> Result<History, FormatError> {
    read(text, |line| {
        let (_, rest) = line.split_once("jepsen.util - ")?;
        let mut rest = rest.trim();
        let mut word = || {
            let (word, after) = rest.split_once(char::is_whitespace)?;
            rest = after.trim_start();
            Some(word)
        };
        let client = word()?.parse().ok()?;
        let (what, name, value) = (what(word()?)?, word()?, rest.trim());
        let key = Text::from("register");
        let (kind, condition) = match name {
            ":read" => (Kind::Get { key, value: (value != "nil").then(|| value.into()) }, None),
            ":write" => (Kind::Put { key, value: value.into() }, None),
            ":cas" if value.starts_with('[') => {
                let (from, to) = value.strip_prefix('[')?.strip_suffix(']')?.split_once(' ')?;
                (Kind::Put { key, value: to.into() }, Some(Condition::Value(from.into())))
            }
            // A timeout does not repeat what was asked.
            ":cas" if what == What::Unknown => (Kind::Put { key, value: value.into() }, None),
            _ => return None,
        };
        Some(Event { client, what, kind, condition })
    })
}

/// A history of a key-value store: `{:process 0, :type :ok, :f :get, :key "9", :value "x 2 0 y"}`. An absent key reads as
/// the empty text, as do appends to it.
pub fn key_value(text: &str) -> Result<History, FormatError> {
    read(text, |line| {
        let rest = line.strip_prefix("{:process ")?;
        let (client, rest) = rest.split_once(", :type ")?;
        let (kind, rest) = rest.split_once(", :f ")?;
        let (name, rest) = rest.split_once(", :key \"")?;
        let (key, value) = rest.split_once("\", :value ")?;
        let value = value.strip_suffix('}')?;
        let value = match value {
            "nil" => None,
            quoted => Some(quoted.strip_prefix('"')?.strip_suffix('"')?),
        };
        let key = Text::from(key);
        let written = || value.map(Text::from);
        let kind_of = match name {
            ":get" => Kind::Get { key, value: value.filter(|text| !text.is_empty()).map(Text::from) },
            ":put" => Kind::Put { key, value: written()? },
            ":append" => Kind::Append { key, value: written()? },
            _ => return None,
        };
        Some(Event { client: client.parse().ok()?, what: what(kind)?, kind: kind_of, condition: None })
    })
}

fn what(word: &str) -> Option<What> {
    Some(match word {
        ":invoke" => What::Called,
        ":ok" => What::Done,
        ":fail" => What::Failed,
        ":info" => What::Unknown,
        _ => return None,
    })
}

fn read(text: &str, event: impl Fn(&str) -> Option<Event>) -> Result<History, FormatError> {
    let mut operations: Vec<Operation> = Vec::new();
    let mut open: BTreeMap<u64, usize> = BTreeMap::new();
    for (at, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let wrong = |why: &str| FormatError::Line { line: at + 1, why: why.to_owned() };
        let time = at as u64;
        let event = event(line).ok_or_else(|| wrong("not an event of this kind of log"))?;
        if event.what == What::Called {
            let operation = Operation {
                client: event.client,
                kind: event.kind,
                condition: event.condition,
                call_ns: time,
                return_ns: None,
                outcome: Outcome::Unknown,
                revision: None,
                key_revision: None,
            };
            if open.insert(event.client, operations.len()).is_some() {
                return Err(wrong("the client has an operation under way"));
            }
            operations.push(operation);
            continue;
        }
        let called = open.remove(&event.client).ok_or_else(|| wrong("an answer to nothing"))?;
        let operation = &mut operations[called];
        if event.what == What::Unknown {
            continue;
        }
        operation.return_ns = Some(time);
        operation.outcome = match event.what {
            What::Failed if operation.condition.is_some() => Outcome::ConditionFailed,
            What::Failed => Outcome::NotApplied,
            _ => Outcome::Ok,
        };
        if let Kind::Get { .. } = operation.kind {
            operation.kind = event.kind;
        }
    }
    Ok(History { from_revision: 0, operations })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_register_log() {
        let text = "INFO  jepsen.util - 0\t:invoke\t:read\tnil\nINFO  jepsen.util - 1\t:invoke\t:cas\t[1 0]\n\
                    INFO  jepsen.util - 0\t:ok\t:read\t3\nINFO  jepsen.util - 1\t:info\t:cas\t:timed-out\n\
                    INFO  jepsen.util - 2\t:invoke\t:write\t2\n";
        let history = register(text).expect("a history");
        let said: Vec<String> = history.operations.iter().map(Operation::describe).collect();
        assert_eq!(
            said,
            ["get register -> 3", "put register = 0 if = 1 -> unknown", "put register = 2 -> unknown"]
        );
        assert_eq!((history.operations[0].call_ns, history.operations[0].return_ns), (0, Some(2)));
        assert!(register("INFO  jepsen.util - 0\t:ok\t:read\tnil").is_err(), "an answer to nothing");
        assert!(register("hello").is_err());
    }

    #[test]
    fn a_key_value_history() {
        let text = "{:process 9, :type :invoke, :f :append, :key \"0\", :value \"x 9 0 y\"}\n\
                    {:process 9, :type :ok, :f :append, :key \"0\", :value \"x 9 0 y\"}\n\
                    {:process 9, :type :invoke, :f :get, :key \"0\", :value nil}\n\
                    {:process 9, :type :ok, :f :get, :key \"0\", :value \"x 9 0 y\"}\n";
        let history = key_value(text).expect("a history");
        let said: Vec<String> = history.operations.iter().map(Operation::describe).collect();
        assert_eq!(said, ["append 0 += x 9 0 y", "get 0 -> x 9 0 y"]);
        assert!(key_value("{}").is_err());
    }
}
