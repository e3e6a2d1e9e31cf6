//! Judgement of an era: what clients were told must be linearizable, and all nodes must have become the same.

use super::clients::{Clients, keys, read_at};
use crate::cluster::Cluster;
use crate::failure::{Context, Failure, Outcome, ensure};
use balsa_check::json_lines::write_all;
use balsa_check::verdict::How;
use balsa_check::{History, Verdict, check, picture};
use std::path::{Path, PathBuf};

/// Reads at the end are shown as those of clients from here on.
const READERS: u64 = 1_000;

/// What was found in order.
#[derive(Clone, Debug)]
pub struct Judged {
    /// Operations that were judged.
    pub operations: usize,
    /// Of these, writes whose outcome nobody knows.
    pub unknown: usize,
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
    let mut operations = clients.finish().await?;
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
    let history = History { from_revision: 0, operations };
    if keep {
        write(&history, folder, name)?;
    }
    let operations = judge_history(history, folder, name)?;
    Ok(Judged { operations, unknown, index, digest })
}

/// The main check: all is done again in order of revision, with which real time must agree. An acknowledged write that is
/// lost, applied twice, or seen by one and not by the next, does not fit.
fn judge_history(history: History, folder: &Path, name: &str) -> Outcome<usize> {
    let (why, drawn) = match check(&history) {
        Verdict::Linearizable { how: How::Replay, operations } => return Ok(operations),
        Verdict::Linearizable { .. } => ("not every answer told its revision".to_string(), None),
        Verdict::Undecided(why) => (format!("nobody can say whether it is linearizable: {why}"), None),
        Verdict::Violation(violation) => {
            let drawn = picture::html(&history, &violation);
            (format!("not linearizable: {}", violation.why), Some(drawn))
        }
    };
    let path = write(&history, folder, name)?;
    if let Some(drawn) = drawn {
        let path = folder.join(format!("{name}.html"));
        std::fs::write(&path, drawn).context(format!("write {}", path.display()))?;
    }
    Err(Failure(format!("{why}; the history is in {}", path.display())))
}

fn write(history: &History, folder: &Path, name: &str) -> Outcome<PathBuf> {
    let path = folder.join(format!("{name}.jsonl"));
    std::fs::write(&path, write_all(history)).context(format!("write {}", path.display()))?;
    Ok(path)
}
