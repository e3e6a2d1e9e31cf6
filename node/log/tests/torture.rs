//! Damage to a log at rest: each byte flipped, each sector zeroed, files cut, swapped, copied and taken away. The log
//! opens with all that was acknowledged, or refuses and says why (hazards 28, 39, 40, 48).

mod support;

use balsa_log::files::sim::{Fault, OpKind, SplitMix};
use balsa_log::{Log, LogConfig, LogIdentity, LogStart, OpenError, SimDisk};
use std::path::{Path, PathBuf};
use support::{IDENTITY, Model, Step, View, config, folder, open, path, run, script, tell, thoroughness};

/// A log after the script, stopped cleanly: a marker is the last thing in it.
fn stopped() -> (SimDisk, Model) {
    use Step::*;
    let more =
        [Append(12, 333), Sync, Append(9, 500), Sync, Vote, Sync, Append(3, 90), Sync, Append(1, 0), Mark];
    let disk = SimDisk::new();
    let (model, log, result) = run(&disk, &[script(), more.to_vec()].concat());
    result.unwrap();
    drop(log);
    disk.crash();
    (disk, model)
}

/// Where the content of a file ends, in bytes.
fn content_end(disk: &SimDisk, file: &Path) -> u64 {
    let bytes = disk.contents(file).unwrap();
    (bytes.len() - bytes.iter().rev().take_while(|&&byte| byte == 0).count()) as u64
}

fn live(disk: &SimDisk) -> Vec<PathBuf> {
    disk.paths().into_iter().filter(|path| path.extension().is_some_and(|e| e == "log")).collect()
}

/// Whether the log opens with everything (true) or refuses for a reason that helps (false). Anything else fails.
fn whole_or_refused(disk: &SimDisk, model: &Model, context: &str) -> bool {
    let changes = |disk: &SimDisk| (disk.counters().writes, disk.paths());
    let before = changes(disk);
    match open(disk) {
        Ok((_, recovered)) => {
            assert_eq!(View::of(&recovered), *model.now(), "{context}");
            true
        }
        Err(error @ OpenError::Damaged { .. }) => {
            let text = error.to_string();
            assert!(text.contains("/node/log/0") && text.contains("at byte"), "{context}: {text}");
            assert!(text.contains("Restore") && text.contains("wipe"), "{context}: {text}");
            assert!(before == changes(disk), "{context}: a refusal changed the log");
            false
        }
        Err(error) => panic!("{context}: {error}"),
    }
}

#[test]
fn every_byte_flipped() {
    let (base, model) = stopped();
    let files = live(&base);
    assert!(files.len() >= 3, "{files:?}");
    let bits = thoroughness("BALSA_TORTURE_BITS", 1).clamp(1, 8);
    let (mut cases, mut refused) = (0, 0);
    for file in &files {
        let end = content_end(&base, file) + 512;
        let beyond = (end..base.contents(file).unwrap().len() as u64).step_by(61);
        for offset in (0..end).chain(beyond) {
            for bit in 0..bits {
                let disk = base.fork();
                disk.flip_bit(file, offset, ((offset + bit) % 8) as u8);
                let context = format!("flip at byte {offset} of {}", file.display());
                refused += u64::from(!whole_or_refused(&disk, &model, &context));
                cases += 1;
            }
        }
    }
    tell("bits flipped", cases);
    // Every byte of every batch but the last marker counts, and of every header.
    assert!(refused > 5000, "{refused} flips were refused");
}

#[test]
fn every_sector_zeroed_or_garbage() {
    let (base, model) = stopped();
    let (mut cases, mut refused) = (0, 0);
    for file in live(&base) {
        let bytes = base.contents(&file).unwrap();
        for sector in 0..bytes.len() / 512 {
            for fill in [0, 0xff, 0x42] {
                let mut bytes = bytes.clone();
                bytes[sector * 512..][..512].fill(fill);
                let disk = base.fork();
                disk.edit(&file, &bytes);
                let context = format!("sector {sector} of {} filled with {fill}", file.display());
                refused += u64::from(!whole_or_refused(&disk, &model, &context));
                cases += 1;
            }
        }
    }
    tell("sectors overwritten", cases);
    assert!(refused > 50, "{refused} were refused");
}

#[test]
fn every_file_cut_at_every_length() {
    let (base, model) = stopped();
    let mut cases = 0;
    for file in live(&base) {
        let bytes = base.contents(&file).unwrap();
        cases += bytes.len() as u64;
        for len in 0..bytes.len() {
            let disk = base.fork();
            disk.edit(&file, &bytes[..len]);
            let context = format!("{} cut to {len}", file.display());
            assert!(!whole_or_refused(&disk, &model, &context), "{context} was taken for whole");
        }
    }
    tell("files cut", cases);
}

#[test]
fn segments_taken_away_swapped_or_copied() {
    let (base, model) = stopped();
    let files = live(&base);
    let last_with_batches = files.len() - 1;
    for (at, file) in files.iter().enumerate().take(last_with_batches) {
        let disk = base.fork();
        disk.shared().remove(file).unwrap();
        let context = format!("{} taken away", file.display());
        assert!(!whole_or_refused(&disk, &model, &context), "{context}");
        for other in &files[at + 1..] {
            let (one, two) = (base.contents(file).unwrap(), base.contents(other).unwrap());
            let disk = base.fork();
            disk.edit(file, &two);
            assert!(
                !whole_or_refused(&disk, &model, "a copy"),
                "{} over {}",
                other.display(),
                file.display()
            );
            disk.edit(other, &one);
            assert!(
                !whole_or_refused(&disk, &model, "swapped"),
                "{} and {}",
                other.display(),
                file.display()
            );
        }
    }
    let disk = base.fork();
    disk.edit(&path("00000000000000ff.log"), &base.contents(&files[0]).unwrap());
    assert!(!whole_or_refused(&disk, &model, "a copy under a far name"));
}

#[test]
fn a_segment_under_another_name() {
    let disk = SimDisk::new();
    let (model, _, _) = run(&disk, &[Step::Append(1, 50), Step::Mark]);
    disk.crash();
    disk.shared().rename(&path("0000000000000001.log"), &path("0000000000000002.log")).unwrap();
    assert!(!whole_or_refused(&disk, &model, "renamed"));
}

#[test]
fn the_last_segment_with_batches_taken_away_before_a_prepared_one() {
    let disk = SimDisk::new();
    let (model, _, _) = run(&disk, &[Step::Append(12, 500), Step::Mark, Step::Prepare]);
    disk.crash();
    let files = live(&disk);
    assert!(files.len() >= 3, "{files:?}");
    disk.shared().remove(&files[files.len() - 2]).unwrap();
    assert!(!whole_or_refused(&disk, &model, "a gap before a prepared segment"));
}

/// An opening vouches for all that it returned.
#[test]
fn damage_after_an_unclean_start() {
    let disk = SimDisk::new();
    let (mut model, _, _) = run(&disk, &[Step::Append(2, 100), Step::Sync]);
    disk.crash();
    let file = live(&disk)[0].clone();
    let end = content_end(&disk, &file);
    let (_, recovered) = open(&disk).unwrap();
    model.recovered(&recovered, "an unclean start");
    disk.crash();
    disk.flip_bit(&file, end - 1, 0);
    assert!(!whole_or_refused(&disk, &model, "damage below the marker of a start"));
}

/// Where the first batch itself is damaged there is nothing to go on from, whatever could be a torn tail.
#[test]
fn damage_to_the_only_batch() {
    let disk = SimDisk::new();
    let (model, _, _) = run(&disk, &[]);
    disk.crash();
    let file = live(&disk)[0].clone();
    let mut bytes = disk.contents(&file).unwrap();
    bytes[4096 + 512..].fill(0);
    bytes[4096 + 70] ^= 1;
    disk.edit(&file, &bytes);
    assert!(!whole_or_refused(&disk, &model, "the only batch"));
}

/// A batch that was torn tells by its header up to where the log was durable.
#[test]
fn damage_below_a_torn_batch() {
    let disk = SimDisk::new();
    let (mut model, log, _) = run(&disk, &[Step::Append(1, 100), Step::Sync]);
    let file = live(&disk)[0].clone();
    let acknowledged_end = content_end(&disk, &file);
    let mut log = log.unwrap();
    model.step(&mut log, Step::Append(2, 400)).unwrap();
    disk.set_hook(|op| match op.kind {
        OpKind::Write => Fault::Tear(512),
        _ => Fault::None,
    });
    log.sync().unwrap_err();
    disk.clear_faults();
    disk.crash();
    disk.flip_bit(&file, acknowledged_end - 1, 0);
    assert!(!whole_or_refused(&disk, &model, "damage below a torn batch"));
}

/// Four batches were on their way when the power failed, of one and two sectors in turn, and any part of them reached the
/// disk. An opening marks the end it found, and another batch follows: where that ends, one of the old ones begins, and it has
/// the number that would come next. It must not come back (hazard 24).
#[test]
fn a_batch_behind_a_torn_one_does_not_come_back() {
    let base = SimDisk::new();
    let (mut model, log, _) = run(&base, &[]);
    let mut log = log.unwrap();
    for bytes in [400, 600, 400, 600] {
        model.step(&mut log, Step::Append(1, bytes)).unwrap();
    }
    base.halt_at(2); // the last batch is written, and nothing synced
    log.sync().unwrap_err();
    drop(log);
    let mut cut = 0;
    for kept in 0..1024u64 {
        let (disk, mut model) = (base.fork(), model.clone());
        let mut sector = 0;
        disk.power_loss(&mut || {
            sector += 1;
            kept >> (sector - 1) & 1
        });
        let (mut log, recovered) = open(&disk).unwrap();
        model.recovered(&recovered, &format!("sectors {kept:b}"));
        cut += u64::from(recovered.torn_tail_bytes > 0);
        for step in [Step::Append(1, 600), Step::Sync] {
            model.step(&mut log, step).unwrap();
        }
        drop(log);
        disk.crash();
        let (_, recovered) = open(&disk).unwrap_or_else(|error| panic!("sectors {kept:b}: {error}"));
        assert_eq!(View::of(&recovered), *model.now(), "sectors {kept:b}");
    }
    assert!(cut > 10, "{cut} torn tails");
}

/// A batch that is valid, at its place, and not the next one is of a past that was cut: it does not follow, though its entry
/// would (hazard 24).
#[test]
fn a_batch_of_another_number_does_not_follow() {
    let base = SimDisk::new();
    let (begun, log, _) = run(&base, &[Step::Append(1, 100), Step::Mark]);
    drop(log);
    base.crash();
    let go_on = |batches: &[(usize, usize)]| {
        let (disk, mut model) = (base.fork(), begun.clone());
        let mut log = open(&disk).unwrap().0;
        for &(count, bytes) in batches {
            model.step(&mut log, Step::Append(count, bytes)).unwrap();
            model.step(&mut log, Step::Sync).unwrap();
        }
        (disk, model)
    };
    // The third batch of one is where the other has its second one; entry for entry, they go equally far.
    let (past, _) = go_on(&[(1, 100), (1, 100), (1, 100)]);
    let (now, model) = go_on(&[(2, 300), (1, 50)]);
    let file = live(&now)[0].clone();
    let sector = (content_end(&now, &file) - 1) as usize / 512 * 512;
    let (past, mut bytes) = (past.contents(&file).unwrap(), now.contents(&file).unwrap());
    assert_eq!(past[sector..][..4], bytes[sector..][..4], "a batch begins there in both");
    bytes[sector..][..512].copy_from_slice(&past[sector..][..512]);
    now.crash();
    now.edit(&file, &bytes);
    let (_, recovered) = open(&now).unwrap();
    let mut cut = model.now().clone();
    cut.entries.pop();
    assert_eq!((View::of(&recovered), recovered.torn_tail_bytes), (cut, 512));
}

#[test]
fn an_older_version_of_a_segment() {
    let (old, _) = {
        let disk = SimDisk::new();
        let (model, _, _) = run(&disk, &script()[..script().len() - 6]);
        (disk, model)
    };
    let (base, model) = stopped();
    for file in live(&base) {
        let (Some(before), now) = (old.contents(&file), base.contents(&file).unwrap()) else { continue };
        if before == now {
            continue;
        }
        let disk = base.fork();
        disk.edit(&file, &before);
        if file != *live(&base).last().unwrap() {
            assert!(!whole_or_refused(&disk, &model, "an older version"), "{}", file.display());
        }
    }
}

#[test]
fn another_owner_or_version() {
    let (base, _) = stopped();
    for identity in [LogIdentity { cluster: 1, ..IDENTITY }, LogIdentity { node: 1, ..IDENTITY }] {
        let result = Log::open(folder(&base), config(), identity);
        assert!(matches!(result, Err(OpenError::Identity { .. })));
    }
    assert!(matches!(open(&SimDisk::new()), Err(OpenError::Missing(_))));
    // A segment of another version, with a sound header.
    let file = live(&base).pop().unwrap();
    let mut bytes = base.contents(&file).unwrap();
    bytes[8] += 1;
    let crc = crc32c::crc32c(&bytes[..56]);
    bytes[56..60].copy_from_slice(&crc.to_le_bytes());
    base.edit(&file, &bytes);
    assert!(matches!(open(&base), Err(OpenError::Version { found: 2, supported: 1, .. })));
}

#[test]
fn files_of_others_are_left_alone() {
    let (base, model) = stopped();
    for name in ["LOCK", "notes.log", "0000000000000001.log.bak", "0000000000000001.LOG"] {
        base.edit(&path(name), b"not ours");
    }
    base.edit(&path("00000000000000aa.new"), b"unfinished");
    base.edit(&path("00000000000000ab.spare"), b"of another length");
    assert!(whole_or_refused(&base, &model, "files of others"));
    let names = folder(&base).disk.list(&folder(&base).path).unwrap();
    for name in ["LOCK", "notes.log", "0000000000000001.log.bak", "0000000000000001.LOG"] {
        assert!(names.contains(&name.to_string()), "{name} of {names:?}");
    }
    assert!(!names.iter().any(|name| name.contains("aa.new") || name.contains("ab.spare")), "{names:?}");
}

/// Entries and votes above the last synced end may be lost to damage, but only from there on, and it is told.
#[test]
fn a_tail_without_a_marker() {
    let disk = SimDisk::new();
    let (mut model, log, _) = run(&disk, &[Step::Append(2, 100), Step::Sync]);
    let mut log = log.unwrap();
    model.step(&mut log, Step::Append(1, 900 - 300)).unwrap();
    let before = model.clone();
    model.step(&mut log, Step::Vote).unwrap();
    log.sync().unwrap();
    drop(log);
    disk.crash();
    let file = live(&disk)[0].clone();
    disk.flip_bit(&file, content_end(&disk, &file) - 1, 0);
    let (_, recovered) = open(&disk).unwrap();
    assert!(recovered.torn_tail_bytes >= 512, "{}", recovered.torn_tail_bytes);
    assert_eq!(View::of(&recovered), before.states[before.acknowledged]);
}

/// Damage can pass for a torn tail in the last batch only, and only until the next batch or a marker vouches for it.
#[test]
fn the_window_that_nothing_vouches_for() {
    let disk = SimDisk::new();
    let (mut model, log, _) =
        run(&disk, &[Step::Append(2, 300), Step::Sync, Step::Append(1, 100), Step::Sync]);
    let file = live(&disk)[0].clone();
    let begin = content_end(&disk, &file).next_multiple_of(512);
    let mut log = log.unwrap();
    for step in [Step::Append(2, 250), Step::Sync] {
        model.step(&mut log, step).unwrap();
    }
    drop(log);
    disk.crash();
    let end = content_end(&disk, &file);
    let (mut refused, mut window, mut told) = (0, 0, 0);
    for offset in 4096..end {
        let damaged = disk.fork();
        damaged.flip_bit(&file, offset, (offset % 8) as u8);
        match open(&damaged) {
            Err(OpenError::Damaged { .. }) => refused += 1,
            Err(error) => panic!("byte {offset}: {error}"),
            Ok((_, recovered)) if View::of(&recovered) == *model.now() => {} // padding
            Ok((_, recovered)) => {
                assert!(offset >= begin, "byte {offset} lies below the last batch, at {begin}");
                // Where the header itself is damaged nothing can be told; the payload's loss is.
                told += u64::from(recovered.torn_tail_bytes > 0);
                window += 1;
            }
        }
    }
    println!("unmarked window: {} bytes, the last batch ({window} of them count)", end - begin);
    tell("bytes flipped around the unmarked window", end - 4096);
    assert!(refused > 1000 && window > 500, "{refused} refused, {window} in the window");
    assert!(window - told <= 64, "{} losses of {window} were not told", window - told);
}

/// What was in a recycled file never comes back, whatever of the new content is lost.
#[test]
fn recycled_segments_do_not_bring_back_the_past() {
    let disk = SimDisk::new();
    let (mut model, log, _) = run(&disk, &script());
    let mut log = log.unwrap();
    let mut random = SplitMix::new(9);
    for round in 0..200 {
        for step in [Step::Append(2, 200), Step::Release(2), Step::Prepare, Step::Append(1, 100)] {
            model.step(&mut log, step).unwrap();
        }
        if random.below(2) == 0 {
            drop(log);
            disk.power_loss(&mut || random.next_u64());
            let (reopened, recovered) = open(&disk).unwrap();
            model.recovered(&recovered, &format!("round {round}"));
            log = reopened;
        }
    }
}

#[test]
fn settings_may_change_between_openings() {
    let (disk, mut model) = stopped();
    for segment_bytes in [16384, 65536, 8192] {
        let config = LogConfig { segment_bytes, recycle_segments: 2, salt: segment_bytes, ..config() };
        let (mut log, recovered) = Log::open(folder(&disk), config, IDENTITY).unwrap();
        model.recovered(&recovered, "with other settings");
        for step in [Step::Append(30, 500), Step::Sync, Step::Release(3), Step::Append(9, 500), Step::Mark] {
            model.step(&mut log, step).unwrap();
        }
        disk.crash();
    }
    assert!(whole_or_refused(&disk, &model, "with the first settings again"));
    let config = LogConfig { segment_bytes: 4096, ..config() };
    let error = Log::open(folder(&disk), config, IDENTITY).err().unwrap().to_string();
    assert!(error.contains("segment_bytes 4096") && error.contains("at least"), "{error}");
    let config = LogConfig { max_record_bytes: 1500, ..support::config() };
    Log::open(folder(&disk), config.clone(), IDENTITY).unwrap();
    let log = Log::open(
        folder(&disk),
        LogConfig { segment_bytes: 65536, max_record_bytes: 20000, ..config.clone() },
        IDENTITY,
    );
    let (mut log, recovered) = log.unwrap();
    model.recovered(&recovered, "with larger settings");
    let (index, term) = (log.last_index(), log.hard_state().term);
    log.release(&LogStart { index, term, membership: vec![7; 7000].into() }).unwrap();
    drop(log);
    let error = Log::open(folder(&disk), config, IDENTITY).err().unwrap().to_string();
    assert!(error.contains("membership of 7000 bytes"), "{error}");
}
