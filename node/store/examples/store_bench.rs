//! What the store costs: CPU a write, flush times, memory, time to open after a kill.
//!
//! `cargo run -p balsa-store --release --example store_bench -- --keys 1000000 [--value-bytes 256] [--folder DIR]`
//!
//! Three rounds of plain PUTs: keys in random order (all new), the same keys again (all there), and the same with a
//! condition, which has to read. One thread applies in batches of 64 and publishes, another flushes. CPU is that of the
//! whole process, the engine's own threads included.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use balsa_store::command::{self, Command, Condition, ConditionKind, Nothing, Operation, Put};
use balsa_store::{FjallEngine, FlushJob, Store, StoreConfig, StoreError};
use bytes::Bytes;

struct Options {
    keys: u64,
    value_bytes: usize,
    folder: PathBuf,
}

fn main() -> Result<(), StoreError> {
    let mut options = Options {
        keys: 1_000_000,
        value_bytes: 256,
        folder: std::env::temp_dir().join(format!("store-bench-{}", std::process::id())),
    };
    let mut arguments = std::env::args().skip(1);
    while let (Some(name), Some(value)) = (arguments.next(), arguments.next()) {
        match name.as_str() {
            "--keys" => options.keys = value.parse().expect("--keys takes a number"),
            "--value-bytes" => options.value_bytes = value.parse().expect("--value-bytes takes a number"),
            "--folder" => options.folder = value.into(),
            other => panic!("{other} is not an option: --keys, --value-bytes, --folder"),
        }
    }
    let engine = FjallEngine::open(&options.folder)?;
    let mut bench = Bench::new(Store::open(Arc::new(engine), StoreConfig::default())?);
    let condition = Condition { kind: Some(ConditionKind::Exists(Nothing {})) };
    for (name, condition) in
        [("new keys", None), ("same keys", None), ("same keys, if there", Some(condition))]
    {
        bench.round(name, &options, condition)?;
    }
    bench.reads(&options)?;
    bench.clear()?;
    drop(bench);
    let start = Instant::now();
    let store = Store::open(Arc::new(FjallEngine::open(&options.folder)?), StoreConfig::default())?;
    println!("open without a shutdown: {:?}, at index {}", start.elapsed(), store.applied_index());
    println!("disk: {} MiB", folder_bytes(&options.folder) >> 20);
    drop(store);
    std::fs::remove_dir_all(&options.folder).expect("the folder can be removed");
    Ok(())
}

/// A store with a thread that flushes.
struct Bench {
    store: Store,
    jobs: SyncSender<FlushJob>,
    flushed: Receiver<(u64, Duration)>,
    flushes: Vec<Duration>,
    slowest_handover: Duration,
}

impl Bench {
    fn new(store: Store) -> Self {
        let (jobs, inbox) = sync_channel::<FlushJob>(1);
        let (outbox, flushed) = sync_channel(1);
        let flush = move || {
            for job in inbox {
                let start = Instant::now();
                let index = job.run().expect("a flush succeeds");
                if outbox.send((index, start.elapsed())).is_err() {
                    break;
                }
            }
        };
        std::thread::Builder::new().name("flush".into()).spawn(flush).expect("a thread starts");
        Self { store, jobs, flushed, flushes: Vec::new(), slowest_handover: Duration::ZERO }
    }

    fn round(
        &mut self,
        name: &str,
        options: &Options,
        condition: Option<Condition>,
    ) -> Result<(), StoreError> {
        let value = Bytes::from(vec![b'v'; options.value_bytes]);
        let (start, cpu) = (Instant::now(), cpu_ms());
        let mut slowest = Duration::ZERO;
        let mut batch_start = Instant::now();
        for number in 0..options.keys {
            let put = Put {
                key: key(number, options.keys),
                value: value.clone(),
                condition: condition.clone(),
                ..Put::default()
            };
            let command = Command { request: None, operation: Some(Operation::Put(put)) };
            let entry = command::stamp(command::encode(&command), number);
            let index = self.store.applied_index() + 1;
            self.store.apply(index, &entry).expect("a put is applied");
            if number % 64 == 63 {
                self.store.publish();
                slowest = slowest.max(batch_start.elapsed());
                self.flush(false)?;
                batch_start = Instant::now();
            }
        }
        self.flush(true)?;
        let (took, cpu) = (start.elapsed(), cpu_ms() - cpu);
        let flushes = self.flushes.len().max(1) as u32;
        println!(
            "{name}: {:.2} us CPU and {:.2} us a write; {flushes} flushes, mean {:?}, longest {:?}; \
             slowest batch of 64: {slowest:?}, slowest handover {:?}; RSS {} MiB, peak {} MiB",
            cpu as f64 * 1e3 / options.keys as f64,
            took.as_secs_f64() * 1e6 / options.keys as f64,
            self.flushes.iter().sum::<Duration>() / flushes,
            self.flushes.iter().max().copied().unwrap_or_default(),
            self.slowest_handover,
            status_mib("VmRSS:"),
            status_mib("VmHWM:"),
        );
        self.flushes.clear();
        Ok(())
    }

    /// Starts a flush where one is due, and waits for one where there must be none left or no room is left.
    fn flush(&mut self, all: bool) -> Result<(), StoreError> {
        loop {
            let job = if all { self.store.force_rotate() } else { self.store.maybe_rotate() };
            if let Some(job) = job {
                self.jobs.send(job).expect("the flush thread lives");
            }
            let wait = self.store.must_wait() || (all && self.store.is_flushing());
            let done = if wait { self.flushed.recv().ok() } else { self.flushed.try_recv().ok() };
            let Some((index, took)) = done else { return Ok(()) };
            self.flushes.push(took);
            let start = Instant::now();
            self.store.handle_flushed(index)?;
            self.slowest_handover = self.slowest_handover.max(start.elapsed());
        }
    }

    fn reads(&self, options: &Options) -> Result<(), StoreError> {
        let view = self.store.reader().view();
        let count = options.keys.min(200_000);
        let (start, cpu) = (Instant::now(), cpu_ms());
        for number in 0..count {
            assert!(view.get(&key(number, options.keys))?.is_some(), "key {number} is there");
        }
        let took = start.elapsed();
        println!(
            "reads of all over the place: {:.2} us CPU, {:?}",
            (cpu_ms() - cpu) as f64 * 1e3 / count as f64,
            took
        );
        let start = Instant::now();
        for number in 0..count {
            let absent = [&key(number, options.keys)[..], b"x"].concat();
            assert!(view.get(&absent)?.is_none(), "key {number} is absent");
        }
        println!("reads of absent keys: {:.2} us", start.elapsed().as_secs_f64() * 1e6 / count as f64);
        Ok(())
    }

    /// A clear with as many uncounted writes as an overlay can have.
    fn clear(&mut self) -> Result<(), StoreError> {
        let mut number = 0;
        while (self.store.stats().overlay_bytes as usize) < StoreConfig::default().overlay_bytes {
            let put = Put { key: key(number, 10_000_000), value: Bytes::from_static(b"v"), ..Put::default() };
            let command = Command { request: None, operation: Some(Operation::Put(put)) };
            let index = self.store.applied_index() + 1;
            self.store.apply(index, &command::encode(&command)).expect("a put is applied");
            number += 1;
        }
        let clear = Command { request: None, operation: Some(Operation::Clear(command::Clear {})) };
        let start = Instant::now();
        let index = self.store.applied_index() + 1;
        let reply = self.store.apply(index, &command::encode(&clear)).expect("a clear is applied");
        println!("clear over {number} uncounted writes: {:?}: {:?}", start.elapsed(), reply.answer);
        self.store.publish();
        self.flush(true)
    }
}

/// Keys in an order that looks random: a multiplication that visits each number once.
fn key(number: u64, keys: u64) -> Bytes {
    let mixed = (u128::from(number) * 2_654_435_761 % u128::from(keys.max(1))) as u64;
    Bytes::from(format!("bench/key/{mixed:012}"))
}

/// CPU of the process, in milliseconds.
fn cpu_ms() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks: u64 =
        after_name.split_whitespace().skip(11).take(2).filter_map(|n| n.parse::<u64>().ok()).sum();
    ticks * 10
}

/// A line of the process's status, in MiB.
fn status_mib(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).unwrap_or_default() >> 10
}

fn folder_bytes(folder: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.file_type() {
            Ok(kind) if kind.is_dir() => folder_bytes(&entry.path()),
            _ => entry.metadata().map_or(0, |data| data.len()),
        })
        .sum()
}
