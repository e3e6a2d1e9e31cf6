//! A backup that comes through a pipe. It is read more than once, so it lies in the data folder until all is done.

use super::{RepairError, restore};
use crate::config::Config;
use crate::life::FolderLock;
use balsa_log::Folder;
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
    /// or ends too early, is refused, and so is any where nothing may be restored.
    pub fn take(input: &mut impl Read, config: &Config) -> Result<Incoming, RepairError> {
        let _lock = FolderLock::try_take(&config.data)?;
        restore::refuse_where_it_must_not_be(config)?;
        let incoming = Incoming { path: config.data.join(FILE) };
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

/// Removes what a restore left that was killed while its backup came. For whoever holds the folder's lock.
pub(crate) fn sweep(folder: &Folder) -> io::Result<()> {
    let left = folder.path.join(FILE);
    if folder.disk.exists(&left)? { folder.disk.remove(&left) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Settings;
    use balsa_log::RealDisk;
    use std::sync::Arc;

    fn config(data: &Path) -> Config {
        Config::from_settings(Settings { data: Some(data.into()), ..Settings::default() })
    }

    fn files(folder: &Path) -> Vec<String> {
        let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
        names.map(|name| name.into_string().unwrap()).filter(|name| name != "lock").collect()
    }
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
        let incoming = Incoming::take(&mut Open(&bytes), &config(&data)).unwrap();
        assert_eq!(std::fs::read(incoming.path()).unwrap(), bytes);
        drop(incoming);
        assert!(files(&data).is_empty());
    }

    #[test]
    fn what_is_damaged_or_cut_off_is_refused() {
        let home = tempfile::tempdir().unwrap();
        let bytes = backup();
        let refused = |mut bytes: &[u8]| Incoming::take(&mut bytes, &config(home.path())).unwrap_err();
        assert!(matches!(refused(&bytes[..bytes.len() - 1]), RepairError::Backup(_)));
        let mut damaged = bytes.clone();
        damaged[bytes.len() / 2] ^= 1;
        assert!(matches!(refused(&damaged), RepairError::Backup(_)));
        assert!(files(home.path()).is_empty());
    }

    #[test]
    fn where_nothing_may_be_restored_nothing_is_taken() {
        let home = tempfile::tempdir().unwrap();
        let bytes = backup();
        let refused = || Incoming::take(&mut &bytes[..], &config(home.path())).unwrap_err().to_string();
        {
            let _node = FolderLock::try_take(home.path()).unwrap();
            assert!(refused().contains("stop the node first"));
        }
        std::fs::create_dir(home.path().join("state")).unwrap();
        assert!(refused().contains("not blank"));
        assert_eq!(files(home.path()), ["state"]);
    }

    #[test]
    fn what_a_killed_restore_left_is_swept() {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join(FILE), "half").unwrap();
        let folder = Folder { disk: Arc::new(RealDisk), path: home.path().into() };
        sweep(&folder).unwrap();
        sweep(&folder).unwrap();
        assert!(files(home.path()).is_empty());
    }
}
