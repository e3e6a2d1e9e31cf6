//! The log on the machine's own disk.

mod support;

use balsa_log::{Disk, Folder, Log, LogConfig, LogStart, RealDisk};
use std::path::Path;
use std::sync::Arc;
use support::{IDENTITY, Model, Step, View};

#[test]
fn a_log_lives_through_restarts() {
    let temp = tempfile::tempdir().unwrap();
    let folder = Folder { disk: Arc::new(RealDisk), path: temp.path().join("a/b/log") };
    let config = LogConfig { segment_bytes: 16384, max_record_bytes: 2048, recycle_segments: 1, salt: 3 };
    assert!(!Log::exists(&folder).unwrap());
    let mut model = Model::new();
    let View { hard_state, start, entries } = model.now().clone();
    let mut log = Log::create(folder.clone(), config.clone(), IDENTITY, start, hard_state, &entries).unwrap();
    assert!(Log::exists(&folder).unwrap());
    for round in 0..10 {
        for step in [Step::Append(9, 700), Step::Sync, Step::Overwrite(4), Step::Release(6), Step::Prepare] {
            model.step(&mut log, step).unwrap();
        }
        if round % 3 == 0 {
            model.step(&mut log, Step::Mark).unwrap();
        }
        drop(log);
        let (reopened, recovered) = Log::open(folder.clone(), config.clone(), IDENTITY).unwrap();
        model.recovered(&recovered, "after a restart");
        log = reopened;
    }
    let again = Log::create(folder.clone(), config, IDENTITY, LogStart::default(), hard_state, &[]);
    assert!(again.err().unwrap().to_string().contains("already"));
}

#[test]
fn files_behave_as_the_trait_says() {
    let temp = tempfile::tempdir().unwrap();
    let at = |name: &str| temp.path().join(name);
    let disk = RealDisk;
    disk.create_dir_all(&at("x/y")).unwrap();
    disk.create_dir_all(&at("x/y")).unwrap();
    let file = disk.create(&at("x/y/b")).unwrap();
    assert!(disk.create(&at("x/y/b")).is_err());
    file.write_all_at(b"hello", 10).unwrap();
    file.sync_data().unwrap();
    assert_eq!(file.len_bytes().unwrap(), 15);
    let mut buf = [1; 7];
    file.read_exact_at(&mut buf, 8).unwrap();
    assert_eq!(&buf, b"\0\0hello");
    assert!(file.read_exact_at(&mut buf, 9).is_err());
    file.allocate_zeroed(3 << 20).unwrap();
    assert_eq!(file.len_bytes().unwrap(), 3 << 20);
    file.read_exact_at(&mut buf, 8).unwrap();
    assert_eq!(buf, [0; 7]);
    file.set_len(4).unwrap();
    assert_eq!(file.len_bytes().unwrap(), 4);
    disk.rename(&at("x/y/b"), &at("x/y/a")).unwrap();
    disk.create(&at("x/y/c")).unwrap();
    assert_eq!(disk.list(&at("x/y")).unwrap(), ["a", "c"]);
    disk.remove(&at("x/y/c")).unwrap();
    disk.sync_dir(&at("x/y")).unwrap();
    assert!(disk.exists(&at("x/y/a")).unwrap() && !disk.exists(&at("x/y/c")).unwrap());
    assert!(disk.open(&at("x/y/c")).is_err() && disk.open(Path::new("/nowhere/at/all")).is_err());
    assert!(disk.free_bytes(temp.path()).unwrap() > 0);
}
