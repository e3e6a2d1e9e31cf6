//! Damage to the store's files at rest: bytes flipped, files cut, zeroed and taken away. A store opens and reads as it was
//! left, or as it was at an earlier flush (the log tells the node, which then replays or stops), or says that it cannot.
//! It never shows anything else (hazards 28, 39).
//!
//! `BALSA_TORTURE_STRIDE` is how many bytes lie between two flips: 1 flips every byte. The default keeps this to seconds.

mod common;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::process::{Command as Process, Stdio};
use std::sync::Arc;
use std::{env, fs, io};

use balsa_store::command::{self, Operation, Value};
use balsa_store::engine::StateEngine;
use balsa_store::{FjallEngine, MemoryEngine, Position, Store, StoreConfig, StoreError};
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

fn open(engine: impl StateEngine) -> Result<Store, StoreError> {
    Store::open(Arc::new(engine), config())
}

/// Applies entries up to an index, and flushes.
fn grow(store: &mut Store, to: u64) {
    for index in store.applied_index() + 1..=to {
        store.apply(index, &entry(index)).unwrap();
    }
    if let Some(job) = store.force_rotate() {
        let durable = job.run().unwrap();
        store.handle_flushed(durable).unwrap();
    }
    store.publish();
}

/// The flushes of the base.
fn flushes() -> impl Iterator<Item = u64> {
    (0..=6).map(|flush| flush * 100)
}

/// What a store shows after each flush.
fn history() -> BTreeMap<u64, Shown> {
    let shown_at = |index| {
        let mut store = open(MemoryEngine::new()).unwrap();
        grow(&mut store, index);
        shown(&mut store).unwrap()
    };
    flushes().map(|index| (index, shown_at(index))).collect()
}

/// The files of a store that was closed, and what is done to them.
struct Base {
    files: BTreeMap<PathBuf, Vec<u8>>,
    damages: Vec<(PathBuf, Damage)>,
}

#[derive(Clone, Copy, Debug)]
enum Damage {
    FlippedAt(usize),
    CutTo(usize),
    ZeroedFrom(usize),
    TakenAway,
}

impl Base {
    fn make(folder: &Path) {
        for index in flushes() {
            grow(&mut open(FjallEngine::open(folder).unwrap()).unwrap(), index);
        }
    }

    fn read(folder: &Path) -> Base {
        let mut files = BTreeMap::new();
        read_all(folder, Path::new(""), &mut files).unwrap();
        assert!(files.len() >= 6, "{:?}", files.keys());
        let stride = env::var("BALSA_TORTURE_STRIDE").map_or(997, |text| text.parse().unwrap());
        let mut damages = Vec::new();
        for (file, bytes) in &files {
            // Every byte of a manifest says where tables are: what the engine itself does not check.
            let is_manifest = file.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"v"));
            let step = if is_manifest { stride.min(5) } else { stride.min(bytes.len() / 8 + 1) };
            let flips = (0..bytes.len()).step_by(step).map(Damage::FlippedAt);
            let cuts = (0..bytes.len()).step_by(stride.max(bytes.len() / 4 + 1)).map(Damage::CutTo);
            let zeroed = (0..bytes.len()).step_by(stride.max(512)).map(Damage::ZeroedFrom);
            let all = flips.chain(cuts).chain(zeroed).chain([Damage::TakenAway]);
            damages.extend(all.map(|damage| (file.clone(), damage)));
        }
        Base { files, damages }
    }

    /// A copy with one file damaged.
    fn damaged(&self, file: &Path, damage: Damage) -> tempfile::TempDir {
        let copy = tempfile::tempdir().unwrap();
        for (path, content) in &self.files {
            let mut content = content.clone();
            match damage {
                _ if path != file => {}
                Damage::FlippedAt(at) => content[at] ^= 1 << (at % 8),
                Damage::CutTo(len) => content.truncate(len),
                Damage::ZeroedFrom(begin) => {
                    let end = content.len().min(begin + 512);
                    content[begin..end].fill(0);
                }
                Damage::TakenAway => continue,
            }
            let to = copy.path().join(path);
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::write(to, content).unwrap();
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

/// Where the process that looks finds the base, and at which damage it begins.
const FOLDER: &str = "BALSA_STORE_TORTURE_FOLDER";
const FROM: &str = "BALSA_STORE_TORTURE_FROM";

/// Looks at one damage after the other, and says of each what came of it. The engine may end the process.
fn look_at_damages(folder: &Path) {
    let history = history();
    let base = Base::read(folder);
    let from: usize = env::var(FROM).unwrap().parse().unwrap();
    for (at, (file, damage)) in base.damages.iter().enumerate().skip(from) {
        let copy = base.damaged(file, *damage);
        println!("\nlook {at}");
        let engine = FjallEngine::open(copy.path()).map_err(StoreError::from);
        let outcome = match engine.and_then(open).and_then(|mut store| shown(&mut store)) {
            Ok(shown) => {
                let index = shown.position.applied_index;
                assert_eq!(
                    history.get(&index),
                    Some(&shown),
                    "{damage:?} {}: silently wrong",
                    file.display()
                );
                if index == *history.last_key_value().unwrap().0 { "whole" } else { "older" }
            }
            Err(error) => {
                assert!(!error.to_string().is_empty());
                "refused"
            }
        };
        println!("\nfound {outcome}");
    }
}

#[test]
fn damage_is_never_silent() {
    if let Some(folder) = env::var_os(FOLDER) {
        return look_at_damages(Path::new(&folder));
    }
    let folder = tempfile::tempdir().unwrap();
    Base::make(folder.path());
    let cases = Base::read(folder.path()).damages.len();
    let mut tally: BTreeMap<String, usize> = BTreeMap::new();
    let mut next = 0;
    while next < cases {
        // What the engine does not expect it may answer with a panic, which ends a node: a process of its own, as there.
        let mut process = Process::new(env::current_exe().unwrap())
            .args(["--exact", "damage_is_never_silent", "--nocapture"])
            .env(FOLDER, folder.path())
            .env(FROM, next.to_string())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut errors = process.stderr.take().unwrap();
        let errors = std::thread::spawn(move || io::read_to_string(&mut errors).unwrap());
        for line in BufReader::new(process.stdout.take().unwrap()).lines().map(Result::unwrap) {
            if let Some(at) = line.strip_prefix("look ") {
                next = at.parse::<usize>().unwrap() + 1;
            } else if let Some(outcome) = line.strip_prefix("found ") {
                *tally.entry(outcome.to_owned()).or_default() += 1;
            }
        }
        let (status, errors) = (process.wait().unwrap(), errors.join().unwrap());
        assert!(!errors.contains("silently wrong"), "{errors}");
        if !status.success() {
            assert!(errors.contains("fjall") || errors.contains("lsm-tree"), "{errors}");
            *tally.entry("stopped".to_owned()).or_default() += 1;
        }
    }
    println!("cases: {cases} (damage to the store's files: {tally:?})");
    assert_eq!(tally.values().sum::<usize>(), cases, "{tally:?}");
    assert!(tally["refused"] > cases / 4, "{tally:?}");
}
