//! Basic operations before the load, and every write read back, and deleted, after it.

use super::Failure;
use super::load::deviation;
use super::record::{Write, Wrote};
use crate::{Client, ReadError, WriteError};
use balsa_wire::problem::Outcome;
use tokio::task::JoinSet;

/// How many writes are read back side by side.
const READERS: usize = 16;

/// What was found wrong when all was read back, a sentence each.
#[derive(Clone, Debug, Default)]
pub(super) struct Findings {
    /// Acknowledged, and not there.
    pub(super) lost: Vec<String>,
    /// There in another version, value or revision than written.
    pub(super) twice: Vec<String>,
    /// Said not to be applied, and there.
    pub(super) undead: Vec<String>,
    /// Of unknown outcome, and there.
    pub(super) unknown_applied: u64,
}

/// Each operation once, on keys of their own.
pub(super) async fn basics(client: &Client, prefix: &str) -> Result<(), Failure> {
    let key = format!("{prefix}/basics");
    let put = client.put(key.as_str(), "exampleValue").await.map_err(write_failed)?;
    let item = client.get(key.as_str()).await.map_err(read_failed)?;
    let item = item.ok_or_else(|| Failure(format!("{key} was written and is not there")))?;
    check(item.json::<String>().is_ok_and(|value| value == "exampleValue"), "a read gives what was written")?;
    check((item.revision, item.version) == (put.revision, 1), "a read gives the write's revision")?;
    let refused = client.put(key.as_str(), "other").if_absent().await;
    let refused = refused.err().and_then(|error| error.current_revision());
    check(refused == Some(put.revision), "a create of what is there is refused")?;
    let again = client.put(key.as_str(), &2).if_revision(put.revision).prev().await.map_err(write_failed)?;
    check(again.prev.is_some_and(|item| item.version == 1), "a change gives what was there before")?;
    let gone = client.delete(key.as_str()).await.map_err(write_failed)?;
    check(gone.deleted, "a delete deletes")?;
    check(client.get(key.as_str()).await.map_err(read_failed)?.is_none(), "what was deleted is absent")
}

/// Reads all writes back.
pub(super) async fn read_back(client: &Client, writes: &[Write]) -> Result<Findings, Failure> {
    let mut readers = JoinSet::new();
    for reader in 0..READERS {
        let mine: Vec<Write> = writes.iter().skip(reader).step_by(READERS).cloned().collect();
        let client = client.clone();
        readers.spawn(async move {
            let mut findings = Findings::default();
            for write in &mine {
                findings.read(&client, write).await?;
            }
            Ok::<_, Failure>(findings)
        });
    }
    let mut all = Findings::default();
    while let Some(found) = readers.join_next().await {
        let found = found.map_err(|error| Failure(format!("a reader ended: {error}")))??;
        all.lost.extend(found.lost);
        all.twice.extend(found.twice);
        all.undead.extend(found.undead);
        all.unknown_applied += found.unknown_applied;
    }
    Ok(all)
}

/// Deletes what was written.
pub(super) async fn delete_all(client: &Client, writes: &[Write]) -> Result<(), Failure> {
    let mut deleters = JoinSet::new();
    for deleter in 0..READERS {
        let mine: Vec<String> =
            writes.iter().skip(deleter).step_by(READERS).map(|write| write.key.clone()).collect();
        let client = client.clone();
        deleters.spawn(async move {
            for key in mine {
                client.delete(key).await.map_err(write_failed)?;
            }
            Ok::<_, Failure>(())
        });
    }
    while let Some(deleted) = deleters.join_next().await {
        deleted.map_err(|error| Failure(format!("a deleter ended: {error}")))??;
    }
    Ok(())
}

impl Findings {
    async fn read(&mut self, client: &Client, write: &Write) -> Result<(), Failure> {
        let key = &write.key;
        let found = client.get(key.as_str()).await.map_err(read_failed)?;
        let acknowledged = match &write.wrote {
            Wrote::Acknowledged { revision } => Some(*revision),
            Wrote::Failed { .. } => None,
        };
        let Some(item) = found else {
            let must_be_there = match &write.wrote {
                Wrote::Acknowledged { .. } => true,
                Wrote::Failed { outcome, .. } => *outcome == Outcome::Applied,
            };
            if must_be_there {
                self.lost.push(format!("{key}: {:?}, and not found", write.wrote));
            }
            return Ok(());
        };
        if let Some(deviation) = deviation(&item, write.value, acknowledged) {
            self.twice.push(format!("{key}: {deviation}"));
        }
        match &write.wrote {
            Wrote::Failed { outcome: Outcome::NotApplied, why } => {
                self.undead.push(format!("{key}: said not to be applied ({why}), and there"));
            }
            Wrote::Failed { outcome: Outcome::Unknown, .. } => self.unknown_applied += 1,
            Wrote::Failed { .. } | Wrote::Acknowledged { .. } => {}
        }
        Ok(())
    }
}

fn check(holds: bool, sentence: &str) -> Result<(), Failure> {
    if holds { Ok(()) } else { Err(Failure(format!("it does not hold that {sentence}"))) }
}

fn write_failed(error: WriteError) -> Failure {
    Failure(format!("a write outside the load failed: {error}"))
}

fn read_failed(error: ReadError) -> Failure {
    Failure(format!("a read outside the load failed: {error}"))
}
