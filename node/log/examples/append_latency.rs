//! Measures what a durable write costs here: `append_latency [FOLDER]` (default: the current one).
//! Prints the latency of a bare fdatasync of a 4 KiB overwrite, and of append and sync in batches of several sizes.

use balsa_log::{DiskFile, Folder, Log, LogConfig, LogError, LogIdentity, LogStart, LogWrite, RealDisk};
use balsa_raft::{Entry, EntryKind, HardState, Index, Term};
use bytes::Bytes;
use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

const ROUNDS: usize = 1000;

fn main() -> Result<(), Box<dyn Error>> {
    let base = std::env::args().nth(1).map_or_else(|| PathBuf::from("."), PathBuf::from);
    let path = base.join(format!("append-latency-{}", std::process::id()));
    let folder = Folder { disk: Arc::new(RealDisk), path: path.clone() };
    folder.disk.create_dir_all(&path)?;
    let result = measure(&folder);
    std::fs::remove_dir_all(&path)?;
    result
}

fn measure(folder: &Folder) -> Result<(), Box<dyn Error>> {
    let bare = folder.disk.create(&folder.path.join("bare"))?;
    bare.allocate_zeroed(16 << 20)?;
    bare.sync_data()?;
    report("fdatasync of 4 KiB", 1, &mut bare_syncs(&*bare)?);

    report("zero-fill and fdatasync of 16 MiB", 1, &mut zero_fills(folder)?);

    let identity = LogIdentity { cluster: 1, node: 1 };
    let start = LogStart::default();
    let log_folder = Folder { disk: folder.disk.clone(), path: folder.path.join("log") };
    let config = LogConfig::default();
    let mut log =
        Log::create(log_folder.clone(), config.clone(), identity, start, HardState::default(), &[])?;
    for (entries, bytes) in [(1, 256), (16, 256), (256, 256), (1, 64 << 10)] {
        let name = format!("append and sync of {entries} x {bytes} B");
        report(&name, entries, &mut appends(&mut log, entries, bytes)?);
    }
    let size_bytes = log.size_bytes();
    drop(log);
    let begin = Instant::now();
    let (_, recovered) = Log::open(log_folder, config, identity)?;
    let (took, entries) = (begin.elapsed(), recovered.entries.len());
    println!("open a log of {} MiB, {entries} entries: {took:.1?}", size_bytes >> 20);
    Ok(())
}

fn bare_syncs(file: &dyn DiskFile) -> std::io::Result<Vec<Duration>> {
    let page = [7; 4096];
    let once = |round: usize| {
        let begin = Instant::now();
        file.write_all_at(&page, (round * page.len()) as u64)?;
        file.sync_data()?;
        Ok(begin.elapsed())
    };
    (0..ROUNDS).map(once).collect()
}

fn zero_fills(folder: &Folder) -> std::io::Result<Vec<Duration>> {
    let once = |round: usize| {
        let begin = Instant::now();
        let file = folder.disk.create(&folder.path.join(format!("zeros-{round}")))?;
        file.allocate_zeroed(16 << 20)?;
        file.sync_data()?;
        Ok(begin.elapsed())
    };
    (0..10).map(once).collect()
}

fn appends(log: &mut Log, count: usize, bytes: usize) -> Result<Vec<Duration>, LogError> {
    let data = Bytes::from(vec![7; bytes]);
    let mut took = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        let first = log.last_index().0 + 1;
        let entry =
            |n| Entry { index: Index(n), term: Term(1), kind: EntryKind::Command, data: data.clone() };
        let entries: Vec<Entry> = (first..first + count as u64).map(entry).collect();
        let begin = Instant::now();
        log.append(&LogWrite { entries: &entries, ..LogWrite::default() })?;
        log.sync()?;
        took.push(begin.elapsed());
        // What the owner does when idle.
        if log.size_bytes() > 48 << 20 {
            log.release(&LogStart { index: log.last_index(), term: Term(1), membership: Bytes::new() })?;
        }
        log.prepare_next_segment()?;
    }
    Ok(took)
}

fn report(name: &str, entries: usize, took: &mut [Duration]) {
    took.sort_unstable();
    let at = |percent: usize| took[(took.len() * percent / 100).min(took.len() - 1)];
    let total: Duration = took.iter().sum();
    let rate = (entries * took.len()) as f64 / total.as_secs_f64();
    println!(
        "{name:<36} p50 {:>8.1?}  p90 {:>8.1?}  p99 {:>8.1?}  max {:>8.1?}  {rate:>9.0}/s",
        at(50),
        at(90),
        at(99),
        took[took.len() - 1]
    );
}
