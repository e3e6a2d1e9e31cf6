//! Where read values come from. A value that no write of its key can have put there is a violation by itself, found in one
//! pass, whatever else the history holds; what passes here is judged by the other modules.

use crate::history::{History, Kind, Outcome, Text};
use crate::verdict::Violation;
use std::collections::{HashMap, HashSet};

/// A read of what was never written, or was written only after the read had returned. Keys that are appended to are left
/// out: what they hold is made of several writes.
pub fn from_nowhere(history: &History) -> Option<Violation> {
    let mut first_calls: HashMap<(&Text, &Text), u64> = HashMap::new();
    let mut appended: HashSet<&Text> = HashSet::new();
    for operation in history.operations.iter().filter(|operation| operation.counts()) {
        match &operation.kind {
            Kind::Put { key, value } if operation.outcome != Outcome::ConditionFailed => {
                let call = first_calls.entry((key, value)).or_insert(operation.call_ns);
                *call = operation.call_ns.min(*call);
            }
            Kind::Append { key, .. } => {
                appended.insert(key);
            }
            _ => {}
        }
    }
    history.operations.iter().enumerate().find_map(|(at, operation)| {
        let Kind::Get { key, value: Some(value) } = &operation.kind else { return None };
        if operation.outcome != Outcome::Ok || appended.contains(key) {
            return None;
        }
        let why = match (first_calls.get(&(key, value)), operation.return_ns) {
            (Some(call), Some(returned)) if *call > returned => "which was written only after that",
            (Some(_), _) => return None,
            (None, _) => "which nobody wrote there",
        };
        Some(Violation {
            why: format!("`{}`, {why}", operation.describe()),
            key: Some(key.clone()),
            order: Vec::new(),
            state: String::new(),
            misfit: at,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json_lines;

    fn why(lines: &str) -> Option<String> {
        from_nowhere(&json_lines::read(lines).unwrap()).map(|violation| violation.why)
    }

    #[test]
    fn a_value_has_a_write_before_its_read_returns() {
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
        assert_eq!(with(get("1", 6)), None); // still under way when the write is called
        assert!(with(get("1", 1)).unwrap().contains("only after"));
        assert!(with(get("2", 30)).unwrap().contains("nobody"));
    }
}
