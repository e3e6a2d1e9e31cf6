//! A backup in a file, read and checked: its frames, its chunks, and that its header is of the state in it.

use super::RepairError;
use super::progress::Progress;
use balsa_store::{FEATURE_LEVEL, SnapshotSink, StoreError};
use balsa_wire::backup::{Header, Piece, Reader};
use bytes::Bytes;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Bytes that are read at once.
const READ_BYTES: usize = 1 << 20;

/// Gives all of a backup to `sink`, which is complete then. Gives what the backup is of, and its length in bytes.
pub(super) fn read_into(path: &Path, sink: &mut SnapshotSink) -> Result<(Header, u64), RepairError> {
    let unreadable = |error| RepairError::BackupFile { path: path.display().to_string(), error };
    let mut file = File::open(path).map_err(unreadable)?;
    let mut progress = Progress::of(file.metadata().map_err(unreadable)?.len());
    let mut buffer = vec![0; READ_BYTES];
    let mut reader = Reader::default();
    let mut header = None;
    loop {
        let mut input = match file.read(&mut buffer).map_err(unreadable)? {
            0 => break,
            bytes => &buffer[..bytes],
        };
        while let Some(piece) = reader.take(&mut input)? {
            match piece {
                Piece::Header(is_of) => header = Some(within_reach(is_of)?),
                Piece::Chunk(chunk) => sink.add_chunk(&Bytes::from(chunk)).map_err(RepairError::Contents)?,
                Piece::End(_) => {}
            }
        }
        progress.show(reader.taken());
    }
    reader.finish()?;
    match (header, sink.arrived().map_err(RepairError::Contents)?) {
        (Some(header), Some(arrived)) if is_of(&header, arrived) => Ok((header, reader.taken())),
        (_, Some(_)) => {
            Err(RepairError::Refused("the backup's header is of another state than its chunks".into()))
        }
        (_, None) => Err(RepairError::Refused("the backup holds no whole state".into())),
    }
}

fn within_reach(header: Header) -> Result<Header, RepairError> {
    let (found, known) = (header.feature_level, FEATURE_LEVEL);
    match found > known {
        true => Err(RepairError::Contents(StoreError::FeatureLevel { found, known })),
        false => Ok(header),
    }
}

fn is_of(header: &Header, (position, live_keys): (balsa_store::Position, u64)) -> bool {
    header.index == position.applied_index
        && header.revision == position.revision
        && header.time_ms == position.time_ms
        && header.feature_level == position.level()
        && header.digest == format!("{:032x}", position.digest)
        && header.keys == live_keys
}
