//! A disk in memory: deterministic, quick, and as unkind as POSIX and hardware allow.
//!
//! What it models. Writes become durable by `sync_data`, names by `sync_dir`. [`SimDisk::power_loss`] keeps or loses
//! every sector (512 bytes) written since, each by itself, in any order; every created, renamed or removed name; and
//! a changed length. A sector is atomic. A sync that fails leaves what it covered lost, whatever later syncs say
//! (fsyncgate). [`SimDisk::crash`] ends the process only: what was written stays in the page cache.
//!
//! What it does not model: misdirected writes, and the loss of what was synced (use [`SimDisk::edit`] for that).
//! There is no clock, and no randomness of its own but [`SplitMix`], which callers seed.

mod faults;
mod image;
mod names;

pub use faults::{Counters, Fault, Op, OpKind, SplitMix};

use super::{Disk, DiskFile, SharedDisk};
use faults::Faults;
use image::Image;
use names::Names;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A simulated disk. Clones are handles to the same disk; [`SimDisk::fork`] makes a copy.
#[derive(Clone, Default)]
pub struct SimDisk {
    // A std Mutex: it is held for the length of one call, and nothing awaits inside.
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    names: Names,
    files: BTreeMap<u64, SimInode>,
    next_inode: u64,
    /// Rises with every crash: handles of an earlier one are dead.
    life: u64,
    /// In bytes.
    capacity: Option<u64>,
    faults: Faults,
}

#[derive(Clone, Default)]
struct SimInode {
    image: Image,
    handles: usize,
}

struct SimFile {
    disk: SimDisk,
    path: PathBuf,
    inode: u64,
    life: u64,
}

impl SimDisk {
    /// An empty disk without limit.
    pub fn new() -> SimDisk {
        SimDisk::default()
    }

    /// This disk, as its users take it.
    pub fn shared(&self) -> SharedDisk {
        Arc::new(self.clone())
    }

    /// A copy: same content, same unsynced state; no faults are set, counters are 0. Pages are shared until written.
    pub fn fork(&self) -> SimDisk {
        let state = self.lock();
        let mut files = state.files.clone();
        files.values_mut().for_each(|file| file.handles = 0);
        let copy = State {
            names: state.names.clone(),
            files,
            next_inode: state.next_inode,
            life: state.life + 1,
            capacity: state.capacity,
            faults: Faults::default(),
        };
        SimDisk { state: Arc::new(Mutex::new(copy)) }
    }

    /// Limits how many bytes files may take in all; None: no limit. Files that are there already stay.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.lock().capacity = bytes;
    }

    /// The process dies, the machine lives on: nothing that was written is lost, open files are dead.
    pub fn crash(&self) {
        let mut state = self.lock();
        state.life += 1;
        state.faults.halted = false;
        state.sweep();
    }

    /// Power is lost: of all that was not synced, each sector and each name is kept or lost as `random` says. Open
    /// files are dead.
    pub fn power_loss(&self, random: &mut impl FnMut() -> u64) {
        let mut state = self.lock();
        state.life += 1;
        state.faults.halted = false;
        state.names.power_loss(random);
        for file in state.files.values_mut() {
            file.image.power_loss(random);
        }
        state.sweep();
    }

    /// Makes every call fail, from the `nth` from now on (1: the next), until [`SimDisk::crash`] or
    /// [`SimDisk::power_loss`]: the process does not get further than that.
    pub fn halt_at(&self, nth: u64) {
        let mut state = self.lock();
        let at = state.faults.counters.total + nth;
        state.faults.halt_at = Some(at);
    }

    /// Makes the `nth` call from now on (1: the next) fail with an I/O error, and no other.
    pub fn fail_at(&self, nth: u64) {
        let mut state = self.lock();
        let at = state.faults.counters.total + nth;
        state.faults.fail_at = Some(at);
    }

    /// Asks `hook` before every call what is to go wrong with it. It must not use this disk.
    pub fn set_hook(&self, hook: impl FnMut(&Op<'_>) -> Fault + Send + 'static) {
        self.lock().faults.hook = Some(Box::new(hook));
    }

    /// Takes back all faults that are set, the limit of space apart.
    pub fn clear_faults(&self) {
        let mut state = self.lock();
        let counters = state.faults.counters;
        state.faults = Faults { counters, ..Faults::default() };
    }

    /// How many calls there were.
    pub fn counters(&self) -> Counters {
        self.lock().faults.counters
    }

    /// What a reader would see in a file now; None if there is none.
    pub fn contents(&self, path: &Path) -> Option<Vec<u8>> {
        let state = self.lock();
        let image = &state.files.get(&state.names.file(path)?)?.image;
        let mut bytes = vec![0; image.len_bytes() as usize];
        image.read(&mut bytes, 0);
        Some(bytes)
    }

    /// Replaces a file's content, as rot or a person might: at once, and durably. Makes the file if there is none.
    pub fn edit(&self, path: &Path, bytes: &[u8]) {
        let mut state = self.lock();
        let inode = match state.names.file(path) {
            Some(inode) => inode,
            None => {
                let inode = state.new_inode();
                state.names.create_durable(path, inode);
                inode
            }
        };
        if let Some(file) = state.files.get_mut(&inode) {
            file.image = Image::durable(bytes);
        }
    }

    /// Flips one bit (0 to 7) of a byte, durably. Does nothing beyond the end.
    pub fn flip_bit(&self, path: &Path, offset: u64, bit: u8) {
        let mut state = self.lock();
        if let Some(inode) = state.names.file(path)
            && let Some(file) = state.files.get_mut(&inode)
        {
            file.image.flip_bit(offset, bit);
        }
    }

    /// All files, sorted.
    pub fn paths(&self) -> Vec<PathBuf> {
        self.lock().names.paths()
    }

    /// Bytes that files take.
    pub fn used_bytes(&self) -> u64 {
        self.lock().used_bytes()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn handle(&self, state: &mut State, path: &Path, inode: u64) -> Box<dyn DiskFile> {
        if let Some(file) = state.files.get_mut(&inode) {
            file.handles += 1;
        }
        Box::new(SimFile { disk: self.clone(), path: path.to_path_buf(), inode, life: state.life })
    }
}

impl State {
    fn new_inode(&mut self) -> u64 {
        self.next_inode += 1;
        self.files.insert(self.next_inode, SimInode::default());
        self.next_inode
    }

    fn used_bytes(&self) -> u64 {
        self.files.values().map(|file| file.image.charged_bytes()).sum()
    }

    /// Forgets files that nothing can reach any more.
    fn sweep(&mut self) {
        let reachable = self.names.reachable();
        self.files.retain(|inode, file| file.handles > 0 || reachable.contains(inode));
    }

    /// Whether a file may grow to `bytes`.
    fn make_room(&self, inode: u64, bytes: u64) -> io::Result<()> {
        let Some(capacity) = self.capacity else { return Ok(()) };
        let charged = self.files.get(&inode).map_or(0, |file| file.image.charged_bytes());
        if bytes > charged && self.used_bytes() + (bytes - charged) > capacity {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        Ok(())
    }
}

impl Disk for SimDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.lock();
        state.faults.before(OpKind::Create, path, 0)?;
        state.names.check_free(path)?;
        let inode = state.new_inode();
        state.names.create(path, inode);
        Ok(self.handle(&mut state, path, inode))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.lock();
        state.faults.before(OpKind::Open, path, 0)?;
        let inode = state.names.file(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(self.handle(&mut state, path, inode))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut state = self.lock();
        state.faults.before(OpKind::List, dir, 0)?;
        state.names.list(dir)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        let mut state = self.lock();
        state.faults.before(OpKind::Exists, path, 0)?;
        Ok(state.names.exists(path))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.lock();
        state.faults.before(OpKind::Rename, from, 0)?;
        state.names.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.lock();
        state.faults.before(OpKind::Remove, path, 0)?;
        state.names.remove(path)
    }

    fn remove_dir_all(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.lock();
        state.faults.before(OpKind::Remove, dir, 0)?;
        state.names.remove_dir_all(dir)
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.lock();
        state.faults.before(OpKind::CreateDir, dir, 0)?;
        state.names.create_dir_all(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.lock();
        state.faults.before(OpKind::SyncDir, dir, 0)?;
        state.names.sync_dir(dir)?;
        state.sweep();
        Ok(())
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        let mut state = self.lock();
        state.faults.before(OpKind::FreeBytes, dir, 0)?;
        Ok(state.capacity.map_or(1 << 40, |capacity| capacity.saturating_sub(state.used_bytes())))
    }
}

impl SimFile {
    /// The disk, unless this handle is of an earlier life.
    fn lock(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.disk.lock();
        if self.life == state.life {
            return Ok(state);
        }
        Err(io::Error::other(format!("{}: opened before the crash", self.path.display())))
    }

    fn image<'a>(&self, state: &'a mut State) -> io::Result<&'a mut Image> {
        match state.files.get_mut(&self.inode) {
            Some(file) => Ok(&mut file.image),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        let mut state = self.disk.lock();
        if let Some(file) = state.files.get_mut(&self.inode) {
            file.handles = file.handles.saturating_sub(1);
        }
    }
}

impl DiskFile for SimFile {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let mut state = self.lock()?;
        state.faults.before(OpKind::Read, &self.path, buf.len())?;
        let image = self.image(&mut state)?;
        if offset.checked_add(buf.len() as u64).is_none_or(|end| end > image.len_bytes()) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        image.read(buf, offset);
        Ok(())
    }

    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.lock()?;
        let allowed = state.faults.before(OpKind::Write, &self.path, buf.len());
        let wanted = match allowed {
            Ok(()) => buf,
            Err(_) => &buf[..state.faults.torn_bytes.take().unwrap_or(0).min(buf.len())],
        };
        if !wanted.is_empty() {
            state.make_room(self.inode, offset + wanted.len() as u64)?;
            self.image(&mut state)?.write(wanted, offset);
        }
        allowed
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.lock()?;
        let allowed = state.faults.before(OpKind::Sync, &self.path, 0);
        if allowed.is_ok() {
            self.image(&mut state)?.sync();
        } else if !state.faults.halted {
            self.image(&mut state)?.fail_sync();
        }
        allowed
    }

    fn len_bytes(&self) -> io::Result<u64> {
        let mut state = self.lock()?;
        state.faults.before(OpKind::Len, &self.path, 0)?;
        Ok(self.image(&mut state)?.len_bytes())
    }

    fn set_len(&self, len_bytes: u64) -> io::Result<()> {
        let mut state = self.lock()?;
        state.faults.before(OpKind::SetLen, &self.path, 0)?;
        self.image(&mut state)?.set_len(len_bytes);
        Ok(())
    }

    fn allocate_zeroed(&self, len_bytes: u64) -> io::Result<()> {
        let mut state = self.lock()?;
        state.faults.before(OpKind::Allocate, &self.path, len_bytes as usize)?;
        state.make_room(self.inode, len_bytes)?;
        self.image(&mut state)?.allocate_zeroed(len_bytes);
        Ok(())
    }
}
