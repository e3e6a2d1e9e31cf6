//! The search, key by key: a history is linearizable exactly if what happened to each key is (Herlihy and Wing's
//! locality), so that the search never sees more than one key's operations. Where an operation touches several keys, all are
//! searched together; that is only good for small histories.

use crate::history::{History, Kind, Operation, Text};
use crate::model::{KeyModel, Model, StoreModel};
use crate::search::{Found, Span, search};
use crate::verdict::{How, Verdict, Violation};
use std::collections::BTreeMap;

/// States that the search of one key may hold; a few hundred bytes each.
pub const MAX_STATES: usize = 4_000_000;

/// Judges a history without its revisions.
pub fn check(history: &History) -> Verdict {
    let all: Vec<usize> =
        (0..history.operations.len()).filter(|&at| history.operations[at].counts()).collect();
    let judged = all.len();
    let several = |at: &usize| matches!(history.operations[*at].kind, Kind::Clear { .. } | Kind::Txn(_));
    if all.iter().any(several) {
        let operations = all.iter().map(|&at| &history.operations[at]);
        let Some(mut model) = StoreModel::new(operations) else { return no_revisions() };
        return match judge(&mut model, history, &all, None) {
            Some(verdict) => verdict,
            None => Verdict::Linearizable { how: How::Search { keys: 1 }, operations: judged },
        };
    }
    let mut keys: BTreeMap<&Text, Vec<usize>> = BTreeMap::new();
    for &at in &all {
        if let Some(key) = history.operations[at].key() {
            keys.entry(key).or_default().push(at);
        }
    }
    let mut undecided = None;
    for (key, places) in &keys {
        let operations = places.iter().map(|&at| &history.operations[at]);
        let Some(mut model) = KeyModel::new(operations) else { return no_revisions() };
        match judge(&mut model, history, places, Some(key)) {
            None => {}
            // A violation elsewhere says more.
            Some(verdict @ Verdict::Undecided(_)) => undecided = Some(verdict),
            Some(verdict) => return verdict,
        }
    }
    undecided.unwrap_or(Verdict::Linearizable { how: How::Search { keys: keys.len() }, operations: judged })
}

fn no_revisions() -> Verdict {
    Verdict::Undecided("a condition names a revision, but not every answer tells one".to_owned())
}

/// `None`: linearizable.
fn judge<M: Model>(
    model: &mut M,
    history: &History,
    places: &[usize],
    key: Option<&Text>,
) -> Option<Verdict> {
    let span = |operation: &Operation| Span {
        call_ns: operation.call_ns,
        return_ns: operation.return_ns.filter(|_| operation.is_decided()),
    };
    let spans: Vec<Span> = places.iter().map(|&at| span(&history.operations[at])).collect();
    match search(model, &spans, MAX_STATES) {
        Found::Order(_) => None,
        Found::GaveUp => {
            let of = key.map_or_else(|| "all keys".to_owned(), |key| format!("key {key}"));
            Some(Verdict::Undecided(format!("the search of {of} gave up after {MAX_STATES} states")))
        }
        Found::Stuck(stuck) => {
            let misfit = places[stuck.misfit];
            let state = model.show(&stuck.state);
            let why = format!(
                "no order explains `{}`: the longest order of what may come before leaves {state}",
                history.operations[misfit].describe()
            );
            Some(Verdict::Violation(Box::new(Violation {
                why,
                key: key.cloned(),
                order: stuck.order.iter().map(|&at| places[at]).collect(),
                state,
                misfit,
            })))
        }
    }
}
