//! Judges a history whose answers tell revisions: they say in which order everything took place, so it is done in that
//! order, and nothing may contradict it.
//!
//! Two things can: an answer that the state at its place does not give, and real time. For time it is enough to give each
//! operation its earliest instant, the latest of its own call and of the instants of all that come before it; the history
//! agrees exactly if none of these is later than the operation's answer.
//!
//! - A write that changed the store stands at its revision. Each revision is made by exactly one write, so that one that
//!   nobody can have made (a retry that was applied twice) is a violation as well.
//! - What only looked stands at the revision it tells or, if it tells the key's revision, anywhere from there up to the
//!   key's next change. What saw nothing may stand wherever the key was absent: as late as its answer allows, since there
//!   it holds up nothing.
//! - A revision that no answer tells must be the work of a write of unknown outcome. Which one is tried out, the ones
//!   that contradict anything taken back (`fill`).
//! - A transaction stands at the revision it tells, whatever it did: it has one place for all its parts.
//!
//! `plan` sorts operations into their places; `walk` replays them.

mod fill;
mod plan;
mod txn;
mod walk;

use self::plan::Plan;
use crate::history::{History, Kind, Outcome, Step, Text};
use crate::verdict::{How, Verdict};
use crate::watch::Changes;

/// Revisions that may be replayed before the question which unknown writes made the missing ones is given up; beyond one
/// pass.
pub const MAX_STEPS: usize = 20_000_000;

/// Whether the answers tell enough for a replay.
pub fn is_possible(history: &History) -> bool {
    let mut told = false;
    history.operations.iter().filter(|operation| operation.is_decided()).all(|operation| {
        told |= operation.revision.is_some();
        let tells_place = operation.revision.is_some() || operation.key_revision.is_some();
        match (&operation.kind, operation.outcome) {
            (Kind::Append { .. }, _) => false,
            (Kind::Get { value: None, .. }, _) => true,
            (Kind::Delete { deleted: None, .. } | Kind::Clear { deleted: None }, Outcome::Ok) => false,
            (Kind::Txn(txn), _) if txn.done().iter().any(is_untold) => false,
            (Kind::Get { .. }, _) | (_, Outcome::ConditionFailed) => tells_place,
            _ => operation.revision.is_some(),
        }
    }) && told
        && history.operations.iter().all(|operation| !matches!(operation.kind, Kind::Append { .. }))
}

fn is_untold(step: &Step) -> bool {
    matches!(step, Step::Delete { deleted: None, .. })
}

/// Judges it.
pub fn check(history: &History) -> Verdict {
    match changes(history) {
        Ok(_) => {
            let operations = history.operations.iter().filter(|operation| operation.counts()).count();
            Verdict::Linearizable { how: How::Replay, operations }
        }
        Err(verdict) => verdict,
    }
}

/// What has changed at each revision, where the history is linearizable; else the verdict.
pub fn changes(history: &History) -> Result<Changes<Text, Text>, Verdict> {
    let found = Plan::new(history).and_then(|plan| walk::run(&plan));
    found.map_err(|verdict| *verdict)
}
