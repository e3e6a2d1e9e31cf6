//! Slices of simulated time under faults: no violation, the same trace for the same seed, and the situations that such
//! runs exist for did occur. `tests/acceptance/simulate` runs whole hours.

use balsa_tests::sim::{Options, Report, SECOND, run_hour};
use std::thread;

const SECONDS: u64 = 600;
const SEEDS: [u64; 8] = [101, 102, 103, 104, 105, 106, 107, 108];

fn run(seed: u64, seconds: u64) -> Report {
    let report = run_hour(seed, &Options { length: seconds * SECOND, ..Options::default() });
    assert!(
        report.violation.is_none(),
        "{report}\nreplay it: cargo run --release -p balsa-tests --bin simulate -- \
         --hours 1 --seed {seed} --seconds {seconds} --timeline"
    );
    report
}

/// One thread a seed; a panic names its seed.
fn run_all(seeds: &[u64], seconds: u64) -> Vec<Report> {
    thread::scope(|scope| {
        let runs: Vec<_> = seeds.iter().map(|seed| scope.spawn(move || run(*seed, seconds))).collect();
        runs.into_iter()
            .map(|run| run.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    })
}

#[test]
fn nothing_is_violated_under_faults() {
    let mut total = Report::default();
    for report in run_all(&SEEDS, SECONDS) {
        assert!(report.operations > 100, "too little work to prove anything: {report}");
        total.add(&report);
    }
    // A run that never met a situation proves nothing about it.
    for situation in [
        "election won",
        "term with a leader",
        "client retry",
        "outcome unknown",
        "reply replayed",
        "snapshot installed",
        "flush",
        "message lost",
    ] {
        assert!(total.situations.contains_key(situation), "no `{situation}`:\n{}", total.coverage());
    }
    let of = |kind: &str| {
        let at = balsa_tests::sim::faults::KINDS.iter().position(|name| *name == kind);
        at.map_or(0, |at| total.faults[at])
    };
    for kind in ["kill", "power_loss", "power_loss_of_all", "pause", "split", "restart", "transfer"] {
        assert!(of(kind) > 0, "no `{kind}`:\n{}", total.coverage());
    }
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let seeds = [201, 202, 203];
    let (first, second) = (run_all(&seeds, 120), run_all(&seeds, 120));
    for (first, second) in first.iter().zip(&second) {
        assert_eq!(first.trace, second.trace, "seed {} gave two traces", first.seed);
        assert_eq!(first.operations, second.operations);
    }
    assert_ne!(first[0].trace, first[1].trace, "two seeds gave one trace: it cannot tell runs apart");
}
