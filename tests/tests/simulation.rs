//! Slices of simulated time under faults: no violation, the same trace for the same seed, and the situations that such
//! runs exist for did occur. `tests/acceptance/simulate` runs whole hours.

use balsa_tests::sim::{Options, Report, SECOND, faults, run_hour};
use std::thread;

const SECONDS: u64 = 900;
const SEEDS: std::ops::Range<u64> = 201..217;

fn run(seed: u64, seconds: u64) -> Report {
    let report = run_hour(seed, &Options { length: seconds * SECOND, ..Options::default() });
    assert!(
        report.violation.is_none(),
        "{report}\nreplay it: cargo run --release -p balsa-tests --bin simulate -- \
         --hours 1 --seed {seed} --seconds {seconds} --timeline"
    );
    report
}

/// A few threads; a panic names its seed.
fn run_all(seeds: impl IntoIterator<Item = u64>, seconds: u64) -> Vec<Report> {
    let seeds: Vec<u64> = seeds.into_iter().collect();
    thread::scope(|scope| {
        let run_some =
            |some: Vec<u64>| scope.spawn(move || some.into_iter().map(|s| run(s, seconds)).collect());
        let halves = seeds.chunks(seeds.len().div_ceil(2));
        let threads: Vec<thread::ScopedJoinHandle<'_, Vec<Report>>> =
            halves.map(|half| run_some(half.to_vec())).collect();
        let joined = threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        joined.flatten().collect()
    })
}

#[test]
fn nothing_is_violated_under_faults() {
    let mut total = Report::default();
    for report in run_all(SEEDS, SECONDS) {
        assert!(report.operations > 100, "too little work to prove anything: {report}");
        total.add(&report);
    }
    // A run that never met a situation proves nothing about it.
    for situation in [
        "election won",
        "client retry",
        "outcome unknown",
        "reply replayed",
        "retry met its first effect",
        "snapshot installed",
        "snapshot cut off",
        "joint phase",
        "node joined and votes",
        "member removed",
        "disk wiped",
        "power lost in a write",
        "message lost",
    ] {
        assert!(total.situations.contains_key(situation), "no `{situation}`:\n{}", total.coverage());
    }
    for (kind, count) in faults::KINDS.iter().zip(total.faults) {
        assert!(count > 0, "no `{kind}`:\n{}", total.coverage());
    }
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let (first, second) = (run_all(201..205, 200), run_all(201..205, 200));
    for (first, second) in first.iter().zip(&second) {
        assert_eq!(first.trace, second.trace, "seed {} gave two traces", first.seed);
        assert_eq!(first.operations, second.operations);
    }
    assert_ne!(first[0].trace, first[1].trace, "two seeds gave one trace: it cannot tell runs apart");
}
