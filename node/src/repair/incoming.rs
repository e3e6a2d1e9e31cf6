//! A backup that comes through a pipe. It is read more than once, so it lies in the data folder until all is done.

use super::RepairError;
use balsa_wire::backup::Reader;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// Where it lies meanwhile.
const FILE: &str = "incoming.backup";
/// Bytes that are read at once.
const READ_BYTES: usize = 1 << 20;

/// A backup that has come, whole; its file goes with this.
#[derive(Debug)]
pub struct Incoming {
    path: PathBuf,
}

impl Incoming {
    /// Takes a backup out of `input`, up to the backup's own end: whoever sends it may keep the pipe open. One that is damaged,
    /// or ends too early, is refused.
    pub fn take(input: &mut impl Read, data: &Path) -> Result<Incoming, RepairError> {
        std::fs::create_dir_all(data)?;
        let incoming = Incoming { path: data.join(FILE) };
        let unreadable = |error: io::Error| RepairError::BackupFile { path: "standard input".into(), error };
        let mut file = File::create(&incoming.path)?;
        let mut buffer = vec![0; READ_BYTES];
        let mut reader = Reader::default();
        while reader.finish().is_err() {
            let bytes = match input.read(&mut buffer).map_err(unreadable)? {
                0 => break,
                bytes => &buffer[..bytes],
            };
            reader.check(bytes)?;
            file.write_all(bytes)?;
        }
        reader.finish()?;
        Ok(incoming)
    }

    /// The file that holds it.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path); // what cannot be removed is written over by the next
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use balsa_wire::backup::{Header, Writer};

    /// Gives what it has, and then fails: whoever reads behind the end of the backup notices.
    struct Open<'a>(&'a [u8]);

    impl Read for Open<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            match self.0.read(buffer)? {
                0 => Err(io::Error::other("nothing more comes")),
                bytes => Ok(bytes),
            }
        }
    }

    fn backup() -> Vec<u8> {
        let header = Header {
            version: "0".into(),
            cluster: "c".into(),
            node: "n".into(),
            time_ms: 0,
            index: 1,
            revision: 1,
            feature_level: 1,
            digest: "d".into(),
            keys: 1,
        };
        let (mut writer, mut bytes) = Writer::begin(&header);
        let chunk = vec![7; 3 * READ_BYTES];
        bytes.extend(writer.chunk(&chunk));
        bytes.extend(chunk);
        bytes.extend(writer.end());
        bytes
    }

    #[test]
    fn it_ends_where_the_backup_ends_and_leaves_nothing() {
        let home = tempfile::tempdir().unwrap();
        let data = home.path().join("data");
        let bytes = backup();
        let incoming = Incoming::take(&mut Open(&bytes), &data).unwrap();
        assert_eq!(std::fs::read(incoming.path()).unwrap(), bytes);
        drop(incoming);
        assert_eq!(std::fs::read_dir(&data).unwrap().count(), 0);
    }

    #[test]
    fn what_is_damaged_or_cut_off_is_refused() {
        let home = tempfile::tempdir().unwrap();
        let bytes = backup();
        let refused = |mut bytes: &[u8]| Incoming::take(&mut bytes, home.path()).unwrap_err();
        assert!(matches!(refused(&bytes[..bytes.len() - 1]), RepairError::Backup(_)));
        let mut damaged = bytes.clone();
        damaged[bytes.len() / 2] ^= 1;
        assert!(matches!(refused(&damaged), RepairError::Backup(_)));
        assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 0);
    }
}
