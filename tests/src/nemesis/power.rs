//! The loss of power, played to a process that was killed: takes back what its files were not synced with.
//!
//! The library that makes a disk limp has recorded what files held before each write, and each sync (`tests/limp-disk`).
//! Once the process is dead, all that no sync has made durable is undone, the last first; then some of it is done again,
//! as a disk does that had written some of its cache in an order of its own: any subset, sector by sector.

use crate::failure::{Context, Outcome, ensure};
use crate::random::Random;
use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// What a disk writes whole or not at all, in bytes.
const SECTOR_BYTES: u64 = 512;
/// A record's bytes before what files held.
const HEAD_BYTES: usize = 1 + 4 * 8 + 2 * 4;

/// A file, whatever it is called: inode and birth.
type Id = (u64, u64);

/// What power loss took.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Loss {
    /// Writes and changes of length that no sync had made durable.
    pub unsynced: u64,
    /// Sectors of those that were lost, and that stayed all the same.
    pub lost: u64,
    /// See above.
    pub kept: u64,
}

/// What is recorded of a process's files.
#[derive(Debug)]
enum Change<'a> {
    Write { offset: u64, old: &'a [u8], new: &'a [u8] },
    Length { to: u64, cut_off: &'a [u8] },
    Sync { upto: u64 },
}

#[derive(Debug)]
struct Record<'a> {
    at: u64,
    file: Id,
    /// Of the file, before.
    length: u64,
    change: Change<'a>,
}

/// Takes back from the files below `data` what the records do not show as synced, some of it chosen at random excepted.
pub fn lose(data: &Path, records: &Path, random: &mut Random) -> Outcome<Loss> {
    let bytes = std::fs::read(records).context(format!("read {}", records.display()))?;
    let records = read(&bytes);
    ensure(!records.is_empty(), || {
        "nothing was recorded before power was lost: the library is not at work".into()
    })?;
    let mut synced: HashMap<Id, u64> = HashMap::new();
    for record in &records {
        if let Change::Sync { upto } = record.change {
            let known = synced.entry(record.file).or_default();
            *known = upto.max(*known);
        }
    }
    let mut files = HashMap::new();
    gather(data, &mut files)?;
    let is_unsynced = |record: &&Record<'_>| {
        !matches!(record.change, Change::Sync { .. })
            && record.at >= synced.get(&record.file).copied().unwrap_or_default()
            && files.contains_key(&record.file)
    };
    let unsynced: Vec<&Record<'_>> = records.iter().filter(is_unsynced).collect();
    let mut open: HashMap<Id, File> = HashMap::new();
    for record in &unsynced {
        let path = &files[&record.file];
        let file = File::options().write(true).open(path).context(format!("open {}", path.display()))?;
        open.insert(record.file, file);
    }
    for record in unsynced.iter().rev() {
        record.undo(&open[&record.file]).context("take an unsynced write back")?;
    }
    let mut loss = Loss { unsynced: unsynced.len() as u64, ..Loss::default() };
    // A cache that had hardly been written, about half, nearly all.
    let per_mille = *random.pick(&[0, 30, 500, 970]);
    for record in &unsynced {
        record.redo(&open[&record.file], per_mille, random, &mut loss).context("keep an unsynced write")?;
    }
    Ok(loss)
}

/// Whole records; the last one may be cut, and then nothing followed it.
fn read(bytes: &[u8]) -> Vec<Record<'_>> {
    let mut records = Vec::new();
    let mut at = 0;
    while let Some(head) = bytes.get(at..at + HEAD_BYTES) {
        let u64_at = |place: usize| u64::from_le_bytes(head[place..place + 8].try_into().unwrap_or_default());
        let size =
            |place: usize| u32::from_le_bytes(head[place..place + 4].try_into().unwrap_or_default()) as usize;
        let (inode, born, offset, length) = (u64_at(1), u64_at(9), u64_at(17), u64_at(25));
        let (old, new) = (at + HEAD_BYTES, at + HEAD_BYTES + size(33));
        let end = new + size(37);
        let (Some(old), Some(new)) = (bytes.get(old..new), bytes.get(new..end)) else { break };
        let change = match head[0] {
            1 => Change::Write { offset, old, new },
            2 => Change::Length { to: offset, cut_off: old },
            _ => Change::Sync { upto: offset },
        };
        records.push(Record { at: at as u64, file: (inode, born), length, change });
        at = end;
    }
    records
}

/// All files below a folder.
fn gather(folder: &Path, files: &mut HashMap<Id, PathBuf>) -> Outcome<()> {
    let what = || format!("look at {}", folder.display());
    for entry in std::fs::read_dir(folder).context(what())? {
        let path = entry.context(what())?.path();
        let metadata = path.symlink_metadata().context(what())?;
        if metadata.is_dir() {
            gather(&path, files)?;
        } else {
            let born = metadata.created().context(format!("see when {} was made", path.display()))?;
            let born = born.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos() as u64;
            files.insert((metadata.ino(), born), path);
        }
    }
    Ok(())
}

impl Record<'_> {
    fn undo(&self, file: &File) -> std::io::Result<()> {
        match &self.change {
            Change::Write { offset, old, new } => {
                file.write_all_at(old, *offset)?;
                match offset + new.len() as u64 > self.length {
                    true => file.set_len(self.length),
                    false => Ok(()),
                }
            }
            Change::Length { to, cut_off } => {
                file.set_len(self.length)?;
                file.write_all_at(cut_off, *to)
            }
            Change::Sync { .. } => Ok(()),
        }
    }

    fn redo(&self, file: &File, per_mille: u64, random: &mut Random, loss: &mut Loss) -> std::io::Result<()> {
        match &self.change {
            Change::Write { offset, new, .. } => {
                let mut done = 0;
                while done < new.len() {
                    let at = offset + done as u64;
                    let sector = usize::try_from(SECTOR_BYTES - at % SECTOR_BYTES).unwrap_or(new.len());
                    let end = new.len().min(done + sector);
                    if random.chance(per_mille) {
                        file.write_all_at(&new[done..end], at)?;
                        loss.kept += 1;
                    } else {
                        loss.lost += 1;
                    }
                    done = end;
                }
                Ok(())
            }
            Change::Length { to, .. } if random.chance(per_mille) => file.set_len(*to),
            Change::Length { .. } | Change::Sync { .. } => Ok(()),
        }
    }
}
