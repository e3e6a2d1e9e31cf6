//! A state that goes on as that of another cluster: nothing is lost, and all numbers lie above.

mod common;

use balsa_store::command::{Answer, OpenSession, Operation, encode, stamp};
use balsa_store::{MemoryEngine, SUCCESSION_STEP, Store};
use bytes::Bytes;
use common::{clear, command, put, small_config, text, with_key, with_session};
use std::sync::Arc;

fn entry(command: &balsa_store::command::Command, time_ms: u64) -> Bytes {
    stamp(encode(command), time_ms)
}

#[test]
fn keys_replies_and_sessions_live_on_and_all_numbers_leap() {
    let engine = MemoryEngine::new();
    let mut store = Store::open(Arc::new(engine.clone()), small_config()).unwrap();
    let commands = [
        command(put("gone", "0")),
        command(clear()),
        command(put("a", "1")),
        with_key("k", "f", put("b", "2")),
        command(Operation::OpenSession(OpenSession {})),
        with_session(5, 1, 1, put("c", "3")),
    ];
    for (at, command) in commands.iter().enumerate() {
        store.apply(at as u64 + 1, &entry(command, 10)).unwrap();
    }
    let before = store.position();
    let to = store.succession().unwrap();
    assert_eq!(to.revision, before.revision + SUCCESSION_STEP);
    store.succeed(to).unwrap();
    drop(store);
    engine.crash();

    let mut store = Store::open(Arc::new(engine), small_config()).unwrap();
    let position = store.position();
    assert_eq!((position.revision, position.compacted), (to.revision, to.revision));
    assert_eq!((position.applied_index, position.time_ms), (to.applied_index, before.time_ms));
    let view = store.reader().view();
    for (key, value) in [("a", Some("1")), ("b", Some("2")), ("c", Some("3")), ("gone", None)] {
        let found = view.get(key.as_bytes()).unwrap();
        assert_eq!(found.map(|found| found.value), value.map(text), "{key}");
    }
    // Retries of what was answered before are answered again, not applied.
    let next = to.applied_index;
    for (at, command) in [&commands[3], &commands[5]].into_iter().enumerate() {
        let reply = store.apply(next + 1 + at as u64, &entry(command, 20)).unwrap();
        assert!(reply.replayed, "{reply:?}");
    }
    let reply = store.apply(next + 3, &entry(&command(put("a", "4")), 30)).unwrap();
    let Some(Answer::Put(done)) = reply.answer else { panic!("{reply:?}") };
    assert_eq!(done.revision, to.revision + 1);
    // Old rows are removed as ever.
    store.flush().unwrap();
    store.apply(next + 4, &entry(&command(put("d", "5")), 40)).unwrap();
    store.flush().unwrap();
    assert_eq!(store.stats().live_keys, 4);
}

#[test]
fn numbers_stay_within_what_json_carries() {
    let mut store = Store::open(Arc::new(MemoryEngine::new()), small_config()).unwrap();
    store.apply(1, &entry(&command(put("a", "1")), 10)).unwrap();
    let mut successions = 0;
    while let Some(to) = store.succession() {
        store.succeed(to).unwrap();
        successions += 1;
        assert!(to.revision < 1 << 53 && to.applied_index < 1 << 53);
    }
    assert_eq!(successions, 9_007);
}
