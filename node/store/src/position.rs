//! Where in the log a state is, and what belongs to a state as a whole.
//!
//! `swept <= compacted <= revision`, `last_clear <= revision`, and revisions never exceed what entries up to
//! `applied_index` made, successions apart: there both leap. Between what is durable and what is applied: `durable.applied_index <= applied_index`.

use bytes::Bytes;

use crate::error::StoreError;
use crate::rows::{self, FORMAT, META_KEY, MetaRow};

/// The feature level that every build reaches, and at which a cluster is before it is ever raised.
pub const FIRST_LEVEL: u32 = 1;

/// The highest feature level of this build. 2: transactions, leases, locks, and compaction by age.
pub const FEATURE_LEVEL: u32 = 2;

/// Where in the log a state is, and what belongs to a state as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Position {
    /// The last entry applied; 0 before the first.
    pub applied_index: u64,
    /// The store's revision; 0 before the first change.
    pub revision: u64,
    /// Digest of everything applied; equal on every node at an equal index.
    pub digest: u128,
    /// Cluster time, in milliseconds: the newest stamp applied.
    pub time_ms: u64,
    /// The oldest revision that can be read; 0: all.
    pub compacted: u64,
    /// Revision of the last clear; a change before it is dead. 0: never.
    pub last_clear: u64,
    /// The feature level that was set; 0 before it was ever raised.
    pub feature_level: u32,
}

impl Position {
    /// The feature level at which the cluster is.
    pub fn level(&self) -> u32 {
        self.feature_level.max(FIRST_LEVEL)
    }
}

/// How far the removal of unreadable rows has come. Local to a node, and part of no digest.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Sweep {
    /// What changes up to this revision superseded is removed.
    pub(crate) swept: u64,
    /// Rows that died by the clear at this revision, or by one before, are removed.
    pub(crate) clear_swept: u64,
    /// The clear whose dead rows are being removed, and the key to go on at.
    pub(crate) clear: Option<(u64, Bytes)>,
}

/// What the engine holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Durable {
    pub(crate) position: Position,
    /// Keys that are there.
    pub(crate) live_keys: u64,
    pub(crate) sweep: Sweep,
}

impl Durable {
    /// Whether there is more to remove than the last flush did.
    pub(crate) fn sweep_is_behind(&self) -> bool {
        self.sweep.clear.is_some() || self.sweep.swept < self.position.compacted
    }

    pub(crate) fn to_row(&self) -> MetaRow {
        let (clear_target, clear_cursor) = self.sweep.clear.clone().unwrap_or_default();
        MetaRow {
            format: FORMAT,
            applied_index: self.position.applied_index,
            revision: self.position.revision,
            digest: Bytes::copy_from_slice(&self.position.digest.to_le_bytes()),
            time_ms: self.position.time_ms,
            compacted: self.position.compacted,
            last_clear: self.position.last_clear,
            feature_level: self.position.feature_level,
            live_keys: self.live_keys,
            swept: self.sweep.swept,
            clear_swept: self.sweep.clear_swept,
            clear_target,
            clear_cursor,
        }
    }

    /// Reads the meta row; an engine without one is empty.
    pub(crate) fn read(row: Option<Bytes>) -> Result<Durable, StoreError> {
        let Some(row) = row else { return Ok(Durable::default()) };
        let row: MetaRow = rows::decode(META_KEY, row)?;
        if row.format != FORMAT {
            return Err(StoreError::UnknownFormat { found: row.format, known: FORMAT });
        }
        if row.feature_level > FEATURE_LEVEL {
            return Err(StoreError::FeatureLevel { found: row.feature_level, known: FEATURE_LEVEL });
        }
        let digest: [u8; 16] = row.digest[..]
            .try_into()
            .map_err(|_| StoreError::corrupt(format!("a digest of {} bytes", row.digest.len())))?;
        Ok(Durable {
            position: Position {
                applied_index: row.applied_index,
                revision: row.revision,
                digest: u128::from_le_bytes(digest),
                time_ms: row.time_ms,
                compacted: row.compacted,
                last_clear: row.last_clear,
                feature_level: row.feature_level,
            },
            live_keys: row.live_keys,
            sweep: Sweep {
                swept: row.swept,
                clear_swept: row.clear_swept,
                clear: (row.clear_target > 0).then_some((row.clear_target, row.clear_cursor)),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;

    fn durable() -> Durable {
        Durable {
            position: Position {
                applied_index: 1,
                revision: 2,
                digest: 3 << 90,
                time_ms: 4,
                compacted: 5,
                last_clear: 6,
                feature_level: FEATURE_LEVEL,
            },
            live_keys: 7,
            sweep: Sweep { swept: 8, clear_swept: 9, clear: Some((10, Bytes::from("next"))) },
        }
    }

    fn read(row: &MetaRow) -> Result<Durable, StoreError> {
        Durable::read(Some(Bytes::from(row.encode_to_vec())))
    }

    #[test]
    fn what_was_written_is_read_to_the_last_number() {
        let no_clear = Durable { sweep: Sweep { clear: None, ..durable().sweep }, ..durable() };
        for durable in [durable(), no_clear, Durable::default()] {
            assert_eq!(read(&durable.to_row()).unwrap(), durable);
        }
        assert_eq!(Durable::read(None).unwrap(), Durable::default());
    }

    #[test]
    fn what_a_later_build_wrote_is_refused() {
        let row = MetaRow { format: FORMAT + 1, ..durable().to_row() };
        assert!(matches!(read(&row), Err(StoreError::UnknownFormat { found, .. }) if found == FORMAT + 1));
        let row = MetaRow { feature_level: FEATURE_LEVEL + 1, ..durable().to_row() };
        assert!(
            matches!(read(&row), Err(StoreError::FeatureLevel { found, .. }) if found == FEATURE_LEVEL + 1)
        );
        let row = MetaRow { digest: Bytes::from_static(&[0; 15]), ..durable().to_row() };
        assert!(matches!(read(&row), Err(StoreError::Corrupt { .. })));
    }

    #[test]
    fn removal_is_behind_until_it_has_come_to_what_is_compacted_and_has_walked_the_keys() {
        let durable = |compacted, swept, clear: Option<u64>| Durable {
            position: Position { compacted, ..Position::default() },
            sweep: Sweep { swept, clear: clear.map(|at| (at, Bytes::new())), ..Sweep::default() },
            ..Durable::default()
        };
        let is_behind = [(5, 5, None), (5, 4, None), (5, 5, Some(3))]
            .map(|(compacted, swept, clear)| durable(compacted, swept, clear).sweep_is_behind());
        assert_eq!(is_behind, [false, true, true]);
    }
}
