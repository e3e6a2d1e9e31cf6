//! A file that is there only once it is whole.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// A file on its way: kept beside its place (`NAME.partial`) until [`WholeFile::finish`] puts it there. Dropped before, it is
/// gone, and what was in its place is as it was.
#[derive(Debug)]
pub struct WholeFile {
    place: PathBuf,
    partial: PathBuf,
    file: File,
    finished: bool,
}

impl WholeFile {
    /// Begins one that will be at `place`.
    pub fn create(place: &Path) -> io::Result<WholeFile> {
        let mut name = place.as_os_str().to_owned();
        name.push(".partial");
        let partial = PathBuf::from(name);
        let file = File::create(&partial)?;
        Ok(WholeFile { place: place.to_owned(), partial, file, finished: false })
    }

    /// It is whole: on the disk, and in its place.
    pub fn finish(mut self) -> io::Result<()> {
        self.file.sync_all()?;
        std::fs::rename(&self.partial, &self.place)?;
        self.finished = true;
        let folder = self.place.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    }
}

impl Write for WholeFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for WholeFile {
    fn drop(&mut self) {
        if !self.finished {
            let _ = std::fs::remove_file(&self.partial); // what is left of it is of no use
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_there_whole_or_not_at_all() {
        let folder = std::env::temp_dir().join(format!("whole-file-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let place = folder.join("file");
        let names = || -> Vec<_> {
            std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect()
        };
        let mut given_up = WholeFile::create(&place).unwrap();
        given_up.write_all(b"half").unwrap();
        assert_eq!(names(), ["file.partial"]);
        drop(given_up);
        assert!(names().is_empty());
        for content in [b"first", b"other"] {
            let mut whole = WholeFile::create(&place).unwrap();
            whole.write_all(content).unwrap();
            whole.finish().unwrap();
            assert_eq!(std::fs::read(&place).unwrap(), content);
            drop(WholeFile::create(&place).unwrap());
        }
        assert_eq!(names(), ["file"]);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
