//! A backup, restored: whole, cut off after each step, and refused where it is not what it should be.

use super::*;
use crate::config::Settings;
use crate::engine::boot;
use crate::life::Member;
use balsa_store::command::{Command, Operation, Put, encode, stamp};
use balsa_store::{FjallEngine, MemoryEngine, SUCCESSION_STEP, Store, StoreConfig};
use balsa_wire::backup::Writer;
use bytes::Bytes;

const CHUNK_BYTES: usize = 200;

fn config(home: &Path) -> Config {
    Config::from_settings(Settings { data: Some(home.join("data")), slot: Some(2), ..Settings::default() })
}

/// A store with some keys, and one reply that is kept.
fn store() -> Store {
    let mut store = Store::open(Arc::new(MemoryEngine::new()), StoreConfig::default()).unwrap();
    for (index, key) in (1..).zip(["a", "b", "c", "d", "e"]) {
        let put = Put { key: Bytes::from(key), value: Bytes::from("1"), ..Put::default() };
        let command = Command { request: None, operation: Some(Operation::Put(put)) };
        store.apply(index, &stamp(encode(&command), 5)).unwrap();
    }
    store.flush().unwrap();
    store
}

fn header(store: &Store) -> Header {
    let (position, source) = (store.position(), store.begin_snapshot());
    Header {
        cluster: "7".into(),
        node: "a".into(),
        version: "1".into(),
        revision: position.revision,
        index: position.applied_index,
        time_ms: position.time_ms,
        feature_level: position.level(),
        digest: format!("{:032x}", position.digest),
        keys: source.live_keys(),
    }
}

fn backup(store: &Store, header: &Header) -> Vec<u8> {
    let mut source = store.begin_snapshot();
    let (mut writer, mut bytes) = Writer::begin(header);
    while let Some(chunk) = source.next_chunk(CHUNK_BYTES).unwrap() {
        bytes.extend_from_slice(&writer.chunk(&chunk));
        bytes.extend_from_slice(&chunk);
    }
    bytes.extend_from_slice(&writer.end());
    bytes
}

/// A folder for a test, with a good backup in it.
fn home() -> (tempfile::TempDir, std::path::PathBuf) {
    let home = tempfile::tempdir().unwrap();
    let store = store();
    let file = home.path().join("backup");
    std::fs::write(&file, backup(&store, &header(&store))).unwrap();
    (home, file)
}

/// That the folder holds a bootable cluster of one with the backup's state.
fn check(home: &Path, done: &Restoration) {
    let config = config(home);
    let folder = Folder { disk: Arc::new(RealDisk), path: config.data.clone() };
    assert_eq!(under_way(&folder).unwrap(), None);
    let own = identity::load(&folder).unwrap().unwrap();
    assert_eq!(done.new, Some((own.cluster.unwrap(), own.node)));
    assert!(own.begun && own.slot == Some(2) && own.cluster != Some(ClusterId(7)));
    let member = Member {
        cluster: own.cluster.unwrap(),
        node: own.node,
        slot: 2,
        peers: Vec::new(),
        to_begin: Vec::new(),
    };
    let engine = FjallEngine::open(&config.data.join("state")).unwrap();
    let booted = boot::open(&folder, Arc::new(engine), &config.boot(&member, 1)).unwrap();
    assert_eq!(booted.raft.membership().voters, [own.node].into());
    let (store, original) = (booted.apply.store(), store());
    let (position, before) = (store.position(), original.position());
    assert_eq!(position.revision, before.revision + SUCCESSION_STEP);
    assert_eq!(position.compacted, position.revision);
    assert_eq!(position.applied_index, before.applied_index + SUCCESSION_STEP);
    assert_eq!((position.digest, position.time_ms), (before.digest, before.time_ms));
    for key in ["a", "b", "c", "d", "e"] {
        let [restored, first] =
            [store, &original].map(|store| store.reader().view().get(key.as_bytes()).unwrap());
        assert!(restored.is_some() && restored == first, "{key}");
    }
}

#[test]
fn it_says_what_it_would_do_and_does_it_once() {
    let (home, file) = home();
    let config = config(home.path());
    let told = restore(&config, &file, false).unwrap();
    assert_eq!((told.new, told.backup.keys), (None, 5));
    assert!(told.to_string().contains("Say --yes"), "{told}");
    assert!(!config.data.exists(), "nothing was done");
    let done = restore(&config, &file, true).unwrap();
    check(home.path(), &done);
    let again = restore(&config, &file, true).unwrap_err().to_string();
    assert!(again.contains("is not blank"), "{again}");
}

#[test]
fn cut_off_after_any_step_the_next_run_ends_it_under_the_same_identity() {
    let steps = [Step::Install, Step::Leap, Step::MakeLog, Step::Name, Step::End];
    for cut in 0..steps.len() {
        let (home, file) = home();
        let config = config(home.path());
        let folder = Folder { disk: Arc::new(RealDisk), path: config.data.clone() };
        std::fs::create_dir(&config.data).unwrap();
        let work = Work { place: Place { config: &config, folder, file: FILE }, file: &file };
        let backup = restore(&config, &file, false).unwrap().backup;
        work.begin(&backup, Succession::of(backup.index, backup.revision).unwrap()).unwrap();
        for step in &steps[..cut] {
            let begun = work.place.begun::<Begun>().unwrap().unwrap();
            assert_eq!(work.take_step(&begun).unwrap(), *step);
        }
        let begun = work.place.begun::<Begun>().unwrap().unwrap();
        assert_eq!(under_way(&work.place.folder).unwrap(), Some("restore"), "after {cut} steps");
        assert!(restore(&config, &file, false).unwrap_err().to_string().contains("was begun"));
        let done = restore(&config, &file, true).unwrap();
        assert_eq!(done.new, Some(begun.heir.names()), "after {cut} steps");
        check(home.path(), &done);
    }
}

#[test]
fn another_backup_does_not_end_what_was_begun() {
    let (home, file) = home();
    let config = config(home.path());
    let folder = Folder { disk: Arc::new(RealDisk), path: config.data.clone() };
    std::fs::create_dir(&config.data).unwrap();
    let work = Work { place: Place { config: &config, folder, file: FILE }, file: &file };
    let backup = restore(&config, &file, false).unwrap().backup;
    let other = Header { node: "b".into(), ..backup.clone() };
    work.begin(&other, Succession::of(backup.index, backup.revision).unwrap()).unwrap();
    let error = restore(&config, &file, true).unwrap_err().to_string();
    assert!(error.contains("another backup"), "{error}");
}

#[test]
fn what_is_damaged_or_cut_is_refused_and_touches_nothing() {
    let (home, file) = home();
    let config = config(home.path());
    let good = std::fs::read(&file).unwrap();
    let refused = |bytes: &[u8], what: &str| {
        std::fs::write(&file, bytes).unwrap();
        assert!(restore(&config, &file, true).is_err(), "{what}");
        assert!(!config.data.exists(), "{what}");
    };
    for at in 0..good.len() {
        let mut bytes = good.clone();
        bytes[at] ^= 1 << (at % 8);
        refused(&bytes, &format!("a bit of byte {at} is flipped"));
    }
    for end in 0..good.len() {
        refused(&good[..end], &format!("cut to {end} bytes"));
    }
    refused(&[&good[..], b"x"].concat(), "a byte too many");
    refused(b"{\"some\":\"other file\"}", "no backup");
    std::fs::write(&file, &good).unwrap();
    restore(&config, &file, true).unwrap();
}

#[test]
fn what_this_build_does_not_reach_or_does_not_fit_is_refused() {
    let (home, file) = home();
    let (store, config) = (store(), config(home.path()));
    let header = header(&store);
    for (header, word) in [
        (Header { feature_level: 99, ..header.clone() }, "upgrade this node"),
        (Header { revision: header.revision + 1, ..header.clone() }, "another state"),
        (Header { keys: 4, ..header.clone() }, "another state"),
    ] {
        std::fs::write(&file, backup(&store, &header)).unwrap();
        let error = restore(&config, &file, true).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    }
    // Framed well, but without the state's last chunk.
    let (mut writer, mut bytes) = Writer::begin(&header);
    let chunk = store.begin_snapshot().next_chunk(CHUNK_BYTES).unwrap().unwrap();
    bytes.extend_from_slice(&writer.chunk(&chunk));
    bytes.extend_from_slice(&chunk);
    bytes.extend_from_slice(&writer.end());
    std::fs::write(&file, bytes).unwrap();
    let error = restore(&config, &file, true).unwrap_err().to_string();
    assert!(error.contains("no whole state"), "{error}");
    let missing = restore(&config, &home.path().join("nothing"), true).unwrap_err().to_string();
    assert!(missing.contains("cannot be read"), "{missing}");
    assert!(!config.data.exists());
}
