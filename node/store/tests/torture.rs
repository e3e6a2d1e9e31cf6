//! Damage to the store's files at rest: bytes flipped, files cut, zeroed and taken away. A store opens and reads as it was
//! left, or as it was at an earlier flush (the log tells the node, which then replays or stops), or says that it cannot.
//! It never shows anything else (hazards 28, 39).
//!
//! `BALSA_TORTURE_STRIDE` is how many bytes lie between two flips: 1 flips every byte. The default keeps this to seconds.

mod common;

use std::collections::BTreeMap;
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fs, io};

use balsa_store::command::{self, Operation, Value};
use balsa_store::{FjallEngine, Position, Store, StoreConfig, StoreError};
use bytes::Bytes;
use common::{clear, command, compact, delete, put, text, with_key};

fn config() -> StoreConfig {
    StoreConfig { history_revisions: 100, reply_limit: 50, ..StoreConfig::default() }
}

/// The entry of an index: plain and keyed writes, large values, deletes, a clear, a compaction.
fn entry(index: u64) -> Bytes {
    let key = format!("k{}", index * 7919 % 200);
    let command = match index % 40 {
        7 => command(delete(&key)),
        13 => with_key(&format!("id{}", index % 120), "f", put(&key, &index.to_string())),
        21 => command(Operation::Put(command::Put {
            key: text(&key),
            value: vec![index as u8; 3000].into(),
            ..command::Put::default()
        })),
        27 if index == 347 => command(clear()),
        33 => command(compact(index.saturating_sub(150))),
        _ => command(put(&key, &index.to_string())),
    };
    command::stamp(command::encode(&command), index * 10)
}

/// All that a store shows: where it is, every key, and what a retry of each keyed write is answered.
#[derive(PartialEq, Debug)]
struct Shown {
    position: Position,
    items: Vec<(Bytes, Value)>,
    retries: Vec<command::Reply>,
}

fn shown(store: &mut Store) -> Result<Shown, StoreError> {
    let view = store.reader().view();
    let mut items = view.range(Bound::Unbounded, Bound::Unbounded, usize::MAX, usize::MAX)?.items;
    for (key, value) in &mut items {
        // By key, another way through the tables than by range.
        assert_eq!(view.get(key)?.as_ref(), Some(&*value), "{key:?}");
    }
    let position = store.position();
    let mut retries = Vec::new();
    for (at, id) in (0..120).filter(|id| id % 40 == 13).enumerate() {
        let again = with_key(&format!("id{id}"), "f", put("other", "retry"));
        let entry = command::stamp(command::encode(&again), position.applied_index * 10);
        match store.apply(position.applied_index + 1 + at as u64, &entry) {
            Ok(reply) => retries.push(reply),
            Err(balsa_store::ApplyError::Store { source, .. }) => return Err(source),
            Err(other) => panic!("{other}"),
        }
    }
    items.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(Shown { position, items, retries })
}

fn open(folder: &Path) -> Result<Store, StoreError> {
    Store::open(Arc::new(FjallEngine::open(folder)?), config())
}

/// What a folder shows, in a thread of its own, so that a panic of the engine (which ends a node) is an answer too.
fn look(folder: &Path) -> Outcome {
    match catch_unwind(AssertUnwindSafe(|| open(folder).and_then(|mut store| shown(&mut store)))) {
        Ok(Ok(shown)) => Outcome::Shown(Box::new(shown)),
        Ok(Err(error)) => Outcome::Refused(error.to_string()),
        Err(_) => Outcome::Panicked,
    }
}

#[derive(Debug)]
enum Outcome {
    Shown(Box<Shown>),
    Refused(String),
    Panicked,
}

/// A store after several flushes, closed, and what it showed at each.
struct Base {
    folder: tempfile::TempDir,
    files: BTreeMap<PathBuf, Vec<u8>>,
    history: BTreeMap<u64, Shown>,
}

impl Base {
    fn new() -> Base {
        let folder = tempfile::tempdir().unwrap();
        let mut history = BTreeMap::new();
        let mut store = open(folder.path()).unwrap();
        history.insert(0, shown(&mut open(tempfile::tempdir().unwrap().path()).unwrap()).unwrap());
        for index in 1..=600 {
            store.apply(index, &entry(index)).unwrap();
            if index % 100 == 0 {
                let durable = store.force_rotate().unwrap().run().unwrap();
                store.handle_flushed(durable).unwrap();
                drop(store);
                history.insert(durable, shown(&mut open(folder.path()).unwrap()).unwrap());
                store = open(folder.path()).unwrap();
            }
        }
        drop(store);
        let mut files = BTreeMap::new();
        read_all(folder.path(), Path::new(""), &mut files).unwrap();
        assert!(files.len() >= 6, "{:?}", files.keys());
        Base { folder, files, history }
    }

    /// A copy with one file changed; `None` takes it away.
    fn with(&self, file: &Path, bytes: Option<&[u8]>) -> tempfile::TempDir {
        let copy = tempfile::tempdir_in(self.folder.path().parent().unwrap()).unwrap();
        for (path, content) in &self.files {
            let to = copy.path().join(path);
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            match bytes {
                _ if path != file => fs::write(to, content).unwrap(),
                Some(bytes) => fs::write(to, bytes).unwrap(),
                None => {}
            }
        }
        copy
    }
}

fn read_all(root: &Path, below: &Path, files: &mut BTreeMap<PathBuf, Vec<u8>>) -> io::Result<()> {
    for item in fs::read_dir(root.join(below))? {
        let path = below.join(item?.file_name());
        if root.join(&path).is_dir() {
            read_all(root, &path, files)?;
        } else {
            files.insert(path.clone(), fs::read(root.join(path))?);
        }
    }
    Ok(())
}

/// How often each thing happened.
#[derive(Default, Debug)]
struct Tally {
    cases: u64,
    whole: u64,
    older: u64,
    refused: u64,
    panicked: u64,
}

impl Tally {
    fn judge(&mut self, base: &Base, folder: &Path, context: &str) {
        self.cases += 1;
        let newest = base.history.last_key_value().unwrap().1;
        match look(folder) {
            Outcome::Shown(shown) if *shown == *newest => self.whole += 1,
            Outcome::Shown(shown) => {
                let then = base.history.get(&shown.position.applied_index);
                assert_eq!(then, Some(&*shown), "{context}: silently wrong");
                self.older += 1;
            }
            Outcome::Refused(why) => {
                assert!(!why.is_empty(), "{context}");
                self.refused += 1;
            }
            Outcome::Panicked => self.panicked += 1,
        }
    }
}

fn stride() -> usize {
    std::env::var("BALSA_TORTURE_STRIDE").map_or(997, |text| text.parse().unwrap())
}

#[test]
fn damage_is_never_silent() {
    std::panic::set_hook(Box::new(|_| ())); // The engine's own panics are counted, not printed.
    let base = Base::new();
    let mut tally = Tally::default();
    let stride = stride();
    for (file, bytes) in &base.files {
        let name = file.display();
        for at in (0..bytes.len()).step_by(stride.min(bytes.len() / 8 + 1)) {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << (at % 8);
            let copy = base.with(file, Some(&flipped));
            tally.judge(&base, copy.path(), &format!("byte {at} of {name} flipped"));
        }
        for len in (0..bytes.len()).step_by(stride.max(bytes.len() / 4 + 1)) {
            let copy = base.with(file, Some(&bytes[..len]));
            tally.judge(&base, copy.path(), &format!("{name} cut to {len} of {}", bytes.len()));
        }
        for begin in (0..bytes.len()).step_by(stride.max(512)) {
            let mut zeroed = bytes.clone();
            let end = zeroed.len().min(begin + 512);
            zeroed[begin..end].fill(0);
            let copy = base.with(file, Some(&zeroed));
            tally.judge(&base, copy.path(), &format!("{name} zeroed from {begin}"));
        }
        let copy = base.with(file, None);
        tally.judge(&base, copy.path(), &format!("{name} taken away"));
    }
    let _ = std::panic::take_hook();
    println!("cases: {} (store: {tally:?})", tally.cases);
    assert!(tally.refused > 20, "{tally:?}");
}
