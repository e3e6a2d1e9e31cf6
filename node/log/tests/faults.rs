//! Calls that fail: the log stops or says cleanly that it did not do it, and a restart finds all that was
//! acknowledged (hazards 38, 43).

mod support;

use balsa_log::files::sim::{Fault, OpKind, SplitMix};
use balsa_log::{Log, LogConfig, LogError, LogStart, LogWrite, SimDisk};
use std::io::ErrorKind;
use support::{IDENTITY, Model, Step, config, folder, open, path, run, script, tell};

/// Restarts after a fault and checks what is there.
fn restart(disk: &SimDisk, mut model: Model, created: bool, seed: Option<u64>, context: &str) {
    disk.clear_faults();
    match seed {
        None => disk.crash(),
        Some(seed) => {
            let mut random = SplitMix::new(seed);
            disk.power_loss(&mut || random.next_u64());
        }
    }
    if !created && !Log::exists(&folder(disk)).unwrap() {
        model.create(disk).unwrap_or_else(|error| panic!("{context}: create again: {error}"));
        return;
    }
    let (mut log, recovered) = open(disk).unwrap_or_else(|error| panic!("{context}: {error}"));
    model.recovered(&recovered, context);
    model.step(&mut log, Step::Append(2, 50)).unwrap();
    model.step(&mut log, Step::Mark).unwrap();
    // What a failed sync covered was there to be read, and was acknowledged since: it must not have been the page cache's
    // alone (found by the simulator, seed 19 of its time).
    drop(log);
    disk.power_loss(&mut || 0);
    let (_, recovered) = open(disk).unwrap_or_else(|error| panic!("{context}: once more: {error}"));
    model.recovered(&recovered, context);
}

#[test]
fn each_call_fails_once() {
    let total = {
        let disk = SimDisk::new();
        run(&disk, &script()).2.unwrap();
        disk.counters().total
    };
    for nth in 1..=total {
        for seed in [None, Some(nth), Some(nth + 1000)] {
            let disk = SimDisk::new();
            disk.fail_at(nth);
            let (mut model, log, result) = run(&disk, &script());
            let context = format!("call {nth}, seed {seed:?}");
            let error = result.expect_err(&context);
            assert!(matches!(error, LogError::Io { .. }), "{context}: {error}");
            let created = log.is_some();
            if let Some(mut log) = log {
                // Either it takes no more, whatever is asked, or it goes on as if nothing had happened.
                let next = model.step(&mut log, Step::Append(1, 20));
                let synced = model.step(&mut log, Step::Sync);
                match next {
                    Ok(()) => synced.unwrap(),
                    Err(LogError::Poisoned(_)) => {
                        assert!(matches!(synced, Err(LogError::Poisoned(_))), "{context}: {synced:?}");
                        assert!(matches!(log.mark(), Err(LogError::Poisoned(_))), "{context}");
                        assert!(
                            matches!(log.prepare_next_segment(), Err(LogError::Poisoned(_))),
                            "{context}"
                        );
                    }
                    Err(error) => panic!("{context}: {error}"),
                }
            }
            restart(&disk, model, created, seed, &context);
        }
    }
    tell("each call fails once", total * 3);
}

#[test]
fn torn_writes() {
    for bytes in [0, 1, 511, 512, 513, 1024, 1500] {
        for nth in 1..30 {
            let disk = SimDisk::new();
            let mut writes = 0;
            disk.set_hook(move |op| {
                writes += u64::from(op.kind == OpKind::Write);
                if op.kind == OpKind::Write && writes == nth { Fault::Tear(bytes) } else { Fault::None }
            });
            let (model, log, result) = run(&disk, &script());
            result.expect_err("a torn write");
            restart(
                &disk,
                model.clone(),
                log.is_some(),
                (nth % 2 == 0).then_some(nth),
                &format!("write {nth}"),
            );
        }
    }
    tell("torn writes", 7 * 29);
}

#[test]
fn a_failed_fsync_is_never_tried_again() {
    let disk = SimDisk::new();
    let (mut model, log, _) = run(&disk, &[]);
    let mut log = log.unwrap();
    model.step(&mut log, Step::Append(1, 100)).unwrap();
    disk.set_hook(|op| match op.kind {
        OpKind::Sync => Fault::Fail(ErrorKind::Other),
        _ => Fault::None,
    });
    assert!(matches!(log.sync(), Err(LogError::Io { doing: "sync", .. })));
    disk.clear_faults();
    let syncs = disk.counters().syncs;
    assert!(matches!(log.sync(), Err(LogError::Poisoned(_))));
    assert!(matches!(log.append(&LogWrite::default()), Err(LogError::Poisoned(_))));
    assert!(matches!(log.mark(), Err(LogError::Poisoned(_))));
    let beyond = LogStart { index: log.last_index(), ..LogStart::default() };
    assert!(matches!(log.release(&beyond), Err(LogError::Poisoned(_))));
    assert_eq!(disk.counters().syncs, syncs);
}

/// Appends entries until the disk is full, having checked that the refusal changes nothing.
fn fill(disk: &SimDisk, model: &mut Model, log: &mut Log) {
    loop {
        let before = model.clone();
        match model.step(log, Step::Append(3, 300)) {
            Ok(()) => model.step(log, Step::Sync).unwrap(),
            Err(LogError::Full { .. }) => {
                *model = before;
                break;
            }
            Err(error) => panic!("{error}"),
        }
        assert!(disk.used_bytes() <= 5 * 8192, "{} bytes", disk.used_bytes());
    }
    assert_eq!(log.last_index(), model.now().last());
    assert!(log.failure().is_none());
    // What could not be made takes no room.
    assert!(disk.paths().iter().all(|path| path.extension().is_some_and(|e| e != "new")));
}

#[test]
fn a_full_disk_refuses_entries_and_nothing_else() {
    let disk = SimDisk::new();
    let (mut model, log, result) = run(&disk, &[Step::Append(4, 200), Step::Sync]);
    result.unwrap();
    let mut log = log.unwrap();
    disk.set_capacity(Some(5 * 8192));
    fill(&disk, &mut model, &mut log);
    for round in 0..6 {
        // Votes and markers go on, into the reserve if need be.
        for _ in 0..3 {
            model.step(&mut log, Step::Vote).unwrap();
            model.step(&mut log, Step::Mark).unwrap();
        }
        assert!(matches!(model.clone().step(&mut log, Step::Append(40, 500)), Err(LogError::Full { .. })));
        if round % 2 == 1 {
            // The node starts on the full disk.
            drop(log);
            let mut random = SplitMix::new(round);
            disk.power_loss(&mut || random.next_u64());
            let (reopened, recovered) = open(&disk).unwrap();
            model.recovered(&recovered, "on a full disk");
            log = reopened;
        }
        // It frees space by itself, and goes on.
        model.step(&mut log, Step::Release(3)).unwrap();
        model.step(&mut log, Step::Append(4, 500)).unwrap();
        model.step(&mut log, Step::Sync).unwrap();
        fill(&disk, &mut model, &mut log);
    }
    disk.crash();
    let (_, recovered) = open(&disk).unwrap();
    model.recovered(&recovered, "after the disk was full");
}

/// On a full disk it could not be made again.
#[test]
fn the_reserve_is_durable_once_the_log_is_open() {
    let disk = SimDisk::new();
    let (_, log, _) = run(&disk, &[]);
    drop(log);
    disk.crash();
    let (spare, folder) = (path("0000000000000000.spare"), folder(&disk));
    folder.disk.remove(&spare).unwrap();
    folder.disk.sync_dir(&folder.path).unwrap();
    let (log, _) = open(&disk).unwrap();
    drop(log);
    disk.power_loss(&mut || 0);
    assert_eq!(disk.contents(&spare).map(|bytes| bytes.len()), Some(8192));
}

/// A start keeps the reserve, which it could not make again, and as many spares as it is to recycle.
#[test]
fn a_start_on_a_full_disk_keeps_the_reserve() {
    let disk = SimDisk::new();
    let (mut model, log, result) = run(&disk, &[Step::Append(30, 500), Step::Sync, Step::Release(1)]);
    result.unwrap();
    drop(log);
    disk.crash();
    let spares = || disk.paths().iter().filter(|path| path.extension().is_some_and(|e| e == "spare")).count();
    assert_eq!(spares(), 2);
    disk.set_capacity(Some(disk.used_bytes()));
    for (recycle_segments, kept) in [(1, 2), (0, 1), (0, 1)] {
        let config = LogConfig { recycle_segments, ..config() };
        let (log, recovered) = Log::open(folder(&disk), config, IDENTITY).unwrap();
        model.recovered(&recovered, "on a full disk");
        assert_eq!(spares(), kept);
        drop(log);
        disk.crash();
        disk.set_capacity(Some(disk.used_bytes()));
    }
}

/// Votes may use it up; the next entries are taken only once there is another.
#[test]
fn the_reserve_is_made_again_before_entries_are_taken() {
    let disk = SimDisk::new();
    let (mut model, log, _) = run(&disk, &[]);
    let mut log = log.unwrap();
    let has_spare = || disk.paths().iter().any(|path| path.extension().is_some_and(|e| e == "spare"));
    while has_spare() {
        model.step(&mut log, Step::Vote).unwrap();
        model.step(&mut log, Step::Sync).unwrap();
    }
    model.step(&mut log, Step::Append(1, 10)).unwrap();
    assert!(has_spare());
}

/// To start needs no room, even where there is none for a marker any more.
#[test]
fn a_log_that_is_full_to_the_last_byte_opens() {
    let disk = SimDisk::new();
    let (mut model, log, _) = run(&disk, &[]);
    let mut log = log.unwrap();
    disk.set_capacity(Some(disk.used_bytes()));
    let failed = loop {
        let before = model.clone();
        if let Err(error) = model.step(&mut log, Step::Vote).and_then(|()| model.step(&mut log, Step::Sync)) {
            model = before;
            break error;
        }
    };
    assert!(matches!(failed, LogError::Io { doing: "allocate", .. }), "{failed}");
    drop(log);
    disk.crash();
    let (log, recovered) = open(&disk).unwrap();
    model.recovered(&recovered, "full to the last byte");
    assert_eq!(log.ready_bytes(), 0);
}

/// What a crash kept a release from giving up, the next start gives up.
#[test]
fn a_start_retires_what_is_not_needed() {
    let disk = SimDisk::new();
    let (mut model, log, _) = run(&disk, &[Step::Append(12, 500), Step::Sync]);
    let mut log = log.unwrap();
    disk.set_hook(|op| match op.kind {
        OpKind::Rename => Fault::Fail(ErrorKind::Other),
        _ => Fault::None,
    });
    assert!(matches!(model.step(&mut log, Step::Release(1)), Err(LogError::Io { doing: "rename", .. })));
    assert!(log.size_bytes() > 8192, "{} bytes", log.size_bytes());
    drop(log);
    disk.clear_faults();
    disk.crash();
    let (log, recovered) = open(&disk).unwrap();
    model.recovered(&recovered, "after the crash");
    assert!(log.size_bytes() <= 8192, "{} bytes", log.size_bytes());
}

#[test]
fn a_full_disk_while_founding_leaves_nothing() {
    for capacity in [0, 100, 8192, 16383] {
        let disk = SimDisk::new();
        disk.set_capacity(Some(capacity));
        let (mut model, log, result) = run(&disk, &[]);
        assert!(log.is_none() && matches!(result, Err(LogError::Full { .. })), "{capacity}: {result:?}");
        assert!(!Log::exists(&folder(&disk)).unwrap());
        disk.set_capacity(None);
        let mut log = model.create(&disk).unwrap();
        model.step(&mut log, Step::Mark).unwrap();
    }
}

/// Some file systems notice only when a name is made that they are full.
#[test]
fn a_full_folder_refuses_entries() {
    let disk = SimDisk::new();
    let (mut model, log, _) = run(&disk, &[]);
    let mut log = log.unwrap();
    disk.set_hook(|op| match op.kind {
        OpKind::Create => Fault::Fail(ErrorKind::StorageFull),
        _ => Fault::None,
    });
    assert!(matches!(log.prepare_next_segment(), Err(LogError::Full { .. })));
    assert!(matches!(model.clone().step(&mut log, Step::Append(20, 600)), Err(LogError::Full { .. })));
    model.step(&mut log, Step::Vote).unwrap();
    model.step(&mut log, Step::Sync).unwrap();
    restart(&disk, model, true, Some(1), "a full folder");
}

#[test]
fn what_is_too_large_is_refused_and_changes_nothing() {
    let disk = SimDisk::new();
    let (mut model, log, _) = run(&disk, &[]);
    let mut log = log.unwrap();
    let refused = model.clone().step(&mut log, Step::Append(3, 601));
    assert!(matches!(refused, Err(LogError::TooLarge { bytes: 601, max: 600 })), "{refused:?}");
    let start = LogStart { index: log.last_index(), membership: vec![0; 601].into(), ..LogStart::default() };
    assert!(matches!(log.release(&start), Err(LogError::TooLarge { .. })));
    let reset = log.append(&LogWrite { reset: Some(&start), ..LogWrite::default() });
    assert!(matches!(reset, Err(LogError::TooLarge { .. })));
    assert!(log.failure().is_none());
    model.step(&mut log, Step::Append(3, 600)).unwrap();
    model.step(&mut log, Step::Sync).unwrap();
    restart(&disk, model, true, Some(1), "too large");
}
