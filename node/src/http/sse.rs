//! Server-sent events (the WHATWG's HTML standard, section 9.2): how watchers' events are written.
//!
//! Data may hold line breaks (a JSON value is kept as it came, and white space is part of it); each line is a `data:` of
//! its own, and whoever reads them joins them with a line feed, which means the same in JSON.

use super::json::Writer;
use crate::watch::{Event, Revision, What};
use bytes::Bytes;

/// The content type.
pub(super) const CONTENT_TYPE: &str = "text/event-stream";

/// All events of a revision; only the last one carries its number, if it is the last one of it.
pub(super) fn revision(revision: &Revision, with_prev: bool) -> Bytes {
    let written = |event: &Event| event.written(with_prev, |event| write(event, with_prev));
    match &revision.events[..] {
        [only] if revision.is_last => written(only),
        events => {
            let mut all = Vec::new();
            for (at, event) in events.iter().enumerate() {
                let written = written(event);
                let is_last = revision.is_last && at + 1 == events.len();
                let from = if is_last { 0 } else { id_bytes(&written) };
                all.extend_from_slice(&written[from..]);
            }
            all.into()
        }
    }
}

/// That a watcher has all up to a revision.
pub(super) fn progress(revision: u64) -> Bytes {
    format!("id: {revision}\nevent: progress\ndata: {{\"revision\":{revision}}}\n\n").into()
}

/// That it asks for what nobody can tell any more.
pub(super) fn compacted(oldest: u64) -> Bytes {
    format!("event: compacted\ndata: {{\"oldest_revision\":{oldest}}}\n\n").into()
}

/// For people and proxies; clients pass it over.
pub(super) fn comment(text: &str) -> Bytes {
    format!(": {text}\n\n").into()
}

/// The number first, so that it can be left out.
fn write(event: &Event, with_prev: bool) -> Bytes {
    let key = String::from_utf8_lossy(&event.key); // it came as UTF-8
    let mut json = Writer::with_capacity(event.bytes() / 3);
    let name = match &event.what {
        What::Put(value) => {
            json.item(&key, value);
            "put"
        }
        What::Delete => {
            json.raw("{\"key\":").string(&key).raw(",\"revision\":").number(event.revision).raw("}");
            "delete"
        }
    };
    if with_prev {
        json.reopen().raw(",\"prev\":");
        match event.prev.as_ref().and_then(Option::as_ref) {
            Some(prev) => json.item(&key, prev),
            None => json.raw("null"),
        };
        json.raw("}");
    }
    let json = json.finish();
    let mut out = Vec::with_capacity(json.len() + 64);
    out.extend_from_slice(format!("id: {}\nevent: {name}\n", event.revision).as_bytes());
    for line in json.split(|byte| matches!(byte, b'\n' | b'\r')) {
        out.extend_from_slice(b"data: ");
        out.extend_from_slice(line);
        out.push(b'\n');
    }
    out.push(b'\n');
    out.into()
}

/// Length of the first line.
fn id_bytes(written: &[u8]) -> usize {
    written.iter().position(|byte| *byte == b'\n').map_or(0, |at| at + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use balsa_store::command::Value;
    use std::sync::Arc;

    fn put(revision: u64, value: &'static str, prev: Option<Option<Value>>) -> Arc<Event> {
        let value = Value {
            value: Bytes::from_static(value.as_bytes()),
            content_type: None,
            revision,
            create_revision: 1,
            version: 2,
        };
        Arc::new(Event::new(revision, Bytes::from_static(b"a\"b"), What::Put(value), prev))
    }

    fn text(events: Vec<Arc<Event>>, is_last: bool, with_prev: bool) -> String {
        let revision = Revision { revision: events[0].revision, events, is_last };
        String::from_utf8(super::revision(&revision, with_prev).into()).unwrap()
    }

    #[test]
    fn an_event() {
        let put = put(7, "{\"x\":1}", Some(None));
        assert_eq!(
            text(vec![put.clone()], true, false),
            "id: 7\nevent: put\ndata: {\"key\":\"a\\\"b\",\"value\":{\"x\":1},\"revision\":7,\"create_revision\":1,\"version\":2}\n\n"
        );
        assert!(text(vec![put], true, true).ends_with("\"version\":2,\"prev\":null}\n\n"));
        let delete = Arc::new(Event::new(8, Bytes::from_static(b"k"), What::Delete, None));
        assert_eq!(
            text(vec![delete], true, false),
            "id: 8\nevent: delete\ndata: {\"key\":\"k\",\"revision\":8}\n\n"
        );
    }

    #[test]
    fn only_the_last_event_of_a_revision_carries_its_number() {
        let events = || vec![put(7, "1", None), put(7, "2", None), put(7, "3", None)];
        let whole = text(events(), true, false);
        assert_eq!((whole.matches("event: put\n").count(), whole.matches("id: 7\n").count()), (3, 1));
        assert!(whole.rsplit("\n\n").nth(1).unwrap().starts_with("id: 7\n"), "{whole}");
        let piece = text(events(), false, false);
        assert_eq!((piece.matches("event: put\n").count(), piece.matches("id: ").count()), (3, 0));
        let one = text(vec![put(7, "1", None)], false, false);
        assert!(one.starts_with("event: put\n"), "{one}");
    }

    #[test]
    fn a_value_with_line_breaks_is_data_on_many_lines() {
        let written = text(vec![put(7, "[\r\n 1,\r2,\n\n3]", None)], true, false);
        let data: Vec<&str> = written.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
        assert!(!written.contains('\r'));
        let read: serde_json::Value = serde_json::from_str(&data.join("\n")).unwrap();
        assert_eq!(read["value"], serde_json::json!([1, 2, 3]));
    }
}
