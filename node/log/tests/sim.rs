//! The simulated disk does what its documentation says.

use balsa_log::files::sim::{Fault, OpKind, SplitMix};
use balsa_log::{Disk, SimDisk};
use std::io::ErrorKind;
use std::path::Path;

const DIR: &str = "/d";

fn at(name: &str) -> std::path::PathBuf {
    Path::new(DIR).join(name)
}

fn disk() -> SimDisk {
    let disk = SimDisk::new();
    disk.create_dir_all(Path::new(DIR)).unwrap();
    disk
}

#[test]
fn handles_are_dead_after_a_crash_and_nothing_written_is_lost() {
    let disk = disk();
    let file = disk.create(&at("a")).unwrap();
    file.write_all_at(b"hello", 3).unwrap();
    disk.crash();
    assert!(file.write_all_at(b"x", 0).is_err() && file.sync_data().is_err() && file.len_bytes().is_err());
    assert!(file.read_exact_at(&mut [0], 0).is_err());
    assert_eq!(disk.contents(&at("a")).unwrap(), b"\0\0\0hello");
}

#[test]
fn power_loss_is_deterministic_and_forks_are_apart() {
    let base = disk();
    let file = base.create(&at("a")).unwrap();
    file.allocate_zeroed(64 << 10).unwrap();
    file.sync_data().unwrap();
    base.sync_dir(Path::new(DIR)).unwrap();
    file.write_all_at(&[7; 64 << 10], 0).unwrap();
    let lose = |seed| {
        let disk = base.fork();
        let mut random = SplitMix::new(seed);
        disk.power_loss(&mut || random.next_u64());
        disk.contents(&at("a")).unwrap()
    };
    let once = lose(1);
    assert_eq!(once, lose(1));
    assert_ne!(once, lose(2));
    let kept = once.chunks(512).filter(|sector| **sector == [7; 512]).count();
    let lost = once.chunks(512).filter(|sector| **sector == [0; 512]).count();
    assert_eq!(kept + lost, 128, "a sector is atomic");
    assert!(kept > 20 && lost > 20, "{kept} kept, {lost} lost");
    assert_eq!(base.contents(&at("a")).unwrap(), [7; 64 << 10], "the fork's fate is not the base's");
    // A fork is another disk: handles of the base do not write to it.
    let fork = base.fork();
    file.write_all_at(&[8; 512], 0).unwrap();
    assert_eq!(fork.contents(&at("a")).unwrap()[0], 7);
}

#[test]
fn a_name_that_was_not_synced_may_be_lost_with_all_its_content() {
    let disk = disk();
    disk.create(&at("a")).unwrap().sync_data().unwrap();
    disk.power_loss(&mut || 0);
    assert!(disk.list(Path::new(DIR)).unwrap().is_empty());
    assert_eq!(disk.open(&at("a")).err().unwrap().kind(), ErrorKind::NotFound);
}

#[test]
fn an_open_file_outlives_its_name() {
    let disk = disk();
    let file = disk.create(&at("a")).unwrap();
    file.write_all_at(&[1; 1000], 0).unwrap();
    disk.remove(&at("a")).unwrap();
    disk.sync_dir(Path::new(DIR)).unwrap();
    let mut buf = [0; 1000];
    file.read_exact_at(&mut buf, 0).unwrap();
    assert_eq!((buf, disk.used_bytes()), ([1; 1000], 1000));
    drop(file);
    disk.sync_dir(Path::new(DIR)).unwrap();
    assert_eq!(disk.used_bytes(), 0);
}

#[test]
fn halted_means_that_nothing_happens_any_more() {
    let disk = disk();
    let file = disk.create(&at("a")).unwrap();
    disk.halt_at(2);
    file.write_all_at(b"first", 0).unwrap();
    assert!(file.write_all_at(b"second", 0).is_err());
    assert!(
        file.sync_data().is_err() && disk.remove(&at("a")).is_err() && disk.list(Path::new(DIR)).is_err()
    );
    disk.crash();
    assert_eq!(disk.contents(&at("a")).unwrap(), b"first");
    assert!(disk.list(Path::new(DIR)).is_ok(), "a new process runs");
}

#[test]
fn faults_strike_where_they_are_told_to() {
    let disk = disk();
    let file = disk.create(&at("a")).unwrap();
    disk.fail_at(2);
    file.write_all_at(b"1", 0).unwrap();
    assert!(file.write_all_at(b"2", 0).is_err());
    file.write_all_at(b"3", 0).unwrap();
    disk.set_hook(|op| match (op.kind, op.path.ends_with("a")) {
        (OpKind::Write, true) => Fault::Tear(3),
        (OpKind::Rename, _) => Fault::Fail(ErrorKind::PermissionDenied),
        _ => Fault::None,
    });
    assert!(file.write_all_at(b"456789", 1).is_err());
    assert_eq!(disk.contents(&at("a")).unwrap(), b"3456");
    assert_eq!(disk.rename(&at("a"), &at("b")).err().unwrap().kind(), ErrorKind::PermissionDenied);
    disk.clear_faults();
    disk.rename(&at("a"), &at("b")).unwrap();
    let counters = disk.counters();
    assert_eq!((counters.writes, counters.written_bytes, counters.total), (4, 9, 8));
}

#[test]
fn a_capacity_counts_what_files_take() {
    let disk = disk();
    disk.set_capacity(Some(10_000));
    let one = disk.create(&at("a")).unwrap();
    one.allocate_zeroed(6000).unwrap();
    let two = disk.create(&at("b")).unwrap();
    two.write_all_at(&[1; 4000], 0).unwrap();
    assert_eq!(disk.free_bytes(Path::new(DIR)).unwrap(), 0);
    assert_eq!(two.write_all_at(&[1], 4000).err().unwrap().kind(), ErrorKind::StorageFull);
    one.write_all_at(&[1; 6000], 0).unwrap();
    one.set_len(1000).unwrap();
    two.write_all_at(&[1; 5000], 4000).unwrap();
    assert_eq!(disk.used_bytes(), 10_000);
}
