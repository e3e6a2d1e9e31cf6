//! Folders: the names that a process sees, the names that are durable, and the changes in between.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

#[derive(Clone, Default)]
pub(super) struct Names {
    /// Durable from the moment they are made.
    dirs: BTreeSet<PathBuf>,
    /// File to inode, as a process sees them.
    now: BTreeMap<PathBuf, u64>,
    durable: BTreeMap<PathBuf, u64>,
    /// From `durable` to `now`, in order.
    pending: Vec<Change>,
}

#[derive(Clone)]
enum Change {
    Create { path: PathBuf, inode: u64 },
    Remove { path: PathBuf },
    Rename { from: PathBuf, to: PathBuf, inode: u64 },
}

impl Change {
    fn touches(&self, dir: &Path) -> bool {
        match self {
            Change::Create { path, .. } | Change::Remove { path } => path.parent() == Some(dir),
            Change::Rename { from, to, .. } => from.parent() == Some(dir) || to.parent() == Some(dir),
        }
    }

    fn apply(self, names: &mut BTreeMap<PathBuf, u64>) {
        match self {
            Change::Create { path, inode } => {
                names.insert(path, inode);
            }
            Change::Remove { path } => {
                names.remove(&path);
            }
            Change::Rename { from, to, inode } => {
                // Other changes of `from` may have been lost, or kept: only this file's name moves.
                if names.get(&from) == Some(&inode) {
                    names.remove(&from);
                }
                names.insert(to, inode);
            }
        }
    }
}

impl Names {
    pub(super) fn file(&self, path: &Path) -> Option<u64> {
        self.now.get(path).copied()
    }

    pub(super) fn exists(&self, path: &Path) -> bool {
        self.now.contains_key(path) || self.dirs.contains(path)
    }

    pub(super) fn paths(&self) -> Vec<PathBuf> {
        self.now.keys().cloned().collect()
    }

    pub(super) fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.check_dir(dir)?;
        let all = self.now.keys().chain(&self.dirs);
        let mut names: Vec<String> = all
            .filter(|path| path.parent() == Some(dir))
            .filter_map(|path| Some(path.file_name()?.to_str()?.to_string()))
            .collect();
        names.sort_unstable();
        Ok(names)
    }

    /// Whether a file can be made at `path`.
    pub(super) fn check_free(&self, path: &Path) -> io::Result<()> {
        if self.exists(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.check_dir(path.parent().unwrap_or(Path::new("")))
    }

    pub(super) fn create(&mut self, path: &Path, inode: u64) {
        self.change(Change::Create { path: path.to_path_buf(), inode });
    }

    pub(super) fn create_durable(&mut self, path: &Path, inode: u64) {
        self.now.insert(path.to_path_buf(), inode);
        self.durable.insert(path.to_path_buf(), inode);
    }

    pub(super) fn remove(&mut self, path: &Path) -> io::Result<()> {
        self.file(path).ok_or(io::ErrorKind::NotFound)?;
        self.change(Change::Remove { path: path.to_path_buf() });
        Ok(())
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let inode = self.file(from).ok_or(io::ErrorKind::NotFound)?;
        self.check_dir(to.parent().unwrap_or(Path::new("")))?;
        self.change(Change::Rename { from: from.to_path_buf(), to: to.to_path_buf(), inode });
        Ok(())
    }

    pub(super) fn remove_dir_all(&mut self, dir: &Path) -> io::Result<()> {
        self.check_dir(dir)?;
        for path in self.paths().into_iter().filter(|path| path.starts_with(dir)) {
            self.change(Change::Remove { path });
        }
        self.dirs.retain(|path| !path.starts_with(dir));
        Ok(())
    }

    pub(super) fn create_dir_all(&mut self, dir: &Path) -> io::Result<()> {
        for ancestor in dir.ancestors() {
            if self.now.contains_key(ancestor) {
                return Err(io::ErrorKind::NotADirectory.into());
            }
        }
        self.dirs.extend(dir.ancestors().map(Path::to_path_buf));
        Ok(())
    }

    pub(super) fn sync_dir(&mut self, dir: &Path) -> io::Result<()> {
        self.check_dir(dir)?;
        for change in std::mem::take(&mut self.pending) {
            if change.touches(dir) {
                change.apply(&mut self.durable);
            } else {
                self.pending.push(change);
            }
        }
        Ok(())
    }

    pub(super) fn power_loss(&mut self, random: &mut impl FnMut() -> u64) {
        for change in std::mem::take(&mut self.pending) {
            if !random().is_multiple_of(2) {
                change.apply(&mut self.durable);
            }
        }
        self.now = self.durable.clone();
    }

    /// Inodes that have a name, or may have one after a power loss.
    pub(super) fn reachable(&self) -> BTreeSet<u64> {
        let pending = self.pending.iter().filter_map(|change| match change {
            Change::Create { inode, .. } | Change::Rename { inode, .. } => Some(*inode),
            Change::Remove { .. } => None,
        });
        self.now.values().chain(self.durable.values()).copied().chain(pending).collect()
    }

    fn change(&mut self, change: Change) {
        change.clone().apply(&mut self.now);
        self.pending.push(change);
    }

    fn check_dir(&self, dir: &Path) -> io::Result<()> {
        if self.dirs.contains(dir) || dir.parent().is_none() {
            return Ok(());
        }
        Err(io::ErrorKind::NotFound.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Names {
        let mut names = Names::default();
        names.create_dir_all(Path::new("/d")).unwrap();
        names
    }

    #[test]
    fn a_rename_that_was_not_synced_may_have_happened_or_not() {
        for keep in [0, 1] {
            let mut names = names();
            names.create(Path::new("/d/a"), 1);
            names.sync_dir(Path::new("/d")).unwrap();
            names.rename(Path::new("/d/a"), Path::new("/d/b")).unwrap();
            assert_eq!(names.list(Path::new("/d")).unwrap(), ["b"]);
            names.power_loss(&mut || keep);
            assert_eq!(names.list(Path::new("/d")).unwrap(), [["a"], ["b"]][keep as usize]);
        }
    }

    #[test]
    fn changes_are_durable_by_folder() {
        let mut names = names();
        names.create_dir_all(Path::new("/e")).unwrap();
        names.create(Path::new("/d/a"), 1);
        names.create(Path::new("/e/b"), 2);
        names.sync_dir(Path::new("/d")).unwrap();
        names.power_loss(&mut || 0);
        assert_eq!(names.paths(), [Path::new("/d/a")]);
    }

    #[test]
    fn a_folder_goes_with_all_that_is_in_it_and_nothing_else() {
        let mut names = names();
        names.create_dir_all(Path::new("/d/x/y")).unwrap();
        for path in ["/d/x/a", "/d/x/y/b", "/d/xyz"] {
            names.create(Path::new(path), 1);
        }
        names.remove_dir_all(Path::new("/d/x")).unwrap();
        assert_eq!(names.list(Path::new("/d")).unwrap(), ["xyz"]);
        assert!(names.remove_dir_all(Path::new("/d/x")).is_err());
    }

    #[test]
    fn what_is_not_there_is_an_error() {
        let mut names = names();
        assert!(names.check_free(Path::new("/x/a")).is_err());
        assert!(names.remove(Path::new("/d/a")).is_err());
        assert!(names.rename(Path::new("/d/a"), Path::new("/d/b")).is_err());
        assert!(names.list(Path::new("/x")).is_err());
        assert!(names.create_dir_all(Path::new("/d/f")).is_ok());
        assert_eq!(names.list(Path::new("/d")).unwrap(), ["f"]);
    }
}
