//! Who this disk is: cluster and node, minted once, kept in `identity.json` in the data folder.
//!
//! Written before anything that depends on it may be said to anybody, and never rewritten with another node id. A file
//! that cannot be read stops the node: it must not guess who it was (contract, promise 4).

use crate::durable_file;
use crate::engine::status::ClusterId;
use balsa_log::Folder;
use balsa_raft::NodeId;
use serde::{Deserialize, Serialize};
use std::io;

const FILE: &str = "identity.json";
const FORMAT: u32 = 1;

/// What a disk knows of itself.
#[derive(Clone, PartialEq, Debug)]
pub struct Identity {
    /// The cluster; `None` while this node still asks to be taken in.
    pub cluster: Option<ClusterId>,
    /// This node.
    pub node: NodeId,
    /// Its slot; `None` while joining without one.
    pub slot: Option<u32>,
    /// The founders, where this disk takes part in a founding; empty where it joined.
    pub founders: Vec<Founder>,
    /// It proposed the founding.
    pub proposer: bool,
    /// All founders have begun; nothing of the founding is left to do.
    pub founded: bool,
    /// Its log was made: it may have voted or acknowledged. Without its log this identity must never be used again.
    pub begun: bool,
    /// It was removed from its cluster, for certain: this identity must never be used again.
    pub removed: bool,
}

/// One node of a founding.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Founder {
    /// Its slot.
    pub slot: u32,
    /// The identity that the proposer minted for it.
    #[serde(with = "hex_id")]
    pub node: u64,
    /// Where peers reach it.
    pub peer_address: String,
}

/// Why an identity cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The disk failed.
    #[error("{FILE} cannot be read or written: {0}")]
    Io(#[from] io::Error),
    /// It is not what was written.
    #[error(
        "{FILE} is damaged ({0}): this disk does not know who it is. Restore the file, or move the data folder away so \
         that the node joins again under a new identity"
    )]
    Damaged(String),
}

#[derive(Serialize, Deserialize)]
struct Stored {
    format: u32,
    #[serde(with = "hex_id")]
    cluster: u64,
    #[serde(with = "hex_id")]
    node: u64,
    slot: Option<u32>,
    founders: Vec<Founder>,
    proposer: bool,
    founded: bool,
    #[serde(default)]
    begun: bool,
    #[serde(default)]
    removed: bool,
}

/// Reads the identity of a data folder; `None`: the disk is blank.
pub fn load(folder: &Folder) -> Result<Option<Identity>, IdentityError> {
    let Some(bytes) = durable_file::read(folder, FILE)? else { return Ok(None) };
    let text = String::from_utf8(bytes).map_err(|_| IdentityError::Damaged("not text".into()))?;
    let (body, sum) =
        text.trim_end().rsplit_once('\n').ok_or(IdentityError::Damaged("no checksum line".into()))?;
    if sum != checksum(body) {
        return Err(IdentityError::Damaged("its checksum does not match".into()));
    }
    let stored: Stored =
        serde_json::from_str(body).map_err(|error| IdentityError::Damaged(error.to_string()))?;
    if stored.format != FORMAT || stored.node == 0 {
        return Err(IdentityError::Damaged(format!("format {} is not known to this build", stored.format)));
    }
    Ok(Some(Identity {
        cluster: (stored.cluster != 0).then_some(ClusterId(stored.cluster)),
        node: NodeId(stored.node),
        slot: stored.slot,
        founders: stored.founders,
        proposer: stored.proposer,
        founded: stored.founded,
        begun: stored.begun,
        removed: stored.removed,
    }))
}

/// Writes the identity; durable when this returns.
pub fn save(folder: &Folder, identity: &Identity) -> Result<(), IdentityError> {
    let stored = Stored {
        format: FORMAT,
        cluster: identity.cluster.map_or(0, |cluster| cluster.0),
        node: identity.node.0,
        slot: identity.slot,
        founders: identity.founders.clone(),
        proposer: identity.proposer,
        founded: identity.founded,
        begun: identity.begun,
        removed: identity.removed,
    };
    let body = serde_json::to_string(&stored).map_err(io::Error::other)?;
    let text = format!("{body}\n{}\n", checksum(&body));
    Ok(durable_file::write(folder, FILE, text.as_bytes())?)
}

/// Takes back the identity of a disk that never voted or acknowledged anything under it.
pub fn discard(folder: &Folder) -> Result<(), IdentityError> {
    folder.disk.remove(&folder.path.join(FILE))?;
    folder.disk.sync_dir(&folder.path)?;
    Ok(())
}

fn checksum(body: &str) -> String {
    format!("crc32c {:08x}", crc32c::crc32c(body.as_bytes()))
}

/// Ids as people see them in logs: 16 hex digits.
pub(crate) mod hex_id {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(crate) fn serialize<S: Serializer>(id: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format!("{id:016x}"))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        let text = String::deserialize(deserializer)?;
        u64::from_str_radix(&text, 16)
            .map_err(|_| D::Error::custom(format!("'{text}' is not a hexadecimal id")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use balsa_log::SimDisk;
    use std::sync::Arc;

    fn sample() -> Identity {
        Identity {
            cluster: Some(ClusterId(0xabc)),
            node: NodeId(7),
            slot: Some(2),
            founders: vec![Founder { slot: 0, node: 9, peer_address: "a:1".into() }],
            proposer: false,
            founded: true,
            begun: true,
            removed: false,
        }
    }

    fn folder() -> (Arc<SimDisk>, Folder) {
        let disk = Arc::new(SimDisk::default());
        (disk.clone(), Folder { disk, path: "/data".into() })
    }

    #[test]
    fn survives_a_power_loss_once_saved() {
        let (disk, folder) = folder();
        assert_eq!(load(&folder).unwrap(), None);
        save(&folder, &sample()).unwrap();
        let mut random = 0u64;
        disk.power_loss(&mut || {
            random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            random >> 7
        });
        assert_eq!(load(&folder).unwrap(), Some(sample()));
    }

    #[test]
    fn a_damaged_file_is_refused_at_every_byte() {
        let (_, folder) = folder();
        save(&folder, &sample()).unwrap();
        let path = folder.path.join(FILE);
        let len = folder.disk.open(&path).unwrap().len_bytes().unwrap();
        for offset in 0..len - 1 {
            let file = folder.disk.open(&path).unwrap();
            let mut byte = [0];
            file.read_exact_at(&mut byte, offset).unwrap();
            file.write_all_at(&[byte[0] ^ 0x10], offset).unwrap();
            assert!(load(&folder).is_err(), "byte {offset} flipped was not noticed");
            file.write_all_at(&byte, offset).unwrap();
        }
        assert!(load(&folder).is_ok());
    }
}
