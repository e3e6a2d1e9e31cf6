//! What must hold of every history: what came from a real execution is accepted, what no execution gives is rejected, and
//! on tiny histories the checks agree with trying everything.

use balsa_check::generate::{Options, generate};
use balsa_check::model::{Model, StoreModel};
use balsa_check::{History, Kind, Operation, Outcome, Verdict, by_key, check, replay};
use proptest::prelude::*;

fn options() -> impl Strategy<Value = Options> {
    (any::<u64>(), 1..120_usize, 1..5_u64, 1..7_usize, 0..150_u64, 0..60_u64, 0..300_u64).prop_map(
        |(seed, operations, keys, clients, unknown_per_mille, clears_per_mille, txns_per_mille)| Options {
            seed,
            operations,
            keys,
            clients,
            unknown_per_mille,
            clears_per_mille,
            txns_per_mille,
            revisions: false,
        },
    )
}

fn is_linearizable(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Linearizable { .. })
}

/// Tries every order of a subset of the unknown ones and all others.
fn brute_force(history: &History) -> bool {
    fn go<M: Model>(model: &mut M, left: &mut Vec<usize>, all: &[&Operation], state: &M::State) -> bool {
        if left.iter().all(|&at| all[at].outcome == Outcome::Unknown) {
            return true;
        }
        let due = left.iter().filter(|&&at| all[at].is_decided()).filter_map(|&at| all[at].return_ns).min();
        for position in 0..left.len() {
            let at = left[position];
            if all[at].call_ns > due.unwrap_or(u64::MAX) {
                continue;
            }
            if let Some(next) = model.step(state, at) {
                left.remove(position);
                let found = go(model, left, all, &next);
                left.insert(position, at);
                if found {
                    return true;
                }
            }
        }
        false
    }
    let all: Vec<&Operation> = history.operations.iter().filter(|operation| operation.counts()).collect();
    let mut model = StoreModel::new(all.iter().copied()).expect("no conditions on revisions");
    let state = model.initial();
    go(&mut model, &mut (0..all.len()).collect(), &all, &state)
}

/// Changes what one read saw; `false` where there is none.
fn change_a_read(history: &mut History, which: usize, value: &str) -> bool {
    let reads = history.operations.iter_mut().filter(|operation| operation.outcome == Outcome::Ok);
    let reads = reads.filter_map(|operation| match &mut operation.kind {
        Kind::Get { value, .. } => Some(value),
        _ => None,
    });
    let mut reads: Vec<_> = reads.filter(|seen| seen.is_some()).collect();
    let count = reads.len();
    match reads.get_mut(which % count.max(1)) {
        Some(seen) => **seen = Some(value.into()),
        None => return false,
    }
    true
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn real_executions_are_accepted(mut options in options()) {
        (options.clears_per_mille, options.txns_per_mille) = (0, 0);
        let history = generate(options);
        let verdict = by_key::check(&history);
        prop_assert!(is_linearizable(&verdict), "{verdict:?}");
    }

    #[test]
    fn real_executions_are_accepted_in_order_of_revision(options in options()) {
        let history = generate(Options { revisions: true, ..options });
        if replay::is_possible(&history) {
            let verdict = replay::check(&history);
            prop_assert!(is_linearizable(&verdict), "{verdict:?}\n{}", balsa_check::json_lines::write_all(&history));
        }
    }

    #[test]
    fn a_value_that_nobody_wrote_is_rejected(options in options(), which in any::<usize>(), revisions in any::<bool>()) {
        let several = |per_mille| if revisions { per_mille } else { 0 };
        let (clears_per_mille, txns_per_mille) = (several(options.clears_per_mille), several(options.txns_per_mille));
        let options = Options { revisions, clears_per_mille, txns_per_mille, ..options };
        let mut history = generate(options);
        if change_a_read(&mut history, which, "never") {
            let verdict = check(&history);
            prop_assert!(matches!(verdict, Verdict::Violation(_)), "{verdict:?}");
        }
    }

    /// Any change of what is read or told: the checks say what trying everything says.
    #[test]
    fn tiny_histories_agree_with_brute_force(
        options in options(),
        operations in 1..8_usize,
        change in any::<Option<(usize, u8)>>(),
    ) {
        let mut history = generate(Options { operations, unknown_per_mille: 250, clients: 4, keys: options.keys.min(2), ..options });
        if let Some((which, value)) = change {
            change_a_read(&mut history, which, &(value % 8).to_string());
        }
        let expected = brute_force(&history);
        let verdict = by_key::check(&history);
        prop_assert_eq!(is_linearizable(&verdict), expected, "{:?}", verdict);
    }

    /// Moving an operation in time or changing what it read: where the replay accepts, so does the search, and where only
    /// revisions tell (a conditional write apart), what trying everything rejects the replay does.
    #[test]
    fn the_replay_accepts_only_what_is_linearizable(
        options in options(),
        operations in 1..8_usize,
        which in any::<usize>(),
        by_ns in -6_000..6_000_i64,
    ) {
        let generated = Options { operations, unknown_per_mille: 250, revisions: true, keys: options.keys.min(2), ..options };
        let mut history = generate(generated);
        let at = which % history.operations.len();
        let moved = &mut history.operations[at];
        moved.call_ns = moved.call_ns.saturating_add_signed(by_ns);
        moved.return_ns = moved.return_ns.map(|time| time.saturating_add_signed(by_ns).max(moved.call_ns));
        if !replay::is_possible(&history) {
            return Ok(());
        }
        let replayed = is_linearizable(&replay::check(&history));
        let all = history.operations.iter().filter(|operation| operation.counts());
        if StoreModel::new(all).is_some() {
            let searched = brute_force(&history);
            let text = balsa_check::json_lines::write_all(&history);
            prop_assert!(searched || !replayed, "accepted only in order of revision:\n{text}");
        }
        if by_ns == 0 {
            prop_assert!(replayed);
        }
    }
}
