//! The log against the naive model: any sequence of what the core asks for, with restarts of every kind in between.

mod support;

use balsa_log::files::sim::SplitMix;
use balsa_log::{OpenError, SimDisk};
use balsa_raft::{Entry, Index};
use bytes::Bytes;
use proptest::prelude::*;
use support::{Model, Step, open, run, script};

#[derive(Clone, Copy, Debug)]
enum Action {
    Do(Step),
    /// The process ends and starts again.
    Restart,
    PowerLoss(u64),
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        2 => Just(Action::Do(Step::Vote)),
        8 => (0usize..7, 0usize..600).prop_map(|(count, bytes)| Action::Do(Step::Append(count, bytes))),
        3 => (1usize..9).prop_map(|count| Action::Do(Step::Overwrite(count))),
        6 => Just(Action::Do(Step::Sync)),
        1 => Just(Action::Do(Step::Mark)),
        3 => (0usize..8).prop_map(|left| Action::Do(Step::Release(left))),
        1 => (0usize..9).prop_map(|ahead| Action::Do(Step::Reset(ahead))),
        1 => (0usize..9).prop_map(|back| Action::Do(Step::ResetBack(back))),
        1 => Just(Action::Do(Step::Prepare)),
        1 => Just(Action::Restart),
        2 => any::<u64>().prop_map(Action::PowerLoss),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn holds_what_the_model_holds(actions in prop::collection::vec(action(), 1..80)) {
        let disk = SimDisk::new();
        let mut model = Model::new();
        let mut log = model.create(&disk).unwrap();
        for action in actions {
            match action {
                Action::Do(step) => {
                    model.step(&mut log, step).unwrap();
                    prop_assert_eq!(log.last_index(), model.now().last());
                    prop_assert_eq!(log.start(), &model.now().start);
                    prop_assert_eq!(log.hard_state(), model.now().hard_state);
                    continue;
                }
                Action::Restart => disk.crash(),
                Action::PowerLoss(seed) => {
                    let mut random = SplitMix::new(seed);
                    disk.power_loss(&mut || random.next_u64());
                }
            }
            let (reopened, recovered) = open(&disk).unwrap();
            model.recovered(&recovered, "after a restart");
            log = reopened;
        }
        log.mark().unwrap();
        model.acknowledge_all();
        let mut random = SplitMix::new(1);
        disk.power_loss(&mut || random.next_u64());
        let (_, recovered) = open(&disk).unwrap();
        prop_assert_eq!(recovered.torn_tail_bytes, 0);
        model.recovered(&recovered, "at the end");
    }
}

/// A disk with one damaged file, and what was done to it.
fn damaged(disk: &SimDisk, file: usize, place: u64, kind: u8) -> (SimDisk, String) {
    let disk = disk.fork();
    let files: Vec<_> = disk.paths().into_iter().filter(|path| path.extension().unwrap() == "log").collect();
    let file = &files[file % files.len()];
    let mut bytes = disk.contents(file).unwrap();
    // Mostly where batches are.
    let used = bytes.len() - bytes.iter().rev().take_while(|&&byte| byte == 0).count();
    let at = place as usize % used;
    let sector = at / 512 * 512;
    match kind {
        0 => bytes[at] ^= 1 << (place % 8),
        1 => bytes[sector..sector + 512].fill(0),
        _ => bytes[sector..].fill(0),
    }
    disk.edit(file, &bytes);
    (disk, format!("damage of kind {kind} at {at} of {}", file.display()))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]
    /// Rot in one place, whenever it is: what a later batch vouches for is there, or the log refuses to open. What a
    /// last sync acknowledged may look like a torn tail until the next batch, or a marker, vouches for it.
    #[test]
    fn damage_loses_nothing_that_is_vouched_for(
        actions in prop::collection::vec(action(), 1..60),
        damages in prop::collection::vec((any::<usize>(), any::<u64>(), 0u8..3), 20),
    ) {
        let disk = SimDisk::new();
        let mut model = Model::new();
        let mut log = model.create(&disk).unwrap();
        for action in actions {
            match action {
                Action::Do(step) => model.step(&mut log, step).unwrap(),
                Action::Restart | Action::PowerLoss(_) => {
                    disk.crash();
                    let (reopened, recovered) = open(&disk).unwrap();
                    model.recovered(&recovered, "after a restart");
                    log = reopened;
                }
            }
        }
        drop(log);
        disk.crash();
        for (file, place, kind) in damages {
            let (disk, context) = damaged(&disk, file, place, kind);
            match open(&disk) {
                Ok((_, recovered)) => {
                    let mut model = model.clone();
                    // Zeros to the end take the evidence with them.
                    model.acknowledged = if kind == 2 { 0 } else { model.vouched };
                    model.recovered(&recovered, &context);
                }
                Err(OpenError::Damaged { .. }) => {}
                Err(error) => panic!("{context}: {error}"),
            }
        }
    }
}

#[test]
fn the_log_does_not_grow_while_it_is_released() {
    let disk = SimDisk::new();
    let (mut model, log, result) = run(&disk, &script());
    result.unwrap();
    let mut log = log.unwrap();
    for _ in 0..300 {
        model.step(&mut log, Step::Append(5, 300)).unwrap();
        model.step(&mut log, Step::Release(4)).unwrap();
        assert!(log.size_bytes() <= 3 * 8192, "{} bytes", log.size_bytes());
        assert!(log.disk_bytes() <= 4 * 8192, "{} bytes", log.disk_bytes());
        assert!(disk.used_bytes() <= 4 * 8192, "{} bytes", disk.used_bytes());
    }
    disk.crash();
    let (_, recovered) = open(&disk).unwrap();
    model.recovered(&recovered, "after many releases");
}

#[test]
fn the_log_does_not_grow_while_it_begins_anew() {
    let disk = SimDisk::new();
    let mut model = Model::new();
    let mut log = model.create(&disk).unwrap();
    for _ in 0..100 {
        for step in [Step::Append(5, 300), Step::Reset(1), Step::Sync] {
            model.step(&mut log, step).unwrap();
        }
        assert!(log.disk_bytes() <= 4 * 8192, "{} bytes", log.disk_bytes());
        assert!(disk.used_bytes() <= 4 * 8192, "{} bytes", disk.used_bytes());
    }
}

#[test]
fn several_appends_share_one_write_and_one_fsync() {
    let disk = SimDisk::new();
    let mut model = Model::new();
    let mut log = model.create(&disk).unwrap();
    let before = disk.counters();
    for _ in 0..5 {
        model.step(&mut log, Step::Append(1, 100)).unwrap();
    }
    assert_eq!(disk.counters(), before, "nothing is written before the sync");
    log.sync().unwrap();
    let after = disk.counters();
    assert_eq!((after.writes - before.writes, after.syncs - before.syncs), (1, 1));
    log.sync().unwrap();
    assert_eq!(disk.counters(), after, "nothing to sync");
}

#[test]
fn a_marker_is_written_once() {
    let disk = SimDisk::new();
    let (_, log, _) = run(&disk, &[Step::Append(1, 10), Step::Mark]);
    let mut log = log.unwrap();
    let before = disk.counters();
    log.mark().unwrap();
    log.mark().unwrap();
    assert_eq!(disk.counters(), before);
    disk.crash();
    let (_, _) = open(&disk).unwrap();
    let written = disk.counters().writes - before.writes;
    assert_eq!(written, 1, "the end of a clean log is written again, as it is, and nothing else");
}

#[test]
fn a_log_may_move_to_its_own_thread() {
    fn check<T: Send + 'static>() {}
    check::<balsa_log::Log>();
}

#[test]
fn founding_takes_more_than_a_segment() {
    let disk = SimDisk::new();
    let mut model = Model::new();
    let template = model.now().entries[1].clone();
    model.states[0].entries = (1..=100)
        .map(|n| Entry {
            index: Index(n),
            data: Bytes::from(vec![n as u8; 6 * n as usize]),
            ..template.clone()
        })
        .collect();
    let mut log = model.create(&disk).unwrap();
    assert!(log.size_bytes() > 30_000, "{} bytes", log.size_bytes());
    model.step(&mut log, Step::Append(6, 600)).unwrap();
    model.step(&mut log, Step::Sync).unwrap();
    disk.crash();
    let (mut log, recovered) = open(&disk).unwrap();
    model.recovered(&recovered, "after a restart");
    for _ in 0..9 {
        model.step(&mut log, Step::Release(2)).unwrap();
        model.step(&mut log, Step::Append(6, 600)).unwrap();
    }
    assert!(log.disk_bytes() <= 5 * 8192, "{} bytes", log.disk_bytes());
}
