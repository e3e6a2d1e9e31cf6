//! Where read values come from. A value that nobody ever wrote to its key is a violation by itself, found in one pass,
//! whatever else the history holds. What passes here is judged by the other modules, which also say more of it.

use crate::history::{History, Kind, Operation, Outcome, Step, Text};
use crate::verdict::Violation;
use std::collections::HashSet;

/// A read of what was never written. Keys that are appended to are left out: what they hold is made of several writes.
pub fn from_nowhere(history: &History) -> Option<Violation> {
    let mut written: HashSet<(&Text, &Text)> = HashSet::new();
    let mut appended: HashSet<&Text> = HashSet::new();
    for operation in history.operations.iter().filter(|operation| operation.counts()) {
        match &operation.kind {
            Kind::Put { key, value } if operation.outcome != Outcome::ConditionFailed => {
                written.insert((key, value));
            }
            Kind::Append { key, .. } => {
                appended.insert(key);
            }
            Kind::Txn(txn) => {
                written.extend(txn.steps().filter_map(|step| match step {
                    Step::Put { key, value } => Some((key, value)),
                    _ => None,
                }));
            }
            _ => {}
        }
    }
    history.operations.iter().enumerate().find_map(|(at, operation)| {
        let unheard =
            |(key, value): &(&Text, &Text)| !appended.contains(key) && !written.contains(&(*key, *value));
        let (key, _) = reads(operation).into_iter().find(unheard)?;
        Some(Violation {
            why: format!("`{}`, which nobody wrote there", operation.describe()),
            key: Some(key.clone()),
            order: Vec::new(),
            state: String::new(),
            misfit: at,
        })
    })
}

/// Keys that were read, with what they had.
fn reads(operation: &Operation) -> Vec<(&Text, &Text)> {
    match &operation.kind {
        _ if operation.outcome != Outcome::Ok => Vec::new(),
        Kind::Get { key, value: Some(value) } => vec![(key, value)],
        Kind::Txn(txn) => {
            let read = |step| match step {
                &Step::Get { ref key, value: Some(ref value) } => Some((key, value)),
                _ => None,
            };
            txn.done().iter().filter_map(read).collect()
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json_lines;

    fn why(lines: &str) -> Option<String> {
        from_nowhere(&json_lines::read(lines).unwrap()).map(|violation| violation.why)
    }

    #[test]
    fn a_value_has_a_write() {
        let put =
            r#"{"client":1,"op":"put","key":"k","value":"1","call_ns":10,"return_ns":20,"outcome":"ok"}"#;
        let get = |value: &str, call: u64| {
            format!(
                r#"{{"client":2,"op":"get","key":"k","value":"{value}","call_ns":{call},"return_ns":{},"outcome":"ok"}}"#,
                call + 5
            )
        };
        let with = |get: String| why(&format!("{put}\n{get}\n"));
        assert_eq!(with(get("1", 30)), None);
        assert_eq!(with(get("1", 1)), None); // too early, which is for the others to say
        assert!(with(get("2", 30)).unwrap().contains("nobody"));
    }
}
