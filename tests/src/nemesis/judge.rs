//! Judgement of an era: what clients were told must be linearizable, what watchers heard must be what has changed, locks
//! must have had one holder a token, and all nodes must have become the same.
//!
//! What a watcher heard of a change is part of the history, too: it says what a key was at a revision. So it helps to tell
//! which write of unknown outcome has made a revision, and is judged against what the replay says of all others.

use super::clients::watchers::{Heard, PREFIX};
use super::clients::{Clients, Recorded, keys, read_at};
use crate::cluster::Cluster;
use crate::failure::{Context, Failure, Outcome, ensure};
use balsa_check::history::Text;
use balsa_check::json_lines::write_all;
use balsa_check::watch::{Changes, Watcher, Wrong};
use balsa_check::{History, Kind, Operation, Outcome as Known, Verdict, check, locks, picture, replay};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Reads at the end are shown as those of clients from here on, what watchers heard as those of one.
const READERS: u64 = 1_000;
const WATCHER: u64 = 2_000;

/// What was found in order.
#[derive(Clone, Debug)]
pub struct Judged {
    /// Operations that were judged.
    pub operations: usize,
    /// Of these, writes whose outcome nobody knows.
    pub unknown: usize,
    /// How often the lock was given to somebody.
    pub holders: usize,
    /// Changes that watchers heard of.
    pub heard: usize,
    /// Where all nodes are.
    pub index: u64,
    /// What they hold there.
    pub digest: String,
}

/// Ends the load, reads all keys at all nodes, and judges. The history is left in `folder`, for `balsa check`, where it is
/// wrong, and where `keep` says so.
pub async fn judge(
    cluster: &Cluster,
    clients: Clients,
    folder: &Path,
    name: &str,
    keep: bool,
) -> Outcome<Judged> {
    let began = clients.began();
    let Recorded { mut operations, held, fenced, watchers } = clients.finish().await?;
    for node in cluster.running() {
        for key in keys() {
            operations.push(read_at(cluster.address(node), READERS + node as u64, &key, began).await?);
        }
    }
    let (index, digest) = cluster.wait_until_digests_agree().await?;
    let unknown = operations.iter().filter(|one| one.is_write() && one.counts() && !one.is_decided()).count();
    let revision = cluster.look(cluster.running()[0]).await?.map_or(0, |seen| seen.store.revision);
    let last = operations.iter().flat_map(|one| [one.revision, one.key_revision]).flatten().max();
    ensure(last <= Some(revision), || {
        format!("revision {last:?} was told, but the nodes are at {revision}")
    })?;
    let watched = watchers.finish(revision).await?;
    let judged = operations.iter().filter(|one| one.counts()).count();
    operations.extend(as_reads(&watched));
    let history = History { from_revision: 0, operations };
    if keep {
        write(&history, folder, name)?;
    }
    let changes = judge_history(&history, folder, name)?;
    locks::check(&held, &fenced).map_err(|wrong| Failure(format!("the lock: {wrong}")))?;
    let mut heard = 0;
    for (number, watcher) in watched.iter().enumerate() {
        judge_watcher(&changes, watcher).map_err(|wrong| Failure(format!("watcher {number}: {wrong}")))?;
        heard += watcher.iter().filter(|heard| matches!(heard, Heard::Change { .. })).count();
    }
    Ok(Judged { operations: judged, unknown, holders: held.len(), heard, index, digest })
}

/// The main check: all is done again in order of revision, with which real time must agree. An acknowledged write that is
/// lost, applied twice, or seen by one and not by the next, does not fit.
fn judge_history(history: &History, folder: &Path, name: &str) -> Outcome<Changes<Text, Text>> {
    let verdict = match check(history) {
        Verdict::Linearizable { .. } if replay::is_possible(history) => match replay::changes(history) {
            Ok(changes) => return Ok(changes),
            Err(verdict) => verdict,
        },
        verdict => verdict,
    };
    let (why, drawn) = match verdict {
        Verdict::Linearizable { .. } => ("not every answer told its revision".to_string(), None),
        Verdict::Undecided(why) => (format!("nobody can say whether it is linearizable: {why}"), None),
        Verdict::Violation(violation) => {
            let drawn = picture::html(history, &violation);
            (format!("not linearizable: {}", violation.why), Some(drawn))
        }
    };
    let path = write(history, folder, name)?;
    if let Some(drawn) = drawn {
        let path = folder.join(format!("{name}.html"));
        std::fs::write(&path, drawn).context(format!("write {}", path.display()))?;
    }
    Err(Failure(format!("{why}; the history is in {}", path.display())))
}

/// What watchers heard, as reads at the very revisions; each change once, when it was heard first.
fn as_reads(watched: &[Vec<Heard>]) -> impl Iterator<Item = Operation> {
    let mut first: BTreeMap<(u64, &Text, &Option<Text>), u64> = BTreeMap::new();
    for heard in watched.iter().flatten() {
        if let Heard::Change { revision, key, value, at_ns } = heard {
            let first_ns = first.entry((*revision, key, value)).or_insert(*at_ns);
            *first_ns = (*first_ns).min(*at_ns);
        }
    }
    first.into_iter().map(|((revision, key, value), at_ns)| Operation {
        client: WATCHER,
        kind: Kind::Get { key: key.clone(), value: value.clone() },
        condition: None,
        call_ns: 0, // the change may be as old as can be
        return_ns: Some(at_ns),
        outcome: Known::Ok,
        revision: Some(revision),
        key_revision: Some(value.as_ref().map_or(0, |_| revision)),
    })
}

fn judge_watcher(changes: &Changes<Text, Text>, heard: &[Heard]) -> Result<(), Wrong> {
    let wants = |key: &Text, _: bool| key.starts_with(PREFIX);
    let mut watcher = Watcher::new(0);
    for one in heard {
        match one {
            Heard::Compacted(oldest) => watcher = Watcher::new(*oldest),
            Heard::Change { revision, key, value, .. } => {
                watcher.event(changes, wants, *revision, key, value.as_ref())?;
            }
            Heard::End(revision) => watcher.end(changes, wants, *revision)?,
            Heard::Progress(revision) => watcher.progress(changes, wants, *revision)?,
            Heard::Broke => watcher.broke(),
        }
    }
    Ok(())
}

fn write(history: &History, folder: &Path, name: &str) -> Outcome<PathBuf> {
    let path = folder.join(format!("{name}.jsonl"));
    std::fs::write(&path, write_all(history)).context(format!("write {}", path.display()))?;
    Ok(path)
}
