//! Small files that are written whole, and are either there as written or not there at all.

use balsa_log::Folder;
use std::io;

const BYTES_MAX: u64 = 16 << 20;

/// Writes `bytes` as the file `name`, replacing it; durable when this returns.
pub(crate) fn write(folder: &Folder, name: &str, bytes: &[u8]) -> io::Result<()> {
    let (path, new) = (folder.path.join(name), folder.path.join(format!("{name}.new")));
    folder.disk.create_dir_all(&folder.path)?;
    if folder.disk.exists(&new)? {
        folder.disk.remove(&new)?;
    }
    let file = folder.disk.create(&new)?;
    file.write_all_at(bytes, 0)?;
    file.sync_data()?;
    folder.disk.rename(&new, &path)?;
    folder.disk.sync_dir(&folder.path)
}

/// The file's bytes; `None`: there is no such file.
pub(crate) fn read(folder: &Folder, name: &str) -> io::Result<Option<Vec<u8>>> {
    let path = folder.path.join(name);
    if !folder.disk.exists(&path)? {
        return Ok(None);
    }
    let file = folder.disk.open(&path)?;
    let len = file.len_bytes()?;
    if len > BYTES_MAX {
        return Err(io::Error::other(format!("{name} has {len} bytes, more than any such file")));
    }
    let mut bytes = vec![0; usize::try_from(len).map_err(io::Error::other)?];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(Some(bytes))
}
