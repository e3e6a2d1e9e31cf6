//! Balsa's own format: a JSON object a line, one line an operation. `docs/history.md` describes it.

use crate::history::{Condition, History, Kind, Operation, Outcome, Step, Text, Txn, is_ordered};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use std::fmt::Write as _;
use thiserror::Error;

/// Why a text is no history.
#[derive(Debug, Error)]
pub enum FormatError {
    /// A line is not what the format says.
    #[error("line {line}: {why}")]
    Line {
        /// Which, from 1.
        line: usize,
        /// What is wrong with it.
        why: String,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    from_revision: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    client: u64,
    op: Op,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    value: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expected: Option<Expected>,
    #[serde(default, rename = "if", skip_serializing_if = "Vec::is_empty")]
    conditions: Vec<OfKey>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    then: Vec<Part>,
    #[serde(default, rename = "else", skip_serializing_if = "Vec::is_empty")]
    otherwise: Vec<Part>,
    #[serde(skip_serializing_if = "Option::is_none")]
    succeeded: Option<bool>,
    /// Of a delete or clear: how many keys there were.
    #[serde(skip_serializing_if = "Option::is_none")]
    deleted: Option<u64>,
    call_ns: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    return_ns: Option<u64>,
    outcome: Told,
    #[serde(skip_serializing_if = "Option::is_none")]
    revision: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_revision: Option<u64>,
}

#[derive(Serialize, Deserialize, Clone, Copy, PartialEq)]
#[serde(rename_all = "snake_case")]
enum Op {
    Get,
    Put,
    Append,
    Delete,
    Clear,
    Txn,
}

/// A condition of a transaction.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct OfKey {
    key: String,
    expected: Expected,
}

/// A part of a transaction.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Part {
    op: Op,
    key: String,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    value: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deleted: Option<u64>,
}

#[derive(Serialize, Deserialize, Clone, Copy)]
#[serde(rename_all = "snake_case")]
enum Told {
    Ok,
    ConditionFailed,
    NotApplied,
    Unknown,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expected {
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    value: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    absent: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    revision: Option<u64>,
}

/// A member that is there, be it `null`: the JSON value null is a value, too.
fn present<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Box<RawValue>>, D::Error> {
    Box::<RawValue>::deserialize(from).map(Some)
}

/// Reads a history; empty lines are skipped.
pub fn read(text: &str) -> Result<History, FormatError> {
    let mut history = History::default();
    for (at, line) in text.lines().enumerate() {
        let wrong = |why: String| FormatError::Line { line: at + 1, why };
        if line.trim().is_empty() {
            continue;
        }
        if history.operations.is_empty()
            && let Ok(head) = serde_json::from_str::<Head>(line)
        {
            history.from_revision = head.from_revision;
            continue;
        }
        let line: Line = serde_json::from_str(line).map_err(|error| wrong(error.to_string()))?;
        history.operations.push(operation(line).map_err(|why| wrong(why.to_owned()))?);
    }
    Ok(history)
}

fn text(value: Option<Box<RawValue>>) -> Option<Text> {
    value.map(|value| Text::from(value.get()))
}

fn condition(expected: Expected) -> Result<Condition, &'static str> {
    Ok(match expected {
        Expected { value: Some(value), absent: None, revision: None } => Condition::Value(value.get().into()),
        Expected { value: None, absent: Some(true), revision: None } => Condition::Absent,
        Expected { value: None, absent: Some(false), revision: None } => Condition::Exists,
        Expected { value: None, absent: None, revision: Some(revision) } => Condition::Revision(revision),
        _ => return Err("`expected` has exactly one of value, absent and revision"),
    })
}

fn steps(parts: Vec<Part>) -> Result<Vec<Step>, &'static str> {
    let step = |part: Part| {
        let key = part.key.into();
        match (part.op, text(part.value)) {
            (Op::Get, value) => Ok(Step::Get { key, value }),
            (Op::Put, Some(value)) => Ok(Step::Put { key, value }),
            (Op::Delete, None) => Ok(Step::Delete { key, deleted: part.deleted.map(|count| count > 0) }),
            _ => Err("a transaction has gets, puts with a value, and deletes without one"),
        }
    };
    parts.into_iter().map(step).collect()
}

fn operation(line: Line) -> Result<Operation, &'static str> {
    let is_txn = line.op == Op::Txn;
    let has_parts = !line.conditions.is_empty() || !line.then.is_empty() || !line.otherwise.is_empty();
    if has_parts && !is_txn {
        return Err("only a txn has if, then and else");
    }
    let txn = Txn {
        conditions: (line.conditions.into_iter())
            .map(|of| Ok((of.key.into(), condition(of.expected)?)))
            .collect::<Result<_, &'static str>>()?,
        then: steps(line.then)?,
        otherwise: steps(line.otherwise)?,
        succeeded: line.succeeded,
    };
    let key = line.key.map(Text::from);
    let (has_key, has_value) = (key.is_some(), line.value.is_some());
    let key = key.unwrap_or_default();
    let value = text(line.value);
    let outcome = match line.outcome {
        Told::Ok => Outcome::Ok,
        Told::ConditionFailed => Outcome::ConditionFailed,
        Told::NotApplied => Outcome::NotApplied,
        Told::Unknown => Outcome::Unknown,
    };
    if has_key == matches!(line.op, Op::Clear | Op::Txn) {
        return Err("every operation but clear and txn has a key");
    }
    if has_value && !matches!(line.op, Op::Get | Op::Put | Op::Append) {
        return Err("a deletion has no value");
    }
    let kind = match (line.op, value) {
        (Op::Get, value) => Kind::Get { key, value },
        (Op::Put, Some(value)) => Kind::Put { key, value },
        (Op::Append, Some(value)) => Kind::Append { key, value },
        (Op::Put | Op::Append, None) => return Err("a write has a value"),
        (Op::Delete, _) => Kind::Delete { key, deleted: line.deleted.map(|count| count > 0) },
        (Op::Clear, _) => Kind::Clear { deleted: line.deleted },
        (Op::Txn, _) => Kind::Txn(txn),
    };
    let condition = line.expected.map(condition).transpose()?;
    if condition.is_some() && matches!(line.op, Op::Get | Op::Clear | Op::Txn) {
        return Err("only a write of one key has a condition");
    }
    let operation = Operation {
        client: line.client,
        kind,
        condition,
        call_ns: line.call_ns,
        return_ns: line.return_ns,
        outcome,
        revision: line.revision,
        key_revision: line.key_revision,
    };
    if outcome == Outcome::ConditionFailed && operation.condition.is_none() {
        return Err("condition_failed without a condition");
    }
    if is_txn && outcome == Outcome::Ok && line.succeeded.is_none() {
        return Err("an answered txn tells whether it succeeded");
    }
    if operation.is_decided() && operation.return_ns.is_none() {
        return Err("an answered operation has a return_ns");
    }
    if !is_ordered(&operation) {
        return Err("return_ns is before call_ns");
    }
    Ok(operation)
}

/// Writes one operation as a line, with its line end. What a recorder uses. Keys may be any text; values must be JSON,
/// and are quoted as JSON strings where they are not.
pub fn write(operation: &Operation) -> String {
    let none = Txn::default();
    let (op, key, written, deleted) = match &operation.kind {
        Kind::Get { key, value } => (Op::Get, Some(key), value.as_ref(), None),
        Kind::Put { key, value } => (Op::Put, Some(key), Some(value), None),
        Kind::Append { key, value } => (Op::Append, Some(key), Some(value), None),
        Kind::Delete { key, deleted } => (Op::Delete, Some(key), None, deleted.map(u64::from)),
        Kind::Clear { deleted } => (Op::Clear, None, None, *deleted),
        Kind::Txn(_) => (Op::Txn, None, None, None),
    };
    let txn = match &operation.kind {
        Kind::Txn(txn) => txn,
        _ => &none,
    };
    let of_key =
        |(key, condition): &(Text, Condition)| OfKey { key: key.to_string(), expected: expected(condition) };
    let line = Line {
        client: operation.client,
        op,
        key: key.map(ToString::to_string),
        value: written.and_then(value),
        expected: operation.condition.as_ref().map(expected),
        conditions: txn.conditions.iter().map(of_key).collect(),
        then: txn.then.iter().map(part).collect(),
        otherwise: txn.otherwise.iter().map(part).collect(),
        succeeded: txn.succeeded,
        deleted,
        call_ns: operation.call_ns,
        return_ns: operation.return_ns,
        outcome: match operation.outcome {
            Outcome::Ok => Told::Ok,
            Outcome::ConditionFailed => Told::ConditionFailed,
            Outcome::NotApplied => Told::NotApplied,
            Outcome::Unknown => Told::Unknown,
        },
        revision: operation.revision,
        key_revision: operation.key_revision,
    };
    let mut text = String::new();
    // A struct of numbers, texts and JSON that was JSON before cannot fail to be JSON.
    let _ = writeln!(text, "{}", serde_json::to_string(&line).unwrap_or_default());
    text
}

fn value(text: &Text) -> Option<Box<RawValue>> {
    let raw = RawValue::from_string(text.to_string());
    raw.or_else(|_| serde_json::value::to_raw_value(&**text)).ok()
}

fn expected(condition: &Condition) -> Expected {
    let none = Expected { value: None, absent: None, revision: None };
    match condition {
        Condition::Value(text) => Expected { value: value(text), ..none },
        Condition::Absent => Expected { absent: Some(true), ..none },
        Condition::Exists => Expected { absent: Some(false), ..none },
        Condition::Revision(revision) => Expected { revision: Some(*revision), ..none },
    }
}

fn part(step: &Step) -> Part {
    let (op, written, deleted) = match step {
        Step::Get { value, .. } => (Op::Get, value.as_ref(), None),
        Step::Put { value, .. } => (Op::Put, Some(value), None),
        Step::Delete { deleted, .. } => (Op::Delete, None, deleted.map(u64::from)),
    };
    Part { op, key: step.key().to_string(), value: written.and_then(value), deleted }
}

/// Writes a whole history.
pub fn write_all(history: &History) -> String {
    let mut text = String::new();
    if history.from_revision > 0 {
        let _ = writeln!(text, "{{\"from_revision\":{}}}", history.from_revision);
    }
    text.extend(history.operations.iter().map(write));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_again() {
        let lines = [
            r#"{"from_revision":7}"#,
            r#"{"client":1,"op":"put","key":"a/b","value":{"x":1e400},"call_ns":1,"return_ns":2,"outcome":"ok","revision":8}"#,
            r#"{"client":1,"op":"get","key":"a/b","value":null,"call_ns":3,"return_ns":4,"outcome":"ok","key_revision":8}"#,
            r#"{"client":1,"op":"get","key":"a/b","call_ns":3,"return_ns":4,"outcome":"ok"}"#,
            r#"{"client":2,"op":"put","key":"a","value":1,"expected":{"absent":true},"call_ns":3,"return_ns":4,"outcome":"condition_failed"}"#,
            r#"{"client":2,"op":"put","key":"a","value":1,"expected":{"revision":3},"call_ns":3,"outcome":"unknown"}"#,
            r#"{"client":2,"op":"append","key":"a","value":"x","expected":{"value":null},"call_ns":3,"outcome":"unknown"}"#,
            r#"{"client":2,"op":"delete","key":"a","deleted":1,"call_ns":3,"return_ns":9,"outcome":"ok"}"#,
            r#"{"client":2,"op":"clear","deleted":12,"call_ns":3,"return_ns":9,"outcome":"ok"}"#,
            r#"{"client":2,"op":"clear","call_ns":3,"return_ns":9,"outcome":"not_applied"}"#,
            r#"{"client":2,"op":"txn","if":[{"key":"a","expected":{"revision":3}}],"then":[{"op":"get","key":"a","value":1},{"op":"put","key":"b","value":null}],"else":[{"op":"delete","key":"a","deleted":1}],"succeeded":true,"call_ns":3,"return_ns":9,"outcome":"ok","revision":9}"#,
            r#"{"client":2,"op":"txn","then":[{"op":"get","key":"a"}],"call_ns":3,"outcome":"unknown"}"#,
        ];
        let text = lines.join("\n") + "\n";
        let history = read(&text).expect("a history");
        assert_eq!(history.from_revision, 7);
        assert_eq!(history.operations.len(), lines.len() - 1);
        assert_eq!(write_all(&history), text);
        let values: Vec<_> =
            history.operations[1..3].iter().map(|operation| operation.kind.clone()).collect();
        assert_eq!(values[0], Kind::Get { key: "a/b".into(), value: Some("null".into()) });
        assert_eq!(values[1], Kind::Get { key: "a/b".into(), value: None });
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        let wrong = [
            "{}",
            "x",
            r#"{"client":1,"op":"put","key":"a","call_ns":1,"outcome":"unknown"}"#,
            r#"{"client":1,"op":"put","value":1,"call_ns":1,"outcome":"unknown"}"#,
            r#"{"client":1,"op":"clear","key":"a","call_ns":1,"outcome":"unknown"}"#,
            r#"{"client":1,"op":"delete","key":"a","value":1,"call_ns":1,"outcome":"unknown"}"#,
            r#"{"client":1,"op":"get","key":"a","value":1,"call_ns":1,"outcome":"ok"}"#,
            r#"{"client":1,"op":"get","key":"a","call_ns":2,"return_ns":1,"outcome":"ok"}"#,
            r#"{"client":1,"op":"get","key":"a","expected":{"absent":true},"call_ns":2,"return_ns":3,"outcome":"ok"}"#,
            r#"{"client":1,"op":"put","key":"a","value":1,"expected":{},"call_ns":1,"outcome":"unknown"}"#,
            r#"{"client":1,"op":"put","key":"a","value":1,"call_ns":1,"return_ns":2,"outcome":"condition_failed"}"#,
            r#"{"client":1,"op":"put","key":"a","value":1,"call_ns":1,"outcome":"unknown","more":1}"#,
            r#"{"client":1,"op":"put","key":"a","value":1,"call_ns":1,"outcome":"unknown","then":[{"op":"get","key":"a"}]}"#,
            r#"{"client":1,"op":"txn","key":"a","call_ns":1,"outcome":"unknown"}"#,
            r#"{"client":1,"op":"txn","then":[{"op":"clear","key":"a"}],"call_ns":1,"outcome":"unknown"}"#,
            r#"{"client":1,"op":"txn","then":[{"op":"put","key":"a"}],"call_ns":1,"outcome":"unknown"}"#,
            r#"{"client":1,"op":"txn","call_ns":1,"return_ns":2,"outcome":"ok","revision":1}"#,
        ];
        for line in wrong {
            let error = read(&format!("\n{line}")).expect_err(line).to_string();
            assert!(error.starts_with("line 2: "), "{error}");
        }
    }
}
