//! Readers on their own threads, beside a writer and a thread that flushes into the production engine.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::thread;

use balsa_store::command::{self, Operation};
use balsa_store::{FjallEngine, FlushJob, Reader, Store, StoreConfig};
use common::{clear, command, compact, delete, put};

const ROUNDS: u64 = 1_500;

/// Each round sets two keys to the round's number, at two ends of the keyspace, and now and then takes both away. A view
/// must never see one without the other, nor go back.
fn watch(reader: &Reader, is_over: &AtomicBool) -> u64 {
    let (mut views, mut last_revision) = (0, 0);
    while !is_over.load(Ordering::Acquire) {
        let view = reader.view();
        assert!(view.revision() >= last_revision);
        last_revision = view.revision();
        let value = |key: &str| view.get(key.as_bytes()).unwrap().map(|value| value.value);
        let (first, second) = (value("a/first"), value("z/second"));
        assert_eq!(first, second, "at revision {last_revision}");
        let (start, end) = (std::ops::Bound::Included(&b"a"[..]), std::ops::Bound::Unbounded);
        let page = view.range(start, end, 1000, usize::MAX).unwrap();
        let pair: Vec<_> = page.items.iter().filter(|(key, _)| key.contains(&b'/')).collect();
        assert_eq!(pair.len(), if first.is_some() { 2 } else { 0 }, "at revision {last_revision}");
        assert!(page.items.windows(2).all(|pair| pair[0].0 < pair[1].0));
        views += 1;
    }
    views
}

#[test]
fn a_view_is_consistent_whatever_happens_beside_it() {
    let folder = tempfile::tempdir().unwrap();
    let engine = Arc::new(FjallEngine::open(folder.path()).unwrap());
    let config = StoreConfig { overlay_bytes: 64 << 10, sweep_rows: 100, ..StoreConfig::default() };
    let mut store = Store::open(engine, config.clone()).unwrap();
    let is_over = AtomicBool::new(false);
    let (jobs, inbox) = sync_channel::<FlushJob>(1);
    let (outbox, flushed) = sync_channel(1);
    let views = thread::scope(|scope| {
        scope.spawn(move || {
            for job in inbox {
                outbox.send(job.run().unwrap()).unwrap();
            }
        });
        let readers: Vec<_> = (0..2)
            .map(|_| {
                let reader = store.reader();
                let is_over = &is_over;
                scope.spawn(move || watch(&reader, is_over))
            })
            .collect();
        let apply = |store: &mut Store, operation: Operation| {
            let entry = command::encode(&command(operation));
            store.apply(store.applied_index() + 1, &entry).unwrap();
        };
        for round in 0..ROUNDS {
            apply(&mut store, put("a/first", &round.to_string()));
            for filler in 0..5 {
                apply(&mut store, put(&format!("k{}", (round * 7 + filler) % 300), "filler"));
            }
            apply(&mut store, put("z/second", &round.to_string()));
            match round % 100 {
                20 => ["a/first", "z/second"].into_iter().for_each(|key| apply(&mut store, delete(key))),
                50 => apply(&mut store, clear()),
                70 => apply(&mut store, compact(u64::MAX)),
                _ => {}
            }
            store.publish();
            if let Some(job) = store.maybe_rotate() {
                jobs.send(job).unwrap();
            }
            if store.must_wait() {
                store.handle_flushed(flushed.recv().unwrap()).unwrap();
            } else if let Ok(index) = flushed.try_recv() {
                store.handle_flushed(index).unwrap();
            }
        }
        drop(jobs);
        is_over.store(true, Ordering::Release);
        readers.into_iter().map(|reader| reader.join().unwrap()).sum::<u64>()
    });
    assert!(views > 0);
    let stats = store.stats();
    assert!(stats.flushes > 5, "{stats:?}");

    // Left without a last flush, the engine is at the end of an earlier one.
    let position = store.position();
    drop(store);
    let mut store = Store::open(Arc::new(FjallEngine::open(folder.path()).unwrap()), config).unwrap();
    assert!(store.applied_index() > 0 && store.applied_index() <= position.applied_index);
    store.publish();
    assert!(store.reader().view().revision() <= position.revision);
}
