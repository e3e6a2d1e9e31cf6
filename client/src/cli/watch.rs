//! `balsa watch`: one line a change.

use super::Stop;
use super::args::{Events, Format, WatchArgs};
use super::output::{Output, value_text};
use crate::{Client, WatchEvent};
use balsa_wire::kv::Item;
use serde::Serialize;

/// A change for programs.
#[derive(Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Line<'a> {
    Put { item: &'a Item, prev: Option<&'a Item> },
    Delete { key: &'a str, revision: u64, prev: Option<&'a Item> },
    Progress { revision: u64 },
}

/// Prints until it fails, or has printed enough.
pub(super) async fn run(client: &Client, output: &Output, args: WatchArgs) -> Result<(), Stop> {
    let mut watch = match (&args.key, &args.prefix) {
        (Some(key), _) => client.watch_key(key),
        (None, prefix) => client.watch_prefix(prefix.as_deref().unwrap_or_default()),
    };
    if let Some(revision) = args.from {
        watch = watch.from(revision);
    }
    watch = match args.events {
        Some(Events::Put) => watch.puts(),
        Some(Events::Delete) => watch.deletes(),
        None => watch,
    };
    if args.prev {
        watch = watch.prev();
    }
    let mut left = args.count.unwrap_or(u64::MAX);
    while left > 0 {
        let event = watch.next().await.map_err(Stop::Watch)?;
        left -= u64::from(!matches!(event, WatchEvent::Progress { .. }));
        let text = match output.format() {
            Format::Text => text(&event),
            Format::Json => {
                let line = line(&event);
                serde_json::to_string(&line).unwrap_or_else(|error| format!("\"{error}\""))
            }
        };
        if !output.line(&text) {
            break; // nobody reads any more
        }
    }
    Ok(())
}

fn line(event: &WatchEvent) -> Line<'_> {
    match event {
        WatchEvent::Put { item, prev } => Line::Put { item, prev: prev.as_ref() },
        WatchEvent::Delete { key, revision, prev } => {
            Line::Delete { key, revision: *revision, prev: prev.as_ref() }
        }
        WatchEvent::Progress { revision } => Line::Progress { revision: *revision },
    }
}

fn text(event: &WatchEvent) -> String {
    match event {
        WatchEvent::Put { item, .. } => format!("put {} {} {}", item.revision, item.key, value_text(item)),
        WatchEvent::Delete { key, revision, .. } => format!("delete {revision} {key}"),
        WatchEvent::Progress { revision } => format!("progress {revision}"),
    }
}
