//! The production engine in a process that is killed in the middle of its work.

mod common;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command as Process, Stdio};
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::thread;

use balsa_store::command::{self, Operation, Put};
use balsa_store::{FjallEngine, FlushJob, MemoryEngine, Store, StoreConfig};
use bytes::Bytes;
use common::{clear, command, compact, delete, put, with_key};

/// Tells the test that it is the process to be killed, and where its folder is.
const FOLDER: &str = "BALSA_STORE_KILL_FOLDER";

fn config() -> StoreConfig {
    StoreConfig { overlay_bytes: 64 << 10, sweep_rows: 50, reply_limit: 50, ..StoreConfig::default() }
}

/// The log: what its entry at an index is.
fn entry(index: u64) -> Bytes {
    let key = format!("k{}", index * 7919 % 500);
    let command = match index % 50 {
        10 => command(delete(&key)),
        20 => with_key(&format!("id{}", index % 350), "f", put(&key, &index.to_string())),
        30 => command(Operation::Put(Put {
            key: common::text(&key),
            value: vec![index as u8; 3000].into(),
            want_previous: true,
            ..Put::default()
        })),
        40 if index % 1000 == 940 => command(clear()),
        45 => command(compact(index.saturating_sub(300))),
        _ => command(put(&key, &index.to_string())),
    };
    command::stamp(command::encode(&command), index * 100)
}

/// Applies and flushes until it is killed, and says each time what is durable.
fn work(folder: &Path) -> ! {
    let engine = Arc::new(FjallEngine::open(folder).unwrap());
    let mut store = Store::open(engine, config()).unwrap();
    let (jobs, inbox) = sync_channel::<FlushJob>(1);
    let (outbox, flushed) = sync_channel(1);
    thread::spawn(move || inbox.into_iter().for_each(|job| outbox.send(job.run().unwrap()).unwrap()));
    loop {
        let index = store.applied_index() + 1;
        store.apply(index, &entry(index)).unwrap();
        store.publish();
        if let Some(job) = store.maybe_rotate() {
            jobs.send(job).unwrap();
        }
        let done = if store.must_wait() { flushed.recv().ok() } else { flushed.try_recv().ok() };
        if let Some(index) = done {
            println!("\ndurable {index}");
            store.handle_flushed(index).unwrap();
        }
    }
}

#[test]
fn what_was_said_to_be_durable_is_there_after_a_kill() {
    if let Some(folder) = std::env::var_os(FOLDER) {
        work(Path::new(&folder));
    }
    let folder = tempfile::tempdir().unwrap();
    let mut reference = Store::open(Arc::new(MemoryEngine::new()), config()).unwrap();
    for round in 1..=5 {
        let mut process = Process::new(std::env::current_exe().unwrap())
            .args(["--exact", "what_was_said_to_be_durable_is_there_after_a_kill", "--nocapture"])
            .env(FOLDER, folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines().map(Result::unwrap);
        let durable = lines.filter_map(|line| line.strip_prefix("durable ")?.parse::<u64>().ok());
        let durable = durable.take(3 * round).last().unwrap();
        process.kill().unwrap();
        process.wait().unwrap();

        let engine = Arc::new(FjallEngine::open(folder.path()).unwrap());
        let mut store = Store::open(engine, config()).unwrap();
        assert!(store.applied_index() >= durable, "{} is there of {durable}", store.applied_index());
        for index in reference.applied_index() + 1..=store.applied_index() {
            reference.apply(index, &entry(index)).unwrap();
        }
        assert_eq!(store.position(), reference.position());
        // The rest of the log does the same as without the kill.
        for index in store.applied_index() + 1..=store.applied_index() + 500 {
            assert_eq!(
                store.apply(index, &entry(index)).unwrap(),
                reference.apply(index, &entry(index)).unwrap()
            );
        }
        assert_eq!(store.position(), reference.position());
        [&mut store, &mut reference].into_iter().for_each(Store::publish);
        let views = [&store, &reference].map(|store| store.reader().view());
        let all = views.map(|view| {
            let (start, end) = (std::ops::Bound::Unbounded, std::ops::Bound::Unbounded);
            view.range(start, end, usize::MAX, usize::MAX).unwrap()
        });
        assert_eq!(all[0], all[1]);
        // What was applied here was not flushed: the next process starts below.
        reference = Store::open(Arc::new(MemoryEngine::new()), config()).unwrap();
    }
}
